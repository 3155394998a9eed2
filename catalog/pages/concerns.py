"""What the home page leads with: things that may need somebody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet
from django.dispatch import Signal

#: How many of each are named.
NAMED = 4

#: Sent for the home page, with the `caller`: who knows of more than the catalog does answers with a list of concerns.
concerns_wanted = Signal()


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that may need somebody: how much there is of it, the first few, and where all are listed."""

    title: str
    count: int
    address: str
    tone: str
    explained: str
    named: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        rows: QuerySet[Any],
        title: str,
        address: str,
        explained: str,
        name: Callable[[Any], tuple[str, str, str]],
        *,
        tone: str = "warn",
    ) -> Concern:
        """What the rows of a query come to; `name` says what one is called, where it is, and a word about it."""
        return cls(title, rows.count(), address, tone, explained, [name(row) for row in rows[:NAMED]])
