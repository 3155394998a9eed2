"""Keeping rejected rows: their payload, the rule they broke and the run they came with.

Of each run, two Parquet files beside the group's tables: payloads for people, and the raw rows as they were sent for a
replay (raw_rows.py). The database holds counts per rule and some samples.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa

from catalog import stores
from catalog.models import Run
from engine.offline.table import fsync_folder
from engine.parquet import open_parquet
from engine.pipeline import RejectedRows, rejected_rows
from engine.raw_batch import RawBatch
from engine.violations import Violation
from ingestion.models import QuarantinedRule
from ingestion.raw_rows import DurableFile, RawFile

SAMPLES_PER_RULE = 20
ROWS_AT_ONCE = 4_096
PAYLOADS = pa.schema(
    [
        ("column", pa.string()),
        ("rule", pa.string()),
        ("detail", pa.string()),
        ("row", pa.int64()),
        ("payload", pa.string()),
    ]
)


def payload_file(run: Run) -> Path:
    """Where the payloads of a run's rejected rows are, if it has any."""
    return stores.quarantine_folder(run.group.name) / f"{run.pk}.parquet"


def raw_file(run: Run) -> Path:
    """Where the same rows are as they were sent."""
    return stores.quarantine_folder(run.group.name) / f"{run.pk}.raw.parquet"


class Quarantine:
    """The rejected rows of one attempt at a run, written as they come. `row` counts the run's rows from 0.

    Until `record` they are in files of the attempt's own, so that a worker that was given up and wakes does not touch
    what its successor kept.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows = 0
        self._files = {final: final.with_suffix(f".{run.token}.part") for final in (payload_file(run), raw_file(run))}
        payloads, raw = self._files.values()
        self._payloads = DurableFile(payloads, PAYLOADS)
        self._raw = RawFile(raw)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._details: dict[tuple[str, str], str] = {}
        self._samples: dict[tuple[str, str], list[dict[str, object]]] = {}

    def add(self, batch: RawBatch, violations: Sequence[Violation], *, first_row: int) -> None:
        """Keep the rows of `batch` that the violations name, each under the first rule it broke."""
        for rejected in rejected_rows(batch, violations, first_row=first_row):
            self.keep(rejected)

    def keep(self, rejected: RejectedRows) -> None:
        """Keep rows that broke one rule, under their numbers in the run."""
        payloads = _payloads_of(rejected.batch)
        self._write(rejected, payloads)
        self._raw.add(rejected.batch, rejected.numbers, column=rejected.column, rule=rejected.rule)
        self._count(rejected, payloads)

    def _write(self, rejected: RejectedRows, payloads: list[str]) -> None:
        why = [[text] * len(payloads) for text in (rejected.column, rejected.rule, rejected.detail)]
        self._payloads.write(pa.table([*why, rejected.numbers, payloads], schema=PAYLOADS))

    def _count(self, rejected: RejectedRows, payloads: list[str]) -> None:
        key, numbers = (rejected.column, rejected.rule), rejected.numbers
        self.rows += len(numbers)
        self._counts[key] += len(numbers)
        self._details.setdefault(key, rejected.detail)
        samples = self._samples.setdefault(key, [])
        room = SAMPLES_PER_RULE - len(samples)
        samples += [{"row": n, "payload": p[:2000]} for n, p in zip(numbers[:room], payloads, strict=False)]

    def close(self) -> None:
        """Finish the files; call before `record`."""
        self._payloads.close()
        self._raw.close()

    def discard(self) -> None:
        """Take this attempt's files away, and what earlier attempts left; a later one may have begun its own."""
        for final in self._files:
            for part in final.parent.glob(f"{final.stem}.*.part"):
                if int(part.stem.rpartition(".")[2]) <= self.run.token:
                    part.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take every file of the run away."""
        self.discard()
        for final in self._files:
            final.unlink(missing_ok=True)

    def record(self) -> None:
        """Give the files their names, and write the counts and samples of every rule to the database.

        Call in the transaction that ends with these rows being the run's, whatever other attempts have written.
        """
        if self._payloads.is_made:
            for final, written in self._files.items():
                written.replace(final)
            fsync_folder(self._payloads.path.parent)
        else:
            self.remove()
        self._record_rules()

    def _record_rules(self) -> None:
        self.run.quarantined.all().delete()  # an earlier attempt may have come this far
        QuarantinedRule.objects.bulk_create(
            QuarantinedRule(
                run=self.run,
                column=column,
                rule=rule,
                detail=self._details[column, rule],
                row_count=count,
                samples=self._samples[column, rule],
            )
            for (column, rule), count in self._counts.items()
        )

    def broken_rules(self) -> str:
        """The rules that rows broke, most rows first, for a message: `amount min_value: 112 rows; ...`."""
        return "; ".join(f"{column} {rule}: {count} rows" for (column, rule), count in self._counts.most_common(5))


def payloads_of(run: Run) -> Iterator[dict[str, object]]:
    """Every rejected row of a run, with its column, rule, detail, row and payload; none where there is no file."""
    path = payload_file(run)
    if path.exists():
        with open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from batch.to_pylist()


def _payloads_of(batch: RawBatch) -> list[str]:
    if isinstance(batch.rows, pa.Table | pa.RecordBatch):
        return _payloads(batch.rows)
    rows = [{name: _sayable(value) for name, value in row.items()} for row in batch.rows]
    # Not orjson: it refuses integers beyond 64 bits, which are what some rows are here for.
    return [json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=repr) for row in rows]


def _payloads(rows: pa.Table | pa.RecordBatch) -> list[str]:
    """Raw rows as JSON texts. What JSON cannot say (NaN, bytes) is kept as text, since the payload is for people."""
    columns = [_python_values(column) for column in rows.columns]
    return [
        orjson.dumps(
            {name: _sayable(value) for name, value in zip(rows.schema.names, row, strict=True)}, default=repr
        ).decode()
        for row in zip(*columns, strict=True)
    ]


def _python_values(column: pa.Array | pa.ChunkedArray) -> list[object]:
    """The values of a column, also of one that was rejected because Python cannot hold what is in it."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        texts = column.cast(pa.large_binary()).to_pylist()
        return [None if text is None else text.decode(errors="backslashreplace") for text in texts]
    except (OverflowError, ValueError):  # a time beyond the year 9999: its number in the unit of the column
        return column.cast(pa.int64()).to_pylist()


def _sayable(value: object) -> object:
    if isinstance(value, list):
        return [_sayable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
