"""A hub and a browser for each file: the real server with its static files, Debian's Chromium, and a look at all that
the pages do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, sync_playwright

from tests.browser import hub as hubs
from tests.browser.hub import Hub
from tests.browser.watching import ARGUMENTS, Watch

MISSING = "there is no Chromium on PATH: install Debian's package chromium"

Open = Callable[..., Page]


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The home of the demo's hub, made once, whatever the number of test processes."""
    own = tmp_path_factory.getbasetemp()
    return hubs.template(own if worker_id == "master" else own.parent)


@pytest.fixture(scope="module")
def hub(template: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub of the file's own."""
    with hubs.running(tmp_path_factory.mktemp("hub"), template) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of the file: Playwright's event loop, while it runs, keeps Django from the database in the same thread."""
    path = chromium_path()
    if path is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def session(browser: Browser, hub: Hub) -> StorageState:
    """The cookies of the hub's superuser, who has logged in with the form."""
    context = browser.new_context(base_url=hub.origin)
    page = context.new_page()
    page.goto("/login/")
    page.get_by_label("Username").fill(hub.login["user"])
    page.get_by_label("Password").fill(hub.login["password"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{hub.origin}/")
    state = context.storage_state()
    context.close()
    return state


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
