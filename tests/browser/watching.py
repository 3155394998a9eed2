"""What a page does that it must not: what it asks others for, what it complains of, what it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, Response, WebError

OWN_SCHEMES = ("data:", "blob:", "about:")


@dataclass
class Watch:
    """Collects the problems of every page of a context; `origin` is the hub's."""

    origin: str
    problems: list[str] = field(default_factory=list)
    _expected: set[int] = field(default_factory=set)

    def follow(self, context: BrowserContext) -> None:
        context.on("request", self._asked)
        context.on("response", self._answered)
        context.on("requestfailed", self._failed)
        context.on("console", self._complained)
        context.on("weberror", self._broke)
        context.on("page", lambda page: page.on("dialog", self._asked_somebody))

    @contextmanager
    def expecting(self, *statuses: int) -> Iterator[None]:
        """While the context lasts answers of these statuses are right."""
        self._expected |= set(statuses)
        yield
        self._expected -= set(statuses)

    def take(self) -> list[str]:
        """The problems since the last call."""
        taken, self.problems[:] = list(self.problems), []
        return taken

    def is_outside(self, url: str) -> bool:
        return not url.startswith((f"{self.origin}/", *OWN_SCHEMES))

    def _asked(self, request: Request) -> None:
        if self.is_outside(request.url):
            self.problems.append(f"asked another server: {request.method} {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._expected:
            self.problems.append(f"answered {response.status}: {response.request.method} {response.url}")

    def _failed(self, request: Request) -> None:
        # A page that is left takes its requests with it.
        if request.failure != "net::ERR_ABORTED" and not self.is_outside(request.url):
            self.problems.append(f"not answered: {request.method} {request.url}: {request.failure}")

    def _complained(self, message: ConsoleMessage) -> None:
        # What could not be loaded is told above, with its address and its status.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.problems.append(f"console {message.type}: {message.text}")

    def _broke(self, error: WebError) -> None:
        self.problems.append(f"error: {error.error}")

    def _asked_somebody(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def settle(page: Page) -> None:
    """Until the page is drawn: its fonts are there, and so is each part that htmx loads by itself."""
    page.wait_for_load_state("load")
    page.wait_for_function(
        "() => document.fonts.status === 'loaded'"
        " && !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')"
    )
