"""Each screen, light and dark, narrow and wide: accessible, no complaint, from this server alone, never too wide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser import axe
from tests.browser.hub import Hub
from tests.browser.screens import CATALOG, SCREENS, Screen
from tests.browser.watching import Watch

pytestmark = pytest.mark.timeout(300)

WIDTHS = (1440, 390)
#: What is too narrow for two columns of anything; a page that is zoomed to 200 % or 400 % is as narrow.
NARROWEST = 320
#: What the admin's theme (django-unfold) draws and nobody here can change, so that axe does not look at it.
OF_THE_THEME = (
    "#searchbar-submit",  # target-size: the lens in the search box is 18 pixels wide
    "a.toggle, a.sortremove",  # target-size: the arrows in a column's head, the same as its title
    ".select2-container",  # label, aria-input-field-name: Django's own autocomplete fields have no name in ARIA
)

_WIDER = """
() => {
  const root = document.scrollingElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const scrolls = (e) => e && e !== root && e !== document.body
    && (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter(
    (e) => e.getBoundingClientRect().right > root.clientWidth + 1 && !scrolls(e.parentElement));
  return [`${root.scrollWidth} > ${root.clientWidth}`, ...wide.slice(0, 5).map((e) => e.outerHTML.slice(0, 120))];
}
"""


@pytest.fixture
def page_for(new_context: Callable[..., BrowserContext]) -> Callable[[Screen], Page]:
    return lambda screen: new_context(logged_in=screen.logged_in).new_page()


def problems_of(page: Page, screen: Screen, widths: tuple[int, ...]) -> list[str]:
    """What is wrong with the page as it stands, in each width and theme; the theme follows the system's.

    The dark theme changes colours and nothing else, so that only those are looked at again.
    """
    without = OF_THE_THEME if screen.is_admin else ()
    axe.load(page)
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="light")
        found += [f"light {width}: {problem}" for problem in axe.violations(page, without=without)]
        found += [f"{width}: wider than the window: {what}" for what in wider_than_its_window(page)]
        page.emulate_media(color_scheme="dark")
        assert is_dark(page)
        found += [f"dark {width}: {problem}" for problem in axe.violations(page, without=without, colours_only=True)]
    return found


def is_dark(page: Page) -> bool:
    """Whether the page, of the catalog or of the admin, has taken the dark theme up."""
    dark: bool = page.evaluate("() => document.documentElement.matches('.dark, [data-bs-theme=dark]')")
    return dark


def wider_than_its_window(page: Page) -> list[str]:
    """How wide a page is that scrolls sideways, and what makes it so; empty when it does not."""
    return list(page.evaluate(_WIDER))


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_a_screen(screen: Screen, page_for: Any, hub: Hub, watch: Watch) -> None:
    page = page_for(screen)
    with watch.expecting(screen.status):
        screen.show(page, hub.planted)
    problems = problems_of(page, screen, WIDTHS)
    assert not problems, "\n".join(problems)
    if not screen.is_admin:
        assert page.locator("h1").count() == 1
        page.set_viewport_size({"width": NARROWEST, "height": 900})
        assert wider_than_its_window(page) == []


@pytest.mark.soak
@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_a_screen_of_a_tablet(screen: Screen, page_for: Any, hub: Hub, watch: Watch) -> None:
    page = page_for(screen)
    with watch.expecting(screen.status):
        screen.show(page, hub.planted)
    problems = problems_of(page, screen, (768,))
    assert not problems, "\n".join(problems)


def test_the_screens_have_names_of_their_own() -> None:
    assert len({screen.name for screen in SCREENS}) == len(SCREENS)
    assert len(CATALOG) > 30
