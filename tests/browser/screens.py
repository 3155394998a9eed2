"""Every screen of the hub: how to get there, and who looks. Tests look at them all, and pictures are taken of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page

from tests.browser.watching import settle


@dataclass(frozen=True, slots=True)
class Screen:
    """One screen. path: filled with what was planted (`{run}`). reach: what is done on that page to get to the screen.

    status: what the page is answered with. is_tall: a picture shows all of it. logged_in: whether somebody is.
    """

    name: str
    path: str
    reach: Callable[[Page], None] | None = None
    status: int = 200
    is_tall: bool = False
    logged_in: bool = True

    @property
    def is_admin(self) -> bool:
        return self.path.startswith("/admin/")

    def show(self, page: Page, planted: dict[str, Any]) -> None:
        """Bring the page to this screen, drawn."""
        response = page.goto(self.path.format(**planted))
        assert response is not None, self.path
        assert response.status == self.status, (self.path, response.status)
        settle(page)
        if self.reach:
            self.reach(page)
            settle(page)


def mend_a_row(page: Page) -> None:
    page.get_by_role("link", name="Mend row").first.click()
    page.get_by_role("button", name="Replay this row").wait_for()


def discard(page: Page) -> None:
    page.get_by_role("button", name="Discard").first.click()
    page.get_by_label("Why are they not wanted?").wait_for()


def open_palette(page: Page) -> None:
    page.keyboard.press("Control+k")
    page.get_by_role("searchbox", name="Find a feature").type("sales")
    page.locator("#palette-found a").first.wait_for()


def look_up(page: Page) -> None:
    page.get_by_role("group", name="Ids with new rows").get_by_role("button").first.click()
    page.get_by_role("region", name="Values table").wait_for()


def deprecation_reason(page: Page) -> None:
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Reason").wait_for()


def deprecation_refused(page: Page) -> None:
    deprecation_reason(page)
    page.get_by_label("Reason").fill("Nobody knows its unit.")
    page.get_by_label("Replacement").fill("daily_sales:average_baskets")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("alert").wait_for()


def deprecation_confirmed(page: Page) -> None:
    deprecation_reason(page)
    page.get_by_label("Reason").fill("The average basket says more.")
    page.get_by_label("Replacement").fill("daily_sales:average_basket")
    page.get_by_label("Sunset").fill("2030-01-31")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Deprecate", exact=True).wait_for()


_DEPRECATE = "/catalog/features/daily_sales/daily_revenue/deprecate/"

CATALOG = (
    Screen("home", "/"),
    Screen("home-anonymous", "/", logged_in=False),
    Screen("features", "/catalog/features/"),
    Screen("features-found", "/catalog/features/?q=purchases&status=active"),
    Screen("features-nothing", "/catalog/features/?q=nothing+is+called+this"),
    Screen("feature", "/catalog/features/daily_sales/daily_purchases/", is_tall=True),
    Screen("feature-computed", "/catalog/features/customer_purchases/customer_segment/"),
    Screen("feature-on-request", "/catalog/features/purchase_lines/refund_share/"),
    Screen("feature-deprecated", "/catalog/features/daily_sales/orders/"),
    Screen("feature-draft", "/catalog/features/purchase_returns/returned_units/"),
    Screen("feature-empty", "/catalog/features/daily_repeat_sales/repeat_revenue/"),
    Screen("groups", "/catalog/groups/"),
    Screen("group", "/catalog/groups/purchase_lines/", is_tall=True),
    Screen("group-stale", "/catalog/groups/daily_new_customers/"),
    Screen("group-failed", "/catalog/groups/daily_repeat_sales/"),
    Screen("entities", "/catalog/entities/"),
    Screen("entity", "/catalog/entities/customer/"),
    Screen("entity-tried", "/catalog/entities/customer/", look_up),
    Screen("services", "/catalog/services/"),
    Screen("service", "/catalog/services/sales_forecast@1/"),
    Screen("datasets", "/catalog/datasets/"),
    Screen("dataset", "/catalog/datasets/sales_history/"),
    Screen("lineage", "/catalog/lineage/?entity=day"),
    Screen("runs", "/catalog/runs/"),
    Screen("run", "/catalog/runs/{run}/"),
    Screen("run-failed", "/catalog/runs/{failed_run}/"),
    Screen("run-now", "/catalog/groups/customer_purchases/run/"),
    Screen("quarantine", "/catalog/quarantine/"),
    Screen("quarantine-nothing", "/catalog/quarantine/?group=daily_sales"),
    Screen("quarantine-rule", "/catalog/quarantine/{rule}/"),
    Screen("quarantine-row", "/catalog/quarantine/{rule}/", mend_a_row),
    Screen("quarantine-discard", "/catalog/quarantine/{rule}/", discard),
    Screen("inbox", "/catalog/inbox/"),
    Screen("deprecate-impact", _DEPRECATE),
    Screen("deprecate-reason", _DEPRECATE, deprecation_reason),
    Screen("deprecate-refused", _DEPRECATE, deprecation_refused),
    Screen("deprecate-confirm", _DEPRECATE, deprecation_confirmed),
    Screen("login", "/login/", logged_in=False),
    Screen("not-found", "/catalog/features/daily_sales/nothing/", status=404),
    Screen("palette", "/", open_palette),
)

ADMIN = (
    Screen("admin", "/admin/"),
    Screen("admin-features", "/admin/catalog/feature/"),
    Screen("admin-feature", "/admin/catalog/feature/{feature}/change/"),
    Screen("admin-feature-history", "/admin/catalog/feature/{feature}/history/"),
    Screen("admin-deprecate", "/admin/catalog/feature/{feature}/deprecate/"),
    Screen("admin-schedules", "/admin/django_celery_beat/periodictask/"),
    Screen("admin-quarantine", "/admin/ingestion/quarantinedrule/"),
)

SCREENS = CATALOG + ADMIN
