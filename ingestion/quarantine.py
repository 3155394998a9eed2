"""Keeping rejected rows: their payload, the rule they broke and the run they came with.

Payloads of a run are one Parquet file beside the group's tables; the database holds counts per rule and some samples.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from catalog import stores
from catalog.models import Run
from engine.violations import Violation
from ingestion.models import QuarantinedRule
from ingestion.pipeline import first_of_each_row

SAMPLES_PER_RULE = 20
PAYLOADS = pa.schema(
    [
        ("column", pa.string()),
        ("rule", pa.string()),
        ("detail", pa.string()),
        ("row", pa.int64()),
        ("payload", pa.string()),
    ]
)


class Quarantine:
    """The rejected rows of one run, written as they come. `row` counts the run's rows from 0."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path: Path = stores.quarantine_folder(run.group.name) / f"{run.id}.parquet"
        self.rows = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._details: dict[tuple[str, str], str] = {}
        self._samples: dict[tuple[str, str], list[dict[str, object]]] = {}
        self._writer: pq.ParquetWriter | None = None

    def add(
        self, batch: pa.RecordBatch | Sequence[Mapping[str, object]], violations: Sequence[Violation], *, first_row: int
    ) -> None:
        """Keep the rows of `batch` that the violations name, each under the first rule it broke."""
        for violation in first_of_each_row(violations):
            payloads = _payloads_of(batch, violation)
            numbers = [first_row + row for row in violation.rows.to_list()]
            self._write(violation, numbers, payloads)
            self._count(violation, numbers, payloads)

    def _write(self, violation: Violation, numbers: list[int], payloads: list[str]) -> None:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self.path, PAYLOADS, write_page_checksum=True)
        why = [[text] * len(numbers) for text in (violation.column, violation.rule, violation.detail)]
        self._writer.write_table(pa.table([*why, numbers, payloads], schema=PAYLOADS))

    def _count(self, violation: Violation, numbers: list[int], payloads: list[str]) -> None:
        key = (violation.column, violation.rule)
        self.rows += len(numbers)
        self._counts[key] += len(numbers)
        self._details.setdefault(key, violation.detail)
        samples = self._samples.setdefault(key, [])
        room = SAMPLES_PER_RULE - len(samples)
        samples += [{"row": n, "payload": p[:2000]} for n, p in zip(numbers[:room], payloads, strict=False)]

    def close(self) -> None:
        """Finish the payload file; call before `record`."""
        if self._writer is not None:
            self._writer.close()

    def record(self) -> None:
        """Write the counts and samples of every rule to the database."""
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


def _payloads_of(batch: pa.RecordBatch | Sequence[Mapping[str, object]], violation: Violation) -> list[str]:
    if isinstance(batch, pa.RecordBatch):
        return _payloads(batch.take(violation.rows.to_arrow()))
    rows = [{name: _sayable(value) for name, value in batch[row].items()} for row in violation.rows.to_list()]
    # Not orjson: it refuses integers beyond 64 bits, which are what some rows are here for.
    return [json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=repr) for row in rows]


def _payloads(rows: pa.RecordBatch) -> list[str]:
    """Raw rows as JSON texts. What JSON cannot say (NaN, bytes) is kept as text, since the payload is for people."""
    columns = [_python_values(column) for column in rows.columns]
    return [
        orjson.dumps(
            {name: _sayable(value) for name, value in zip(rows.schema.names, row, strict=True)}, default=repr
        ).decode()
        for row in zip(*columns, strict=True)
    ]


def _python_values(column: pa.Array) -> list[object]:
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
