"""Python values (JSON rows): types decided per column, single values looked at only where that is not enough."""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from types import NoneType

import polars as pl

from engine import instants
from engine.conform.columns import (
    MAX_CLOCK_SKEW,
    MAX_LIST_ITEMS,
    MAX_PROBLEMS,
    Column,
    Conformed,
    Target,
    conformed,
    exact_float,
    nulls,
    shown,
    takes,
    targets_of,
    unknown,
    wrong_length,
)
from engine.errors import InvalidRows, Problem
from engine.kinds import kind_of
from engine.schema import Dtype, GroupSchema
from engine.violations import Violation


class NotJson:
    """Stands for text that is not JSON, so that the checks of Python values refuse it by name."""


_NOT_JSON: dict[type, str] = {NotJson: "not JSON"}
#: So many values are read as a column: for fewer, Polars takes longer to begin than Python to end.
MANY = 32
_PLAIN_TYPES = {"int64": int, "float64": float, "bool": bool, "string": str}


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
    _check_names(rows, schema)
    targets = targets_of(schema)
    columns = []
    for target in targets:
        values = _values_of(rows, target.source)
        if target.role == "event" and default_event_timestamp is not None:
            values = [default_event_timestamp if value is None else value for value in values]
        columns.append(typed_values(values, target))
    return conformed(targets, columns, now + max_skew)


def _values_of(rows: Sequence[Mapping[str, object]], name: str) -> list[object]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _check_names(rows: Sequence[Mapping[str, object]], schema: GroupSchema) -> None:
    known = set(schema.raw_names)
    foreign = (
        (at, name) for at, row in enumerate(rows) if not row.keys() <= known for name in row if name not in known
    )
    problems = [_unknown(at, name, known) for at, name in islice(foreign, MAX_PROBLEMS)]
    if problems:
        raise InvalidRows(f"Some rows have names that {schema.group} has not: {', '.join(schema.raw_names)}.", problems)


def _unknown(position: int, name: str, known: set[str]) -> Problem:
    escaped = shown(name).replace("~", "~0").replace("/", "~1")
    return unknown(f"/rows/{position}/{escaped}", name, "the name", known)


def conform_values(values: Mapping[str, object], schema: GroupSchema) -> dict[str, pl.Series]:
    """Single values by the names of raw columns, each typed as a series of one.

    Raises InvalidRows pointing at each that has no such column, or that its column does not take, as `/values/<name>`.
    """
    known = set(schema.raw_names)
    problems = [unknown(f"/values/{shown(name)}", name, "the name", known) for name in values if name not in known]
    columns = {
        target.source: typed_values([values[target.source]], target)
        for target in targets_of(schema)
        if target.source in values
    }
    for name, column in columns.items():
        problems += [Problem(f"/values/{name}", f"{broken.rule}: {broken.detail}") for broken in column.violations]
    if problems:
        raise InvalidRows(f"Some values are not what the columns of {schema.group} take.", problems)
    return {name: column.values for name, column in columns.items()}


def typed_values(values: Sequence[object], target: Target) -> Column:
    """The values in the target's dtype; what cannot be kept is refused, with its rule."""
    plain = _plain(values, target.dtype)
    return Column(target.name, plain) if plain is not None else _checked(values, target)


def _plain(values: Sequence[object], dtype: Dtype) -> pl.Series | None:
    """The values as they are, where one look at their types shows that all are good; else None."""
    kinds = set(map(type, values)) - {NoneType}
    if not kinds:
        return nulls(dtype, len(values))
    if kinds == {str} and dtype.kind == "timestamp" and len(values) >= MANY:
        return _instants(values)
    if kinds != {_PLAIN_TYPES.get(dtype.kind)} or not _are_plain(values, dtype):
        return None
    try:
        return pl.Series(values, dtype=dtype.polars, strict=True)
    except (TypeError, OverflowError, UnicodeEncodeError):
        return None


def _are_plain(values: Sequence[object], dtype: Dtype) -> bool:
    if dtype.kind == "float64":
        # No sum with NaN or infinity in it is finite. One that is too large is looked at value by value, that is all.
        return math.isfinite(sum(filter(None, values)))  # type: ignore[arg-type]
    if dtype.kind == "string":
        return "\0" not in "".join(filter(None, values))  # type: ignore[arg-type]
    return True


