"""The push log's part of an erasure: rows in logged batches, and keys of requests that name the entity."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from catalog.models import FeatureGroup, Run
from ingestion.erasure.receipt import Receipt
from ingestion.erasure.target import Target, mention
from ingestion.models import IdempotencyKey, PushBatch

BATCHES_AT_ONCE = 200


def count_rows(group: FeatureGroup, target: Target) -> int:
    """How many rows of the log are to go."""
    batches = PushBatch.objects.filter(group=group).order_by("pk")
    return sum(
        int(mask.sum()) for batch in batches.iterator(BATCHES_AT_ONCE) if (mask := _mask(batch, target)) is not None
    )


def erase(group: FeatureGroup, target: Target, receipt: Receipt) -> int:
    """Take the rows out of the log's batches, also of those that have landed; how many went.

    A batch stays without them: its number was answered to somebody.
    """
    removed = 0
    for pk in list(PushBatch.objects.filter(group=group).order_by("pk").values_list("pk", flat=True)):
        receipt.still()
        batch = PushBatch.objects.filter(pk=pk).first()
        if batch is None or _mask(batch, target) is None:
            continue
        with receipt.saving():
            held = PushBatch.objects.select_for_update().filter(pk=pk).first()
            mask = _mask(held, target) if held else None
            if held is None or mask is None:
                continue
            table = _table(held).filter(pa.array((~mask).to_list()))
            held.rows, held.row_count = _stream(table), table.num_rows
            held.save(update_fields=["rows", "row_count"])
            before = receipt.notes("push_log").get(group.name, {}).get("rows", 0)
            receipt.add("push_log", group.name, rows=before + int(mask.sum()))
            removed += int(mask.sum())
    return removed


def _mask(batch: PushBatch, target: Target) -> pl.Series | None:
    """Which rows of a batch are to go; None when none is."""
    stream = bytes(batch.rows)
    if not all(needle in stream for needle in target.needles()):
        return None
    frame = pl.DataFrame(_table(batch))
    mask = frame.select(target.is_stored().alias("unwanted"))["unwanted"]
    return mask if mask.any() else None


def _table(batch: PushBatch) -> pa.Table:
    return pa.ipc.open_stream(bytes(batch.rows)).read_all()


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def erase_texts(target: Target, receipt: Receipt) -> None:
    """Take the id out of what people and senders wrote: keys of requests, errors of runs."""
    found = mention(target.id)
    keys = IdempotencyKey.objects.filter(group__entity=target.entity, key__contains=target.id)
    named = [key.pk for key in keys if found.search(key.key)]
    errors = [run for run in Run.objects.filter(error__contains=target.id) if found.search(run.error)]
    if named or errors:
        with receipt.saving():
            IdempotencyKey.objects.filter(pk__in=named).delete()
            for run in errors:
                Run.objects.filter(pk=run.pk).update(error=found.sub("***", run.error))
            for section, count in (("idempotency_keys", len(named)), ("texts", len(errors))):
                if count:
                    before = receipt.notes(section).get("all", {}).get("rows", 0)  # type: ignore[arg-type]
                    receipt.add(section, "all", rows=before + count)  # type: ignore[arg-type]
