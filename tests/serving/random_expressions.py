"""Random scalar expressions over two stored and two sent columns, and what each means for a row, by plain Python.

Operands of arithmetic are columns and literals: what chains of operators mean is tested where expressions are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

MAX, MIN = 2**63 - 1, -(2**63)
Row = Mapping[str, Any]


class Broken(Exception):
    """The expression has no value for the row, and that is no null."""


@dataclass(frozen=True)
class Expression:
    """`text` is SQL, `of` gives the value for a row or raises Broken."""

    text: str
    of: Callable[[Row], Any]

    def __repr__(self) -> str:
        return self.text


def _column(name: str) -> Expression:
    return Expression(name, lambda row: row[name])


def _literal(value: float) -> Expression:
    return Expression(repr(value), lambda row: value)


INTS = st.sampled_from([_column("n"), _column("k"), *map(_literal, (0, 1, 7, MAX))])
FLOAT_COLUMNS = st.sampled_from([_column("x"), _column("c")])
FLOATS = FLOAT_COLUMNS | st.sampled_from([*map(_literal, (0.5, 3.0))])


def _arithmetic(left: Expression, right: Expression, sign: str, *, as_float: bool) -> Expression:
    def of(row: Row) -> Any:
        one, other = left.of(row), right.of(row)
        if one is None or other is None:
            return None
        return _float_of(sign, float(one), float(other)) if as_float else _int_of(sign, one, other)

    return Expression(f"({left} {sign} {right})", of)


def _int_of(sign: str, one: int, other: int) -> int:
    value = {"+": one + other, "-": one - other, "*": one * other}[sign]
    if not MIN <= value <= MAX:
        raise Broken
    return value


def _float_of(sign: str, one: float, other: float) -> float:
    if sign == "/" and other == 0:
        raise Broken
    value = {"+": one + other, "-": one - other, "*": one * other}.get(sign)
    value = one / other if value is None else value
    if not math.isfinite(value):
        raise Broken
    return value + 0.0  # no sign of a zero


def _whole(part: Expression) -> Expression:
    def of(row: Row) -> Any:
        value = part.of(row)
        if value is None:
            return None
        if value != math.floor(value) or not MIN <= value < 2.0**63:
            raise Broken
        return int(value)

    return Expression(f"CAST({part} AS BIGINT)", of)


def _compared(left: Expression, right: Expression) -> Expression:
    def of(row: Row) -> Any:
        one, other = left.of(row), right.of(row)
        return None if one is None or other is None else one < other

    return Expression(f"{left} < {right}", of)


def _missing(part: Expression) -> Expression:
    return Expression(f"{part} IS NULL", lambda row: part.of(row) is None)


def _case(condition: Expression, then: Expression, other: Expression) -> Expression:
    def of(row: Row) -> Any:
        return then.of(row) if condition.of(row) else other.of(row)

    return Expression(f"CASE WHEN {condition} THEN {then} ELSE {other} END", of)


def _coalesce(first: Expression, second: Expression) -> Expression:
    def of(row: Row) -> Any:
        value = first.of(row)
        return second.of(row) if value is None else value

    return Expression(f"COALESCE({first}, {second})", of)


CONDITIONS = st.one_of(
    st.builds(_compared, INTS, INTS),
    st.builds(_compared, FLOATS, FLOATS),
    st.builds(_missing, INTS | FLOATS),
)


def _nested(leaves: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def deeper(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        return st.builds(_coalesce, parts, parts) | st.builds(_case, CONDITIONS, parts, parts)

    return st.recursive(leaves, deeper, max_leaves=4)


_INT = _nested(
    INTS
    | st.builds(lambda a, b, sign: _arithmetic(a, b, sign, as_float=False), INTS, INTS, st.sampled_from("+-*"))
    | st.builds(_whole, FLOAT_COLUMNS)
)
_FLOAT = _nested(
    FLOATS
    | st.builds(
        lambda a, b, sign: _arithmetic(a, b, sign, as_float=True), FLOATS, INTS | FLOATS, st.sampled_from("+-*/")
    )
)


def _sent(part: Expression) -> Expression:
    """The same, reading a sent column whatever the part reads."""
    return _case(_missing(_column("c")), part, part)


BOTH_SUMMED = _arithmetic(_column("k"), _column("c"), "+", as_float=True)
#: Expressions with the dtype that a feature of them has.
EXPRESSIONS = st.tuples(st.just("int64"), _INT.map(_sent)) | st.tuples(st.just("float64"), _FLOAT.map(_sent))
INTEGER_VALUES = st.none() | st.sampled_from([0, 1, -1, 2, 2**53 + 1, MAX, MIN])
FLOAT_VALUES = st.none() | st.sampled_from([0.0, -0.0, 0.5, -3.0, 1e308, 5e-324, 2.0**63])


def answer_of(expression: Expression, row: Row) -> tuple[Any, str]:
    """The value of a feature and its status."""
    try:
        value = expression.of(row)
    except Broken:
        return None, "INVALID"
    return value, "NULL_VALUE" if value is None else "PRESENT"
