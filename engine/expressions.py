"""Compiles transformations: which scalar SQL is accepted, what it means, and which rows it cannot be computed for.

sqlglot only parses; the Polars expression is built here, node by node, each with a second expression that is true
for the rows on which the node raises. No row's failure touches its neighbours: f(batch) = the rows' f(row) together.

What an expression means:

- **NULL** goes through operators and functions as in SQL (`||` and CONCAT too); AND and OR are three-valued; a
  condition that is NULL is not taken. COALESCE, LEAST and GREATEST skip NULLs.
- **Integers** are 64 bits; a result beyond them raises, and a chain of `+` and `-` is one exact operation. `/` always
  divides as float64. `//` (also DIV) and `%` (also MOD) truncate towards zero, as SQL does; by zero they raise.
- **Floats** are float64. A result that is not finite raises (a / 0, LN(0), EXP(1000)). Columns are finite: conforming
  has seen to that. An int64 that meets a float64 becomes one, rounded to the nearest as any float is. A zero that
  comes out has no sign.
- Arithmetic is judged at the end of a chain of operators, so a chain that has a NULL operand is NULL.
- **CAST** raises where it would lose a value (1.5 or '12x' to BIGINT, 2 to BOOLEAN); TRY_CAST gives NULL there. Text
  becomes a TIMESTAMP only with an explicit offset. ROUND rounds half away from zero.
- **Branches** that are not taken do not raise: in CASE, IF, COALESCE, IN, and on the right of a decided AND or OR.
- Types are static: comparing text with a number is refused when the expression is saved, not when data comes.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial, reduce
from itertools import zip_longest
from typing import Any, NoReturn, get_args

import numpy as np
import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType
from sqlglot.tokens import Tokenizer as BaseTokenizer

from engine.errors import (
    Conflict,
    InvalidDefinition,
    InvalidExpression,
    InvalidInput,
    Problem,
    near_names,
    unknown_name,
)
from engine.schema import TIMESTAMP_POLARS, Dtype, FeatureColumn, GroupSchema, Kind, Transformation
from engine.violations import Violation

MAX_TEXT = 4_000
MAX_NODES = 500
MAX_DEPTH = 60
#: Brackets and CASEs inside each other; sqlglot needs some 20 Python frames for each.
MAX_NESTING = 30
#: Polars operations of value and checks together; operands that are read several times multiply when nested.
MAX_OPERATIONS = 2_500
MAX_PATTERN = 200
MAX_REPLACEMENT = 100

FUNCTIONS = (
    *("ABS", "CEIL", "CEILING", "EXP", "FLOOR", "GREATEST", "LEAST", "LN", "LOG10", "MOD", "POW", "POWER"),
    *("ROUND", "SIGN", "SQRT", "COALESCE", "IF", "IIF", "IFNULL", "NULLIF", "CAST", "TRY_CAST", "EXTRACT"),
    *("CONCAT", "LENGTH", "LOWER", "LTRIM", "REGEXP_LIKE", "REPLACE", "RTRIM", "STARTS_WITH", "SUBSTR"),
    *("SUBSTRING", "TRIM", "UPPER"),
)
#: Words that may stand before a bracket without being a function.
_WORDS = frozenset(
    {"AND", "OR", "NOT", "IN", "IS", "LIKE", "ESCAPE", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "DIV"}
    | {"DISTINCT", "FROM", "FOR", "AS", "VARCHAR", "DECIMAL"}
)

_INT128 = pl.Int128()
_FLOAT64 = pl.Float64()
_INT64_RANGE = range(-(2**63), 2**63)
_SELECT = "SELECT "

OVERFLOW = "an integer beyond 64 bits"
DIVISION = "an integer division by zero or beyond 64 bits"
NOT_FINITE = "a result that is not a finite number (a division by zero, a logarithm of 0, an overflow)"
LOSSY_CAST = "a CAST that would lose the value"
NEGATIVE_LENGTH = "a SUBSTR of negative length"


@dataclass(frozen=True)
class Compiled:
    """A checked expression: `value` has `dtype`; `error` is true for a row that raises (None: no row can).

    `value` means nothing where `error` is true. `reasons` says in words what can raise. `paired` is true when Polars
    rounds differently for a frame of one row (see `_power`): put a row of nulls below it and drop that afterwards.
    """

    dtype: Dtype
    references: frozenset[str]
    value: pl.Expr
    error: pl.Expr | None
    reasons: tuple[str, ...] = ()
    paired: bool = False


@dataclass(frozen=True, slots=True)
class _Node:
    """One compiled node. `kind` None is the NULL literal, whose type is still open.

    settled: true where something below raised; `own`: true where this node itself did. They are apart because the
    next operator of a chain makes `own` superfluous: an int64 that is missing although all operands of the chain are
    `present` stays missing, and a float that is not finite stays so through `+`, `-`, `*`.
    wide: the exact Int128 value of a sum.
    The sizes count Polars operations, so that nesting cannot blow them up: of `value`, `settled`, `own`, `present`.
    """

    kind: Kind | None
    value: pl.Expr
    settled: pl.Expr | None = None
    own: pl.Expr | None = None
    present: pl.Expr | None = None
    wide: pl.Expr | None = None
    size: int = 1
    settled_size: int = 0
    own_size: int = 0
    present_size: int = 0
    reasons: frozenset[str] = frozenset()

    @property
    def checks(self) -> int:
        return self.settled_size + self.own_size

    @property
    def error(self) -> pl.Expr | None:
        return _either(self.settled, self.own)


def compile_expression(text: str, columns: Mapping[str, Dtype], *, dtype: Dtype | None = None) -> Compiled:
    """The scalar SQL `text` over `columns` as a Polars expression, cast to `dtype` where that loses nothing.

    Raises InvalidExpression, naming the place, for anything that is not one element-wise, deterministic expression
    over known columns and types.

    >>> compile_expression("n + 1", {"n": Dtype("int64")}).dtype.kind
    'int64'
    """
    scope = _Scope(text, columns)
    tree = _parse(scope)
    references = frozenset(column.name for column in tree.find_all(exp.Column))
    if compound := scope.compound(tree):
        return _identity(scope, tree, compound, dtype, references)
    node, kind = _declared(scope, tree, scope.compile(tree), dtype)
    paired = any(not isinstance(power.expression, exp.Literal) for power in tree.find_all(exp.Pow))
    compiled = Compiled(Dtype(kind), references, node.value, node.error, tuple(sorted(node.reasons)), paired)
    _dry_run(scope, compiled)
    return compiled


def _identity(scope: _Scope, tree: exp.Expr, found: Dtype, dtype: Dtype | None, names: frozenset[str]) -> Compiled:
    """A column of lists or embeddings, passed on as it is."""
    if dtype is not None and dtype != found:
        scope.refuse(tree, f"this is {found}, the feature is declared {dtype}")
    return Compiled(found, names, pl.col(*names), None)


def _declared(scope: _Scope, tree: exp.Expr, node: _Node, dtype: Dtype | None) -> tuple[_Node, Kind]:
    """The root node in its declared type, and that; only int64 -> float64 and NULL change."""
    kind = node.kind if dtype is None else dtype.kind
    if kind is None:
        scope.refuse(tree, "the type of NULL is not known here; write CAST(NULL AS <type>)")
    fits = node.kind in (None, kind) or (node.kind, kind) == ("int64", "float64")
    if not fits or kind not in _SQL_NAMES:
        way_out = f"; wrap it in CAST(... AS {_SQL_NAMES[kind]})" if kind in _SQL_NAMES else ""
        scope.refuse(tree, f"the expression is {node.kind or 'NULL'}, the feature is declared {dtype}{way_out}")
    node = _as(node, kind)
    return (replace(node, value=_spread(node.value)) if kind == "float64" else node), kind


def _dry_run(scope: _Scope, compiled: Compiled) -> None:
    """Evaluates on no rows: what Polars itself objects to is refused now, never while data comes."""
    empty = pl.DataFrame(schema={name: scope.columns[name].polars for name in compiled.references})
    checks = [] if compiled.error is None else [compiled.error.alias("!error")]
    try:
        result = empty.with_columns(compiled.value.alias("!value"), *checks)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as problem:
        raise InvalidExpression(f"the expression cannot be evaluated: {str(problem)[:200]}") from problem
    if result.schema["!value"] != compiled.dtype.polars:
        raise InvalidExpression(f"the expression gives {result.schema['!value']} instead of {compiled.dtype}")


# Parsing: from text to one allow-listed tree.


@dataclass(frozen=True)
class _Scope:
    """The text being compiled and the columns it may read; it points at places in the text."""

    text: str
    columns: Mapping[str, Dtype]

    def compile(self, node: exp.Expr) -> _Node:
        handler, arguments = _HANDLERS.get(type(node), (None, ()))
        if handler is None:
            self.refuse(node, f"{_words(node)} is not allowed in a scalar expression")
        for name, argument in node.args.items():
            if argument and name not in arguments and not isinstance(argument, bool):
                self.refuse(node, f"{_words(node)} takes no {name.strip('_').upper()} here")
        compiled = handler(self, node)
        if compiled.size + compiled.checks > MAX_OPERATIONS:
            self.refuse(node, "the expression is too large once every check is written out; split it into features")
        return compiled

    def compile_all(self, nodes: Iterable[exp.Expr | None]) -> list[_Node]:
        return [self.compile(node) for node in nodes if node is not None]

    def compound(self, node: exp.Expr) -> Dtype | None:
        """The dtype of a bare column that holds lists or embeddings."""
        dtype = self.columns.get(node.name) if type(node) is exp.Column and not node.table else None
        return dtype if dtype is not None and dtype.kind in ("list", "embedding") else None

    def refuse(self, node: exp.Expr, problem: str, near: Sequence[str] = ()) -> NoReturn:
        start, end = _span(node)
        self.refuse_at(start, end, problem, near)

    def refuse_at(self, start: int | None, end: int | None, problem: str, near: Sequence[str] = ()) -> NoReturn:
        hint = f". Did you mean {' or '.join(near)}?" if near else ""
        if start is None or end is None:
            raise InvalidExpression(f"{problem}{hint}")
        place = f"{problem} at character {start + 1}{hint}"
        raise InvalidExpression(f"{place}\n{_picture(self.text, start, end)}", position=start)


def _span(node: exp.Expr) -> tuple[int | None, int | None]:
    """First and last character of the node in the text, from the tokens that sqlglot noted; the parent's if none."""
    at: exp.Expr | None = node
    while at is not None:
        noted = [part.meta for part in at.walk() if "start" in part.meta]
        if noted:
            first, last = min(meta["start"] for meta in noted), max(meta["end"] for meta in noted)
            return first - len(_SELECT), last - len(_SELECT)
        at = at.parent
    return None, None


