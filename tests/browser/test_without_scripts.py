"""A browser that runs no scripts gets the same catalog: links and forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    return new_context(java_script_enabled=False).new_page()


def test_the_list_is_searched_ordered_and_narrowed(page: Page) -> None:
    page.goto("/catalog/features/")
    page.get_by_role("searchbox", name="Search features").fill("purchases")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=purchases**")
    found = page.get_by_role("status").first
    everything = found.inner_text()
    page.get_by_role("group", name="Entity").get_by_role("checkbox", name="day").check()
    page.get_by_label("Order").select_option(label="Name")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**entity=day**")
    assert found.inner_text() != everything
    expect(page.get_by_role("link", name="Entity: day")).to_be_visible()
    names = page.get_by_role("rowheader").get_by_role("link").all_inner_texts()
    assert names == sorted(names)
    assert "daily_purchases" in names
    page.get_by_role("link", name="Entity: day").click()
    page.wait_for_url(lambda url: "entity=day" not in url)
    assert page.get_by_role("status").first.inner_text() == everything


def test_a_feature_is_deprecated_and_that_is_taken_back(page: Page) -> None:
    page.goto("/catalog/features/daily_sales/daily_units/")
    page.get_by_role("link", name="Deprecate", exact=True).click()
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Reason").fill("Counted by hand.")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Deprecate", exact=True).click()
    expect(page.get_by_role("note").filter(has_text="Deprecated")).to_contain_text("Counted by hand.")
    page.get_by_role("link", name="Undo", exact=True).click()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.get_by_role("note").filter(has_text="Deprecated")).to_have_count(0)


def test_a_vector_is_looked_up(page: Page) -> None:
    page.goto("/catalog/features/daily_sales/daily_units/")
    page.get_by_role("link", name="Try it, and snippets to paste").click()
    page.get_by_role("group", name="Ids with new rows").get_by_role("button").first.click()
    expect(page.get_by_role("region", name="Values table")).to_contain_text("present")


def test_rejected_rows_are_discarded_with_a_reason(page: Page) -> None:
    page.goto("/catalog/quarantine/")
    page.get_by_role("button", name="Discard units never null").click()
    page.get_by_role("button", name="Discard").click()
    page.get_by_label("Why are they not wanted?").fill("The till was broken.")
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status").filter(has_text="Discarded: 35 rows")).to_be_visible()
