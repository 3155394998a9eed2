"""A compiled node: its value, for which rows it raises, and how nodes are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

import polars as pl

from engine.schema import Dtype, Kind

NOT_FINITE = "a result that is not a finite number (a division by zero, a logarithm of 0, an overflow)"

Operator: TypeAlias = Callable[[Any, Any], Any]
Operation: TypeAlias = Callable[[pl.Expr], pl.Expr]


@dataclass(frozen=True, slots=True)
class Mask:
    """For which rows something is true, in how many Polars operations; for errors also why, in words."""

    rows: pl.Expr
    size: int
    reasons: frozenset[str] = frozenset()

    def where(self, condition: pl.Expr, size: int) -> Mask:
        """Only where the condition, of that size, is true."""
        return Mask(condition & self.rows, self.size + size + 1, self.reasons)


@dataclass(frozen=True, slots=True)
class Node:
    """One compiled node. `kind` None is the NULL literal, whose type is still open.

    size: the Polars operations of `value`, so that nesting cannot blow them up.
    settled: true where something below raised; `own`: true where this node itself did. They are apart because the
    next operator of a chain makes `own` superfluous: an int64 that is missing although all operands of the chain are
    `present` stays missing, and a float that is not finite stays so through `+`, `-`, `*`.
    wide: the exact Int128 value of a sum.
    """

    kind: Kind | None
    value: pl.Expr
    size: int = 1
    settled: Mask | None = None
    own: Mask | None = None
    present: Mask | None = None
    wide: pl.Expr | None = None

    @property
    def error(self) -> Mask | None:
        return either(self.settled, self.own)

    def to(self, kind: Kind) -> Node:
        """The node in a type that loses nothing: the same, int64 -> float64, or NULL of that type; ends a chain."""
        if self.kind == kind:
            return self
        return Node(kind, self.value.cast(Dtype(kind).polars), self.size + 1, self.error)


def either(*masks: Mask | None) -> Mask | None:
    """Where any of the masks is true; None where all are."""
    given = [mask for mask in masks if mask is not None]
    if len(given) < 2:
        return given[0] if given else None
    rows = reduce(pl.Expr.or_, [mask.rows for mask in given])
    size = sum(mask.size + 1 for mask in given)
    return Mask(rows, size, frozenset().union(*(mask.reasons for mask in given)))


def combine(
    kind: Kind | None,
    value: pl.Expr,
    parts: Sequence[Node],
    *,
    fails: pl.Expr | None = None,
    reason: str = "",
    reads: int = 1,
) -> Node:
    """A node over `parts`, all of which are evaluated; `reads` is how often value (or check) reads each of them."""
    size = 1 + reads * sum(part.size for part in parts)
    own = None if fails is None else Mask(fails, size, frozenset({reason}))
    return Node(kind, value, size, either(*(part.error for part in parts), own))


def finite(value: pl.Expr, *, chain: Sequence[Node] = (), others: Sequence[Node] = (), reads: int = 1) -> Node:
    """A float result; the row raises where it is not finite. `chain` and `others` are as in `_judged`."""
    not_finite = value.is_finite().not_().fill_null(False)
    return _judged("float64", value, not_finite, NOT_FINITE, chain=chain, others=others, reads=reads)


def narrow(wide: pl.Expr, parts: Sequence[Node], reason: str, *, reads: int = 1) -> Node:
    """`wide` as int64; a row whose operands are all present raises where it has no value or none that fits."""
    value = wide.cast(pl.Int64, strict=False)
    operands = [part.present or Mask(part.value.is_not_null(), part.size + 1) for part in parts]
    present = Mask(reduce(pl.Expr.and_, [one.rows for one in operands]), sum(one.size for one in operands))
    chain = [part for part in parts if part.present is not None]
    others = [part for part in parts if part.present is None]
    fails = value.is_null() & present.rows
    node = _judged("int64", value, fails, reason, chain=chain, others=others, reads=reads, more=present.size)
    return replace(node, present=present)


def _judged(
    kind: Kind,
    value: pl.Expr,
    fails: pl.Expr,
    reason: str,
    *,
    chain: Sequence[Node],
    others: Sequence[Node],
    reads: int,
    more: int = 0,
) -> Node:
    """A node with a check of its own, which also stands for the own checks of the operands in its `chain`."""
    size = 1 + reads * sum(part.size for part in (*chain, *others))
    reasons = frozenset({reason}).union(*(part.own.reasons for part in chain if part.own))
    settled = either(*(part.settled for part in chain), *(part.error for part in others))
    return Node(kind, value, size, settled, Mask(fails, size + 3 + more, reasons))


def spread(value: pl.Expr) -> pl.Expr:
    """The same float as a full column also when it is a constant, and without the sign of a zero.

    That sign depends on the kernel (0.0 - y is -0.0 in a frame of one row, where y is 0.0), so no result keeps it.
    """
    return value + pl.int_range(pl.len()).cast(pl.Float64) * 0.0
