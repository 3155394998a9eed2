"""Raw rows in, a typed Polars frame out: a value is cast only where it cannot change, else its row is violated.

`conform_table` takes the columns of a file (Parquet, Arrow, or a CSV read as text), `conform_rows` the objects of a
JSON body; both end in the same columns of the same types. A frame holds, in order, the join keys, EVENT_TIMESTAMP,
CREATED_TIMESTAMP and the given values (inputs, features without a transformation). What is wrong with single values
is a Violation and the value is null; what is wrong with the whole (a column that is missing, unknown or of another
type) raises.

What each type takes, where that is narrower or wider than its name says:

    int64      whole numbers of 64 bits; in a float column of a file the whole ones (pandas writes nullable integers so)
    float64    finite numbers, a whole one only if held exactly; NaN in a file means null, in JSON it is refused
    string     valid UTF-8 without NUL (PostgreSQL cannot store it); `""` is a value
    timestamp  with an offset, whole microseconds, years 1 to 9999 in UTC; text is RFC 3339 without leap seconds
    embedding  exactly `dim` finite numbers, rounded to float32: the one cast that rounds, since 0.1 is no float32
    list       up to MAX_LIST_ITEMS items; a null item is refused
    join key   int64 or string as above, never null; int64 text must be canonical; strings up to MAX_KEY_BYTES bytes
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from engine.errors import InvalidRows, Problem, near_names
from engine.schema import (
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    MAX_EMBEDDING_DIM,
    TIMESTAMP_POLARS,
    Dtype,
    GroupSchema,
)
from engine.violations import Violation

MAX_CLOCK_SKEW = timedelta(minutes=5)
MAX_KEY_BYTES = 512
MAX_LIST_ITEMS = MAX_EMBEDDING_DIM
MAX_PROBLEMS = 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_INSTANT = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_INSTANT = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
#: How many microseconds a tick of each Arrow unit is: (multiply by, divide by).
_TICKS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}

# One grammar for Polars (text columns) and Python (JSON rows), so written for both engines' regexes.
_TIMESTAMP_TEXT = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6}0{0,3})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_TIMESTAMP = re.compile(_TIMESTAMP_TEXT)
_TIMESTAMP_FORMAT = "%Y-%m-%dT%H:%M:%S%.f%:z"
_INT_TEXT = r"^[+-]?[0-9]+$"
_FLOAT_TEXT = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
#: Whole numbers that float64 may have to round; beyond 400 digits it is infinite anyway.
_LONG_INT_TEXT = r"^[+-]?[0-9]{16,400}$"

_TAKES = {
    "int64": "a whole number from -2^63 to 2^63-1",
    "float64": "a finite number, a whole one only if float64 holds it exactly",
    "bool": "true or false",
    "string": "valid Unicode without the NUL character",
    "timestamp": "an RFC 3339 time with an offset and at most microseconds, such as 2026-11-01T10:00:00Z",
    "embedding": "a list of finite float32 numbers",
}
_JSON_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "a list",
    dict: "an object",
    datetime: "a datetime",
    NoneType: "null",
}

Role = Literal["key", "event", "created", "value"]


@dataclass(frozen=True, slots=True)
class Conformed:
    """The typed frame, one row per raw row in the same order, and what was wrong; a violated value is null."""

    frame: pl.DataFrame
    violations: list[Violation]


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a raw column goes: its name in the source, its name and dtype in the frame, what it is there."""

    source: str
    name: str
    dtype: Dtype
    role: Role

    @property
    def is_key(self) -> bool:
        return self.role == "key"


@dataclass(slots=True)
class _Column:
    """A column on its way through the checks: what is typed so far, and what was refused (null by then)."""

    name: str
    values: pl.Series
    violations: list[Violation]

    def refuse(self, broken: pl.Series, rule: str, detail: str) -> None:
        """Make the rows where `broken` is true null, and report them; a null in `broken` is not true."""
        if broken.any():
            self.violations.append(Violation(self.name, rule, detail, broken.arg_true()))
            self.values = _null_where(self.values, broken)

    def refuse_new_nulls(self, given: pl.Series, detail: str) -> None:
        """Refuse the values of `given` that a cast could not keep."""
        if self.values.null_count() > given.null_count():
            self.refuse(self.values.is_null() & given.is_not_null(), "type", detail)