def _picture(text: str, start: int, end: int, width: int = 100) -> str:
    """The line of the place, cut to `width` characters, with carets below it."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", start) if "\n" in text[start:] else len(text)
    left = max(line_start, start - width // 2)
    shown = text[left : min(line_end, left + width)].replace("\t", " ")
    carets = max(1, min(end + 1 - start, len(shown) - (start - left)))
    return f"  {shown}\n  {' ' * (start - left)}{'^' * carets}"


def _words(node: exp.Expr) -> str:
    """A node as people call it."""
    if isinstance(node, exp.Anonymous):
        return f"{node.name}()"
    return node.sql_name() if isinstance(node, exp.Func) else node.key.upper()


class _ScalarSql(Dialect):
    """sqlglot's own SQL with `//` for integer division and without optimizer hints."""

    class Tokenizer(BaseTokenizer):
        KEYWORDS = {**BaseTokenizer.KEYWORDS, "//": TokenType.DIV}


def _parse(scope: _Scope) -> exp.Expr:
    """The one expression of the text, without outer brackets, within the bounds; raises InvalidExpression."""
    if len(scope.text) > MAX_TEXT:
        raise InvalidExpression(f"the expression has {len(scope.text)} characters; at most {MAX_TEXT} are allowed")
    try:
        _check_tokens(scope, sqlglot.tokenize(_SELECT + scope.text, dialect=_ScalarSql)[1:])
        statements = sqlglot.parse(_SELECT + scope.text, dialect=_ScalarSql)
    except SqlglotError as problem:
        _refuse_syntax(scope, problem)
    except RecursionError as problem:
        raise InvalidExpression("the expression is nested too deeply") from problem
    tree = _only_expression(scope, statements)
    _check_size(tree)
    return tree


def _refuse_syntax(scope: _Scope, problem: SqlglotError) -> NoReturn:
    noted = getattr(problem, "errors", None) or [{}]
    description = str(noted[0].get("description") or "the text cannot be read as SQL").rstrip(".")
    if description.startswith("Required keyword"):
        description = "something is missing"
    place = noted[0].get("highlight")
    start = scope.text.find(place) if place and scope.text.count(place) == 1 else None
    try:
        scope.refuse_at(start, start + len(place) - 1 if start is not None and place else None, description)
    except InvalidExpression as refused:
        raise refused from problem


def _check_tokens(scope: _Scope, tokens: Sequence[Token]) -> None:
    """Refuses unknown functions by name, and nesting that the parser's recursion would not survive."""
    depth = 0
    for token, after in zip_longest(tokens, tokens[1:]):
        word = token.text.upper()
        depth += (token.text in ("(", "[", "{") or word == "CASE") - (token.text in (")", "]", "}") or word == "END")
        start, end = token.start - len(_SELECT), token.end - len(_SELECT)
        if depth > MAX_NESTING:
            scope.refuse_at(start, end, f"the expression is nested deeper than {MAX_NESTING} brackets")
        is_call = after is not None and after.text == "(" and re.fullmatch(r"\w+", scope.text[start : end + 1])
        if is_call and word not in FUNCTIONS and word not in _WORDS:
            problem = f"there is no function {token.text} for scalar expressions"
            scope.refuse_at(start, end, problem, near_names(word, FUNCTIONS))
    if tokens and tokens[0].text.upper() == "ALL":
        scope.refuse_at(0, 2, "ALL is not allowed in a scalar expression")


def _only_expression(scope: _Scope, statements: Sequence[exp.Expr | None]) -> exp.Expr:
    select = statements[0] if len(statements) == 1 else None
    if type(select) is not exp.Select:
        raise InvalidExpression("one scalar expression is needed, without ; and without set operations")
    for name, clause in select.args.items():
        if clause and name != "expressions":
            raise InvalidExpression(f"a scalar expression has no {name.strip('_').upper()} clause")
    if len(select.expressions) != 1:
        raise InvalidExpression(f"one scalar expression is needed, the text has {len(select.expressions)}")
    tree = select.expressions[0]
    if isinstance(tree, exp.Alias):
        scope.refuse(tree, "an expression takes no alias: the feature has its name")
    return _unnested(tree)


def _unnested(node: exp.Expr) -> exp.Expr:
    while type(node) is exp.Paren:
        node = node.this
    return node


def _check_size(tree: exp.Expr) -> None:
    """Counts without recursion, since a flat sum is a tree as deep as it is long."""
    count, level = 0, [tree]
    for depth in range(MAX_DEPTH + 1):
        count += len(level)
        if count > MAX_NODES:
            raise InvalidExpression(f"the expression has more than {MAX_NODES} parts")
        level = [child for node in level for child in node.iter_expressions()]
        if not level:
            return
        if depth == MAX_DEPTH:
            raise InvalidExpression(f"the expression is deeper than {MAX_DEPTH} operations; split it into features")


# Putting nodes together.


def _either(first: pl.Expr | None, second: pl.Expr | None) -> pl.Expr | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _only_where(condition: pl.Expr, error: pl.Expr | None) -> pl.Expr | None:
    return None if error is None else condition & error


def _combine(
    kind: Kind | None,
    value: pl.Expr,
    parts: Sequence[_Node],
    *,
    fails: pl.Expr | None = None,
    reason: str = "",
    reads: int = 1,
) -> _Node:
    """A node over `parts`, all of which are evaluated; `reads` is how often value (or check) reads each of them."""
    size = 1 + reads * sum(part.size for part in parts)
    return _Node(
        kind,
        value,
        reduce(_either, [part.error for part in parts] + [fails], None),
        size=size,
        settled_size=sum(part.checks + 1 for part in parts) + (size if fails is not None else 0),
        reasons=_reasons(parts, reason),
    )


def _reasons(parts: Iterable[_Node], reason: str = "") -> frozenset[str]:
    return frozenset({reason} - {""}).union(*(part.reasons for part in parts))


def _as(node: _Node, kind: Kind) -> _Node:
    """The node in a type that loses nothing: the same, int64 -> float64, or NULL of that type."""
    if node.kind == kind:
        return node
    value = node.value.cast(_POLARS[kind])
    return replace(node, kind=kind, value=value, size=node.size + 1, **_settled(node))


