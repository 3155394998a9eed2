"""A hub and a browser for each file: the real server with its static files, Debian's Chromium, and a look at all that
the pages do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from tests.browser import hub as hubs
from tests.browser.chromium import ARGUMENTS, MISSING, chromium_path, log_in
from tests.browser.hub import Hub
from tests.browser.watching import Watch

#: Milliseconds until what is expected has to be there: a machine on which others work too is slow.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is; tests that ask for it are skipped where there is none."""
    path = chromium_path()
    if path is None:
        pytest.skip(MISSING)
    return path


@pytest.fixture(scope="session")
def template(chromium: str, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The home of the demo's hub, made once, whatever the number of test processes."""
    own = tmp_path_factory.getbasetemp()
    return hubs.template(own if worker_id == "master" else own.parent)


@pytest.fixture(scope="module")
def hub(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub of the file's own."""
    with hubs.running(tmp_path_factory.mktemp("hub"), template) as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Of the file: Playwright's event loop, while it runs, keeps Django from the database in the same thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def session(browser: Browser, hub: Hub) -> StorageState:
    """The cookies of the hub's superuser, who has logged in with the form."""
    return log_in(browser, hub)


@pytest.fixture
def watch(hub: Hub) -> Iterator[Watch]:
    """What the pages of the test did that they must not; nothing, at its end."""
    watching = Watch(hub.origin)
    yield watching
    assert watching.take() == []


@pytest.fixture
def new_context(
    browser: Browser, hub: Hub, watch: Watch, request: pytest.FixtureRequest
) -> Iterator[Callable[..., BrowserContext]]:
    """Opens contexts that are watched; they end with the test."""
    at_end = ExitStack()

    def opened(*, logged_in: bool = True, **options: Any) -> BrowserContext:
        if logged_in:
            options["storage_state"] = request.getfixturevalue("session")
        context = browser.new_context(base_url=hub.origin, reduced_motion="reduce", **options)
        at_end.callback(context.close)
        watch.follow(context)
        return context

    with at_end:
        yield opened


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    """A page of the hub's superuser, 1440 wide."""
    return new_context(viewport={"width": 1440, "height": 900}).new_page()
