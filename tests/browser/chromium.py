"""Debian's Chromium, as the tests and the pictures start it, and somebody who has logged in."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, StorageState

from tests.browser.hub import Hub

MISSING = "There is no Chromium on PATH: install Debian's package chromium."
#: Nothing but the hub has an address, so that whatever else a page asks for is refused.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def log_in(browser: Browser, hub: Hub) -> StorageState:
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