def _settled(node: _Node) -> dict[str, Any]:
    """The fields of the node as the operand of something that is no chain with it."""
    ended: dict[str, Any] = dict.fromkeys(("own", "present", "wide")) | dict.fromkeys(("own_size", "present_size"), 0)
    return {"settled": node.error, "settled_size": node.checks, **ended}


def _common(scope: _Scope, place: exp.Expr, nodes: Sequence[_Node], what: str) -> Kind | None:
    """The type that all nodes take; None when all are NULL. Raises where they do not go together."""
    kinds = {node.kind for node in nodes if node.kind is not None}
    if kinds == {"int64", "float64"}:
        return "float64"
    if len(kinds) > 1:
        hint = " (write TIMESTAMP '2026-01-31T00:00:00Z')" if kinds == {"timestamp", "string"} else ""
        scope.refuse(place, f"{what} {' and '.join(sorted(kinds))}: these types do not go together{hint}")
    return kinds.pop() if kinds else None


def _typed(scope: _Scope, place: exp.Expr, *allowed: Kind) -> _Node:
    """The compiled node, which must have one of the types; NULL takes the first."""
    node = scope.compile(place)
    if node.kind is None:
        return _as(node, allowed[0])
    if node.kind not in allowed:
        scope.refuse(place, f"{' or '.join(allowed)} is needed here, this is {node.kind}{_cast_hint(node, allowed)}")
    return node


def _cast_hint(node: _Node, allowed: Sequence[Kind]) -> str:
    if node.kind == "timestamp":
        return "; EXTRACT(EPOCH FROM ...) gives its seconds"
    return "; wrap it in CAST(... AS VARCHAR)" if allowed == ("string",) else ""


def _float(scope: _Scope, place: exp.Expr) -> _Node:
    return _as(_typed(scope, place, "float64", "int64"), "float64")


def _text(scope: _Scope, place: exp.Expr) -> _Node:
    return _typed(scope, place, "string")


def _text_literal(scope: _Scope, place: exp.Expr, what: str) -> str:
    if not (isinstance(place, exp.Literal) and place.is_string):
        scope.refuse(place, f"{what} must be a text literal")
    return str(place.this)


def _whole_literal(scope: _Scope, place: exp.Expr, what: str, allowed: range) -> int:
    text = str(place.this) if isinstance(place, exp.Literal) and not place.is_string else ""
    if not text.isdecimal() or int(text) not in allowed:
        scope.refuse(place, f"{what} must be a whole number from {allowed[0]} to {allowed[-1]}")
    return int(text)


# Columns and literals.


def _column(scope: _Scope, node: exp.Expr) -> _Node:
    if node.args.get("table") or isinstance(node.this, exp.Star):
        scope.refuse(node, "a column is one name, without a table and without *")
    dtype = scope.columns.get(node.name)
    if dtype is None:
        scope.refuse(node, f"unknown column {node.name!r}", near_names(node.name, scope.columns))
    if dtype.kind in ("list", "embedding"):
        scope.refuse(node, f"column {node.name!r} is {dtype}: it can only be passed on as it is")
    return _Node(dtype.kind, pl.col(node.name))


def _literal(scope: _Scope, node: exp.Expr) -> _Node:
    value = _literal_value(scope, node)
    if isinstance(value, str):
        return _Node("string", pl.lit(value, dtype=pl.String))
    kind: Kind = "int64" if isinstance(value, int) else "float64"
    return _Node(kind, pl.lit(value, dtype=_POLARS[kind]))


def _literal_value(scope: _Scope, node: exp.Expr, sign: int = 1) -> int | float | str:
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


def _null(scope: _Scope, node: exp.Expr) -> _Node:
    return _Node(None, pl.lit(None))


def _boolean(scope: _Scope, node: exp.Expr) -> _Node:
    return _Node("bool", pl.lit(bool(node.this)))


def _paren(scope: _Scope, node: exp.Expr) -> _Node:
    return scope.compile(node.this)


# Arithmetic.

_Operator = Callable[[Any, Any], Any]


def _numbers(scope: _Scope, node: exp.Expr) -> tuple[_Node, _Node]:
    """Both operands as int64, or as float64 when one of them is."""
    pair = [_typed(scope, part, "int64", "float64") for part in (node.this, node.expression)]
    kind: Kind = "float64" if "float64" in (pair[0].kind, pair[1].kind) else "int64"
    return _as(pair[0], kind), _as(pair[1], kind)


def _sum(scope: _Scope, node: exp.Expr, *, operator: _Operator) -> _Node:
    left, right = _numbers(scope, node)
    if left.kind == "float64":
        return _finite(operator(left.value, right.value), [left, right], carried=[left, right])
    wide = operator(_wide(left), _wide(right))
    return replace(_narrow(wide, [left, right], OVERFLOW), wide=wide)


def _product(scope: _Scope, node: exp.Expr) -> _Node:
    left, right = _numbers(scope, node)
    if left.kind == "float64":
        return _finite(left.value * right.value, [left, right], carried=[left, right])
    return _narrow(_wide_value(left) * _wide_value(right), [left, right], OVERFLOW)


def _wide_value(node: _Node) -> pl.Expr:
    return node.value.cast(_INT128)


def _wide(node: _Node) -> pl.Expr:
    return _wide_value(node) if node.wide is None else node.wide


def _narrow(wide: pl.Expr, parts: Sequence[_Node], reason: str, *, reads: int = 1) -> _Node:
    """`wide` as int64; a row whose operands are all present raises where it has no value or none that fits."""
    value = wide.cast(pl.Int64, strict=False)
    present = reduce(pl.Expr.and_, [_present(part) for part in parts])
    present_size = sum(part.present_size or part.size + 1 for part in parts)
    carried = [part for part in parts if part.present is not None]
    node = _chain("int64", value, parts, carried=carried, own=value.is_null() & present, reason=reason, reads=reads)
    return replace(node, present=present, present_size=present_size, own_size=node.own_size + present_size)


def _present(part: _Node) -> pl.Expr:
    return part.value.is_not_null() if part.present is None else part.present


def _finite(value: pl.Expr, parts: Sequence[_Node], *, carried: Sequence[_Node] = (), reads: int = 1) -> _Node:
    """A float result; the row raises where it is not finite."""
    not_finite = value.is_finite().not_().fill_null(False)
    return _chain("float64", value, parts, carried=carried, own=not_finite, reason=NOT_FINITE, reads=reads)


def _chain(
    kind: Kind,
    value: pl.Expr,
    parts: Sequence[_Node],
    *,
    carried: Sequence[_Node],
    own: pl.Expr,
    reason: str,
    reads: int,
) -> _Node:
    """A node with a check of its own, which also stands for the own checks of the `carried` parts."""
    within = [any(part is one for one in carried) for part in parts]
    errors = [part.settled if inner else part.error for part, inner in zip(parts, within, strict=True)]
    sizes = [part.settled_size if inner else part.checks for part, inner in zip(parts, within, strict=True)]
    size = 1 + reads * sum(part.size for part in parts)
    return _Node(
        kind,
        value,
        reduce(_either, errors, None),
        own,
        size=size,
        settled_size=sum(sizes) + len(sizes),
        own_size=size + 3,
        reasons=_reasons(parts, reason),
    )


def _quotient(scope: _Scope, node: exp.Expr) -> _Node:
    left, right = _float(scope, node.this), _float(scope, node.expression)
    return _finite(_exact_division(left.value, right.value), [left, right], carried=[left])


