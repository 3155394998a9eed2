"""What ingestion has for the home page: rejected rows that wait for somebody."""

from __future__ import annotations

from typing import Any

from django.db.models import Sum
from django.urls import reverse

from catalog.access import AnyCaller
from catalog.pages.concerns import NAMED, Concern
from ingestion.models.quarantine import QuarantineState
from ingestion.pages.quarantine import readable


def on_concerns_wanted(sender: object, *, caller: AnyCaller, **_: Any) -> list[Concern]:
    """Catalog's signal: called for the home page."""
    page = reverse("catalog-quarantine")
    waiting: Any = readable(caller).in_state(QuarantineState.PENDING.value).order_by().values("run__group__name")
    by_group = waiting.annotate(waiting=Sum("pending_rows")).order_by("-waiting")
    found = [(row["run__group__name"], row["waiting"]) for row in by_group]
    named = [(group, f"{page}?group={group}", f"{rows:,} rows") for group, rows in found[:NAMED]]
    total = sum(rows for _, rows in found)
    return [Concern("Rows in quarantine", total, page, "warn", "They broke a rule, and wait to be replayed", named)]