def conform_table(
    table: pa.Table | pa.RecordBatch,
    schema: GroupSchema,
    *,
    now: datetime,
    max_skew: timedelta = MAX_CLOCK_SKEW,
    text: bool = False,
) -> Conformed:
    """Type the columns of a file; `text` says that all are strings, as in a CSV, where null is an empty field.

    Raises InvalidRows, naming every column that is missing, unknown, repeated or of another type than declared.
    """
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    check_columns(table.column_names, schema)
    targets = _targets(schema)
    _check_types(table, targets, text)
    columns = [_conform_arrow(table, target, text) for target in targets]
    return _conformed(targets, columns, now + max_skew)


def conform_rows(
    rows: Sequence[Mapping[str, object]],
    schema: GroupSchema,
    *,
    now: datetime,
    max_skew: timedelta = MAX_CLOCK_SKEW,
    default_event_timestamp: datetime | None = None,
) -> Conformed:
    """Type parsed JSON objects; a name that a row lacks is null, and timestamps may also be aware datetimes.

    `default_event_timestamp` is the event time of rows that bring none. Raises InvalidRows for rows with unknown
    names, pointing at the first of them as `/rows/<i>/<name>`.
    """
    _check_row_names(rows, schema)
    targets = _targets(schema)
    columns = []
    for target in targets:
        values = [row.get(target.source) for row in rows]
        if target.role == "event" and default_event_timestamp is not None:
            values = [default_event_timestamp if value is None else value for value in values]
        columns.append(_conform_values(values, target))
    return _conformed(targets, columns, now + max_skew)


def check_columns(names: Sequence[str], schema: GroupSchema) -> None:
    """Raise InvalidRows with every missing, unknown and repeated column, unless `names` are exactly the raw columns."""
    known, given = set(schema.raw_names), Counter(names)
    problems = [Problem(name, "the column is missing") for name in dict.fromkeys(schema.raw_names) if name not in given]
    problems += [_unknown(_shown(name), name, "the column", known) for name in given if name not in known]
    problems += [Problem(_shown(name), f"the column stands {n} times") for name, n in given.items() if n > 1]
    if problems:
        raise InvalidRows(f"The columns are not those of {schema.group}: {', '.join(schema.raw_names)}.", problems)


def _unknown(pointer: str, name: str, what: str, known: Iterable[str]) -> Problem:
    return Problem(pointer, f"{what} is not part of the group.", near_names(name[:100].lower(), known))


def _shown(name: str) -> str:
    """A foreign name as an error may carry it: bounded, and without lone surrogates, which no encoder takes."""
    return name[:100].encode("utf-8", "backslashreplace").decode()


def _check_row_names(rows: Sequence[Mapping[str, object]], schema: GroupSchema) -> None:
    known = set(schema.raw_names)
    problems: list[Problem] = []
    for position, row in enumerate(rows):
        if not row.keys() <= known:
            problems += [_unknown_in_row(position, name, known) for name in row if name not in known]
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        takes = ", ".join(schema.raw_names)
        raise InvalidRows(f"Some rows have names that {schema.group} has not: {takes}.", problems[:MAX_PROBLEMS])


def _unknown_in_row(position: int, name: str, known: Iterable[str]) -> Problem:
    escaped = _shown(name).replace("~", "~0").replace("/", "~1")
    return _unknown(f"/rows/{position}/{escaped}", name, "the name", known)


def _targets(schema: GroupSchema) -> list[_Target]:
    """The columns of the frame in order; `created_timestamp` without a source column has the source name ''."""
    timestamp = Dtype("timestamp")
    return [
        *(_Target(key.name, key.name, key.dtype, "key") for key in schema.join_keys),
        _Target(schema.event_timestamp, EVENT_TIMESTAMP, timestamp, "event"),
        _Target(schema.created_timestamp, CREATED_TIMESTAMP, timestamp, "created"),
        *(_Target(field.name, field.name, field.dtype, "value") for field in schema.given),
    ]