def _exact_division(dividend: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """IEEE division. Polars multiplies by the reciprocal of a constant divisor (49.0 / 49.0 = 0.9999999999999999),
    and only in frames of more than one row: so every divisor is made a full column first."""
    return dividend / _spread(divisor)


def _spread(value: pl.Expr) -> pl.Expr:
    """The same float as a full column also when it is a constant, and without the sign of a zero.

    That sign depends on the kernel (0.0 - y is -0.0 in a frame of one row, where y is 0.0), so no result keeps it.
    """
    return value + pl.int_range(pl.len()).cast(_FLOAT64) * 0.0


def _integers(scope: _Scope, node: exp.Expr) -> tuple[_Node, _Node, pl.Expr, pl.Expr]:
    left, right = _typed(scope, node.this, "int64"), _typed(scope, node.expression, "int64")
    return left, right, _wide_value(left), _wide_value(right)


def _integer_quotient(scope: _Scope, node: exp.Expr) -> _Node:
    left, right, dividend, divisor = _integers(scope, node)
    sign = pl.when((dividend < 0) == (divisor < 0)).then(1).otherwise(-1).cast(_INT128)
    return _narrow((dividend.abs() // divisor.abs()) * sign, [left, right], DIVISION, reads=3)


def _remainder(scope: _Scope, node: exp.Expr) -> _Node:
    """The remainder has the sign of the dividend, as in SQL."""
    left, right, dividend, divisor = _integers(scope, node)
    sign = pl.when(dividend < 0).then(-1).otherwise(1).cast(_INT128)
    return _narrow((dividend.abs() % divisor.abs()) * sign, [left, right], DIVISION, reads=3)


def _negative(scope: _Scope, node: exp.Expr) -> _Node:
    if isinstance(node.this, exp.Literal) and not node.this.is_string:
        value = _literal_value(scope, node.this, -1)
        kind: Kind = "int64" if isinstance(value, int) else "float64"
        return _Node(kind, pl.lit(value, dtype=_POLARS[kind]))
    part = _typed(scope, node.this, "int64", "float64")
    # Polars has no negation of Int128
    return _unary(part, pl.Expr.neg if part.kind == "float64" else lambda wide: 0 - wide)


def _unary(part: _Node, operation: Callable[[pl.Expr], pl.Expr]) -> _Node:
    """A sign operation of a number, in its type: -x and |x| of the smallest int64 raise."""
    if part.kind == "float64":
        return _finite(operation(part.value), [part], carried=[part])
    return _narrow(operation(_wide_value(part)), [part], OVERFLOW)


def _absolute(scope: _Scope, node: exp.Expr) -> _Node:
    return _unary(_typed(scope, node.this, "int64", "float64"), pl.Expr.abs)


def _sign(scope: _Scope, node: exp.Expr) -> _Node:
    part = _typed(scope, node.this, "int64", "float64")
    return _combine(part.kind, part.value.sign(), [part])


def _float_function(scope: _Scope, node: exp.Expr, *, operation: Callable[[pl.Expr], pl.Expr]) -> _Node:
    part = _float(scope, node.this)
    return _finite(operation(part.value), [part])


def _whole(scope: _Scope, node: exp.Expr, *, operation: Callable[[pl.Expr], pl.Expr]) -> _Node:
    """FLOOR and CEIL; an int64 is whole already."""
    part = _typed(scope, node.this, "float64", "int64")
    return part if part.kind == "int64" else _finite(operation(part.value), [part], carried=[part])


def _round(scope: _Scope, node: exp.Expr) -> _Node:
    part = _typed(scope, node.this, "float64", "int64")
    places = node.args.get("decimals")
    decimals = 0 if places is None else _whole_literal(scope, places, "the number of decimals", range(16))
    if part.kind == "int64":
        return part
    return _finite(part.value.round(decimals, mode="half_away_from_zero"), [part], carried=[part])


def _log10(scope: _Scope, node: exp.Expr) -> _Node:
    if not (isinstance(node.this, exp.Literal) and node.this.this == "10" and node.args.get("expression")):
        scope.refuse(node, "write LN(x) or LOG10(x)")
    part = _float(scope, node.expression)
    raw = part.value.log10()
    whole = raw.round(0)
    # Polars divides two natural logarithms: LOG10(1000) would be 2.9999999999999996.
    value = pl.when((raw - whole).abs() <= whole.abs() * 4e-16).then(whole).otherwise(raw)
    return _finite(value, [part], reads=5)


def _power(scope: _Scope, node: exp.Expr) -> _Node:
    """x to the power y, as float64.

    Polars has other kernels for an exponent of length one (x * x for 2), whose last bit can differ. A literal is
    always of length one and a column, spread out, never is, unless the frame has one row: see `Compiled.paired`.
    """
    base, exponent = _float(scope, node.this), _float(scope, node.expression)
    if isinstance(node.expression, exp.Literal):
        return _finite(base.value.pow(exponent.value), [base, exponent])
    return _finite(_spread(base.value).pow(_spread(exponent.value)), [base, exponent])


def _extreme(scope: _Scope, node: exp.Expr, *, operation: Callable[..., pl.Expr]) -> _Node:
    """LEAST and GREATEST of the values that are not NULL."""
    nodes = [_typed(scope, part, "int64", "float64", "timestamp") for part in (node.this, *node.expressions)]
    kind = _common(scope, node, nodes, f"{_words(node)} of") or "int64"
    nodes = [_as(part, kind) for part in nodes]
    return _combine(kind, operation(*(part.value for part in nodes)), nodes)


# Conditions.


def _comparison(scope: _Scope, node: exp.Expr, *, operator: _Operator) -> _Node:
    pair = scope.compile_all((node.this, node.expression))
    return _compared(scope, node, pair, operator)


def _compared(scope: _Scope, place: exp.Expr, pair: Sequence[_Node], operator: _Operator) -> _Node:
    kind = _common(scope, place, pair, "a comparison of") or "bool"
    left, right = (_as(part, kind) for part in pair)
    return _combine("bool", operator(left.value, right.value), [left, right])


def _between(scope: _Scope, node: exp.Expr) -> _Node:
    value, low, high = scope.compile_all((node.this, node.args["low"], node.args["high"]))
    above = _compared(scope, node, [value, low], pl.Expr.ge)
    return _all([above, _compared(scope, node, [value, high], pl.Expr.le)])


def _all(parts: Sequence[_Node]) -> _Node:
    value = reduce(pl.Expr.and_, [part.value for part in parts])
    return _joined(parts, value, lambda part: part.fill_null(True))


def _any(parts: Sequence[_Node]) -> _Node:
    value = reduce(pl.Expr.or_, [part.value for part in parts])
    return _joined(parts, value, lambda part: part.fill_null(False).not_())


def _joined(parts: Sequence[_Node], value: pl.Expr, undecided: Callable[[pl.Expr], pl.Expr]) -> _Node:
    """AND or OR of all parts: a part raises only where no part to its left has decided."""
    error = parts[-1].error
    for part in reversed(parts[:-1]):
        error = _either(part.error, _only_where(undecided(part.value), error))
    size = sum(part.size + 1 for part in parts)
    settled_size = sum(part.checks + 3 for part in parts) + size
    return _Node("bool", value, error, size=size, settled_size=settled_size, reasons=_reasons(parts))


def _operands(scope: _Scope, node: exp.Expr) -> list[_Node]:
    """The compiled operands of a whole chain of AND, or of OR."""
    chain = [node]
    while type(chain[0]) is type(node):
        chain[:1] = [chain[0].this, chain[0].expression]
    return [_typed(scope, part, "bool") for part in chain]


def _and(scope: _Scope, node: exp.Expr) -> _Node:
    return _all(_operands(scope, node))


def _or(scope: _Scope, node: exp.Expr) -> _Node:
    return _any(_operands(scope, node))


def _not(scope: _Scope, node: exp.Expr) -> _Node:
    part = _typed(scope, node.this, "bool")
    return _combine("bool", part.value.not_(), [part])


def _is(scope: _Scope, node: exp.Expr) -> _Node:
    if isinstance(node.expression, exp.Null):
        part = scope.compile(node.this)
        return _combine("bool", part.value.is_null(), [part])
    if not isinstance(node.expression, exp.Boolean):
        scope.refuse(node.expression, "IS takes NULL, TRUE, FALSE or DISTINCT FROM")
    part = _typed(scope, node.this, "bool")
    return _combine("bool", part.value.eq_missing(pl.lit(bool(node.expression.this))), [part])


def _in(scope: _Scope, node: exp.Expr) -> _Node:
    members = node.expressions
    if not members:
        scope.refuse(node, "IN takes a list of at least one value")
    if all(isinstance(member, exp.Literal) for member in members):
        return _in_literals(scope, node)
    value = scope.compile(node.this)
    return _any([_compared(scope, node, [value, scope.compile(member)], pl.Expr.eq) for member in members])


def _in_literals(scope: _Scope, node: exp.Expr) -> _Node:
    value, members = scope.compile(node.this), scope.compile_all(node.expressions)
    kind = _common(scope, node, [value, *members], "a list of") or "bool"
    values: list[Any] = [_literal_value(scope, member) for member in node.expressions]
    if kind == "float64":
        values = [float(one) for one in values]
    part = _as(value, kind)
    return _combine("bool", part.value.is_in(values), [part])


def _like(scope: _Scope, node: exp.Expr, escape: str = "") -> _Node:
    part = _text(scope, node.this)
    pattern = _text_literal(scope, node.expression, "the pattern of LIKE")
    matches = part.value.str.contains(_like_regex(scope, node, pattern, escape))
    return _combine("bool", matches.not_() if node.args.get("negate") else matches, [part])


def _like_regex(scope: _Scope, node: exp.Expr, pattern: str, escape: str) -> str:
    """The LIKE pattern as an anchored regex in which only % and _ are special."""
    parts: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, "")
            if not following:
                scope.refuse(node, "the pattern of LIKE ends with its escape character")
            parts.append(_regex_literal(following))
        else:
            parts.append({"%": ".*", "_": "."}.get(character) or _regex_literal(character))
    return rf"(?s)\A{''.join(parts)}\z"


def _regex_literal(character: str) -> str:
    return f"\\{character}" if character in r"\.+*?()|[]{}^$#&-~" else character


def _like_escape(scope: _Scope, node: exp.Expr) -> _Node:
    escape = _text_literal(scope, node.expression, "the ESCAPE of LIKE")
    if type(node.this) is not exp.Like or len(escape) != 1:
        scope.refuse(node, "ESCAPE takes one character, after LIKE")
    return _like(scope, node.this, escape)


def _regexp_like(scope: _Scope, node: exp.Expr) -> _Node:
    """True where the pattern is found anywhere; the syntax is Rust's, whose matching takes linear time."""
    part = _text(scope, node.this)
    pattern = _text_literal(scope, node.expression, "the pattern of REGEXP_LIKE")
    if len(pattern) > MAX_PATTERN:
        scope.refuse(node.expression, f"a pattern has at most {MAX_PATTERN} characters")
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.ComputeError as problem:
        scope.refuse(node.expression, f"the pattern is no regular expression: {str(problem).splitlines()[0]}")
    return _combine("bool", part.value.str.contains(pattern), [part])


# Branches.


def _case(scope: _Scope, node: exp.Expr) -> _Node:
    operand = None if node.this is None else scope.compile(node.this)
    branches = node.args["ifs"]
    conditions = [_condition(scope, operand, branch.this) for branch in branches]
    default = node.args.get("default") or exp.Null()
    results = scope.compile_all([*(branch.args["true"] for branch in branches), default])
    return _branched(scope, node, conditions, results)


def _condition(scope: _Scope, operand: _Node | None, place: exp.Expr) -> _Node:
    if operand is None:
        return _typed(scope, place, "bool")
    return _compared(scope, place, [operand, scope.compile(place)], pl.Expr.eq)


def _if(scope: _Scope, node: exp.Expr) -> _Node:
    condition = _typed(scope, node.this, "bool")
    results = scope.compile_all([node.args["true"], node.args.get("false") or exp.Null()])
    return _branched(scope, node, [condition], results)


def _branched(scope: _Scope, place: exp.Expr, conditions: Sequence[_Node], results: Sequence[_Node]) -> _Node:
    """The result of the first condition that is true, else the last result; only what is reached raises."""
    kind = _common(scope, place, results, "branches of")
    typed = [part if kind is None else _as(part, kind) for part in results]
    value, error = typed[-1].value, typed[-1].error
    for condition, result in zip(reversed(conditions), reversed(typed[:-1]), strict=True):
        value = pl.when(condition.value).then(result.value).otherwise(value)
        error = _either(condition.error, _branch_error(condition.value, result.error, error))
    parts = [*conditions, *typed]
    return _Node(
        kind,
        value,
        error,
        size=1 + sum(part.size for part in parts),
        settled_size=sum(part.checks for part in parts) + sum(one.size + 3 for one in conditions),
        reasons=_reasons(parts),
    )


def _branch_error(condition: pl.Expr, taken: pl.Expr | None, otherwise: pl.Expr | None) -> pl.Expr | None:
    if taken is None and otherwise is None:
        return None
    never = pl.lit(False)
    return (
        pl.when(condition).then(never if taken is None else taken).otherwise(never if otherwise is None else otherwise)
    )


def _coalesce(scope: _Scope, node: exp.Expr) -> _Node:
    nodes = scope.compile_all((node.this, *node.expressions))
    kind = _common(scope, node, nodes, "arguments of")
    typed = [part if kind is None else _as(part, kind) for part in nodes]
    error = typed[-1].error
    for part in reversed(typed[:-1]):
        error = _either(part.error, _only_where(part.value.is_null(), error))
    size = 1 + sum(part.size for part in typed)
    settled_size = sum(part.checks + 2 for part in typed) + size
    return _Node(
        kind,
        pl.coalesce(*(part.value for part in typed)),
        error,
        size=size,
        settled_size=settled_size,
        reasons=_reasons(typed),
    )


def _nullif(scope: _Scope, node: exp.Expr) -> _Node:
    pair = scope.compile_all((node.this, node.expression))
    equal = _compared(scope, node, pair, pl.Expr.eq)
    return _combine(pair[0].kind, pl.when(equal.value).then(None).otherwise(pair[0].value), pair, reads=2)


# Text.


def _text_function(scope: _Scope, node: exp.Expr, *, operation: Callable[[pl.Expr], pl.Expr]) -> _Node:
    part = _text(scope, node.this)
    return _combine("string", operation(part.value), [part])


def _trim(scope: _Scope, node: exp.Expr) -> _Node:
    """TRIM, LTRIM and RTRIM take away spaces, as in SQL, and no other white space."""
    part = _text(scope, node.this)
    strip = {"LEADING": part.value.str.strip_chars_start, "TRAILING": part.value.str.strip_chars_end}
    position = str(node.args.get("position") or "BOTH")
    return _combine("string", strip.get(position, part.value.str.strip_chars)(" "), [part])


def _length(scope: _Scope, node: exp.Expr) -> _Node:
    part = _text(scope, node.this)
    return _combine("int64", part.value.str.len_chars().cast(pl.Int64), [part])


def _substring(scope: _Scope, node: exp.Expr) -> _Node:
    """The characters from `start` (the first is 1) to `start + length - 1`, as far as they exist."""
    parts = [_text(scope, node.this), _typed(scope, node.args.get("start") or exp.Null(), "int64")]
    start = parts[1].value.clip(-(2**40), 2**40)
    offset = pl.max_horizontal(start - 1, pl.lit(0, dtype=pl.Int64))
    if node.args.get("length") is None:
        value = pl.when(start.is_not_null()).then(parts[0].value.str.slice(offset))
        return _combine("string", value, parts, reads=2)
    parts.append(_typed(scope, node.args["length"], "int64"))
    length = parts[2].value.clip(0, 2**41)
    taken = pl.max_horizontal(start - 1 + length - offset, pl.lit(0, dtype=pl.Int64)).cast(pl.UInt64)
    # Polars reads a NULL length as "to the end".
    known = start.is_not_null() & length.is_not_null()
    value = pl.when(known).then(parts[0].value.str.slice(offset, taken))
    fails = (parts[2].value < 0).fill_null(False)
    return _combine("string", value, parts, fails=fails, reason=NEGATIVE_LENGTH, reads=4)


def _concat(scope: _Scope, node: exp.Expr) -> _Node:
    places = node.expressions if isinstance(node, exp.Concat) else (node.this, node.expression)
    parts = [_text(scope, place) for place in places]
    return _combine("string", pl.concat_str([part.value for part in parts], ignore_nulls=False), parts)


def _replace(scope: _Scope, node: exp.Expr) -> _Node:
    part = _text(scope, node.this)
    old = _text_literal(scope, node.expression, "the text to replace")
    new = _text_literal(scope, node.args.get("replacement") or exp.Null(), "the replacement")
    if not old or len(new) > MAX_REPLACEMENT:
        scope.refuse(node, f"REPLACE takes a text that is not empty and a replacement of at most {MAX_REPLACEMENT}")
    if len(new.encode()) > len(old.encode()) and node.find_ancestor(exp.Replace):
        scope.refuse(node, "a REPLACE inside a REPLACE cannot make the text longer")
    return _combine("string", part.value.str.replace_all(old, new, literal=True), [part])


def _starts_with(scope: _Scope, node: exp.Expr) -> _Node:
    parts = [_text(scope, node.this), _text(scope, node.expression)]
    return _combine("bool", parts[0].value.str.starts_with(parts[1].value), parts)


# Time.

_EXTRACTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "YEAR": lambda time: time.dt.year(),
    "MONTH": lambda time: time.dt.month(),
    "DAY": lambda time: time.dt.day(),
    "HOUR": lambda time: time.dt.hour(),
    "MINUTE": lambda time: time.dt.minute(),
    "SECOND": lambda time: time.dt.second(),
    "DOW": lambda time: time.dt.weekday() % 7,
}


def _extract(scope: _Scope, node: exp.Expr) -> _Node:
    """A part of a timestamp in UTC, int64; DOW is 0 on Sunday. EPOCH is float64 seconds with their fraction."""
    unit, part = str(node.this.this).upper(), _typed(scope, node.expression, "timestamp")
    if unit == "EPOCH":
        return _combine("float64", _exact_division(part.value.dt.epoch("us").cast(_FLOAT64), pl.lit(1e6)), [part])
    if unit not in _EXTRACTS:
        known = (*_EXTRACTS, "EPOCH")
        scope.refuse(node, f"EXTRACT knows {', '.join(known)}, not {unit}", near_names(unit, known))
    return _combine("int64", _EXTRACTS[unit](part.value).cast(pl.Int64), [part])


# Casts.

_SQL_NAMES: dict[str, str] = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "timestamp": "TIMESTAMP",
}
_POLARS: dict[str, pl.DataType] = {kind: Dtype(kind).polars for kind in get_args(Kind) if kind in _SQL_NAMES}
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
_RFC3339 = (
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(?:\.[0-9]{1,6}0*)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\z"
)
_FIRST_TIMESTAMP = datetime(1, 1, 1, tzinfo=UTC)
_LAST_TIMESTAMP = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def _if_finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(value)


