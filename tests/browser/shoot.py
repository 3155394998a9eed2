"""Takes a picture of every screen: `python -m tests.browser.shoot [name ...]` writes docs/screens/."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from featurehub.environment import PROJECT
from tests.browser import hub as hubs
from tests.browser import pictures
from tests.browser.chromium import ARGUMENTS, MISSING, chromium_path, log_in
from tests.browser.hub import Hub
from tests.browser.screens import SCREENS, Screen

FOLDER = PROJECT / "docs" / "screens"
#: Of each screen: the theme, and the size of the window.
TAKEN: tuple[tuple[str, ViewportSize], ...] = (
    ("light", {"width": 1440, "height": 900}),
    ("dark", {"width": 1440, "height": 900}),
    ("light", {"width": 390, "height": 844}),
)


def main(names: list[str]) -> int:
    path = chromium_path()
    if path is None:
        print(MISSING, file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    chosen = [screen for screen in SCREENS if not names or screen.name in names]
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        template = hubs.template(Path(temporary))
        with hubs.running(Path(temporary) / "served", template) as hub:
            chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            size = sum(_take(screen, context, hub) for screen, context in _contexts(chromium, hub, chosen))
            chromium.close()
    print(f"{len(chosen) * len(TAKEN)} pictures, {size / 1e6:.1f} MB: {FOLDER.relative_to(PROJECT)}")
    return 0


def _contexts(chromium: Browser, hub: Hub, chosen: list[Screen]) -> Iterator[tuple[Screen, BrowserContext]]:
    session = log_in(chromium, hub)
    for screen in chosen:
        state = session if screen.logged_in else None
        with chromium.new_context(base_url=hub.origin, storage_state=state, reduced_motion="reduce") as context:
            yield screen, context


def _take(screen: Screen, context: BrowserContext, hub: Hub) -> int:
    """The bytes of the screen's pictures."""
    page, blank, size = context.new_page(), context.new_page(), 0
    for theme, window in TAKEN:
        page.set_viewport_size(window)
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        screen.show(page, hub.planted)
        path = FOLDER / f"{screen.name}-{theme}-{window['width']}.png"
        pictures.save(_picture(page, screen, window), path, blank=blank)
        size += path.stat().st_size
    print(screen.name, file=sys.stderr)
    return size


def _picture(page: Page, screen: Screen, window: ViewportSize) -> bytes:
    return page.screenshot(full_page=screen.is_tall and window["width"] > 1000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