def _conformed(targets: Sequence[_Target], columns: Sequence[_Column], latest: datetime) -> Conformed:
    """The frame of `columns`, after the checks that depend on what a column is and not on where it came from."""
    for target, column in zip(targets, columns, strict=True):
        if target.role in ("key", "event"):
            _refuse_missing(column)
        if target.role in ("event", "created"):
            _refuse_future(column, latest)
        elif target.is_key and target.dtype.kind == "string":
            _refuse_long_keys(column)
    violations = [violation for column in columns for violation in column.violations]
    return Conformed(pl.DataFrame([column.values.alias(column.name) for column in columns]), violations)


def _refuse_missing(column: _Column) -> None:
    """A null that came in as null; one that an earlier rule made is reported there."""
    if column.values.null_count() == sum(len(violation.rows) for violation in column.violations):
        return
    missing = column.values.is_null()
    for violation in column.violations:
        missing = missing.scatter(violation.rows, False)
    column.refuse(missing, "missing", "is missing; every row needs one")


def _refuse_future(column: _Column, latest: datetime) -> None:
    limit = latest.astimezone(UTC).isoformat().replace("+00:00", "Z")
    late = column.values.cast(pl.Int64) > (latest - _EPOCH) // _MICROSECOND
    column.refuse(late, "future", f"is later than {limit}, which is now and the allowed clock skew")


def _refuse_long_keys(column: _Column) -> None:
    too_long = column.values.str.len_bytes() > MAX_KEY_BYTES
    column.refuse(too_long, "length", f"is longer than {MAX_KEY_BYTES} bytes of UTF-8")


def _null_where(values: pl.Series, broken: pl.Series) -> pl.Series:
    return pl.select(pl.when(broken).then(None).otherwise(values)).to_series()


# -- Arrow columns: decided once per column from its Arrow type, then whole columns at a time.


def _check_types(table: pa.Table, targets: Sequence[_Target], text: bool) -> None:
    """Raise InvalidRows with every column whose Arrow type cannot hold what is declared, or that is unsound."""
    problems: list[Problem] = []
    for target in targets:
        if target.source:
            problems += _type_problems(table.column(target.source), target, text)
    if problems:
        raise InvalidRows("Some columns are not of the declared types.", problems)


def _type_problems(column: pa.ChunkedArray, target: _Target, text: bool) -> Iterator[Problem]:
    kind = _plain_type(column.type)
    if not (_is_text(kind) if text else _is_admitted(kind, target.dtype)):
        yield Problem(target.source, _mismatch(kind, "text" if text else str(target.dtype)))
    elif not _is_sound(column):
        yield Problem(target.source, "the column's buffers are damaged, or a list or dictionary holds invalid UTF-8")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _mismatch(kind: pa.DataType, declared: str) -> str:
    if declared == "timestamp" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return f"the column is {kind}, a naive time; a timestamp with a time zone is declared"
    return f"the column is {kind}, {declared} is declared"


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_aware(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind)) and kind.tz is not None


def _is_fraction(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_null(kind))


_ADMITTED: dict[str, Callable[[pa.DataType], bool]] = {
    "int64": _is_number,
    "float64": _is_number,
    "bool": pa.types.is_boolean,
    "string": _is_text,
    "timestamp": _is_aware,
}


def _is_admitted(kind: pa.DataType, dtype: Dtype) -> bool:
    """Whether a column of this Arrow type can hold values of `dtype`; an all-null column can hold any."""
    if pa.types.is_null(kind):
        return True
    if dtype.kind in ("embedding", "list"):
        is_item = _is_fraction if dtype.kind == "embedding" else _ADMITTED[dtype.item]
        return _is_list(kind) and is_item(kind.value_type)
    return _ADMITTED[dtype.kind](kind)


