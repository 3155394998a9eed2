"""What is true, false or unknown: comparisons, AND, OR, NOT, IS, IN and BETWEEN."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import polars as pl
from sqlglot import exp

from engine.expressions.nodes import Node, Operation, Operator, combine, either
from engine.expressions.operands import literal_value
from engine.expressions.scope import MANY, ONE, TWO, Rules, Scope


def _comparison(scope: Scope, node: exp.Expr, *, operator: Operator) -> Node:
    return compared(scope, node, scope.compile_all((node.this, node.expression)), operator)


def compared(scope: Scope, place: exp.Expr, pair: Sequence[Node], operator: Operator) -> Node:
    kind = scope.common(place, pair, "a comparison of") or "bool"
    left, right = (part.to(kind) for part in pair)
    return combine("bool", operator(left.value, right.value), [left, right])


def _between(scope: Scope, node: exp.Expr) -> Node:
    value, low, high = scope.compile_all((node.this, node.args["low"], node.args["high"]))
    above = compared(scope, node, [value, low], pl.Expr.ge)
    return _all([above, compared(scope, node, [value, high], pl.Expr.le)])


def _all(parts: Sequence[Node]) -> Node:
    return _joined(parts, pl.Expr.and_, lambda part: part.fill_null(True))


def _any(parts: Sequence[Node]) -> Node:
    return _joined(parts, pl.Expr.or_, lambda part: part.fill_null(False).not_())


def _joined(parts: Sequence[Node], operator: Operator, undecided: Operation) -> Node:
    """AND or OR of all parts: a part raises only where no part to its left has decided."""
    error = parts[-1].error
    for part in reversed(parts[:-1]):
        error = either(part.error, error and error.where(undecided(part.value), part.size + 2))
    return Node("bool", reduce(operator, [part.value for part in parts]), sum(part.size + 1 for part in parts), error)


def _chain(scope: Scope, node: exp.Expr) -> list[Node]:
    """The compiled operands of a whole chain of AND, or of OR."""
    places = [node]
    while type(places[0]) is type(node):
        places[:1] = [places[0].this, places[0].expression]
    return [scope.typed(place, "bool") for place in places]


def _not(scope: Scope, node: exp.Expr) -> Node:
    part = scope.typed(node.this, "bool")
    return combine("bool", part.value.not_(), [part])


def _is(scope: Scope, node: exp.Expr) -> Node:
    if isinstance(node.expression, exp.Null):
        part = scope.compile(node.this)
        return combine("bool", part.value.is_null(), [part])
    if not isinstance(node.expression, exp.Boolean):
        scope.refuse(node.expression, "IS takes NULL, TRUE, FALSE or DISTINCT FROM")
    part = scope.typed(node.this, "bool")
    return combine("bool", part.value.eq_missing(pl.lit(bool(node.expression.this))), [part])


def _in(scope: Scope, node: exp.Expr) -> Node:
    if not node.expressions:
        scope.refuse(node, "IN takes a list of at least one value")
    value, members = scope.compile(node.this), scope.compile_all(node.expressions)
    if not all(isinstance(member, exp.Literal) for member in node.expressions):
        return _any([compared(scope, node, [value, member], pl.Expr.eq) for member in members])
    kind = scope.common(node, [value, *members], "a list of") or "bool"
    values: list[Any] = [literal_value(scope, member) for member in node.expressions]
    part = value.to(kind)
    return combine("bool", part.value.is_in([*map(float, values)] if kind == "float64" else values), [part])


_COMPARISONS: dict[type[exp.Expr], Operator] = {
    exp.EQ: pl.Expr.eq,
    exp.NEQ: pl.Expr.ne,
    exp.LT: pl.Expr.lt,
    exp.LTE: pl.Expr.le,
    exp.GT: pl.Expr.gt,
    exp.GTE: pl.Expr.ge,
    exp.NullSafeEQ: pl.Expr.eq_missing,
    exp.NullSafeNEQ: pl.Expr.ne_missing,
}
RULES: Rules = {
    **{node: (partial(_comparison, operator=operator), TWO) for node, operator in _COMPARISONS.items()},
    exp.Between: (_between, ("this", "low", "high")),
    exp.And: (lambda scope, node: _all(_chain(scope, node)), TWO),
    exp.Or: (lambda scope, node: _any(_chain(scope, node)), TWO),
    exp.Not: (_not, ONE),
    exp.Is: (_is, TWO),
    exp.In: (_in, MANY),
}
