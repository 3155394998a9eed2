"""What an expression starts from: columns, literals, and brackets around them."""

from __future__ import annotations

import math
import re

import polars as pl
from sqlglot import exp

from engine.errors import near_names
from engine.expressions.nodes import Node
from engine.expressions.scope import ONE, Rules, Scope

_INT64_RANGE = range(-(2**63), 2**63)


def _column(scope: Scope, node: exp.Expr) -> Node:
    if node.args.get("table") or isinstance(node.this, exp.Star):
        scope.refuse(node, "a column is one name, without a table and without *")
    dtype = scope.columns.get(node.name)
    if dtype is None:
        scope.refuse(node, f"unknown column {node.name!r}", near_names(node.name, scope.columns))
    if dtype.kind in ("list", "embedding"):
        scope.refuse(node, f"column {node.name!r} is {dtype}: it can only be passed on as it is")
    return Node(dtype.kind, pl.col(node.name))


def literal(scope: Scope, node: exp.Expr, sign: int = 1) -> Node:
    """A number, with the sign that stands before it, or a text."""
    match value := literal_value(scope, node, sign):
        case str():
            return Node("string", pl.lit(value, dtype=pl.String))
        case int():
            return Node("int64", pl.lit(value, dtype=pl.Int64))
    return Node("float64", pl.lit(value, dtype=pl.Float64))


def literal_value(scope: Scope, node: exp.Expr, sign: int = 1) -> int | float | str:
    text = str(node.this)
    if node.is_string:
        return text
    if re.fullmatch(r"[0-9]+", text):
        if sign * int(text) not in _INT64_RANGE:
            scope.refuse(node, f"{text} is beyond 64 bits")
        return sign * int(text)
    if not re.fullmatch(r"[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?", text) or not math.isfinite(float(text)):
        scope.refuse(node, f"{text} is no number within float64")
    return sign * float(text)


RULES: Rules = {
    exp.Column: (_column, ("this", "table")),
    exp.Literal: (literal, ONE),
    exp.Null: (lambda _, __: Node(None, pl.lit(None)), ()),
    exp.Boolean: (lambda _, node: Node("bool", pl.lit(bool(node.this))), ONE),
    exp.Paren: (lambda scope, node: scope.compile(node.this), ONE),
}