def _is_sound(column: pa.ChunkedArray) -> bool:
    """Whether offsets, indices and nested text are valid; Polars trusts them, and panics or reads beyond a buffer.

    Invalid UTF-8 in a plain string column is sound here: it is refused row by row.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _as_bytes(column)
    try:
        column.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        return False
    return True


def _as_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    return pa.chunked_array([chunk.view(binary) for chunk in column.chunks], binary)


def _conform_arrow(table: pa.Table, target: _Target, text: bool) -> _Column:
    if not target.source:
        return _nulls(target, table.num_rows)
    column = table.column(target.source)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return _nulls(target, len(column))
    return _text_column(target, column) if text else _ARROW_READERS[target.dtype.kind](target, column)


def _nulls(target: _Target, rows: int) -> _Column:
    return _Column(target.name, _null_series(target.dtype, rows), [])


def _null_series(dtype: Dtype, rows: int) -> pl.Series:
    return pl.Series([None] * rows, dtype=pl.Null).cast(dtype.polars)


def _plain(target: _Target, column: pa.ChunkedArray) -> _Column:
    """Numbers and booleans."""
    return _SCALARS[target.dtype.kind](target.name, pl.Series(pl.from_arrow(column)))


def _bools(name: str, given: pl.Series) -> _Column:
    return _Column(name, given, [])


def _int64s(name: str, given: pl.Series) -> _Column:
    """From integers in range, or from floats that are whole and in range; NaN is null."""
    if given.dtype.is_float():
        given = given.cast(pl.Float64).fill_nan(None)
        given_whole = given.set(given != given.floor(), None)
        column = _Column(name, given_whole.cast(pl.Int64, strict=False), [])
    else:
        column = _Column(name, given.cast(pl.Int64, strict=False), [])
    column.refuse_new_nulls(given, _wrong("int64"))
    return column


def _float64s(name: str, given: pl.Series) -> _Column:
    """From floats, where NaN is null, or from integers that float64 holds exactly."""
    column = _Column(name, given.cast(pl.Float64), [])
    if given.dtype.is_float():
        column.values = column.values.fill_nan(None)
        column.refuse(column.values.is_infinite(), "type", _wrong("float64"))
    elif given.dtype in (pl.Int64, pl.UInt64):
        # The way back fails (null) at 2^63 and 2^64, which float64 holds and the integer type does not.
        back = column.values.cast(given.dtype, strict=False)
        column.refuse(back.ne_missing(given), "type", _wrong("float64"))
    return column


def _strings(target: _Target, column: pa.ChunkedArray) -> _Column:
    """Plain text; the rows of a column that Parquet calls text though its bytes are not UTF-8 are refused."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return _strings_from_bytes(target.name, _as_bytes(column).to_pylist())
    return _without_nul(target.name, pl.Series(pl.from_arrow(column)))


def _strings_from_bytes(name: str, given: Sequence[bytes | None]) -> _Column:
    decoded = [None if text is None else text.decode("utf-8", "replace") for text in given]
    invalid = [a is not None and b is not None and a != b.encode() for a, b in zip(given, decoded, strict=True)]
    column = _without_nul(name, pl.Series(decoded, dtype=pl.String))
    column.refuse(pl.Series(invalid, dtype=pl.Boolean), "type", _wrong("string"))
    return column


def _without_nul(name: str, given: pl.Series) -> _Column:
    column = _Column(name, given, [])
    column.refuse(column.values.str.contains("\0", literal=True), "type", _wrong("string"))
    return column


