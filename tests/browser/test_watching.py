"""The watch sees what it is there for: each of these pages does one thing that no page of the hub may do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import axe
from tests.browser.hub import Hub
from tests.browser.test_screens import wider_than_its_window
from tests.browser.watching import Watch

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def seen(hub: Hub) -> Watch:
    return Watch(hub.origin)


@pytest.fixture
def page(browser: Browser, hub: Hub, seen: Watch) -> Iterator[Page]:
    """A page of the hub; what it does from now on is seen."""
    context = browser.new_context(base_url=hub.origin, viewport={"width": 390, "height": 800})
    seen.follow(context)
    page = context.new_page()
    page.goto("/health")
    assert seen.take() == []
    yield page
    context.close()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("console.error('odd')", "console error: odd"),
        ("console.warn('odd')", "console warning: odd"),
        ("setTimeout(() => { throw new Error('broken') })", "error: broken"),
        ("setTimeout(() => alert('you'))", "dialog: you"),
        ("fetch('/nothing')", "answered 404: GET {origin}/nothing"),
        ("fetch('https://example.com/').catch(() => 0)", "asked another server: GET https://example.com/"),
        ("fetch('http://127.0.0.1:1/').catch(() => 0)", "asked another server: GET http://127.0.0.1:1/"),
        ("new Image().src = '//example.com/a.png'", "asked another server: GET http://example.com/a.png"),
    ],
)
def test_what_a_page_must_not_do_is_seen(script: str, problem: str, page: Page, seen: Watch, hub: Hub) -> None:
    page.evaluate(f"() => {{ {script} }}")
    for _ in range(100):
        page.wait_for_timeout(20)
        if seen.problems:
            break
    assert seen.take()[0].splitlines()[0] == problem.format(origin=hub.origin)


def test_another_server_is_not_reached(page: Page, seen: Watch) -> None:
    answers = "() => fetch('https://pypi.org/', { mode: 'no-cors' }).then(() => 'answered', () => 'refused')"
    assert page.evaluate(answers) == "refused"
    assert len(seen.take()) == 1


def test_text_that_is_hard_to_read_and_a_field_without_a_label_are_seen(page: Page) -> None:
    page.set_content('<html lang="en"><title>a</title><p style="color: #999">pale</p><input>')
    axe.load(page)
    assert [problem.partition(":")[0] for problem in axe.violations(page)] == ["color-contrast", "label"]
    assert axe.violations(page, without=["p", "input"]) == []


def test_a_page_that_is_wider_than_its_window_is_seen(page: Page) -> None:
    page.set_content('<meta name="viewport" content="width=device-width"><div style="width: 500px">wide</div>')
    assert wider_than_its_window(page)[0] == "500 > 390"
    page.set_content('<div style="overflow-x: auto"><div style="width: 500px">it scrolls</div></div>')
    assert wider_than_its_window(page) == []
