"""The end of a run: everything up, every row where it belongs, and both stores read past the code under test."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
from django.db import OperationalError
from django.db.models import Sum
from django.utils import timezone

from catalog import runs, source_roots
from catalog.models import FeatureGroup, Run, RunState
from engine.errors import Unavailable
from ingestion import drain, materialize, sources
from ingestion.models import OnlineCursor, SourceFile
from serving import training
from tests.ingestion import contents
from tests.ingestion.workers import until
from tests.model import world
from tests.model.history import FEATURES
from tests.model.shown import Answer
from tests.model.stored import Stored

#: Within seconds of all processes being up everything is where it belongs; in half a minute where a rebuild was killed,
#: whose lock has to run out first. The machine of a test is busy, so it gets three times as long.
SECONDS_TO_SETTLE = 90.0


def settle(groups: Iterable[FeatureGroup]) -> tuple[float, int]:
    """Wait until nothing is left to do; how many seconds that took, and how many dead runs were retried.

    A run that lost three workers waits for a person, who is this function here.
    """
    begun, retried = time.monotonic(), 0

    def is_settled() -> bool:
        nonlocal retried
        try:
            retried += _retry_dead()
            # So that nobody waits half a minute for a run whose message the broker has lost.
            Run.objects.filter(state=RunState.QUEUED, hint_due_at__gt=timezone.now()).update(hint_due_at=timezone.now())
            return not what_is_left(groups)
        except OperationalError:  # SQLite, when many write
            return False

    try:
        until(is_settled, seconds=SECONDS_TO_SETTLE)
    except AssertionError as error:
        raise AssertionError(f"after {SECONDS_TO_SETTLE} s there is still: {what_is_left(groups)}") from error
    return time.monotonic() - begun, retried


def what_is_left(groups: Iterable[FeatureGroup]) -> list[str]:
    """What has still to be done by the hub, in words."""
    left = [f"rows of {group.name} in the push log" for group in drain.waiting_groups()]
    left += [f"run {run.pk} {run.state}" for run in Run.objects.filter(state__in=[RunState.QUEUED, RunState.RUNNING])]
    left += [f"the file {path.name}" for path in _unread()]
    try:
        if materialize.is_cold():
            return [*left, "a cold online store"]
        left += materialize._left_behind()
        left += [f"offline rows of {group.name} that are not online" for group in groups if _is_behind(group)]
    except Unavailable as error:
        left.append(str(error))
    return left


def _retry_dead() -> int:
    dead = list(Run.objects.filter(state=RunState.DEAD))
    for run in dead:
        runs.retry(run, by="the model checker")
    return len(dead)


def _unread() -> list[Path]:
    """The files whose content no run has read to its end."""
    read = set(SourceFile.objects.filter(run__state=RunState.SUCCEEDED).values_list("sha256", flat=True))
    paths = source_roots.find(world.SOURCE) if read else []
    return [path for path in paths if sources.inspect(path).sha256 not in read]


def _is_behind(group: FeatureGroup) -> bool:
    newest = contents.offline_version(group)
    cursor = OnlineCursor.objects.filter(group=group, group_version=group.version).first()
    return newest >= 0 and (cursor is None or cursor.delta_version < newest)


def offline(groups: Iterable[FeatureGroup]) -> dict[str, list[Stored]]:
    """Every offline row of each group."""
    return {group.name: contents.offline(group) for group in groups}


def quarantined(group: FeatureGroup) -> int:
    """The rows that the runs of the group kept apart."""
    succeeded = group.runs.filter(state=RunState.SUCCEEDED, kind="ingest")
    return succeeded.aggregate(rows=Sum("rows_quarantined"))["rows"] or 0


def trained() -> list[Answer]:
    """What a training set at now holds of every key in every group, as a read would show it (without event times)."""
    now = world.now()
    spine = pa.Table.from_pydict(
        {"customer_id": list(world.KEYS), "event_timestamp": [now] * len(world.KEYS)},
        schema=pa.schema({"customer_id": pa.string(), "event_timestamp": pa.timestamp("us", "UTC")}),
    )
    names = tuple(f"{group}:{name}" for group in world.GROUPS for name in FEATURES)
    built = training.build(training.Asked(features=names), spine, statuses=True)
    frame = pl.from_arrow(built)
    assert isinstance(frame, pl.DataFrame)
    return [
        Answer(
            group,
            row["customer_id"],
            {name: row[f"{group}__{name}"] for name in FEATURES},
            {name: row[f"{group}__{name}__status"] for name in FEATURES},
            None,
        )
        for row in frame.to_dicts()
        for group in world.GROUPS
    ]
