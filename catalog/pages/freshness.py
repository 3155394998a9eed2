"""How fresh the rows of groups are, as pages show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from catalog import freshness
from catalog.models import FeatureGroup


@dataclass(frozen=True, slots=True)
class Freshness:
    """The newest event of a group, and whether it is older than the group's target (or, without one, its TTL)."""

    newest: datetime
    is_stale: bool


def freshness_of(groups: Iterable[FeatureGroup]) -> dict[int, Freshness]:
    """By the groups' primary keys; those without rows are left out. Two queries."""
    chosen = FeatureGroup.objects.filter(pk__in={group.pk for group in groups}).order_by()
    stale = set(freshness.stale(chosen).values_list("pk", flat=True))
    return {
        group.pk: Freshness(group.newest_event_at, group.pk in stale)  # type: ignore[attr-defined]  # annotated
        for group in freshness.with_age(chosen)
    }
