"""The first five minutes with the hub, as a person has them who uses a mouse; and undoing what was done."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.hub import Hub
from tests.browser.planted import READER, REQUESTS
from tests.browser.watching import settle

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def page(new_context: Callable[..., BrowserContext], hub: Hub) -> Page:
    context = new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=hub.origin)
    return context.new_page()


def test_from_what_needs_attention_to_a_value_a_snippet_a_mended_rule_and_a_deprecation(page: Page, hub: Hub) -> None:
    look_at_home(page)
    find_the_feature(page)
    look_at_its_distribution(page)
    look_a_vector_up(page)
    copy_a_snippet(page)
    mend_the_rule(page)
    replay_the_rows(page, hub)
    deprecate_it(page)
    take_it_back(page)


def look_at_home(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("What needs attention")
    failed = page.get_by_role("region", name="Failed runs")
    expect(failed.get_by_role("link", name="daily_repeat_sales")).to_be_visible()


def find_the_feature(page: Page) -> None:
    page.get_by_role("searchbox", name="Search features").fill("cds units")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="for “cds units”")).to_be_visible()
    page.get_by_role("region", name="Features").get_by_role("link", name="units", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("units")


def look_at_its_distribution(page: Page) -> None:
    drawn = page.locator("#data svg.chart")
    expect(drawn).to_be_visible()
    assert drawn.locator(".bar").count() > 5
    page.locator("#data").get_by_text("Show as table").first.click()
    expect(page.get_by_role("region", name="Distribution table").get_by_role("row")).not_to_have_count(0)


def look_a_vector_up(page: Page) -> None:
    use = page.locator("#use")
    use.get_by_role("group", name="Ids with new rows").get_by_role("button").first.click()
    values = use.get_by_role("region", name="Values table")
    row = values.get_by_role("row").filter(has=page.get_by_role("rowheader", name="units"))
    expect(row.get_by_role("cell").nth(0)).to_have_text(re.compile(r"^\s*\d+\s*$"))
    expect(row).to_contain_text("present")
    expect(use).to_contain_text(re.compile(r"in \d+\.\d\d ms"))


def copy_a_snippet(page: Page) -> None:
    use = page.locator("#use")
    use.get_by_role("tab").nth(1).click()
    panel = use.get_by_role("tabpanel")
    panel.get_by_role("button", name="Copy").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == panel.locator("code").text_content()
    assert "FEATUREHUB_API_KEY" in copied
    assert "fh_" not in copied


def mend_the_rule(page: Page) -> None:
    page.get_by_role("link", name="Quarantine", exact=True).first.click()
    page.get_by_role("link", name="Mend the rule units at most 10").click()
    largest = page.get_by_label("Largest value")
    expect(largest).to_have_value("10")
    largest.fill("100")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()


def replay_the_rows(page: Page, hub: Hub) -> None:
    page.goto("/catalog/quarantine/")
    rule = page.get_by_role("region", name="units at most 10", exact=True)
    expect(rule).to_contain_text("At most 100.")
    with hub.worker():
        rule.get_by_role("button", name="Replay").click()
        page.wait_for_url("**/catalog/runs/**")
        expect(page.get_by_role("heading", level=1)).to_have_text("Replay run of purchase_lines")
        # The page asks for the run's progress by itself.
        expect(page.locator("#run .state").first).to_contain_text("succeeded", timeout=60_000)
    expect(page.locator(".facts")).to_contain_text(re.compile(r"Accepted\s*81"))
    page.goto("/catalog/quarantine/")
    expect(page.get_by_role("region", name="units at most 10", exact=True)).to_have_count(0)


def deprecate_it(page: Page) -> None:
    page.goto("/catalog/features/daily_sales/daily_revenue/")
    page.get_by_role("link", name="Deprecate", exact=True).click()
    hit = page.get_by_role("region", name="Who is hit")
    expect(hit).to_contain_text("sales_forecast@1")
    expect(hit).to_contain_text(f"the key '{READER}', {REQUESTS} requests")
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Reason").fill("Taxes are in it.")
    page.get_by_label("Replacement").fill("daily_sales:average_basket")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Deprecate", exact=True).click()
    expect(page.get_by_role("note").filter(has_text="Taxes are in it.")).to_contain_text("average_basket")
    page.goto("/")
    concern = page.get_by_role("region", name="Deprecated but used")
    expect(concern.get_by_role("link", name="daily_revenue")).to_be_visible()


def take_it_back(page: Page) -> None:
    page.get_by_role("region", name="Deprecated but used").get_by_role("link", name="daily_revenue").click()
    page.get_by_role("link", name="Undo", exact=True).click()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="as it was before")).to_be_visible()
    expect(page.locator(".head-line").first).to_contain_text("active")


def test_a_theme_that_was_chosen_is_there_before_the_page_is_drawn(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    page.goto("/")
    theme = "() => document.documentElement.dataset.bsTheme"
    assert page.evaluate(theme) == "light"
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate(theme) == "dark"
    # Which themes the document has from its first element in the body on.
    page.add_init_script(
        "window.themes = [];"
        "new MutationObserver(() => document.body && themes.push(document.documentElement.dataset.bsTheme))"
        ".observe(document, { childList: true, subtree: true, attributes: true });"
    )
    for path in ("/catalog/features/", "/catalog/features/daily_sales/daily_units/"):
        page.goto(path)
        settle(page)
        assert set(page.evaluate("() => themes")) == {"dark"}
    page.goto("/admin/")  # the same choice, in the admin
    expect(page.locator("html")).to_have_class(re.compile(r"\bdark\b"))
