"""Typed columns of a file: decided once per column from its Arrow type, then whole columns at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import types

from engine import instants
from engine.conform.columns import MAX_LIST_ITEMS, Column, Target, wrong, wrong_length
from engine.schema import TIMESTAMP_POLARS, Dtype

#: How many microseconds a tick of each Arrow unit is: (multiply by, divide by).
_TICKS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}

_TEXT = (types.is_string, types.is_large_string, types.is_string_view)
_ADMITTED: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    "int64": (types.is_integer, types.is_floating),
    "float64": (types.is_integer, types.is_floating),
    "bool": (types.is_boolean,),
    "string": _TEXT,
    "timestamp": (lambda kind: types.is_timestamp(kind) and kind.tz is not None,),
    "embedding": (types.is_floating,),
}
_LISTS = (types.is_list, types.is_large_list, types.is_fixed_size_list)


def is_text(kind: pa.DataType) -> bool:
    return _is_any(kind, _TEXT)


def is_admitted(kind: pa.DataType, dtype: Dtype) -> bool:
    """Whether a column of this Arrow type can hold values of `dtype`; an all-null column can hold any."""
    if dtype.kind not in ("embedding", "list") or types.is_null(kind):
        return _is_any(kind, _ADMITTED.get(dtype.kind, ()))
    return _is_any(kind, _LISTS) and _is_any(kind.value_type, _ADMITTED[dtype.item or dtype.kind])


def _is_any(kind: pa.DataType, predicates: Iterable[Callable[[pa.DataType], bool]]) -> bool:
    return types.is_null(kind) or any(is_one(kind) for is_one in predicates)


def is_sound(column: pa.ChunkedArray) -> bool:
    """Whether offsets, indices and nested text are valid; Polars trusts them, and panics or reads beyond a buffer.

    Invalid UTF-8 in a plain string column is sound here: it is refused row by row.
    """
    if types.is_string(column.type) or types.is_large_string(column.type):
        column = _as_bytes(column)
    try:
        column.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        return False
    return True


def _as_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    binary = pa.large_binary() if types.is_large_string(column.type) else pa.binary()
    return pa.chunked_array([chunk.view(binary) for chunk in column.chunks], binary)


def read(target: Target, column: pa.ChunkedArray) -> Column:
    """The column in the target's dtype; it is of an admitted type, sound, and no dictionary."""
    match target.dtype.kind:
        case "string":
            return strings(target, column)
        case "timestamp":
            return _instants(target, column)
        case "embedding" | "list":
            return _lists(target, column)
        case kind:
            return _SCALARS[kind](target.name, pl.Series(pl.from_arrow(column)))


def _int64s(name: str, given: pl.Series) -> Column:
    """From integers in range, or from floats that are whole and in range; NaN is null."""
    whole = given
    if given.dtype.is_float():
        given = given.cast(pl.Float64).fill_nan(None)
        whole = given.set(given != given.floor(), None)
    column = Column(name, whole.cast(pl.Int64, strict=False))
    if column.values.null_count() > given.null_count():
        column.refuse(column.values.is_null() & given.is_not_null(), "type", wrong("int64"))
    return column


def _float64s(name: str, given: pl.Series) -> Column:
    """From floats, where NaN is null, or from integers that float64 holds exactly."""
    column = Column(name, given.cast(pl.Float64))
    if given.dtype.is_float():
        column.values = column.values.fill_nan(None)
        column.refuse(column.values.is_infinite(), "type", wrong("float64"))
    elif given.dtype in (pl.Int64, pl.UInt64):
        # The way back fails (null) at 2^63 and 2^64, which float64 holds and the integer type does not.
        back = column.values.cast(given.dtype, strict=False)
        column.refuse(back.ne_missing(given), "type", wrong("float64"))
    return column


def strings(target: Target, column: pa.ChunkedArray) -> Column:
    """Plain text; the rows of a column that Parquet calls text though its bytes are not UTF-8 are refused."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return _strings_from_bytes(target.name, _as_bytes(column).to_pylist())
    return _without_nul(target.name, pl.Series(pl.from_arrow(column)))


def _strings_from_bytes(name: str, given: list[bytes | None]) -> Column:
    decoded = [None if text is None else text.decode("utf-8", "replace") for text in given]
    invalid = [a is not None and b is not None and a != b.encode() for a, b in zip(given, decoded, strict=True)]
    column = _without_nul(name, pl.Series(decoded, dtype=pl.String))
    column.refuse(pl.Series(invalid, dtype=pl.Boolean), "type", wrong("string"))
    return column


def _without_nul(name: str, given: pl.Series) -> Column:
    column = Column(name, given)
    column.refuse(given.str.contains("\0", literal=True), "type", wrong("string"))
    return column


_SCALARS: dict[str, Callable[[str, pl.Series], Column]] = {
    "int64": _int64s,
    "float64": _float64s,
    "bool": Column,
    "string": _without_nul,
}


def _instants(target: Target, column: pa.ChunkedArray) -> Column:
    """From aware timestamps of any unit, in integers: a cast of the type itself wraps or truncates silently."""
    multiply, divide = _TICKS[column.type.unit]
    ticks = pl.Series(pl.from_arrow(column.cast(pa.int64())))
    if divide > 1:
        lossy = ticks % divide != 0  # nanoseconds of 64 bits end in 2262: none is out of range
    else:
        lossy = (ticks < instants.FIRST // multiply) | (ticks > instants.LAST // multiply)
    typed = Column(target.name, ticks)
    typed.refuse(lossy, "type", wrong("timestamp"))
    typed.values = (typed.values * multiply // divide).cast(TIMESTAMP_POLARS)
    return typed


def _lists(target: Target, column: pa.ChunkedArray) -> Column:
    """From any kind of Arrow list: the items are typed as one long column, and one bad item refuses its list."""
    dtype = target.dtype
    lists = column.cast(pa.large_list(column.type.value_type)).combine_chunks()
    typed = Column(target.name, pl.Series(pl.from_arrow(lists)))
    lengths = typed.values.list.len()
    items = _items(pl.Series(pl.from_arrow(lists.flatten())), dtype)
    parents = np.repeat(np.arange(len(lengths)), lengths.fill_null(0).to_numpy())
    broken = np.zeros(len(lengths), dtype=bool)
    broken[parents[items.is_null().to_numpy()]] = True
    misfit = lengths != dtype.dim if dtype.kind == "embedding" else lengths > MAX_LIST_ITEMS
    typed.refuse(misfit, "length", wrong_length(dtype))
    typed.refuse(pl.Series(broken) & ~misfit.fill_null(False), "type", wrong(dtype))
    # Not strict: what lies under a refused list is still there and may not cast.
    typed.values = typed.values.cast(dtype.polars, strict=False)
    return typed


def _items(given: pl.Series, dtype: Dtype) -> pl.Series:
    """The items of many lists typed; null where one was null or cannot be kept."""
    if given.dtype == pl.Null:
        return given
    if dtype.kind == "list":
        return _SCALARS[dtype.item]("", given).values
    rounded = given.cast(pl.Float32)
    return rounded.set(~rounded.is_finite(), None)
