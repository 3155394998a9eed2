"""Everything is reached with the keys alone, and what has the focus shows it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.watching import settle

pytestmark = pytest.mark.timeout(300)

#: More often the focus is not moved to get anywhere.
MOST_TABS = 80
#: The kind of the element with the focus, and its words without those that stand for icons.
_FOCUSED = """
() => {
  const words = document.activeElement.cloneNode(true);
  for (const icon of words.querySelectorAll("[aria-hidden=true]")) icon.remove();
  return [document.activeElement.tagName, words.textContent.replaceAll(/\\s+/g, " ").trim()];
}
"""
_OUTLINE = "() => getComputedStyle(document.activeElement).outlineStyle"


def tab_to(page: Page, words: str) -> None:
    """Press Tab until the focus is on a link, a button or a summary that says `words`, and that shows the focus."""
    passed = []
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        tag, text = page.evaluate(_FOCUSED)
        if tag in ("A", "BUTTON", "SUMMARY") and text == words:
            assert page.evaluate(_OUTLINE) != "none", f"{words} does not show that it has the focus"
            return
        passed.append(text[:30])
    raise AssertionError(f"{words} is not reached: {passed}")


def tab_to_field(page: Page, label: str) -> None:
    field = page.get_by_label(label, exact=True)
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if field.evaluate("(e) => e === document.activeElement"):
            return
    raise AssertionError(f"{label} is not reached")


def heading(page: Page) -> str:
    return page.get_by_role("heading", level=1).inner_text()


def test_a_feature_is_searched_and_opened(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("known customers")
    page.keyboard.press("Enter")
    page.wait_for_url("**/catalog/features/?q=known+customers")
    page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED)[1] == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "content"
    tab_to(page, "repeat_purchases")
    page.keyboard.press("Enter")
    page.wait_for_url("**/daily_repeat_sales/repeat_purchases/")
    assert heading(page) == "repeat_purchases"


def test_the_palette_finds_anything(page: Page) -> None:
    page.goto("/catalog/runs/")
    palette = page.get_by_role("dialog", name="Find anything")
    page.keyboard.press("Control+k")
    expect(palette).to_be_visible()
    page.keyboard.type("sales")
    expect(palette.get_by_role("heading", name="Services")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    chosen = palette.get_by_role("link").nth(1)
    expect(chosen).to_be_focused()
    assert page.evaluate(_OUTLINE) != "none"
    page.keyboard.press("Escape")
    expect(palette).to_be_hidden()
    page.keyboard.press("Control+k")
    page.keyboard.type("refund_check")
    expect(palette.get_by_role("heading", name="Services")).to_be_visible()
    expect(palette.get_by_role("heading", name="Features")).to_be_hidden()
    page.keyboard.press("Enter")
    page.wait_for_url("**/catalog/services/refund_check@1/")


def test_a_feature_is_deprecated_in_three_steps(page: Page) -> None:
    page.goto("/catalog/features/daily_sales/trade/")
    settle(page)
    tab_to(page, "Deprecate")
    page.keyboard.press("Enter")
    page.wait_for_url("**/deprecate/")
    tab_to(page, "Go on")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Reason", exact=True)).to_be_visible()
    tab_to_field(page, "Reason")
    page.keyboard.type("Nobody knows what busy means.")
    tab_to(page, "Go on")
    page.keyboard.press("Enter")
    expect(page.get_by_role("definition").filter(has_text="Nobody knows what busy means.")).to_be_visible()
    tab_to(page, "Deprecate")
    page.keyboard.press("Enter")
    page.wait_for_url("**/daily_sales/trade/")
    expect(page.get_by_role("note").filter(has_text="Deprecated")).to_contain_text("Nobody knows what busy means.")


def test_rejected_rows_are_replayed(page: Page) -> None:
    page.goto("/catalog/quarantine/")
    rule = page.get_by_role("region", name="amount at least 0")
    box = rule.get_by_role("checkbox")
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if box.evaluate("(e) => e === document.activeElement"):
            break
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    for _ in range(MOST_TABS):
        page.keyboard.press("Shift+Tab")
        if page.evaluate(_FOCUSED) == ["BUTTON", "Replay"]:
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/catalog/runs/**")
    assert heading(page) == "Replay run of purchase_lines"


def test_tabs_of_snippets_are_chosen_with_arrows(page: Page) -> None:
    page.goto("/catalog/features/daily_sales/daily_units/")
    settle(page)
    tabs = page.get_by_role("tab")
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tabs.nth(1)).to_be_focused()
    expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("tabpanel")).to_have_count(1)
