"""Moving pushed rows from the log into the offline table, many pushes in one commit, each exactly once.

Which batches a drain holds is committed before its files are written, and the drain's id is the transaction id of
the commit: a drain that was cut short anywhere is finished by the next one without doubling a row.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import cast

import polars as pl
import pyarrow as pa
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from catalog import freshness
from catalog.models import Acceptance, FeatureGroup
from catalog.schemas import from_stored
from engine import faults
from engine.schema import EVENT_TIMESTAMP, SCHEMA, GroupSchema
from ingestion import statistics
from ingestion.models import Drain, PushBatch
from ingestion.push_rows import rows_of
from ingestion.tables import open_table

#: What one drain takes at most; its rows are in memory at once.
BATCHES_PER_DRAIN = 2_000
ROWS_PER_DRAIN = 250_000
#: How long the log keeps what has landed offline, and how many batches are forgotten in one go.
LANDED_KEPT_FOR = timedelta(hours=24)
FORGOTTEN_AT_ONCE = 10_000


def drain(group: FeatureGroup) -> int:
    """Write what the log holds of the group now offline; how many rows. Unfinished drains are finished first.

    What is pushed meanwhile waits for the next drain: under steady pushes this would never end, and commit every few.
    """
    rows = 0
    for unfinished in group.drains.filter(landed_at=None):
        rows += _land(unfinished)
    newest = PushBatch.objects.filter(group=group, drain=None).aggregate(newest=Max("pk"))["newest"]
    while newest is not None and (claimed := _claim(group, newest)) is not None:
        rows += _land(claimed)
    return rows


def waiting_groups() -> QuerySet[FeatureGroup]:
    """The groups whose log holds rows that may not have landed yet."""
    waiting = FeatureGroup.objects.filter(push_batches__drain=None, push_batches__isnull=False)
    unfinished = FeatureGroup.objects.filter(drains__landed_at=None, drains__isnull=False)
    return (waiting | unfinished).distinct().select_related("entity")


def forget_landed() -> int:
    """Delete from the log what landed a day ago, oldest first; how many batches. Acceptance numbers do not return."""
    landed = PushBatch.objects.filter(drain__landed_at__lte=timezone.now() - LANDED_KEPT_FOR)
    # Without their rows, which would fill the memory.
    oldest = list(landed.order_by("pk").values_list("pk", "acceptance_id")[:FORGOTTEN_AT_ONCE])
    with transaction.atomic():
        PushBatch.objects.only("pk").filter(pk__in=[pk for pk, _ in oldest]).delete()
        # The number of a push that rejected rows is that of its run, too.
        Acceptance.objects.filter(pk__in=[number for _, number in oldest], run=None).delete()
    faults.hit("forget.after_commit")
    Drain.objects.filter(landed_at__lte=timezone.now() - LANDED_KEPT_FOR, batches=None).delete()
    return len(oldest)


def on_history_wanted(groups: Sequence[str], **_: object) -> None:
    """Somebody is about to read the offline history of these groups: what was pushed so far must be in it."""
    for group in FeatureGroup.objects.select_related("entity").filter(name__in=groups):
        drain(group)
        open_table(group, group.version)  # what is gone must not be taken for what never was


def _claim(group: FeatureGroup, newest: int) -> Drain | None:
    """The next batches of one group version up to `newest` as a drain; None when there are none.

    By state and not by number: a batch whose transaction ends late has a lower one than what was drained before.
    """
    with transaction.atomic():
        waiting = PushBatch.objects.select_for_update(skip_locked=_can_skip_locked())
        waiting = waiting.filter(group=group, drain=None, pk__lte=newest)
        oldest = waiting.order_by("pk").first()
        if oldest is None:
            return None
        claimed = Drain.objects.create(group=group, group_version=oldest.group_version)
        same_version = waiting.filter(group_version=oldest.group_version).order_by("pk")
        sizes = list(same_version.values_list("pk", "row_count")[:BATCHES_PER_DRAIN])
        before = accumulate((rows for _, rows in sizes), initial=0)
        chosen = [pk for (pk, _), rows in zip(sizes, before, strict=False) if rows < ROWS_PER_DRAIN]
        PushBatch.objects.filter(pk__in=chosen).update(drain=claimed)
    faults.hit("drain.after_claim")
    return claimed


def _can_skip_locked() -> bool:
    return transaction.get_connection().features.has_select_for_update_skip_locked


def _land(claimed: Drain) -> int:
    batches = claimed.batches.order_by("pk")
    frames = [rows for batch in batches if not (rows := rows_of(batch)).is_empty()]
    parts: Sequence[tuple[GroupSchema, pl.DataFrame]] = []
    if frames:
        rows = pl.concat(frames, how="diagonal")
        parts = _by_schema(claimed, rows)
        _commit(claimed, parts)
        freshness.observe(claimed.group_id, claimed.group_version, cast(datetime, rows[EVENT_TIMESTAMP].max()))
    faults.hit("drain.before_landed")
    collected = statistics.counted(claimed, [(schema.features, rows) for schema, rows in parts])
    statistics.end_drain(claimed, collected)
    return sum(frame.height for frame in frames)


def _by_schema(claimed: Drain, rows: pl.DataFrame) -> list[tuple[GroupSchema, pl.DataFrame]]:
    """The rows by the schema that they were written with, in the order of the schemas."""
    known = claimed.group.schemas.select_related("group")
    return [
        (from_stored(known.get(number=number)), part)
        for (number,), part in sorted(rows.group_by([SCHEMA]), key=lambda group: group[0])
    ]


def _commit(claimed: Drain, parts: Sequence[tuple[GroupSchema, pl.DataFrame]]) -> None:
    table = open_table(claimed.group, claimed.group_version)
    transaction_id = f"drain:{claimed.id}"
    if table.has_landed(transaction_id):
        return
    files = []
    for schema, part in parts:
        name = f"drain-{claimed.id}-{uuid.uuid4().hex[:8]}-{schema.schema_id}"
        files.append(table.write_file(part, schema.offline, name=name, sort_by=schema.key_names))
        faults.hit("drain.after_file")
    faults.hit("drain.before_delta_commit")
    all_columns = pa.unify_schemas([schema.offline for schema, _ in parts])
    landing = table.commit(files, all_columns, transaction=transaction_id)
    faults.hit("drain.after_delta_commit")
    if not landing.ours:  # another worker has just finished the same drain
        table.discard(files)