def _zero_or_one(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_in([0, 1])).then(value == 1)


def _true_or_false(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_in(["true", "false"])).then(value == "true")


def _text_to_timestamp(value: pl.Expr) -> pl.Expr:
    """RFC 3339 with an offset and at most six decimals that count, in the years 1 to 9999; null otherwise."""
    time = value.str.replace(" ", "T", literal=True).str.to_uppercase()
    parsed = time.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us").cast(TIMESTAMP_POLARS)
    return pl.when(value.str.contains(_RFC3339) & parsed.is_between(_FIRST_TIMESTAMP, _LAST_TIMESTAMP)).then(parsed)


#: Conversions by (from, to); each gives null where the value would be lost, and reads its operand at most three times.
_CONVERSIONS: dict[tuple[str, str], Callable[[pl.Expr], pl.Expr]] = {
    ("int64", "string"): lambda value: value.cast(pl.String),
    ("float64", "string"): lambda value: _spread(value).cast(pl.String),
    ("bool", "string"): lambda value: value.cast(pl.String),
    ("timestamp", "string"): lambda value: value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
    ("bool", "int64"): lambda value: value.cast(pl.Int64),
    ("bool", "float64"): lambda value: value.cast(_FLOAT64),
    ("int64", "bool"): _zero_or_one,
    ("float64", "bool"): _zero_or_one,
    ("float64", "int64"): lambda value: pl.when(value == value.floor()).then(value.cast(pl.Int64, strict=False)),
    ("string", "int64"): lambda value: value.cast(pl.Int64, strict=False),
    ("string", "float64"): lambda value: _if_finite(value.cast(_FLOAT64, strict=False)),
    ("string", "bool"): lambda value: _true_or_false(value.str.to_lowercase()),
    ("string", "timestamp"): _text_to_timestamp,
}


