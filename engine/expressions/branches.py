"""Where one value or another is taken: CASE, IF, COALESCE and NULLIF; what is not reached does not raise."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from sqlglot import exp

from engine.expressions.conditions import compared
from engine.expressions.nodes import Mask, Node, combine, either
from engine.expressions.scope import MANY, TWO, Rules, Scope
from engine.schema import Kind


def _case(scope: Scope, node: exp.Expr) -> Node:
    operand = None if node.this is None else scope.compile(node.this)
    branches = node.args["ifs"]
    conditions = [_condition(scope, operand, branch.this) for branch in branches]
    return _branched(scope, node, conditions, [*(one.args["true"] for one in branches), node.args.get("default")])


def _condition(scope: Scope, operand: Node | None, place: exp.Expr) -> Node:
    if operand is None:
        return scope.typed(place, "bool")
    return compared(scope, place, [operand, scope.compile(place)], pl.Expr.eq)


def _if(scope: Scope, node: exp.Expr) -> Node:
    return _branched(scope, node, [scope.typed(node.this, "bool")], [node.args["true"], node.args.get("false")])


def _branched(scope: Scope, place: exp.Expr, conditions: Sequence[Node], places: Sequence[exp.Expr | None]) -> Node:
    """The result of the first condition that is true, else the last result; only what is reached raises."""
    kind, results = _alike(scope, place, [one or exp.Null() for one in places], "branches of")
    value, error = results[-1].value, results[-1].error
    for condition, result in zip(reversed(conditions), reversed(results[:-1]), strict=True):
        value = pl.when(condition.value).then(result.value).otherwise(value)
        error = either(condition.error, _branch_error(condition, result.error, error))
    return Node(kind, value, 1 + sum(part.size for part in (*conditions, *results)), error)


def _branch_error(condition: Node, taken: Mask | None, otherwise: Mask | None) -> Mask | None:
    whole = either(taken, otherwise)
    if whole is None:
        return None
    rows, other = (pl.lit(False) if one is None else one.rows for one in (taken, otherwise))
    branches = pl.when(condition.value).then(rows).otherwise(other)
    return Mask(branches, whole.size + condition.size + 1, whole.reasons)


def _alike(scope: Scope, place: exp.Expr, places: Sequence[exp.Expr], what: str) -> tuple[Kind | None, list[Node]]:
    """The compiled nodes in their common type, and that."""
    nodes = scope.compile_all(places)
    kind = scope.common(place, nodes, what)
    return kind, nodes if kind is None else [node.to(kind) for node in nodes]


def _coalesce(scope: Scope, node: exp.Expr) -> Node:
    kind, parts = _alike(scope, node, [node.this, *node.expressions], "arguments of")
    error = parts[-1].error
    for part in reversed(parts[:-1]):
        error = either(part.error, error and error.where(part.value.is_null(), part.size + 1))
    return Node(kind, pl.coalesce(*(part.value for part in parts)), 1 + sum(part.size for part in parts), error)


def _nullif(scope: Scope, node: exp.Expr) -> Node:
    pair = scope.compile_all((node.this, node.expression))
    equal = compared(scope, node, pair, pl.Expr.eq)
    return combine(pair[0].kind, pl.when(equal.value).then(None).otherwise(pair[0].value), pair, reads=2)


RULES: Rules = {
    exp.Case: (_case, ("this", "ifs", "default")),
    exp.If: (_if, ("this", "true", "false")),
    exp.Coalesce: (_coalesce, MANY),
    exp.Nullif: (_nullif, TWO),
}
