"""Python functions as transformations: where they may come from, how they are called, and what they may return."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engine.conform.columns import exact_float
from engine.errors import InvalidDefinition, InvalidInput
from engine.schema import Dtype, Kind

MAX_DETAIL = 200
#: Distinct texts of exceptions that are told apart; whatever comes after shares one.
MAX_DETAILS = 100

Function = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """How a function, `told` by its path, makes values of `dtype`: once for a frame, or once for each row."""

    function: Function
    told: str
    arguments: tuple[str, ...]
    dtype: Dtype
    rowwise: bool

    def compute(self, frame: pl.DataFrame, skipped: pl.Series | None) -> tuple[pl.Series, dict[str, pl.Series]]:
        """The values, null where there is none to keep; the rows that failed outside `skipped`, by what was wrong."""
        compute = _by_row if self.rowwise else _at_once
        return compute(self, frame.select(self.arguments), skipped)


def imported(path: str, modules: Sequence[str]) -> Function:
    """The function at a dotted path in or below one of `modules`; nothing else is imported."""
    module_name, _, attribute = path.rpartition(".")
    if not _is_allowed(module_name, modules):
        allowed = ", ".join(modules) or "none is"
        raise InvalidDefinition(f"function {path!r} is not in an allow-listed module ({allowed})")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except (Exception, SystemExit) as problem:  # whatever the module does at its import is this feature's problem
        raise InvalidDefinition(f"function {path!r} cannot be imported: {_text_of(problem)}") from problem
    if not callable(function) or not _is_allowed(str(getattr(function, "__module__", "")), modules):
        raise InvalidDefinition(f"{path!r} is not a function that is defined in an allow-listed module")
    return function


def _is_allowed(module: str, modules: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{one}.") for one in modules)


def _text_of(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"[:MAX_DETAIL]


def _said(problem: BaseException, function: Function) -> str:
    """What a function did instead of returning a value, and on which line of it. Not the exception's own text, which
    may quote a value of the row: what is said here is kept with the run, logged and answered."""
    if isinstance(problem, _Misfit):
        return str(problem)
    file = getattr(getattr(function, "__code__", None), "co_filename", "")
    frames = reversed(traceback.extract_tb(problem.__traceback__))
    line = next((frame.lineno for frame in frames if frame.filename == file), None)
    return f"raised {type(problem).__name__}" + (f" on line {line} of {Path(file).name}" if line else "")


# Once for each row.


def _by_row(call: Call, arguments: pl.DataFrame, skipped: pl.Series | None) -> tuple[pl.Series, dict[str, pl.Series]]:
    values: list[Any] = [None] * arguments.height
    failed: dict[str, list[int]] = {}
    skips = [False] * arguments.height if skipped is None else skipped.to_list()
    for position, row in enumerate(arguments.iter_rows(named=True)):
        try:
            if not skips[position]:
                values[position] = _kept(call.function(row), call.dtype)
        except Exception as problem:  # the function is the user's: whatever it raises is this row's violation
            detail = f"{call.told} {_said(problem, call.function)}"[:MAX_DETAIL]
            known = detail in failed or len(failed) < MAX_DETAILS
            failed.setdefault(detail if known else "the function raised, with yet another text", []).append(position)
    rows = {detail: pl.Series(positions, dtype=pl.UInt32) for detail, positions in failed.items()}
    return pl.Series(values, dtype=call.dtype.polars), rows


class _Misfit(TypeError):
    """A function returned a value that the feature's dtype does not take."""


def _kept(value: Any, dtype: Dtype) -> Any:
    """What a function returned, as `dtype` takes it; raises _Misfit rather than change a value."""
    if value is None:
        return None
    if dtype.kind in ("embedding", "list"):
        return _kept_list(value, dtype)
    if isinstance(value, np.generic):
        value = value.item()
    if not _fits(value, dtype.kind):
        raise _Misfit(f"returned {type(value).__name__}, which is no {dtype}")
    if dtype.kind == "timestamp":
        return value.astimezone(UTC)
    return float(value) if dtype.kind == "float64" else value


