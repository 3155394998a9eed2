"""The columns of a conformed frame: where each comes from, what its role asks of it, and how it is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl

from engine import instants
from engine.entity_key import MAX_KEY_BYTES
from engine.errors import InvalidRows, Problem, near_names
from engine.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, MAX_EMBEDDING_DIM, Dtype, GroupSchema
from engine.violations import Violation

MAX_CLOCK_SKEW = timedelta(minutes=5)
MAX_LIST_ITEMS = MAX_EMBEDDING_DIM
MAX_PROBLEMS = 20

_TAKES = {
    "int64": "a whole number from -2^63 to 2^63-1",
    "float64": "a finite number, a whole one only if float64 holds it exactly",
    "bool": "true or false",
    "string": "valid Unicode without the NUL character",
    "timestamp": "an RFC 3339 time with an offset and at most microseconds, such as 2026-11-01T10:00:00Z",
    "embedding": "a list of finite float32 numbers",
}


@dataclass(frozen=True, slots=True)
class Conformed:
    """The typed frame, one row per raw row in the same order, and what was wrong; a violated value is null."""

    frame: pl.DataFrame
    violations: list[Violation]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a raw column goes: its name in the source, its name and dtype in the frame, what it is there."""

    source: str
    name: str
    dtype: Dtype
    role: Literal["key", "event", "created", "value"]


@dataclass(slots=True)
class Column:
    """A column on its way through the checks: what is typed so far, and what was refused (null by then)."""

    name: str
    values: pl.Series
    violations: list[Violation] = field(default_factory=list)

    def refuse(self, broken: pl.Series, rule: str, detail: str) -> None:
        """Make the rows where `broken` is true null, and report them; a null in `broken` is not true."""
        if broken.any():
            self.violations.append(Violation(self.name, rule, detail, broken.arg_true()))
            self.values = pl.select(pl.when(broken).then(None).otherwise(self.values)).to_series()


def targets_of(schema: GroupSchema) -> list[Target]:
    """The columns of the frame in order; `created_timestamp` without a source column has the source name ''."""
    timestamp = Dtype("timestamp")
    return [
        *(Target(key.name, key.name, key.dtype, "key") for key in schema.join_keys),
        Target(schema.event_timestamp, EVENT_TIMESTAMP, timestamp, "event"),
        Target(schema.created_timestamp, CREATED_TIMESTAMP, timestamp, "created"),
        *(Target(given.name, given.name, given.dtype, "value") for given in schema.given),
    ]


def conformed(targets: Sequence[Target], columns: Sequence[Column], latest: datetime) -> Conformed:
    """The frame of `columns`, after the checks that depend on what a column is and not on where it came from."""
    for target, column in zip(targets, columns, strict=True):
        if target.role in ("key", "event"):
            _refuse_missing(column)
        if target.role in ("event", "created"):
            _refuse_future(column, latest)
        elif target.role == "key" and target.dtype.kind == "string":
            too_long = column.values.str.len_bytes() > MAX_KEY_BYTES
            column.refuse(too_long, "length", f"is longer than {MAX_KEY_BYTES} bytes of UTF-8")
    violations = [violation for column in columns for violation in column.violations]
    return Conformed(pl.DataFrame([column.values.alias(column.name) for column in columns]), violations)


def _refuse_missing(column: Column) -> None:
    """A null that came in as null; one that an earlier rule made is reported there."""
    if column.values.null_count() == sum(len(violation.rows) for violation in column.violations):
        return
    missing = column.values.is_null()
    for violation in column.violations:
        missing = missing.scatter(violation.rows, False)
    column.refuse(missing, "missing", "is missing; every row needs one")


def _refuse_future(column: Column, latest: datetime) -> None:
    limit = latest.astimezone(UTC).isoformat().replace("+00:00", "Z")
    late = column.values.cast(pl.Int64) > instants.microseconds(latest)
    column.refuse(late, "future", f"is later than {limit}, which is now and the allowed clock skew")


def nulls(dtype: Dtype, rows: int) -> pl.Series:
    return pl.Series([None] * rows, dtype=pl.Null).cast(dtype.polars)


def exact_float(value: int) -> float | None:
    """The float64 that is this integer; None if it would be rounded."""
    try:
        nearest = float(value)
    except OverflowError:
        return None
    return nearest if int(nearest) == value else None


# What errors and violations say.


def takes(dtype: Dtype | str) -> str:
    """What a value of the dtype may be, as the end of a sentence."""
    kind = str(dtype).partition("(")[0]
    if kind in _TAKES:
        return f"{dtype} takes {_TAKES[kind]}"
    return f"{dtype} takes a list without nulls, each item {_TAKES[Dtype.parse(kind).item]}"


def wrong(dtype: Dtype | str) -> str:
    return f"cannot be kept unchanged; {takes(dtype)}"


def wrong_length(dtype: Dtype) -> str:
    if dtype.kind == "embedding":
        return f"has not exactly {dtype.dim} items"
    return f"has more than {MAX_LIST_ITEMS} items"


def check_columns(names: Sequence[str], schema: GroupSchema) -> None:
    """Raise InvalidRows with every missing, unknown and repeated column, unless `names` are exactly the raw columns."""
    known, given = set(schema.raw_names), Counter(names)
    problems = [Problem(name, "the column is missing") for name in dict.fromkeys(schema.raw_names) if name not in given]
    problems += [unknown(shown(name), name, "the column", known) for name in given if name not in known]
    problems += [Problem(shown(name), f"the column stands {n} times") for name, n in given.items() if n > 1]
    if problems:
        raise InvalidRows(f"The columns are not those of {schema.group}: {', '.join(schema.raw_names)}.", problems)


def unknown(pointer: str, name: str, what: str, known: Iterable[str]) -> Problem:
    return Problem(pointer, f"{what} is not part of the group.", near_names(name[:100].lower(), known))


def shown(name: str) -> str:
    """A foreign name as an error may carry it: bounded, and without lone surrogates, which no encoder takes."""
    return name[:100].encode("utf-8", "backslashreplace").decode()
