"""What somebody has written is shown as it was written, on every page, and never taken for markup.

Each test also fails for a dialog, for a message in the console (a policy that refused something says so there), and for
a request that a picture in such a text would send.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.browser.hostile import FILE, TEXT
from tests.browser.hub import Hub
from tests.browser.watching import Watch, settle

pytestmark = pytest.mark.timeout(300)

MARK = "<script>window.hostile = 1</script>"
_TAKEN_FOR_MARKUP = """
() => [
  ...document.querySelectorAll("img[src=x], svg[onload], [onerror], [onload]"),
  ...[...document.scripts].filter((script) => script.textContent.includes("hostile")),
].map((element) => element.outerHTML.slice(0, 200)).concat(window.hostile ? ["it ran"] : [])
"""

#: Pages that have such a text on them, with what is seen of it there.
SHOWING = {
    "/": MARK,
    "/catalog/features/?q=hostile": MARK[:20],
    "/catalog/groups/": MARK[:20],
    "/catalog/groups/hostile/": FILE,
    "/catalog/groups/hostile_too/": MARK,
    "/catalog/features/hostile/words/": MARK,
    "/catalog/features/hostile/short/": MARK,
    "/catalog/features/hostile/made/": "'<script>1</script>'",
    "/catalog/features/hostile/idea/": MARK,
    "/catalog/features/hostile/idea/approve/": MARK,
    "/catalog/features/hostile/short/archive/": MARK[:15],
    "/catalog/features/hostile/words/samples/": MARK[:20],
    "/catalog/entities/": MARK[:20],
    "/catalog/entities/hostile/": MARK,
    "/catalog/services/": MARK[:20],
    "/catalog/services/hostile@1/": MARK,
    "/catalog/runs/{run}/": MARK,
    "/catalog/runs/{failed_run}/": MARK,
    "/catalog/quarantine/?state=any": MARK[:20],
    "/catalog/quarantine/{rule}/": MARK[:20],
    "/catalog/inbox/": MARK,
    "/admin/catalog/feature/{feature}/history/": MARK,
    "/admin/catalog/run/{run}/change/": MARK,
    "/admin/catalog/run/{failed_run}/change/": MARK,
    "/admin/catalog/apikey/": MARK[:15],
    "/admin/auth/user/": MARK[:15],
    "/admin/ingestion/quarantinedrule/{rule}/change/": MARK[:15],
    "/admin/django_celery_beat/periodictask/": MARK,
}
#: Pages that have it in fields, or not at all.
OTHERS = (
    "/catalog/features/",
    "/catalog/lineage/?entity=hostile",
    "/catalog/runs/",
    "/catalog/groups/hostile/samples/",
    "/catalog/features/hostile/words/use/",
    "/catalog/entities/hostile/try/",
    "/catalog/features/hostile/words/deprecate/",
    "/admin/",
    "/admin/catalog/feature/",
    "/admin/catalog/feature/{feature}/change/",
    "/admin/catalog/featuregroup/",
    "/admin/catalog/owner/",
    "/admin/catalog/datasource/",
    "/admin/catalog/run/",
    "/admin/catalog/featureuse/",
    "/admin/catalog/reviewrequest/",
    "/admin/ingestion/quarantinedrule/",
)


@pytest.fixture(scope="module")
def ids(hub: Hub) -> dict[str, Any]:
    return dict(json.loads(hub.python("-m", "tests.browser.hostile")))


@pytest.fixture
def page(page: Page, ids: dict[str, Any]) -> Page:
    return page


def nothing_was_taken_for_markup(page: Page) -> None:
    settle(page)
    assert page.evaluate(_TAKEN_FOR_MARKUP) == []


@pytest.mark.parametrize("path", SHOWING)
def test_markup_is_shown_as_text(path: str, page: Page, ids: dict[str, Any]) -> None:
    page.goto(path.format(**ids))
    nothing_was_taken_for_markup(page)
    assert SHOWING[path] in page.locator("body").inner_text()


@pytest.mark.parametrize("path", OTHERS)
def test_markup_does_nothing_where_it_is_not_shown(path: str, page: Page, ids: dict[str, Any]) -> None:
    page.goto(path.format(**ids))
    nothing_was_taken_for_markup(page)


@pytest.mark.parametrize(
    "path",
    [
        "/catalog/features/?q={}",
        "/catalog/features/?tag={}&owner={}&sort={}&page={}",
        "/catalog/groups/?q={}",
        "/catalog/runs/?group={}&state={}&since={}",
        "/catalog/quarantine/?group={}&state={}&run={}",
        "/catalog/lineage/?entity={}",
        "/login/?next={}",
    ],
)
def test_markup_in_an_address_does_nothing(path: str, page: Page, watch: Watch) -> None:
    with watch.expecting(400, 404):
        page.goto(path.replace("{}", quote(TEXT[:180])))
        nothing_was_taken_for_markup(page)


def test_markup_in_the_name_of_nothing_is_an_error_in_words(page: Page, watch: Watch) -> None:
    with watch.expecting(404):
        page.goto(f"/catalog/groups/{quote(MARK, safe='')}/")
        nothing_was_taken_for_markup(page)
        page.goto(f"/catalog/groups/{quote('<img src=x onerror=1>', safe='')}/")
        nothing_was_taken_for_markup(page)
    assert "<img src=x onerror=1>" in page.locator("main").inner_text()


def test_markup_in_the_palette_and_in_a_look_up_is_text(page: Page) -> None:
    page.goto("/catalog/entities/hostile/")
    settle(page)
    page.get_by_label("id", exact=True).fill(f"{TEXT}1")
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("#looked")).to_contain_text(MARK)
    nothing_was_taken_for_markup(page)
    page.keyboard.press("Control+k")
    page.keyboard.type(TEXT[:100])
    page.wait_for_timeout(300)
    nothing_was_taken_for_markup(page)


def test_markup_in_a_form_comes_back_as_text(page: Page) -> None:
    page.goto("/catalog/features/hostile/words/deprecate/")
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Reason").fill(TEXT)
    page.get_by_label("Replacement").fill(TEXT)
    page.get_by_role("button", name="Go on").click()
    nothing_was_taken_for_markup(page)
    assert page.get_by_label("Reason").input_value() == TEXT
    page.get_by_label("Replacement").fill("")
    page.get_by_role("button", name="Go on").click()
    nothing_was_taken_for_markup(page)
    assert page.get_by_role("definition").filter(has_text=MARK).last.inner_text() == TEXT


def test_a_row_with_markup_is_mended(page: Page, ids: dict[str, Any]) -> None:
    page.goto(f"/catalog/quarantine/{ids['rule']}/")
    page.get_by_role("link", name="Mend row").first.click()
    nothing_was_taken_for_markup(page)
    assert page.locator('[name="value:words"]').input_value() == f"{TEXT}!"
