"""The statistics' part of an erasure: minimum, maximum, quantiles and top values may be those of the entity.

Statistics know between which acceptance numbers their rows are, and each row of the entity has such a number. Those
that may have counted one keep the numbers of their rows and nulls and lose all the rest, so no trace is left and no
other run's statistics are touched.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from catalog.models import FeatureGroup, FeatureStatistics, RunState
from engine.errors import CorruptData
from engine.offline.table import read_file
from engine.schema import ACCEPTED
from ingestion import drain
from ingestion.erasure.receipt import Receipt
from ingestion.erasure.target import Target

#: Changed in one statement.
ROWS_AT_ONCE = 500


def forget_values(group: FeatureGroup, paths: Iterable[Path], target: Target, receipt: Receipt) -> None:
    """Blank the statistics that may quote a row of the entity in one of these files; before its rows go from them.

    Drains whose rows are in these files may not have ended, and count theirs as they do: they are ended first. A run
    has written its statistics before its files are part of the table.
    """
    numbers = _accepted_numbers(paths, target)
    drain.drain(group)
    of_group = FeatureStatistics.objects.filter(feature__group=group)
    ended = [RunState.FAILED, RunState.DEAD, RunState.CANCELLED]
    of_group.filter(run__state__in=ended).delete()  # no file has the rows that these are about
    quoting = of_group.filter(told__isnull=False).order_by("pk").values_list("pk", "accepted_from", "accepted_to")
    found = [pk for pk, first, last in quoting.iterator() if numbers is None or _any_between(numbers, first, last)]
    for start in range(0, len(found), ROWS_AT_ONCE):
        with receipt.saving():
            blanked = FeatureStatistics.objects.filter(pk__in=found[start : start + ROWS_AT_ONCE]).blank()
            before = receipt.notes("statistics").get(group.name, {}).get("rows", 0)
            receipt.add("statistics", group.name, rows=before + blanked)


def _accepted_numbers(paths: Iterable[Path], target: Target) -> list[int] | None:
    """The acceptance numbers of the entity's rows, ascending; None when a file cannot be read, so any may be one."""
    numbers: set[int] = set()
    for path in paths:
        try:
            for batch in read_file(str(path), target.columns):
                numbers.update(pl.DataFrame(batch).filter(target.is_stored())[ACCEPTED].unique().to_list())
        except FileNotFoundError:  # removed by upkeep meanwhile; its rows are in another one
            continue
        except CorruptData:
            if path.exists():
                return None
    return sorted(numbers)


def _any_between(ascending: list[int], first: int, last: int) -> bool:
    at = bisect_left(ascending, first)
    return at < len(ascending) and ascending[at] <= last
