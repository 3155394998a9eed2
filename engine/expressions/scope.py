"""What a rule sees while it compiles its node: the text, the columns, the other rules, and what operands must be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from sqlglot import exp

from engine.errors import InvalidExpression
from engine.expressions.nodes import Node
from engine.expressions.syntax import refusal, span_of, words
from engine.schema import Dtype, Kind

#: Polars operations of value and checks together; operands that are read several times multiply when nested.
MAX_OPERATIONS = 2_500

#: For a kind of syntax node: what compiles it, and the arguments it may have; flags are read where they matter.
Rules: TypeAlias = "Mapping[type[exp.Expr], tuple[Callable[[Scope, exp.Expr], Node], tuple[str, ...]]]"

ONE = ("this",)
TWO = ("this", "expression")
MANY = ("this", "expressions")


@dataclass(frozen=True)
class Scope:
    """The text being compiled, the columns it may read and the rules for its nodes; it points at places in the text."""

    text: str
    columns: Mapping[str, Dtype]
    rules: Rules

    def compile(self, node: exp.Expr | None) -> Node:
        if node is None:  # sqlglot lets FLOOR() pass
            raise InvalidExpression("something is missing")
        if type(node) not in self.rules:
            self.refuse(node, f"{words(node)} is not allowed in a scalar expression")
        rule, arguments = self.rules[type(node)]
        for name, argument in node.args.items():
            if argument and name not in arguments and not isinstance(argument, bool):
                self.refuse(node, f"{words(node)} takes no {name.strip('_').upper()} here")
        compiled = rule(self, node)
        if compiled.size + sum(mask.size for mask in (compiled.settled, compiled.own) if mask) > MAX_OPERATIONS:
            self.refuse(node, "the expression is too large once every check is written out; split it into features")
        return compiled

    def compile_all(self, nodes: Iterable[exp.Expr]) -> list[Node]:
        return [self.compile(node) for node in nodes]

    def refuse(self, node: exp.Expr, problem: str, near: Sequence[str] = ()) -> NoReturn:
        raise refusal(self.text, span_of(node), problem, near)

    def compound(self, node: exp.Expr) -> Dtype | None:
        """The dtype of a bare column that holds lists or embeddings."""
        dtype = self.columns.get(node.name) if type(node) is exp.Column and not node.table else None
        return dtype if dtype is not None and dtype.kind in ("list", "embedding") else None

    def common(self, place: exp.Expr, nodes: Sequence[Node], what: str) -> Kind | None:
        """The type that all nodes take; None when all are NULL. Raises where they do not go together."""
        kinds = {node.kind for node in nodes if node.kind is not None}
        if kinds == {"int64", "float64"}:
            return "float64"
        if len(kinds) > 1:
            hint = " (write TIMESTAMP '2026-01-31T00:00:00Z')" if kinds == {"timestamp", "string"} else ""
            self.refuse(place, f"{what} {' and '.join(sorted(kinds))}: these types do not go together{hint}")
        return kinds.pop() if kinds else None

    def typed(self, place: exp.Expr, *allowed: Kind) -> Node:
        """The compiled node, which must have one of the types; NULL takes the first."""
        node = self.compile(place)
        if node.kind is None:
            return node.to(allowed[0])
        if node.kind not in allowed:
            hint = cast_hint(node.kind, allowed)
            self.refuse(place, f"{' or '.join(allowed)} is needed here, this is {node.kind}{hint}")
        return node

    def float64(self, place: exp.Expr) -> Node:
        return self.typed(place, "float64", "int64").to("float64")

    def string(self, place: exp.Expr) -> Node:
        return self.typed(place, "string")

    def text_literal(self, place: exp.Expr, what: str) -> str:
        if not (isinstance(place, exp.Literal) and place.is_string):
            self.refuse(place, f"{what} must be a text literal")
        return str(place.this)


def cast_hint(kind: Kind, allowed: Sequence[Kind]) -> str:
    """How a value of the kind becomes one of the allowed ones, where that is not by an obvious CAST."""
    if kind == "timestamp":
        return "; EXTRACT(EPOCH FROM ...) gives its seconds"
    return "; wrap it in CAST(... AS VARCHAR)" if allowed == ("string",) else ""
