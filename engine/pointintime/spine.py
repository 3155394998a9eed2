"""The spine: the rows that features are joined onto, from an Arrow table or a Parquet file, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.conform import conform_column, misfit
from engine.conform.columns import Column
from engine.errors import InvalidRows, InvalidSpine, Problem, near_names
from engine.parquet import open_parquet
from engine.pointintime.rule import RESERVED_PREFIX
from engine.schema import TIMESTAMP_ARROW, Dtype, Field

BATCH_ROWS = 131_072
#: The times that can be meant, in microseconds of the epoch: years 1 to 9999. An age within them fits 64 bits.
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999


@dataclass(frozen=True, slots=True)
class Spine:
    """A spine that stays where it is and is read in batches; `source` is an Arrow table or a Parquet file."""

    source: pa.Table | Path
    event_timestamp: str
    schema: pa.Schema
    rows: int

    @classmethod
    def of(cls, source: pa.Table | str | Path, event_timestamp: str) -> Spine:
        """The spine in `source`; InvalidSpine if it is a path at which no Parquet file can be read."""
        if isinstance(source, pa.Table):
            return cls(source, event_timestamp, source.schema, source.num_rows)
        with _parquet(Path(source)) as file:
            return cls(Path(source), event_timestamp, file.schema_arrow, file.metadata.num_rows)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in order, at most BATCH_ROWS at a time; only `columns`, or all."""
        if isinstance(self.source, pa.Table):
            table = self.source if columns is None else self.source.select(columns)
            yield from table.to_batches(max_chunksize=BATCH_ROWS)
        else:
            with _parquet(self.source) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=columns)


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise InvalidSpine(f"There is no spine file {str(path)!r}.")
    try:
        with open_parquet(path) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidSpine(f"The spine file {str(path)!r} cannot be read as Parquet: {error}") from error


def check_spine(
    spine: Spine, keys: Iterable[Field], outputs: Sequence[str], request_inputs: Iterable[Field] = ()
) -> None:
    """Raise InvalidSpine with every problem: names and types first, and if those are right, the values.

    keys: the join keys of all groups; one that several groups share may stand there several times.
    outputs: the columns that the join will add.
    request_inputs: what features are computed from that are so on request; may repeat as the keys may.
    """
    keys, sent = tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(request_inputs))
    problems = [*_name_problems(spine.schema.names, outputs), *_type_problems(spine, keys)]
    problems += _request_problems(spine, sent)
    if not problems:
        problems = _value_problems(spine, keys, sent)
    if problems:
        raise InvalidSpine("The spine cannot be joined.", problems)


def request_values(batch: pa.RecordBatch, sent: Field) -> Column:
    """A request input's column in its dtype, as strictly as a file's: 1.0 may be an int64 and 1.5 is none, NaN is null.

    Raises InvalidRows when the column is none of the dtype at all.
    """
    return conform_column(pa.chunked_array([batch[sent.name]]), sent)


def as_key(column: pa.Array, dtype: Dtype) -> pa.Array:
    """A checked key column in the type that the history has it in."""
    return column.cast(dtype.arrow)


def as_microseconds(column: pa.Array) -> pa.Array:
    """A checked time column as int64 microseconds of the epoch; ArrowInvalid if a time has a finer part."""
    return column.cast(TIMESTAMP_ARROW).cast(pa.int64())


def key_columns(keys: Iterable[Field]) -> dict[str, str]:
    """What `narrow` calls each join key: k0, k1 and so on."""
    return {key.name: f"k{place}" for place, key in enumerate(keys)}


def narrow(spine: Spine, keys: Sequence[Field]) -> pa.RecordBatchReader:
    """What an engine has to see of a checked spine: i (row number from 0), t (microseconds), k0... (keys), in order."""
    names = [("i", pa.int64()), ("t", pa.int64())] + [(f"k{n}", key.dtype.arrow) for n, key in enumerate(keys)]
    schema = pa.schema(names)
    return pa.RecordBatchReader.from_batches(schema, _numbered(spine, keys, schema))


