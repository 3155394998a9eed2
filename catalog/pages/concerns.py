"""What the home page leads with: things that may need somebody."""

from __future__ import annotations

from dataclasses import dataclass, field

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
