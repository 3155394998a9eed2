"""Compiles one expression: parsed, allow-listed, typed, cast to its declared dtype and tried out on no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import polars as pl
from sqlglot import exp

from engine.errors import InvalidExpression
from engine.expressions import arithmetic, branches, casts, conditions, numbers, operands, text
from engine.expressions.casts import SQL_NAMES
from engine.expressions.nodes import Node, spread
from engine.expressions.scope import Rules, Scope
from engine.expressions.syntax import parse
from engine.schema import Dtype, Kind

#: The allow-list: what stands in none of these tables is refused.
_RULES: Rules = {
    **operands.RULES,
    **arithmetic.RULES,
    **numbers.RULES,
    **conditions.RULES,
    **branches.RULES,
    **text.RULES,
    **casts.RULES,
}


@dataclass(frozen=True)
class Compiled:
    """A checked expression: `value` has `dtype`; `error` is true for a row that raises (None: no row can).

    `value` means nothing where `error` is true. `reasons` says in words what can raise. `paired` is true when Polars
    rounds differently for a frame of one row (POW): put a row of nulls below it and drop that afterwards.
    """

    dtype: Dtype
    references: frozenset[str]
    value: pl.Expr
    error: pl.Expr | None = None
    reasons: tuple[str, ...] = ()
    paired: bool = False


def compile_expression(text: str, columns: Mapping[str, Dtype], *, dtype: Dtype | None = None) -> Compiled:
    """The scalar SQL `text` over `columns` as a Polars expression, cast to `dtype` where that loses nothing.

    Raises InvalidExpression, naming the place, for anything that is not one element-wise, deterministic expression
    over known columns and types.

    >>> compile_expression("n + 1", {"n": Dtype("int64")}).dtype.kind
    'int64'
    """
    scope = Scope(text, columns, _RULES)
    tree = parse(text)
    references = _columns_in(tree)
    if found := scope.compound(tree):
        if dtype not in (None, found):
            scope.refuse(tree, f"this is {found}, the feature is declared {dtype}")
        return Compiled(found, references, pl.col(*references))
    node = _declared(scope, tree, scope.compile(tree), dtype)
    value = spread(node.value) if node.kind == "float64" else node.value
    error, reasons = (node.error.rows, sorted(node.error.reasons)) if node.error else (None, ())
    paired = any(not isinstance(power.expression, exp.Literal) for power in tree.find_all(exp.Pow))
    compiled = Compiled(Dtype(cast(Kind, node.kind)), references, value, error, tuple(reasons), paired)
    try:
        _try_out(compiled, columns)
    except InvalidExpression:
        compiled = replace(compiled, value=_full(value), error=None if error is None else _full(error))
        _try_out(compiled, columns)
    return compiled


def _columns_in(tree: exp.Expr) -> frozenset[str]:
    return frozenset(column.name for column in tree.find_all(exp.Column))


@lru_cache(maxsize=10_000)
def references_of(text: str) -> frozenset[str]:
    """The columns that an expression names, known or not; none for a text that is no expression.

    >>> sorted(references_of("cart_value / avg_purchase_value"))
    ['avg_purchase_value', 'cart_value']
    """
    try:
        return _columns_in(parse(text))
    except InvalidExpression:
        return frozenset()


def _declared(scope: Scope, tree: exp.Expr, node: Node, dtype: Dtype | None) -> Node:
    """The root node in its declared type; only int64 -> float64 and NULL change."""
    kind = node.kind if dtype is None else dtype.kind
    if kind is None:
        scope.refuse(tree, "the type of NULL is not known here; write CAST(NULL AS <type>)")
    fits = node.kind in (None, kind) or (node.kind, kind) == ("int64", "float64")
    if not fits or kind not in SQL_NAMES:
        way_out = f"; wrap it in CAST(... AS {SQL_NAMES[kind]})" if kind in SQL_NAMES else ""
        scope.refuse(tree, f"the expression is {node.kind or 'NULL'}, the feature is declared {dtype}{way_out}")
    return node.to(kind)


def _full(value: pl.Expr) -> pl.Expr:
    """The same values with one for each row: Polars makes 1 > COALESCE(x, 5) one row long where all x are null."""
    return pl.when(pl.int_range(pl.len()) >= 0).then(value)


def _try_out(compiled: Compiled, columns: Mapping[str, Dtype]) -> None:
    """Evaluates on two rows of nulls: what Polars itself objects to is refused now, never while data comes."""
    names = sorted(compiled.references)
    nulls = pl.DataFrame(schema={"!row": pl.Null()} | {name: columns[name].polars for name in names}).clear(n=2)
    checks = [] if compiled.error is None else [compiled.error.alias("!error")]
    try:
        result = nulls.with_columns(compiled.value.alias("!value"), *checks)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as problem:
        raise InvalidExpression(f"the expression cannot be evaluated: {str(problem)[:200]}") from problem
    if result.schema["!value"] != compiled.dtype.polars:
        raise InvalidExpression(f"the expression gives {result.schema['!value']} instead of {compiled.dtype}")