def _instants_from_ticks(target: _Target, column: pa.ChunkedArray) -> _Column:
    """From aware timestamps of any unit, in integers: a cast of the type itself wraps or truncates silently."""
    multiply, divide = _TICKS[column.type.unit]
    ticks = pl.Series(pl.from_arrow(column.cast(pa.int64())))
    if divide > 1:
        lossy = ticks % divide != 0  # nanoseconds of 64 bits end in 2262: none is out of range
    else:
        lossy = (ticks < _FIRST_INSTANT // multiply) | (ticks > _LAST_INSTANT // multiply)
    instants = _Column(target.name, ticks, [])
    instants.refuse(lossy, "type", _wrong("timestamp"))
    instants.values = (instants.values * multiply // divide).cast(TIMESTAMP_POLARS)
    return instants


def _lists(target: _Target, column: pa.ChunkedArray) -> _Column:
    """From any kind of Arrow list: the items are typed as one long column, and one bad item refuses its list."""
    lists = column.cast(pa.large_list(column.type.value_type)).combine_chunks()
    given = pl.Series(pl.from_arrow(lists))
    lengths = given.list.len()
    items = _items(pl.Series(pl.from_arrow(lists.flatten())), target.dtype)
    parents = np.repeat(np.arange(len(given)), lengths.fill_null(0).to_numpy())
    broken = np.zeros(len(given), dtype=bool)
    broken[parents[items.is_null().to_numpy()]] = True
    typed = _Column(target.name, given, [])
    wrong_length = _has_wrong_length(lengths, target.dtype)
    typed.refuse(wrong_length, "length", _length_detail(target.dtype))
    typed.refuse(pl.Series(broken) & ~wrong_length.fill_null(False), "type", _wrong(str(target.dtype)))
    # Not strict: what lies under a refused list is still there and may not cast.
    typed.values = typed.values.cast(target.dtype.polars, strict=False)
    return typed


def _items(given: pl.Series, dtype: Dtype) -> pl.Series:
    """The items of many lists typed; null where one was null or cannot be kept."""
    if given.dtype == pl.Null:
        return given
    if dtype.kind == "list":
        return _SCALARS[dtype.item]("", given).values
    rounded = given.cast(pl.Float32)
    return rounded.set(~rounded.is_finite(), None)


def _has_wrong_length(lengths: pl.Series, dtype: Dtype) -> pl.Series:
    return lengths != dtype.dim if dtype.kind == "embedding" else lengths > MAX_LIST_ITEMS


def _length_detail(dtype: Dtype) -> str:
    if dtype.kind == "embedding":
        return f"has not exactly {dtype.dim} items"
    return f"has more than {MAX_LIST_ITEMS} items"


_SCALARS: dict[str, Callable[[str, pl.Series], _Column]] = {
    "int64": _int64s,
    "float64": _float64s,
    "bool": _bools,
    "string": _without_nul,
}
_ARROW_READERS: dict[str, Callable[[_Target, pa.ChunkedArray], _Column]] = {
    "int64": _plain,
    "float64": _plain,
    "bool": _plain,
    "string": _strings,
    "timestamp": _instants_from_ticks,
    "embedding": _lists,
    "list": _lists,
}


def _wrong(dtype: str) -> str:
    return f"cannot be kept unchanged; {_takes(dtype)}"


def _takes(dtype: str) -> str:
    kind = dtype.partition("(")[0]
    if kind in _TAKES:
        return f"{dtype} takes {_TAKES[kind]}"
    return f"{dtype} takes a list without nulls, each item {_TAKES[Dtype.parse(dtype).item]}"


# -- Text columns (CSV): every value is a string or null.


def _text_column(target: _Target, column: pa.ChunkedArray) -> _Column:
    given = _strings(target, column)
    kind = target.dtype.kind
    if kind == "string":
        return given
    if kind in ("embedding", "list"):
        typed = _conform_values([_parsed_list(text) for text in given.values.to_list()], target)
        return _Column(target.name, typed.values, given.violations + typed.violations)
    values, kept = _TEXT_READERS[kind](given.values)
    if target.is_key:
        kept &= values.cast(pl.String) == given.values
    typed = _Column(target.name, values, given.violations)
    typed.refuse(given.values.is_not_null() & ~kept.fill_null(False), "type", _wrong(kind))
    return typed


def _read_int64s(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The numbers, and which texts were kept: of digits only and in range."""
    values = given.cast(pl.Int64, strict=False)
    return values, values.is_not_null() & given.str.contains(_INT_TEXT)


def _read_float64s(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Decimal text is the nearest float64, as in any language; a whole number must be exact; `nan` is null."""
    is_nan = given.is_in(["nan", "NaN"])
    values = given.cast(pl.Float64, strict=False)
    kept = values.is_finite() & given.str.contains(_FLOAT_TEXT) & ~_rounded(given)
    return values.set(is_nan, None), kept | is_nan


def _rounded(given: pl.Series) -> pl.Series:
    """Which texts are whole numbers that float64 cannot hold; almost always none is long enough to ask."""
    rounded = given.str.contains(_LONG_INT_TEXT).fill_null(False)
    if rounded.any():
        rows = rounded.arg_true()
        inexact = [_exact_float(int(text)) is None for text in given.gather(rows)]
        rounded = rounded.scatter(rows, pl.Series(inexact, dtype=pl.Boolean))
    return rounded


def _read_bools(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    lower = given.str.to_lowercase()
    return lower == "true", lower.is_in(["true", "false"])


def _read_instants(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    text = given.str.replace("[Zz]$", "+00:00").str.replace("[t ]", "T")
    values = text.str.to_datetime(_TIMESTAMP_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    in_range = values.to_physical().is_between(_FIRST_INSTANT, _LAST_INSTANT)
    # The offset may carry the year 1 or 9999 out of range; year 0 is Polars', not RFC 3339's.
    return values, in_range & given.str.contains(f"^(?:{_TIMESTAMP_TEXT})$") & ~given.str.starts_with("0000")


_TEXT_READERS: dict[str, Callable[[pl.Series], tuple[pl.Series, pl.Series]]] = {
    "int64": _read_int64s,
    "float64": _read_float64s,
    "bool": _read_bools,
    "timestamp": _read_instants,
}


class _NotJson:
    """Stands for text that is not JSON, so that the checks of Python values refuse it by name."""


def _parsed_list(text: str | None) -> object:
    """The JSON in a text field; what overflows the parser is none. NaN passes here, and is refused as an item."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return _NotJson()


# -- Python values (JSON rows): types decided per column, single values looked at only where that is not enough.


class _Refused(Exception):
    """A single value that cannot be kept: the rule it broke and a sentence without the value in it."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(detail)


def _not(value: object, dtype: str) -> _Refused:
    name = _JSON_NAMES.get(type(value), f"a {type(value).__name__}")
    return _Refused("type", f"is {name}; {_takes(dtype)}")


def _conform_values(values: Sequence[object], target: _Target) -> _Column:
    plain = _plain_series(values, target.dtype)
    return _Column(target.name, plain, []) if plain is not None else _checked_values(values, target)


def _plain_series(values: Sequence[object], dtype: Dtype) -> pl.Series | None:
    """The values as they are, where one look at their types shows that all are good; else None."""
    kinds = set(map(type, values))
    kinds.discard(NoneType)
    if not kinds:
        return _null_series(dtype, len(values))
    if kinds != {_PLAIN_TYPES.get(dtype.kind)} or not _are_plain(values, dtype):
        return None
    try:
        return pl.Series(values, dtype=dtype.polars, strict=True)
    except (TypeError, OverflowError, UnicodeEncodeError):
        return None


_PLAIN_TYPES = {"int64": int, "float64": float, "bool": bool, "string": str}


def _are_plain(values: Sequence[object], dtype: Dtype) -> bool:
    if dtype.kind == "float64":
        return all(value is None or math.isfinite(value) for value in values)  # type: ignore[arg-type]
    if dtype.kind == "string":
        return not any(value is not None and "\0" in value for value in values)  # type: ignore[operator]
    return True


def _checked_values(values: Sequence[object], target: _Target) -> _Column:
    """Value by value; the refused ones are gathered by what is wrong with them."""
    check = _checker(target.dtype)
    kept: list[object] = [None] * len(values)
    refused: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        try:
            kept[row] = None if value is None else check(value)
        except _Refused as error:
            refused[error.rule, error.detail].append(row)
    violations = [Violation(target.name, *why, pl.Series(rows, dtype=pl.UInt32)) for why, rows in refused.items()]
    # Instants are microseconds here: Polars takes longer over one datetime than over the rest of its row.
    kind = pl.Int64() if target.dtype.kind == "timestamp" else target.dtype.polars
    return _Column(target.name, pl.Series(kept, dtype=kind).cast(target.dtype.polars), violations)


def _checker(dtype: Dtype) -> Callable[[object], object]:
    """What returns a value as it is stored, or raises _Refused."""
    if dtype.kind == "embedding":
        return lambda value: _embedding(value, dtype)
    if dtype.kind == "list":
        check_item = _CHECKERS[dtype.item]
        return lambda value: _list(value, dtype, check_item)
    return _CHECKERS[dtype.kind]


def _int(value: object) -> int:
    if type(value) is not int:
        raise _not(value, "int64")
    if not -(2**63) <= value < 2**63:
        raise _Refused("type", f"is beyond 64 bits; {_takes('int64')}")
    return value


def _float(value: object) -> float:
    if type(value) is int:
        exact = _exact_float(value)
        if exact is None:
            raise _Refused("type", f"is an integer that would be rounded; {_takes('float64')}")
        return exact
    if type(value) is not float:
        raise _not(value, "float64")
    if not math.isfinite(value):
        raise _Refused("type", f"is NaN or infinite; {_takes('float64')}")
    return value


def _exact_float(value: int) -> float | None:
    try:
        nearest = float(value)
    except OverflowError:
        return None
    return nearest if int(nearest) == value else None


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise _not(value, "bool")
    return value


def _string(value: object) -> str:
    if type(value) is not str:
        raise _not(value, "string")
    if "\0" in value:
        raise _Refused("type", f"holds a NUL character; {_takes('string')}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Refused("type", f"holds a lone surrogate; {_takes('string')}") from None
    return value


def _instant(value: object) -> int:
    """Microseconds since 1970 in UTC, from RFC 3339 text or from an aware datetime."""
    if type(value) is str:
        value = _parsed_instant(value)
    if not isinstance(value, datetime):
        raise _not(value, "timestamp")
    if value.utcoffset() is None:
        raise _Refused("type", f"is a naive time; {_takes('timestamp')}")
    microseconds = (value - _EPOCH) // _MICROSECOND
    if not _FIRST_INSTANT <= microseconds <= _LAST_INSTANT:
        raise _Refused("type", "is outside the years 1 to 9999 in UTC")
    return microseconds


def _parsed_instant(text: str) -> datetime:
    if _TIMESTAMP.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper())
        except ValueError:
            pass  # a day that the calendar does not have: the same sentence as for any other text
    raise _Refused("type", f"is text but no such time; {_takes('timestamp')}")


def _embedding(value: object, dtype: Dtype) -> list[float]:
    if type(value) is not list:
        raise _not(value, str(dtype))
    if len(value) != dtype.dim:
        raise _Refused("length", _length_detail(dtype))
    if not set(map(type, value)) <= {int, float}:
        raise _Refused("type", f"holds something that is not a number; {_takes(str(dtype))}")
    try:
        struct.pack(f"<{dtype.dim}f", *value)
    except (OverflowError, struct.error):
        raise _Refused("type", f"holds a number beyond float32; {_takes(str(dtype))}") from None
    if not all(map(math.isfinite, value)):
        raise _Refused("type", f"holds NaN or infinity; {_takes(str(dtype))}")
    return list(map(float, value))


def _list(value: object, dtype: Dtype, check_item: Callable[[object], object]) -> list[object]:
    if type(value) is not list:
        raise _not(value, str(dtype))
    if len(value) > MAX_LIST_ITEMS:
        raise _Refused("length", _length_detail(dtype))
    try:
        return [check_item(item) for item in value]
    except _Refused as error:
        raise _Refused("type", f"has an item that {error.detail}") from None


_CHECKERS: dict[str, Callable[[object], object]] = {
    "int64": _int,
    "float64": _float,
    "bool": _bool,
    "string": _string,
    "timestamp": _instant,
}
_JSON_NAMES[_NotJson] = "not JSON"