def _cast(scope: _Scope, node: exp.Expr) -> _Node:
    part, kind = scope.compile(node.this), _cast_target(scope, node)
    if part.kind == kind or part.kind is None or (part.kind, kind) == ("int64", "float64"):
        return _as(part, kind)
    if (part.kind, kind) not in _CONVERSIONS:
        scope.refuse(node, f"{part.kind} cannot be cast to {kind}{_cast_hint(part, (kind,))}")
    value = _CONVERSIONS[part.kind, kind](part.value)
    if isinstance(node, exp.TryCast) or kind == "string":
        return _combine(kind, value, [part], reads=3)
    lost = value.is_null() & part.value.is_not_null()
    if isinstance(node.this, exp.Literal) and pl.select(lost).item():
        example = " such as '2026-01-31T00:00:00Z'" if kind == "timestamp" else ""
        scope.refuse(node.this, f"{str(node.this.this)!r} is not a {kind}{example}")
    return _combine(kind, value, [part], fails=lost, reason=LOSSY_CAST, reads=4)


def _cast_target(scope: _Scope, node: exp.Expr) -> Kind:
    target = node.args["to"]
    kind = _SQL_TYPES.get(target.this)
    if kind is None or target.expressions:
        scope.refuse(node, f"CAST takes {', '.join(_SQL_NAMES.values())} without a length, not {target.sql()}")
    return kind


_Handler = Callable[[_Scope, exp.Expr], _Node]


def _handlers() -> dict[type, tuple[_Handler, tuple[str, ...]]]:
    """Every node that is allowed, with the arguments it may have; flags (booleans) are read where they matter."""
    one, two = ("this",), ("this", "expression")
    many = ("this", "expressions")
    comparisons: dict[type, _Operator] = {
        exp.EQ: pl.Expr.eq,
        exp.NEQ: pl.Expr.ne,
        exp.LT: pl.Expr.lt,
        exp.LTE: pl.Expr.le,
        exp.GT: pl.Expr.gt,
        exp.GTE: pl.Expr.ge,
        exp.NullSafeEQ: pl.Expr.eq_missing,
        exp.NullSafeNEQ: pl.Expr.ne_missing,
    }
    return {
        **{node: (partial(_comparison, operator=operator), two) for node, operator in comparisons.items()},
        exp.Column: (_column, ("this", "table")),
        exp.Literal: (_literal, one),
        exp.Null: (_null, ()),
        exp.Boolean: (_boolean, one),
        exp.Paren: (_paren, one),
        exp.Add: (partial(_sum, operator=pl.Expr.add), two),
        exp.Sub: (partial(_sum, operator=pl.Expr.sub), two),
        exp.Mul: (_product, two),
        exp.Div: (_quotient, two),
        exp.IntDiv: (_integer_quotient, two),
        exp.Mod: (_remainder, two),
        exp.Neg: (_negative, one),
        exp.Abs: (_absolute, one),
        exp.Sign: (_sign, one),
        exp.Sqrt: (partial(_float_function, operation=pl.Expr.sqrt), one),
        exp.Ln: (partial(_float_function, operation=pl.Expr.log), one),
        exp.Exp: (partial(_float_function, operation=pl.Expr.exp), one),
        exp.Log: (_log10, two),
        exp.Pow: (_power, two),
        exp.Floor: (partial(_whole, operation=pl.Expr.floor), one),
        exp.Ceil: (partial(_whole, operation=pl.Expr.ceil), one),
        exp.Round: (_round, ("this", "decimals")),
        exp.Least: (partial(_extreme, operation=pl.min_horizontal), many),
        exp.Greatest: (partial(_extreme, operation=pl.max_horizontal), many),
        exp.Between: (_between, ("this", "low", "high")),
        exp.And: (_and, two),
        exp.Or: (_or, two),
        exp.Not: (_not, one),
        exp.Is: (_is, two),
        exp.In: (_in, many),
        exp.Like: (_like, two),
        exp.Escape: (_like_escape, two),
        exp.RegexpLike: (_regexp_like, two),
        exp.Case: (_case, ("this", "ifs", "default")),
        exp.If: (_if, ("this", "true", "false")),
        exp.Coalesce: (_coalesce, many),
        exp.Nullif: (_nullif, two),
        exp.Upper: (partial(_text_function, operation=lambda text: text.str.to_uppercase()), one),
        exp.Lower: (partial(_text_function, operation=lambda text: text.str.to_lowercase()), one),
        exp.Trim: (_trim, ("this", "position")),
        exp.Length: (_length, one),
        exp.Substring: (_substring, ("this", "start", "length")),
        exp.Concat: (_concat, ("expressions",)),
        exp.DPipe: (_concat, two),
        exp.Replace: (_replace, ("this", "expression", "replacement")),
        exp.StartsWith: (_starts_with, two),
        exp.Extract: (_extract, two),
        exp.Cast: (_cast, ("this", "to", "_type")),
        exp.TryCast: (_cast, ("this", "to", "_type")),
    }


_HANDLERS = _handlers()


# Groups: all derived features of one schema, in the order of their dependencies.

