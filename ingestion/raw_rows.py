"""Raw rows as they were sent, kept so that they can come again.

Kept rows are records of a Parquet file, each of some rows of one batch that broke one rule. What a record holds of the
rows themselves is an Arrow stream, which keeps every type that a source may have; Parquet alone does not
(docs/formats/quarantine.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import CorruptData
from engine.parquet import open_parquet
from engine.pipeline import ORIGIN
from engine.raw_batch import Form, RawBatch, Rows
from engine.schema import TIMESTAMP_ARROW

#: Rows of a record: what reading one takes of memory stays far below what reading the source took.
ROWS_PER_RECORD = 4_096

RECORDS = pa.schema(
    [
        ("column", pa.string()),
        ("rule", pa.string()),
        ("form", pa.string()),
        ("row", pa.list_(pa.int64())),
        ("accepted", pa.list_(pa.int64())),
        ("ordinal", pa.list_(pa.int64())),
        ("accepted_at", pa.list_(TIMESTAMP_ARROW)),
        ("rows", pa.large_binary()),
    ]
)
_JSON = "json"


def gathered(batches: Iterator[RawBatch], *, at_most: int) -> Iterator[RawBatch]:
    """Neighbours of one form and the same columns as one batch, of about `at_most` rows."""
    held: list[RawBatch] = []
    for batch in batches:
        if held and (not _are_alike(held[0], batch) or sum(map(len, held)) + len(batch) > at_most):
            yield _joined(held)
            held = []
        held.append(batch)
    if held:
        yield _joined(held)


def _are_alike(one: RawBatch, other: RawBatch) -> bool:
    if isinstance(one.rows, pa.Table) and isinstance(other.rows, pa.Table):
        return one.form == other.form and one.rows.schema.equals(other.rows.schema)
    return one.form == other.form


def _joined(batches: Sequence[RawBatch]) -> RawBatch:
    first = batches[0]
    if isinstance(first.rows, pa.Table):
        rows: Rows = pa.concat_tables(batch.rows for batch in batches)
    else:
        rows = [row for batch in batches for row in batch.rows]
    return RawBatch(rows, first.form, pl.concat([b.origins for b in batches if b.origins is not None]))


# -- Kept.


class DurableFile:
    """A Parquet file that is made when the first rows are written to it; closed, its bytes survive a power loss.

    It is synced by its descriptor, since a worker that was given up may find that its successor took the file away.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self._writer: pq.ParquetWriter | None = None

    @property
    def is_made(self) -> bool:
        return self._writer is not None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
            self._writer = pq.ParquetWriter(self._file, self.schema, write_page_checksum=True)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


class RawFile(DurableFile):
    """The raw rows of a run's rejected rows, written as they come."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, RECORDS)

    def add(self, batch: RawBatch, numbers: Sequence[int], *, column: str, rule: str) -> None:
        """Keep the rows of `batch`, which broke one rule and have these numbers in the run."""
        for start in range(0, len(batch), ROWS_PER_RECORD):
            some = range(start, min(start + ROWS_PER_RECORD, len(batch)))
            part = batch.take(some)
            why = [[column], [rule], [part.form], [list(numbers[start : some.stop])]]
            self.write(pa.table([*why, *_origins(part), [_to_bytes(part)]], schema=RECORDS))


def _origins(batch: RawBatch) -> list[list[list[object] | None]]:
    return [[None if batch.origins is None else batch.origins[name].to_list()] for name in ORIGIN]


def _to_bytes(batch: RawBatch) -> bytes:
    table = _as_table(batch.rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _as_table(rows: Rows) -> pa.Table:
    if isinstance(rows, pa.Table | pa.RecordBatch):
        columns = [_without_dictionary(column) for column in rows.columns]
        return pa.table(columns, names=rows.schema.names)
    # ASCII, since half of a surrogate pair is no UTF-8; NaN and infinity are written so that Python reads them again.
    return pa.table({_JSON: [json.dumps(row, default=_unsayable) for row in rows]})


def _without_dictionary(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The values alone: a dictionary would be written whole with every record."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _unsayable(value: object) -> object:
    """What JSON has not, but a Python caller may push: a time as text, the rest as an object, which no dtype takes."""
    return value.isoformat() if isinstance(value, datetime) else {type(value).__name__: repr(value)}


@dataclass(frozen=True, slots=True)
class Record:
    """Some rejected rows of a run, by their numbers in it, and the rule that all of them broke."""

    column: str
    rule: str
    numbers: list[int]
    batch: RawBatch


def read_records(path: Path, rules: Container[tuple[str, str]] | None = None) -> Iterator[tuple[Record | None, float]]:
    """The kept rows that broke one of `rules` (column, rule), or all, with the share of the file that is read by then.

    Raises CorruptData naming the file when it is not there, or not as it was written.
    """
    try:
        with open_parquet(path) as file:
            for number in range(file.num_row_groups):
                told = file.read_row_group(number, columns=["column", "rule"]).to_pylist()[0]
                is_wanted = rules is None or (told["column"], told["rule"]) in rules
                record = _record(file.read_row_group(number).to_pylist()[0]) if is_wanted else None
                yield record, (number + 1) / file.num_row_groups
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise CorruptData(f"The quarantined rows in {path} cannot be read: {error}") from error


def _record(written: Mapping[str, object]) -> Record:
    table = pa.ipc.open_stream(written["rows"]).read_all()
    form: Form = written["form"]  # type: ignore[assignment]
    rows: Rows = [json.loads(text) for text in table[_JSON].to_pylist()] if form == "json" else table
    origins = None
    if written["accepted"] is not None:
        origins = pl.DataFrame({name: written[name] for name in ORIGIN}, schema=ORIGIN)
    return Record(
        str(written["column"]),
        str(written["rule"]),
        list(written["row"]),  # type: ignore[call-overload]
        RawBatch(rows, form, origins),
    )
