"""Text columns (CSV): every value is a string or null, and is typed by what it says."""

from __future__ import annotations

import json
from collections.abc import Callable

import polars as pl
import pyarrow as pa

from engine import instants
from engine.conform.arrow import strings
from engine.conform.columns import Column, Target, exact_float, wrong
from engine.conform.values import NotJson, typed_values

_INT = r"^[+-]?[0-9]+$"
_FLOAT = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
#: Whole numbers that float64 may have to round; beyond 400 digits it is infinite anyway.
_LONG_INT = r"^[+-]?[0-9]{16,400}$"


def read(target: Target, column: pa.ChunkedArray) -> Column:
    """The column in the target's dtype; int64 keys must be canonical, so that no two texts are one key."""
    given = strings(target, column)
    kind = target.dtype.kind
    if kind == "string":
        return given
    if kind in ("embedding", "list"):
        typed = typed_values([_parsed_list(text) for text in given.values.to_list()], target)
        return Column(target.name, typed.values, given.violations + typed.violations)
    values, kept = _READERS[kind](given.values)
    if target.role == "key":
        kept &= values.cast(pl.String) == given.values
    typed = Column(target.name, values, given.violations)
    typed.refuse(given.values.is_not_null() & ~kept.fill_null(False), "type", wrong(kind))
    return typed


def _int64s(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The numbers, and which texts were kept: of digits only and in range."""
    values = given.cast(pl.Int64, strict=False)
    return values, values.is_not_null() & given.str.contains(_INT)


def _float64s(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Decimal text is the nearest float64, as in any language; a whole number must be exact; `nan` is null."""
    is_nan = given.is_in(["nan", "NaN"])
    values = given.cast(pl.Float64, strict=False)
    kept = values.is_finite() & given.str.contains(_FLOAT) & ~_rounded(given)
    return values.set(is_nan, None), kept | is_nan


def _rounded(given: pl.Series) -> pl.Series:
    """Which texts are whole numbers that float64 cannot hold; almost always none is long enough to ask."""
    rounded = given.str.contains(_LONG_INT).fill_null(False)
    if rounded.any():
        rows = rounded.arg_true()
        inexact = [exact_float(int(text)) is None for text in given.gather(rows)]
        rounded = rounded.scatter(rows, pl.Series(inexact, dtype=pl.Boolean))
    return rounded


def _bools(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    lower = given.str.to_lowercase()
    return lower == "true", lower.is_in(["true", "false"])


def _instants(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    # Lazily, since only then Polars parses once what the expression reads twice.
    values = given.to_frame("text").lazy().select(instants.read_column(pl.col("text"))).collect().to_series()
    return values, values.is_not_null()


_READERS: dict[str, Callable[[pl.Series], tuple[pl.Series, pl.Series]]] = {
    "int64": _int64s,
    "float64": _float64s,
    "bool": _bools,
    "timestamp": _instants,
}


def _parsed_list(text: str | None) -> object:
    """The JSON in a text field; what overflows the parser is none. NaN passes here, and is refused as an item."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return NotJson()
