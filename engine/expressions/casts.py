"""CAST, TRY_CAST and EXTRACT: from which type to which, and which values would be lost on the way."""

from __future__ import annotations

import polars as pl
from sqlglot import exp

from engine import instants
from engine.errors import near_names
from engine.expressions.arithmetic import exact_division
from engine.expressions.nodes import Node, Operation, combine, spread
from engine.expressions.scope import TWO, Rules, Scope, cast_hint
from engine.schema import Kind

LOSSY_CAST = "a CAST that would lose the value"

SQL_NAMES: dict[str, str] = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "timestamp": "TIMESTAMP",
}
_SQL_TYPES: dict[exp.DType, Kind] = {
    exp.DType.BIGINT: "int64",
    exp.DType.INT: "int64",
    exp.DType.DOUBLE: "float64",
    exp.DType.FLOAT: "float64",
    exp.DType.BOOLEAN: "bool",
    exp.DType.VARCHAR: "string",
    exp.DType.TEXT: "string",
    exp.DType.TIMESTAMP: "timestamp",
    exp.DType.TIMESTAMPTZ: "timestamp",
}


def _if_finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(value)


def _zero_or_one(value: pl.Expr) -> pl.Expr:
    return pl.when((value == 0) | (value == 1)).then(value == 1)


def _true_or_false(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_in(["true", "false"])).then(value == "true")


#: Conversions by (from, to); each gives null where the value would be lost, and reads its operand at most three times.
_CONVERSIONS: dict[tuple[str, str], Operation] = {
    ("int64", "string"): lambda value: value.cast(pl.String),
    ("float64", "string"): lambda value: spread(value).cast(pl.String),
    ("bool", "string"): lambda value: value.cast(pl.String),
    ("timestamp", "string"): lambda value: value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
    ("bool", "int64"): lambda value: value.cast(pl.Int64),
    ("bool", "float64"): lambda value: value.cast(pl.Float64),
    ("int64", "bool"): _zero_or_one,
    ("float64", "bool"): _zero_or_one,
    ("float64", "int64"): lambda value: pl.when(value == value.floor()).then(value.cast(pl.Int64, strict=False)),
    ("string", "int64"): lambda value: value.cast(pl.Int64, strict=False),
    ("string", "float64"): lambda value: _if_finite(value.cast(pl.Float64, strict=False)),
    ("string", "bool"): lambda value: _true_or_false(value.str.to_lowercase()),
    ("string", "timestamp"): instants.read_column,
}


def _cast(scope: Scope, node: exp.Expr) -> Node:
    part, kind = scope.compile(node.this), _target(scope, node)
    if part.kind == kind or part.kind is None or (part.kind, kind) == ("int64", "float64"):
        return part.to(kind)
    if (part.kind, kind) not in _CONVERSIONS:
        scope.refuse(node, f"{part.kind} cannot be cast to {kind}{cast_hint(part.kind, (kind,))}")
    value = _CONVERSIONS[part.kind, kind](part.value)
    if isinstance(node, exp.TryCast) or kind == "string":
        return combine(kind, value, [part], reads=3)
    lost = value.is_null() & part.value.is_not_null()
    if isinstance(node.this, exp.Literal) and pl.select(lost).item():
        example = " such as '2026-01-31T00:00:00Z'" if kind == "timestamp" else ""
        scope.refuse(node.this, f"{str(node.this.this)!r} is not a {kind}{example}")
    return combine(kind, value, [part], fails=lost, reason=LOSSY_CAST, reads=4)


def _target(scope: Scope, node: exp.Expr) -> Kind:
    target = node.args["to"]
    kind = _SQL_TYPES.get(target.this)
    if kind is None or target.expressions:
        scope.refuse(node, f"CAST takes {', '.join(SQL_NAMES.values())} without a length, not {target.sql()}")
    return kind


_UNITS: dict[str, Operation] = {
    "YEAR": lambda time: time.dt.year(),
    "MONTH": lambda time: time.dt.month(),
    "DAY": lambda time: time.dt.day(),
    "HOUR": lambda time: time.dt.hour(),
    "MINUTE": lambda time: time.dt.minute(),
    "SECOND": lambda time: time.dt.second(),
    "DOW": lambda time: time.dt.weekday() % 7,
}


def _extract(scope: Scope, node: exp.Expr) -> Node:
    """A part of a timestamp in UTC, int64; DOW is 0 on Sunday. EPOCH is float64 seconds with their fraction."""
    unit, part = str(node.this.this).upper(), scope.typed(node.expression, "timestamp")
    if unit == "EPOCH":
        return combine("float64", exact_division(part.value.dt.epoch("us").cast(pl.Float64), pl.lit(1e6)), [part])
    if unit not in _UNITS:
        known = (*_UNITS, "EPOCH")
        scope.refuse(node, f"EXTRACT knows {', '.join(known)}, not {unit}", near_names(unit, known))
    return combine("int64", _UNITS[unit](part.value).cast(pl.Int64), [part])


RULES: Rules = {
    exp.Cast: (_cast, ("this", "to", "_type")),
    exp.TryCast: (_cast, ("this", "to", "_type")),
    exp.Extract: (_extract, TWO),
}