def _kept_list(value: Any, dtype: Dtype) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise _Misfit(f"returned {type(value).__name__}, which is no {dtype}")
    items = [_kept(one, Dtype.parse(dtype.item or "float64")) for one in value]
    if dtype.kind == "embedding":
        items = [_float32(one) for one in items]
    if None in items or (dtype.kind == "embedding" and len(items) != dtype.dim):
        raise _Misfit(f"returned {len(items)} items, {items.count(None)} of them None, which is no {dtype}")
    return items


def _float32(value: float | None) -> float | None:
    """An embedding's item, rounded to the float32 it is stored as."""
    if value is not None and not np.isfinite(narrow := np.float32(value)):
        raise _Misfit("returned a number beyond float32")
    return None if value is None else float(narrow)


def _fits(value: Any, kind: Kind) -> bool:
    """Whether a Python value is one of the kind: types count, so True is no int and 1.0 is none either."""
    match kind:
        case "int64":
            return type(value) is int and -(2**63) <= value < 2**63
        case "float64":
            return exact_float(value) is not None if type(value) is int else type(value) is float and isfinite(value)
        case "bool":
            return type(value) is bool
        case "string":
            return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)
    return isinstance(value, datetime) and value.utcoffset() is not None and not getattr(value, "nanosecond", 0)


# Once for a whole frame.


def _at_once(call: Call, arguments: pl.DataFrame, skipped: pl.Series | None) -> tuple[pl.Series, dict[str, pl.Series]]:
    try:
        result = call.function(arguments)
    except (Exception, pl.exceptions.PanicException) as problem:
        raise InvalidInput(f"function {call.told} failed for a batch: it {_said(problem, call.function)}.") from problem
    if not isinstance(result, pl.Series) or len(result) != arguments.height:
        what = f"a Series of {len(result)}" if isinstance(result, pl.Series) else type(result).__name__
        raise InvalidInput(f"function {call.told} returned {what}, not a Series of {arguments.height} rows")
    if not _is_castable(result.dtype, call.dtype):
        raise InvalidInput(f"function {call.told} returned {result.dtype}, the feature is declared {call.dtype}")
    values = result.cast(call.dtype.polars, strict=False)
    lost = _lost(result, values, call.dtype)
    blank, new = (lost, lost) if skipped is None else (lost | skipped, lost & ~skipped)
    kept = pl.select(pl.when(pl.lit(blank).not_()).then(pl.lit(values))).to_series()
    detail = f"{call.told} returned a value that {call.dtype} cannot hold"
    return kept, {detail: new.arg_true()} if new.any() else {}


def _is_castable(found: pl.DataType, dtype: Dtype) -> bool:
    """Whether values of this Polars type can be of the dtype at all; whether each of them is shows in the cast."""
    if found == pl.Null:
        return True
    if dtype.kind in ("embedding", "list"):
        inner = found.inner if isinstance(found, pl.List | pl.Array) else None
        return inner in ((pl.Float32, pl.Float64) if dtype.kind == "embedding" else (dtype.polars.inner,))  # type: ignore[attr-defined]
    if dtype.kind in ("int64", "float64"):
        return found.is_numeric() and not found.is_decimal()
    if dtype.kind == "timestamp":
        return isinstance(found, pl.Datetime) and found.time_zone is not None
    return found in ((pl.String, pl.Categorical, pl.Enum) if dtype.kind == "string" else (pl.Boolean,))


def _lost(result: pl.Series, values: pl.Series, dtype: Dtype) -> pl.Series:
    """Where `values` is not what was returned: rounded, not finite, a list with nulls or of a wrong length."""
    if dtype.kind not in ("embedding", "list"):
        same = result.eq_missing(values.cast(result.dtype, strict=False))
        return ~(same & values.is_finite().fill_null(True) if dtype.kind == "float64" else same)
    item = pl.element()
    bad_item = item.is_null() if dtype.item in ("string", "int64") else ~item.is_finite().fill_null(False)
    column = pl.lit(values)
    bad = column.list.eval(bad_item).list.any()
    if dtype.kind == "embedding":
        bad |= column.list.len() != dtype.dim
    return pl.select(bad.fill_null(False)).to_series()