RULE = "transformation"
MAX_DETAIL = 200
#: Distinct texts of exceptions that are told apart; whatever comes after shares one.
MAX_DETAILS = 100


def _no_function(arguments: Any) -> NoReturn:
    raise NotImplementedError("this feature is computed by an expression")


@dataclass(frozen=True)
class _Step:
    """One derived feature: what it reads, and either its expression or its Python function."""

    feature: FeatureColumn
    reads: frozenset[str]
    compiled: Compiled | None = None
    function: Callable[..., Any] = _no_function
    arguments: tuple[str, ...] = ()
    rowwise: bool = True

    @property
    def name(self) -> str:
        return self.feature.name

    @property
    def error_name(self) -> str:
        """A column name that no feature can have."""
        return f"!{self.feature.name}"


@dataclass(frozen=True)
class Transformer:
    """Computes the derived features of one group; made by `compile_group`, safe to share between threads.

    references: for each derived feature the columns that it reads itself.
    """

    schema: GroupSchema
    references: Mapping[str, frozenset[str]]
    levels: tuple[tuple[_Step, ...], ...] = field(repr=False)

    def lineage(self, feature: str) -> frozenset[str]:
        """Every column that a feature is computed from, directly or through others; none for a given one.

        Raises UnknownName.
        """
        if feature not in self.schema.feature_names:
            raise unknown_name("feature", feature, self.schema.feature_names)
        reached: set[str] = set()
        waiting = [feature]
        while waiting:
            new = self.references.get(waiting.pop(), frozenset()) - reached
            reached |= new
            waiting += new
        return frozenset(reached)

    def apply(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Violation]]:
        """`frame` (conformed: join keys and given columns) with every derived feature, in its declared dtype.

        A row that a feature cannot be computed for has null there, and is in a Violation of that feature. What
        depends on that value is null too, and not reported again. Raises InvalidInput when a function that takes a
        whole frame fails, or returns what is no column of its dtype.
        """
        violations: list[Violation] = []
        broken: dict[str, pl.Series] = {}
        for level in self.levels:
            frame = _evaluated(frame, [step for step in level if step.compiled is not None])
            for step in level:
                skipped = _any_broken(step.reads, broken)
                frame, found = _finished(frame, step, skipped)
                violations += found
                if found or skipped is not None:
                    broken[step.name] = _marked(frame.height, found, skipped)
        names = [name for step in self._steps() if (name := step.error_name) in frame.columns]
        return frame.drop(names), violations

    def _steps(self) -> Iterator[_Step]:
        return (step for level in self.levels for step in level)


def _evaluated(frame: pl.DataFrame, steps: Sequence[_Step]) -> pl.DataFrame:
    """The frame with the values and the error columns of expressions that do not depend on each other."""
    columns: list[pl.Expr] = []
    paired = False
    for step in steps:
        if step.compiled is not None:
            columns.append(step.compiled.value.alias(step.name))
            paired = paired or step.compiled.paired
            if step.compiled.error is not None:
                columns.append(step.compiled.error.alias(step.error_name))
    if not columns:
        return frame
    if paired and frame.height == 1:
        return pl.concat([frame, frame.clear(n=1)]).with_columns(columns).head(1)
    return frame.with_columns(columns)


def _finished(frame: pl.DataFrame, step: _Step, skipped: pl.Series | None) -> tuple[pl.DataFrame, list[Violation]]:
    """The frame with the feature's column as it will stay, and its violations outside the `skipped` rows."""
    if step.compiled is None:
        values, found = _called(frame, step, skipped)
        return frame.with_columns(values.alias(step.name)), found
    error = frame[step.error_name] if step.compiled.error is not None else None
    failed = error if error is not None and error.any() else None
    if failed is None and skipped is None:
        return frame, []
    nulled = _union(failed, skipped)
    new = failed if failed is None or skipped is None else failed & ~skipped
    kept = pl.when(pl.lit(nulled).not_()).then(pl.col(step.name)).alias(step.name)
    detail = f"{step.name!r} could not be computed: {', or '.join(step.compiled.reasons)}"
    return frame.with_columns(kept), _violations(step.name, {detail: new})


def _violations(column: str, masks: Mapping[str, pl.Series | None]) -> list[Violation]:
    """One violation for each detail whose mask marks a row."""
    marked = {detail: mask for detail, mask in masks.items() if mask is not None and mask.any()}
    return [Violation(column, RULE, detail, mask.arg_true().cast(pl.UInt32)) for detail, mask in marked.items()]


def _any_broken(reads: Iterable[str], broken: Mapping[str, pl.Series]) -> pl.Series | None:
    return reduce(_union, [broken[name] for name in sorted(reads) if name in broken], None)


def _union(first: pl.Series | None, second: pl.Series | None) -> pl.Series | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _marked(height: int, violations: Sequence[Violation], skipped: pl.Series | None) -> pl.Series:
    """True for every row that has no usable value, reported here or by a feature before."""
    mask = np.zeros(height, dtype=bool) if skipped is None else skipped.to_numpy().copy()
    for violation in violations:
        mask[violation.rows.to_numpy()] = True
    return pl.Series(mask, dtype=pl.Boolean)


def compile_group(
    schema: GroupSchema,
    *,
    modules: Sequence[str] = (),
    local: Mapping[str, Callable[..., Any]] | None = None,
) -> Transformer:
    """The transformer of a group's derived features.

    modules: the modules that Python functions may come from, each with everything below it.
    local:   for features whose transformation is `local`, the callable that this process holds.
    Raises InvalidDefinition with every problem of every feature (its pointer is the feature's name), and Conflict
    for a local transformation whose callable is not here.
    """
    steps: dict[str, _Step] = {}
    problems: list[Problem] = []
    conflicts: list[Conflict] = []
    for feature in schema.features:
        try:
            if feature.transformation is not None:
                steps[feature.name] = _step(schema, feature, feature.transformation, modules, local or {})
        except InvalidDefinition as refused:
            problems.append(Problem(feature.name, refused.detail))
        except Conflict as conflict:
            conflicts.append(conflict)
    levels = _levels(steps, problems)
    if problems:
        raise InvalidDefinition(f"Transformations of group {schema.group!r} cannot be used.", problems)
    if conflicts:
        raise conflicts[0]
    return Transformer(schema, {name: step.reads for name, step in steps.items()}, levels)


def _levels(steps: Mapping[str, _Step], problems: list[Problem]) -> tuple[tuple[_Step, ...], ...]:
    """Steps in rounds, each reading only what earlier rounds made; cycles become problems."""
    waiting = dict(steps)
    levels: list[tuple[_Step, ...]] = []
    while waiting:
        level = tuple(step for step in waiting.values() if not step.reads & waiting.keys())
        if not level:
            cycle = _cycle(waiting)
            problems.append(Problem(cycle[0], f"it depends on itself: {' -> '.join(cycle)}"))
            level = tuple(waiting[name] for name in cycle[:-1])  # so that other cycles are found as well
        levels.append(level)
        for step in level:
            del waiting[step.name]
    return tuple(levels)


def _cycle(waiting: Mapping[str, _Step]) -> list[str]:
    """A path from a feature back to itself, along what each reads; every step waits for another one."""
    path = [min(waiting)]
    while path[-1] not in path[:-1]:
        path.append(min(waiting[path[-1]].reads & waiting.keys()))
    return path[path.index(path[-1]) :]


def _step(
    schema: GroupSchema,
    feature: FeatureColumn,
    transformation: Transformation,
    modules: Sequence[str],
    local: Mapping[str, Callable[..., Any]],
) -> _Step:
    columns = {one.name: one.dtype for one in (*schema.join_keys, *schema.given)}
    columns |= {one.name: one.dtype for one in schema.features}
    if sum(map(bool, (transformation.expression, transformation.function, transformation.local))) != 1:
        raise InvalidDefinition("a transformation is exactly one of: an expression, a function, a local object")
    if transformation.expression:
        compiled = compile_expression(transformation.expression, columns, dtype=feature.dtype)
        return _Step(feature, compiled.references, compiled=compiled)
    _check_arguments(transformation, columns)
    if transformation.local:
        return _local_step(schema, feature, transformation, local)
    function = _imported(transformation.function, modules)
    arguments = transformation.arguments
    return _Step(feature, frozenset(arguments), function=function, arguments=arguments, rowwise=transformation.rowwise)


