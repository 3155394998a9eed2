"""The operators + - * / // % and the sign: integers are exact or raise, floats are finite or raise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import polars as pl
from sqlglot import exp

from engine.expressions.nodes import Node, Operation, Operator, finite, narrow, spread
from engine.expressions.operands import literal
from engine.expressions.scope import ONE, TWO, Rules, Scope
from engine.schema import Kind

OVERFLOW = "an integer beyond 64 bits"
DIVISION = "an integer division by zero or beyond 64 bits"

_INT128 = pl.Int128()


def _numbers(scope: Scope, node: exp.Expr) -> tuple[Node, Node]:
    """Both operands as int64, or as float64 when one of them is."""
    left, right = (scope.typed(part, "int64", "float64") for part in (node.this, node.expression))
    kind: Kind = "float64" if "float64" in (left.kind, right.kind) else "int64"
    return left.to(kind), right.to(kind)


def _wide(node: Node) -> pl.Expr:
    return node.value.cast(_INT128)


def _sum(scope: Scope, node: exp.Expr, *, operator: Operator) -> Node:
    pair = left, right = _numbers(scope, node)
    if left.kind == "float64":
        return finite(operator(left.value, right.value), chain=pair)
    exact = [_wide(part) if part.wide is None else part.wide for part in pair]
    wide = operator(*exact)
    return replace(narrow(wide, pair, OVERFLOW), wide=wide)


def _product(scope: Scope, node: exp.Expr) -> Node:
    pair = left, right = _numbers(scope, node)
    if left.kind == "float64":
        return finite(left.value * right.value, chain=pair)
    return narrow(_wide(left) * _wide(right), pair, OVERFLOW)


def _quotient(scope: Scope, node: exp.Expr) -> Node:
    left, right = scope.float64(node.this), scope.float64(node.expression)
    return finite(exact_division(left.value, right.value), chain=[left], others=[right])


def exact_division(dividend: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """IEEE division. Polars multiplies by the reciprocal of a constant divisor (49.0 / 49.0 = 0.9999999999999999),
    and only in frames of more than one row: so every divisor is made a full column first."""
    return dividend / spread(divisor)


def _integer_quotient(scope: Scope, node: exp.Expr) -> Node:
    pair = scope.typed(node.this, "int64"), scope.typed(node.expression, "int64")
    dividend, divisor = map(_wide, pair)
    sign = pl.when((dividend < 0) == (divisor < 0)).then(1).otherwise(-1).cast(_INT128)
    return narrow((dividend.abs() // divisor.abs()) * sign, pair, DIVISION, reads=3)


def _remainder(scope: Scope, node: exp.Expr) -> Node:
    """The remainder has the sign of the dividend, as in SQL."""
    pair = scope.typed(node.this, "int64"), scope.typed(node.expression, "int64")
    dividend, divisor = map(_wide, pair)
    sign = pl.when(dividend < 0).then(-1).otherwise(1).cast(_INT128)
    return narrow((dividend.abs() % divisor.abs()) * sign, pair, DIVISION, reads=3)


def _negative(scope: Scope, node: exp.Expr) -> Node:
    if isinstance(node.this, exp.Literal) and not node.this.is_string:
        return literal(scope, node.this, -1)
    # Polars has no negation of Int128.
    return _unary(scope, node, operation=lambda value: 0 - value)


def _unary(scope: Scope, node: exp.Expr, *, operation: Operation) -> Node:
    """A sign operation of a number, in its type: -x and |x| of the smallest int64 raise."""
    part = scope.typed(node.this, "int64", "float64")
    if part.kind == "float64":
        return finite(operation(part.value), chain=[part])
    return narrow(operation(_wide(part)), [part], OVERFLOW)


RULES: Rules = {
    exp.Add: (partial(_sum, operator=pl.Expr.add), TWO),
    exp.Sub: (partial(_sum, operator=pl.Expr.sub), TWO),
    exp.Mul: (_product, TWO),
    exp.Div: (_quotient, TWO),
    exp.IntDiv: (_integer_quotient, TWO),
    exp.Mod: (_remainder, TWO),
    exp.Neg: (_negative, ONE),
    exp.Abs: (partial(_unary, operation=pl.Expr.abs), ONE),
}