def _numbered(spine: Spine, keys: Sequence[Field], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    offset, time = 0, spine.event_timestamp
    for batch in spine.batches(list(dict.fromkeys([*(key.name for key in keys), time]))):
        numbers = pa.array(np.arange(offset, offset + batch.num_rows, dtype=np.int64))
        columns = [as_key(batch[key.name], key.dtype) for key in keys]
        yield pa.record_batch([numbers, as_microseconds(batch[time]), *columns], schema=schema)
        offset += batch.num_rows


def _pointer(column: str) -> str:
    return f"/spine/{column}"


def _name_problems(names: list[str], outputs: Sequence[str]) -> Iterator[Problem]:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield Problem(_pointer(name), f"the column stands {names.count(name)} times; every name once is right.")
        if name.startswith(RESERVED_PREFIX):
            yield Problem(_pointer(name), f"names that begin with {RESERVED_PREFIX} are reserved; rename the column.")
    for name in dict.fromkeys(outputs):
        if name in names or outputs.count(name) > 1:
            detail = "a feature would be written to this column, which exists already; rename one of the two."
            yield Problem(_pointer(name), detail)


def _type_problems(spine: Spine, keys: tuple[Field, ...]) -> Iterator[Problem]:
    for key in keys:
        if (kind := _type_of(spine, key.name)) is None:
            yield _missing(spine, key.name, f"the join key ({key.dtype})")
        elif not _holds_key(kind, key.dtype):
            yield Problem(_pointer(key.name), f"a join key of type {key.dtype} is needed, the column is {kind}.")
    time = spine.event_timestamp
    if (kind := _type_of(spine, time)) is None:
        yield _missing(spine, time, "the time (timestamp with a time zone)")
    elif not pa.types.is_timestamp(kind):
        yield Problem(_pointer(time), f"a timestamp with a time zone is needed, the column is {kind}.")
    elif kind.tz is None:
        detail = "the timestamps are naive (no time zone), so the instant is unknown; give them one, such as UTC."
        yield Problem(_pointer(time), detail)


def _request_problems(spine: Spine, request_inputs: Iterable[Field]) -> Iterator[Problem]:
    for sent in request_inputs:
        if (kind := _type_of(spine, sent.name)) is None:
            yield _missing(spine, sent.name, f"the request input ({sent.dtype})")
        elif why := misfit(kind, sent.dtype):
            yield Problem(_pointer(sent.name), f"{why} as a request input.")


def _type_of(spine: Spine, column: str) -> pa.DataType | None:
    """The column's type, None if there is none; of columns with one name (a problem of its own) the first."""
    position = next(iter(spine.schema.get_all_field_indices(column)), None)
    return None if position is None else spine.schema.field(position).type


def _missing(spine: Spine, column: str, what: str) -> Problem:
    return Problem(
        _pointer(column), f"the spine has no such column; {what} is needed.", near_names(column, spine.schema.names)
    )


def _holds_key(kind: pa.DataType, dtype: Dtype) -> bool:
    """Whether every value of a column of type `kind` is one of `dtype`: narrower integers, any string encoding."""
    if pa.types.is_dictionary(kind):
        return _holds_key(kind.value_type, dtype)
    if dtype.kind == "int64":
        return bool(pa.types.is_integer(kind) and kind != pa.uint64())
    if dtype.kind == "string":
        return kind in (pa.string(), pa.large_string(), pa.string_view())
    return bool(kind == dtype.arrow)


@dataclass(slots=True)
class _FirstRows:
    """The first row (from 0) at which each problem of a column was seen."""

    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, column: str, detail: str, offset: int, wrong: pa.Array) -> None:
        """Remember the first true place of `wrong`, whose first place is row `offset`; nulls count as false."""
        position = pc.index(wrong, True).as_py()
        if position >= 0:
            self.seen.setdefault((column, detail), offset + position)

    def problems(self) -> list[Problem]:
        return [Problem(_pointer(column), f"row {row}: {detail}") for (column, detail), row in self.seen.items()]


def _value_problems(spine: Spine, keys: tuple[Field, ...], request_inputs: tuple[Field, ...]) -> list[Problem]:
    """One pass over the columns of keys, times and request inputs; rows are counted from 0."""
    first, offset, time = _FirstRows(), 0, spine.event_timestamp
    names = tuple(dict.fromkeys([*(key.name for key in keys), time]))
    for batch in spine.batches(list(dict.fromkeys([*names, *(sent.name for sent in request_inputs)]))):
        for name in names:
            first.note(name, "null; a value is needed in every row.", offset, pc.is_null(batch[name]))
        _note_times(first, time, batch[time], offset)
        for sent in request_inputs:
            _note_request(first, batch, sent, offset)
        offset += batch.num_rows
    return first.problems()


def _note_request(first: _FirstRows, batch: pa.RecordBatch, sent: Field, offset: int) -> None:
    try:
        for violation in request_values(batch, sent).violations:
            first.seen.setdefault((sent.name, f"the value {violation.detail}."), offset + violation.rows[0])
    except InvalidRows as error:
        first.seen.setdefault((sent.name, f"{error.problems[0].detail}."), offset)


def _note_times(first: _FirstRows, name: str, times: pa.Array, offset: int) -> None:
    ticks = times.cast(pa.int64())
    if times.type.unit == "ns":
        rest = pc.subtract(ticks, pc.multiply(pc.divide(ticks, 1000), 1000))
        first.note(name, "finer than a microsecond; round the times.", offset, pc.not_equal(rest, 0))
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[times.type.unit]
    seconds = pc.divide(ticks, per_second)
    outside = pc.or_(pc.less(seconds, EARLIEST // 1_000_000), pc.greater(seconds, LATEST // 1_000_000))
    first.note(name, "outside the years 1 to 9999.", offset, outside)