def _check_arguments(transformation: Transformation, columns: Mapping[str, Dtype]) -> None:
    for name in transformation.arguments:
        if name not in columns:
            near = near_names(name, columns)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InvalidDefinition(f"unknown column {name!r} in the arguments.{hint}")
    if transformation.function and not transformation.arguments:
        raise InvalidDefinition(f"function {transformation.function} has no arguments; name the columns that it reads")


def _local_step(
    schema: GroupSchema,
    feature: FeatureColumn,
    transformation: Transformation,
    local: Mapping[str, Callable[..., Any]],
) -> _Step:
    """A Python object of this process: it says nothing of what it reads, so it is handed every given column."""
    function = local.get(feature.name)
    if function is None:
        raise Conflict(
            f"Feature {feature.name!r} of group {schema.group!r} is computed by a Python object "
            f"({transformation.local}) that only the process which registered it holds. Write it as an expression "
            "(transformation: {expression: ...}), or put the function into an importable module that is allow-listed "
            "and name it (transformation: {function: package.module.name, arguments: [...]})."
        )
    given = tuple(one.name for one in (*schema.join_keys, *schema.given))
    handed = tuple(dict.fromkeys((*given, *transformation.arguments)))
    return _Step(feature, frozenset(transformation.arguments or given), function=function, arguments=handed)


# Python functions: where they may come from, and what they may return.


def _imported(path: str, modules: Sequence[str]) -> Callable[..., Any]:
    """The function at a dotted path in or below one of `modules`; nothing else is imported."""
    module_name, _, attribute = path.rpartition(".")
    if not _is_allowed(module_name, modules):
        allowed = ", ".join(modules) or "none is"
        raise InvalidDefinition(f"function {path!r} is not in an allow-listed module ({allowed})")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except (Exception, SystemExit) as problem:  # whatever the module does at its import is this feature's problem
        raise InvalidDefinition(f"function {path!r} cannot be imported: {_told(problem)}") from problem
    if not callable(function) or not _is_allowed(str(getattr(function, "__module__", "")), modules):
        raise InvalidDefinition(f"{path!r} is not a function that is defined in an allow-listed module")
    return function


def _is_allowed(module: str, modules: Iterable[str]) -> bool:
    parts = module.split(".")
    return any(parts[: len(one.split("."))] == one.split(".") for one in modules)


def _told(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"[:MAX_DETAIL]


def _called(frame: pl.DataFrame, step: _Step, skipped: pl.Series | None) -> tuple[pl.Series, list[Violation]]:
    if step.rowwise:
        return _called_by_row(frame, step, skipped)
    values, lost = _called_once(frame.select(step.arguments), step)
    if skipped is not None:
        values, lost = _blanked(values, skipped), lost & ~skipped
    detail = f"{_function_name(step)} returned a value that {step.feature.dtype} cannot hold"
    return values, _violations(step.name, {detail: lost})


def _blanked(values: pl.Series, mask: pl.Series) -> pl.Series:
    return pl.select(pl.when(pl.lit(mask).not_()).then(pl.lit(values))).to_series()


def _function_name(step: _Step) -> str:
    transformation = step.feature.transformation
    return (transformation.function or transformation.local) if transformation is not None else step.name


def _called_by_row(frame: pl.DataFrame, step: _Step, skipped: pl.Series | None) -> tuple[pl.Series, list[Violation]]:
    """One call for each row, with a dict of its arguments; a row whose call fails is a violation of its own."""
    values: list[Any] = []
    rows: dict[str, list[int]] = {}
    skips = [False] * frame.height if skipped is None else skipped.to_list()
    for position, row in enumerate(frame.select(step.arguments).iter_rows(named=True)):
        value = None
        try:
            if not skips[position]:
                value = _python_value(step.function(row), step.feature.dtype)
        except Exception as problem:  # the function is the user's: whatever it raises is this row's violation
            _note(rows, f"{_function_name(step)} raised {_told(problem)}"[:MAX_DETAIL], position)
        values.append(value)
    series = pl.Series(step.name, values, dtype=step.feature.dtype.polars)
    return series, [Violation(step.name, RULE, detail, pl.Series(at, dtype=pl.UInt32)) for detail, at in rows.items()]


def _note(rows: dict[str, list[int]], detail: str, position: int) -> None:
    known = detail in rows or len(rows) < MAX_DETAILS
    rows.setdefault(detail if known else "the function raised, with yet another text", []).append(position)


class _Misfit(TypeError):
    """A function returned a value that the feature's dtype does not take."""


def _python_value(value: Any, dtype: Dtype) -> Any:
    """What a function returned, as `dtype` takes it; raises _Misfit rather than change a value."""
    if value is None:
        return None
    if dtype.kind in ("embedding", "list"):
        return _python_list(value, dtype)
    if isinstance(value, np.generic):
        value = value.item()
    if not _fits(value, dtype.kind):
        raise _Misfit(f"it returned {type(value).__name__} {str(value)[:60]!r}, which is no {dtype}")
    if dtype.kind == "timestamp":
        return value.astimezone(UTC)
    return float(value) if dtype.kind == "float64" else value


def _python_list(value: Any, dtype: Dtype) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise _Misfit(f"it returned {type(value).__name__}, which is no {dtype}")
    if dtype.kind == "list":
        item = Dtype.parse(dtype.item)
        items = [_python_value(one, item) for one in value]
    else:
        items = [_float32(_python_value(one, Dtype("float64"))) for one in value]
    if None in items or (dtype.kind == "embedding" and len(items) != dtype.dim):
        raise _Misfit(f"it returned {len(items)} items, {items.count(None)} of them None, which is no {dtype}")
    return items


def _float32(value: float | None) -> float | None:
    """An embedding's item, rounded to the float32 it is stored as."""
    if value is not None and not np.isfinite(narrow := np.float32(value)):
        raise _Misfit(f"it returned {value!r}, which is beyond float32")
    return None if value is None else float(narrow)


def _fits(value: Any, kind: Kind) -> bool:
    """Whether a Python value is one of the kind: types count, so True is no int and 1.0 is none either."""
    match kind:
        case "int64":
            return type(value) is int and value in _INT64_RANGE
        case "float64":
            return (type(value) is int and _is_exact_float(value)) or (type(value) is float and math.isfinite(value))
        case "bool":
            return type(value) is bool
        case "string":
            return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)
        case "timestamp":
            return isinstance(value, datetime) and value.utcoffset() is not None and not getattr(value, "nanosecond", 0)
    return False


def _is_exact_float(value: int) -> bool:
    return abs(value) <= 2**1023 and int(float(value)) == value


def _called_once(arguments: pl.DataFrame, step: _Step) -> tuple[pl.Series, pl.Series]:
    """The column that a vectorised function returns, in the feature's dtype, and where it lost a value."""
    try:
        result = step.function(arguments)
    except (Exception, pl.exceptions.PanicException) as problem:
        raise InvalidInput(f"function {_function_name(step)} failed for a batch: {_told(problem)}") from problem
    if not isinstance(result, pl.Series) or len(result) != arguments.height:
        what = f"a Series of {len(result)}" if isinstance(result, pl.Series) else type(result).__name__
        raise InvalidInput(f"function {_function_name(step)} returned {what}, not a Series of {arguments.height} rows")
    return _strictly_cast(result, step)


def _strictly_cast(result: pl.Series, step: _Step) -> tuple[pl.Series, pl.Series]:
    dtype = step.feature.dtype
    if not _is_castable(result.dtype, dtype):
        raise InvalidInput(f"function {_function_name(step)} returned {result.dtype}, the feature is declared {dtype}")
    if dtype.kind in ("embedding", "list"):
        return _checked_lists(result.cast(dtype.polars, strict=False), dtype)
    values = result.cast(dtype.polars, strict=False)
    same = result.eq_missing(values.cast(result.dtype, strict=False))
    if dtype.kind == "float64":
        same &= values.is_finite().fill_null(True)
    return _blanked(values, ~same), ~same


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


def _checked_lists(values: pl.Series, dtype: Dtype) -> tuple[pl.Series, pl.Series]:
    """Lists without null items and, in an embedding, of its length and of finite numbers."""
    column = pl.lit(values)
    item = pl.element()
    bad_item = item.is_null() if dtype.item in ("string", "int64") else ~item.is_finite().fill_null(False)
    bad = column.list.eval(bad_item).list.any()
    if dtype.kind == "embedding":
        bad |= column.list.len() != dtype.dim
    lost = pl.select(bad.fill_null(False)).to_series()
    return _blanked(values, lost), lost