def _instants(values: Sequence[object]) -> pl.Series | None:
    """Texts that are all instants, or None."""
    try:
        texts = pl.Series(values, dtype=pl.String, strict=True)
    except UnicodeEncodeError:
        return None
    read = texts.to_frame("text").select(instants.read_column(pl.col("text"))).to_series()
    return read if read.null_count() == texts.null_count() else None


class _Refused(Exception):
    """A single value that cannot be kept: a sentence without the value in it, and the rule it broke."""

    def __init__(self, detail: str, rule: str = "type") -> None:
        self.why = rule, detail
        super().__init__(detail)


def _not(value: object, dtype: Dtype | str) -> _Refused:
    return _Refused(f"is {_NOT_JSON.get(type(value)) or kind_of(value)}; {takes(dtype)}")


def _checked(values: Sequence[object], target: Target) -> Column:
    """Value by value; the refused ones are gathered by what is wrong with them."""
    check = _checker(target.dtype)
    kept: list[object] = [None] * len(values)
    refused: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        try:
            kept[row] = None if value is None else check(value)
        except _Refused as error:
            refused[error.why].append(row)
    violations = [Violation(target.name, *why, pl.Series(rows, dtype=pl.UInt32)) for why, rows in refused.items()]
    # Instants are microseconds here: Polars takes longer over one datetime than over the rest of its row.
    kind = pl.Int64() if target.dtype.kind == "timestamp" else target.dtype.polars
    return Column(target.name, pl.Series(kept, dtype=kind).cast(target.dtype.polars), violations)


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
        raise _Refused(f"is beyond 64 bits; {takes('int64')}")
    return value


def _float(value: object) -> float:
    if type(value) is int:
        exact = exact_float(value)
        if exact is None:
            raise _Refused(f"is an integer that would be rounded; {takes('float64')}")
        return exact
    if type(value) is not float:
        raise _not(value, "float64")
    if not math.isfinite(value):
        raise _Refused(f"is NaN or infinite; {takes('float64')}")
    return value


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise _not(value, "bool")
    return value


def _string(value: object) -> str:
    if type(value) is not str:
        raise _not(value, "string")
    if "\0" in value:
        raise _Refused(f"holds a NUL character; {takes('string')}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Refused(f"holds a lone surrogate; {takes('string')}") from None
    return value


def _instant(value: object) -> int:
    """Microseconds since 1970 in UTC, from RFC 3339 text or from an aware datetime."""
    if type(value) is str:
        value = instants.read(value)
        if value is None:
            raise _Refused(f"is text but no such time; {takes('timestamp')}")
    if not isinstance(value, datetime):
        raise _not(value, "timestamp")
    if value.utcoffset() is None:
        raise _Refused(f"is a naive time; {takes('timestamp')}")
    microseconds = instants.microseconds(value)
    if not instants.FIRST <= microseconds <= instants.LAST:
        raise _Refused("is outside the years 1 to 9999 in UTC")
    return microseconds


def _embedding(value: object, dtype: Dtype) -> list[float]:
    if type(value) is not list:
        raise _not(value, dtype)
    if len(value) != dtype.dim:
        raise _Refused(wrong_length(dtype), "length")
    if not set(map(type, value)) <= {int, float}:
        raise _Refused(f"holds something that is not a number; {takes(dtype)}")
    try:
        struct.pack(f"<{dtype.dim}f", *value)
    except (OverflowError, struct.error):
        raise _Refused(f"holds a number beyond float32; {takes(dtype)}") from None
    if not all(map(math.isfinite, value)):
        raise _Refused(f"holds NaN or infinity; {takes(dtype)}")
    return list(map(float, value))


def _list(value: object, dtype: Dtype, check_item: Callable[[object], object]) -> list[object]:
    if type(value) is not list:
        raise _not(value, dtype)
    if len(value) > MAX_LIST_ITEMS:
        raise _Refused(wrong_length(dtype), "length")
    try:
        return [check_item(item) for item in value]
    except _Refused as error:
        raise _Refused(f"has an item that {error}") from None


_CHECKERS: dict[str, Callable[[object], object]] = {
    "int64": _int,
    "float64": _float,
    "bool": _bool,
    "string": _string,
    "timestamp": _instant,
}
