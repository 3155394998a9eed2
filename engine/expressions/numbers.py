"""Functions of numbers: rounding, roots, logarithms, powers, LEAST and GREATEST."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars as pl
from sqlglot import exp

from engine.expressions.nodes import Node, Operation, combine, finite, spread
from engine.expressions.scope import MANY, ONE, TWO, Rules, Scope
from engine.expressions.syntax import words

MAX_DECIMALS = 15


def _float_function(scope: Scope, node: exp.Expr, *, operation: Operation) -> Node:
    part = scope.float64(node.this)
    return finite(operation(part.value), others=[part])


def _sign(scope: Scope, node: exp.Expr) -> Node:
    part = scope.typed(node.this, "int64", "float64")
    return combine(part.kind, part.value.sign(), [part])


def _whole(scope: Scope, node: exp.Expr, *, operation: Operation) -> Node:
    """FLOOR and CEIL; an int64 is whole already."""
    part = scope.typed(node.this, "float64", "int64")
    return part if part.kind == "int64" else finite(operation(part.value), chain=[part])


def _round(scope: Scope, node: exp.Expr) -> Node:
    part = scope.typed(node.this, "float64", "int64")
    places = node.args.get("decimals") or exp.Literal.number(0)
    text = str(places.this) if isinstance(places, exp.Literal) and not places.is_string else ""
    if not text.isdecimal() or int(text) > MAX_DECIMALS:
        scope.refuse(places, f"the number of decimals must be a whole number from 0 to {MAX_DECIMALS}")
    rounded = part.value.round(int(text), mode="half_away_from_zero")
    return part if part.kind == "int64" else finite(rounded, chain=[part])


def _log10(scope: Scope, node: exp.Expr) -> Node:
    if not (isinstance(node.this, exp.Literal) and node.this.this == "10" and node.args.get("expression")):
        scope.refuse(node, "write LN(x) or LOG10(x)")
    part = scope.float64(node.expression)
    raw = part.value.log10()
    whole = raw.round(0)
    # Polars divides two natural logarithms: LOG10(1000) would be 2.9999999999999996.
    value = pl.when((raw - whole).abs() <= whole.abs() * 4e-16).then(whole).otherwise(raw)
    return finite(value, others=[part], reads=5)


def _power(scope: Scope, node: exp.Expr) -> Node:
    """x to the power y, as float64.

    Polars has other kernels for an exponent of length one (x * x for 2), whose last bit can differ. A literal is
    always of length one and a column, spread out, never is, unless the frame has one row: see `Compiled.paired`.
    """
    base, exponent = scope.float64(node.this), scope.float64(node.expression)
    if isinstance(node.expression, exp.Literal):
        return finite(base.value.pow(exponent.value), others=[base, exponent])
    return finite(spread(base.value).pow(spread(exponent.value)), others=[base, exponent])


def _extreme(scope: Scope, node: exp.Expr, *, operation: Callable[..., pl.Expr]) -> Node:
    """LEAST and GREATEST of the values that are not NULL."""
    parts = [scope.typed(part, "int64", "float64", "timestamp") for part in (node.this, *node.expressions)]
    kind = scope.common(node, parts, f"{words(node)} of") or "int64"
    parts = [part.to(kind) for part in parts]
    return combine(kind, operation(*(part.value for part in parts)), parts)


RULES: Rules = {
    exp.Sign: (_sign, ONE),
    exp.Sqrt: (partial(_float_function, operation=pl.Expr.sqrt), ONE),
    exp.Ln: (partial(_float_function, operation=pl.Expr.log), ONE),
    exp.Exp: (partial(_float_function, operation=pl.Expr.exp), ONE),
    exp.Log: (_log10, TWO),
    exp.Pow: (_power, TWO),
    exp.Floor: (partial(_whole, operation=pl.Expr.floor), ONE),
    exp.Ceil: (partial(_whole, operation=pl.Expr.ceil), ONE),
    exp.Round: (_round, ("this", "decimals")),
    exp.Least: (partial(_extreme, operation=pl.min_horizontal), MANY),
    exp.Greatest: (partial(_extreme, operation=pl.max_horizontal), MANY),
}
