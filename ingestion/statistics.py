"""Writing down what the accepted values were like: once for each run, and once a day for what was pushed.

A run counts them in memory while it goes (engine/statistics.py) and writes them in the transaction in which it says
that it is about to commit: another attempt, or a repeated one, puts its own in their place. They count as soon as the
run has succeeded. What was pushed is counted when it is drained, in the transaction that ends the drain: each row once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

import polars as pl
from django.db import transaction
from django.utils import timezone

from catalog.models import FeatureGroup, FeatureStatistics, Run
from catalog.statistics import personal_names
from engine.schema import Dtype, FeatureColumn
from engine.statistics import Accumulator, Collected
from ingestion.models import Drain


def begun(group: FeatureGroup, features: Iterable[FeatureColumn]) -> Collected:
    """Nothing yet of these features; of those tagged `pii`, or whose group or entity is, rows and nulls alone are
    going to be counted."""
    return Collected({feature.name: feature.dtype for feature in features}, counts_only=personal_names(group))


def record(run: Run, collected: Collected) -> None:
    """Put the statistics of a run in the place of those of an earlier attempt; to be called in a transaction."""
    run.statistics.all().delete()
    if collected.accepted is None:
        return
    ids = dict(run.group.features.values_list("name", "pk"))
    now, rows = timezone.now(), []
    for name, counted in collected.columns.items():
        if name in ids:
            one = FeatureStatistics(
                feature_id=ids[name],
                group_version=run.group_version,
                run=run,
                computed_at=now,
                accepted_from=collected.accepted[0],
                accepted_to=collected.accepted[1],
            )
            one.keep(counted.statistics())
            rows.append(one)
    FeatureStatistics.objects.bulk_create(rows)


def counted(drain: Drain, parts: Iterable[tuple[Iterable[FeatureColumn], pl.DataFrame]]) -> Collected:
    """The statistics of what a drain moves: its rows by the features that they were written with."""
    total = begun(drain.group, ())
    for features, rows in parts:
        part = begun(drain.group, features)
        part.add(rows)
        total.merge(part)
    return total


def end_drain(drain: Drain, collected: Collected) -> None:
    """End a drain and merge its statistics into those of today (UTC); one that another worker has ended counts once."""
    now = timezone.now()
    with transaction.atomic():
        if not Drain.objects.filter(pk=drain.pk, landed_at=None).update(landed_at=now):
            return
        if collected.accepted is not None:
            _merge_into_day(drain, collected)


def _merge_into_day(drain: Drain, collected: Collected) -> None:
    now = timezone.now()
    day = now.astimezone(UTC).date()
    first, last = collected.accepted or (0, 0)
    ids = dict(drain.group.features.filter(name__in=collected.columns).values_list("name", "pk"))
    FeatureStatistics.objects.bulk_create(
        [
            FeatureStatistics(
                feature_id=ids[name],
                group_version=drain.group_version,
                day=day,
                computed_at=now,
                accepted_from=first,
                accepted_to=last,
                row_count=0,
                null_count=0,
            )
            for name in sorted(ids)
        ],
        ignore_conflicts=True,
    )
    held = FeatureStatistics.objects.select_for_update().select_related("feature").order_by("feature_id")
    rows = list(held.filter(feature__in=ids.values(), group_version=drain.group_version, day=day))
    for row in rows:
        total = _state_of(row, collected.columns[row.feature.name])
        total.merge(collected.columns[row.feature.name])
        row.keep(total.statistics())
        row.state = total.to_bytes() if row.told else None
        row.computed_at = now
        row.accepted_from, row.accepted_to = min(row.accepted_from, first), max(row.accepted_to, last)
    fields = ["row_count", "null_count", "described", "told", "state", "computed_at", "accepted_from", "accepted_to"]
    FeatureStatistics.objects.bulk_update(rows, fields)


def _state_of(row: FeatureStatistics, new: Accumulator) -> Accumulator:
    """What the day holds so far; the counts alone where its values are not told, or were of another dtype."""
    dtype = Dtype.parse(row.feature.dtype)
    if row.state is None or dtype != new.dtype:
        return Accumulator(new.dtype, new.counts_only, row.row_count, row.null_count)
    return Accumulator.from_bytes(bytes(row.state), new.dtype, counts_only=new.counts_only)
