"""The quarantine's part of an erasure: rejected rows in the files of their runs, and what the database says of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

import pyarrow as pa
from django.db import transaction

from catalog import stores
from catalog.models import FeatureGroup, Run, RunState
from engine.offline.table import fsync_folder
from engine.raw_batch import RawBatch
from ingestion.erasure.receipt import Receipt
from ingestion.erasure.target import Target
from ingestion.models import QuarantinedRow, QuarantinedRule
from ingestion.quarantine import PAYLOADS, payload_file, payloads_of, raw_file
from ingestion.raw_rows import DurableFile, RawFile, read_records

ROWS_AT_ONCE = 4_096
#: A file of a run that the database does not know is of a push that is just being answered, or was killed before.
PUSHED_WITHIN_SECONDS = 600.0
#: How files that are being written anew end.
ANEW = ".erasing"


def count_rows(group: FeatureGroup, target: Target) -> int:
    """How many rejected rows name the entity."""
    return sum(len(_numbers(run, target)) for run in _runs(group))


def erase(group: FeatureGroup, target: Target, receipt: Receipt) -> list[str]:
    """Take the rejected rows of the entity out of the files, the samples and the counts; what has to be waited for.

    Files of an attempt that is under way are its own: they become the run's, or go, when it ends.
    """
    folder = stores.quarantine_folder(group.name)
    for left in folder.glob(f"*{ANEW}"):
        left.unlink()
    for run in _runs(group):
        receipt.still()
        numbers = _numbers(run, target)
        if numbers:
            receipt.note("quarantine", str(run.pk), rows=len(numbers), is_told=False)
            _write_payloads_without(run, numbers)
            _write_raw_without(run, target, numbers)
        if receipt.notes("quarantine").get(str(run.pk), {}).get("is_told") is False:
            with receipt.saving():
                _tell(run)
                receipt.add("quarantine", str(run.pk), is_told=True)
    _erase_samples(group, target)
    return list(_attempts(folder, receipt))


def _runs(group: FeatureGroup) -> list[Run]:
    """The runs that rejected rows of the group are kept of."""
    names = {path.name.partition(".")[0] for path in stores.quarantine_folder(group.name).glob("*.parquet")}
    return list(Run.objects.select_related("group").filter(group=group, pk__in=[UUID(name) for name in names]))


def _numbers(run: Run, target: Target) -> set[int]:
    """The numbers in the run of the rejected rows that name the entity, by either of its files."""
    said = {int(str(row["row"])) for row in payloads_of(run) if target.is_in_payload(str(row["payload"]))}
    if raw_file(run).exists():
        for record, _ in read_records(raw_file(run)):
            if record is not None:
                named = map(target.is_named_by, _rows(record.batch, target.key_names))
                said |= {number for number, is_named in zip(record.numbers, named, strict=True) if is_named}
    return said


def _rows(batch: RawBatch, names: list[str]) -> Iterator[Mapping[str, object]]:
    """The join keys of raw rows, as far as they have any."""
    if isinstance(batch.rows, pa.Table | pa.RecordBatch):
        have = [name for name in names if name in batch.rows.schema.names]
        yield from batch.rows.select(have).to_pylist() if have else [{}] * len(batch)
    else:
        yield from batch.rows


def _write_payloads_without(run: Run, numbers: set[int]) -> None:
    path = payload_file(run)
    if not path.exists():
        return
    anew = DurableFile(path.with_name(path.name + ANEW), PAYLOADS)
    held: list[dict[str, object]] = []
    for row in payloads_of(run):
        if row["row"] not in numbers:
            held.append(row)
        if len(held) == ROWS_AT_ONCE:
            anew.write(pa.Table.from_pylist(held, PAYLOADS))
            held = []
    if held:
        anew.write(pa.Table.from_pylist(held, PAYLOADS))
    _put(anew, path)


def _write_raw_without(run: Run, target: Target, numbers: set[int]) -> None:
    path = raw_file(run)
    if not path.exists():
        return
    anew = RawFile(path.with_name(path.name + ANEW))
    for record, _ in read_records(path):
        if record is None:
            continue
        places = [place for place, number in enumerate(record.numbers) if number not in numbers]
        if places:
            kept = [record.numbers[place] for place in places]
            anew.add(record.batch.take(places), kept, column=record.column, rule=record.rule)
    _put(anew, path)


def _put(anew: DurableFile, path: Path) -> None:
    """The new file in the place of the old one; without rows there is none."""
    anew.close()
    if anew.is_made:
        anew.path.replace(path)
    else:
        path.unlink()
    fsync_folder(path.parent)


def _tell(run: Run) -> None:
    """Make the counts, the samples and the settled rows of a run those of its file."""
    left: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in payloads_of(run):
        left[str(row["column"]), str(row["rule"])].add(int(str(row["row"])))
    for rule in run.quarantined.all():
        numbers = left[rule.column, rule.rule]
        gone = [row.pk for row in rule.rows.all() if row.row not in numbers]
        QuarantinedRow.objects.filter(pk__in=gone).delete()
        rule.row_count = len(numbers)
        rule.samples = [sample for sample in rule.samples if sample["row"] in numbers]
        rule.save(update_fields=["row_count", "samples"])


def _erase_samples(group: FeatureGroup, target: Target) -> None:
    """Samples whose run has no file any more."""
    for rule in QuarantinedRule.objects.filter(run__group=group):
        kept = [sample for sample in rule.samples if not target.is_in_payload(sample["payload"])]
        if len(kept) < len(rule.samples):
            with transaction.atomic():
                QuarantinedRule.objects.filter(pk=rule.pk).update(samples=kept)


def _attempts(folder: Path, receipt: Receipt) -> Iterator[str]:
    """Files of attempts: those of runs that are under way are waited for, others were left by a killed worker."""
    for part in sorted(folder.glob("*.part")):
        run = Run.objects.filter(pk=UUID(part.name.partition(".")[0])).first()
        if run is not None and run.state in (RunState.QUEUED, RunState.RUNNING):
            yield f"run {run.pk} is {run.state}"
        elif run is not None or time.time() - part.stat().st_mtime > PUSHED_WITHIN_SECONDS:
            receipt.note("left_files", part.name)
            part.unlink(missing_ok=True)
