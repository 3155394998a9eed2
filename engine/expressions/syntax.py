"""From text to one tree: what is read as a scalar expression, within which bounds; a refusal points at its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType
from sqlglot.tokens import Tokenizer as BaseTokenizer

from engine.errors import InvalidExpression, near_names

MAX_TEXT = 4_000
MAX_NODES = 500
MAX_DEPTH = 60
#: Brackets and CASEs inside each other; sqlglot needs some 20 Python frames for each.
MAX_NESTING = 30

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
_SELECT = "SELECT "

#: The first and the last character of a place in the text; None where it is not known.
Span: TypeAlias = tuple[int, int] | None


class _ScalarSql(Dialect):
    """sqlglot's own SQL with `//` for integer division and without optimizer hints."""

    class Tokenizer(BaseTokenizer):
        KEYWORDS = {**BaseTokenizer.KEYWORDS, "//": TokenType.DIV}


def parse(text: str) -> exp.Expr:
    """The one expression of the text, without outer brackets, within the bounds; raises InvalidExpression."""
    if len(text) > MAX_TEXT:
        raise InvalidExpression(f"the expression has {len(text)} characters; at most {MAX_TEXT} are allowed")
    try:
        _check_tokens(text, sqlglot.tokenize(_SELECT + text, dialect=_ScalarSql)[1:])
        statements = sqlglot.parse(_SELECT + text, dialect=_ScalarSql)
    except SqlglotError as problem:
        raise _syntax_refusal(text, problem) from problem
    except RecursionError as problem:
        raise InvalidExpression("the expression is nested too deeply") from problem
    tree = _only_expression(text, statements)
    _check_size(tree)
    return tree


def _check_tokens(text: str, tokens: Sequence[Token]) -> None:
    """Refuses unknown functions by name, and nesting that the parser's recursion would not survive."""
    depth = 0
    for token, after in zip_longest(tokens, tokens[1:]):
        word = token.text.upper()
        depth += (token.text in ("(", "[", "{") or word == "CASE") - (token.text in (")", "]", "}") or word == "END")
        start, end = token.start - len(_SELECT), token.end - len(_SELECT)
        if depth > MAX_NESTING:
            raise refusal(text, (start, end), f"the expression is nested deeper than {MAX_NESTING} brackets")
        is_call = after is not None and after.text == "(" and re.fullmatch(r"\w+", text[start : end + 1])
        if is_call and word not in FUNCTIONS and word not in _WORDS:
            problem = f"there is no function {token.text} for scalar expressions"
            raise refusal(text, (start, end), problem, near_names(word, FUNCTIONS))
    if tokens and tokens[0].text.upper() == "ALL":
        raise refusal(text, (0, 2), "ALL is not allowed in a scalar expression")


def _syntax_refusal(text: str, problem: SqlglotError) -> InvalidExpression:
    noted = (getattr(problem, "errors", None) or [{}])[0]
    description = str(noted.get("description") or "the text cannot be read as SQL").rstrip(".")
    if description.startswith("Required keyword"):
        description = "something is missing"
    place = noted.get("highlight")
    if not place or text.count(place) != 1:
        return refusal(text, None, description)
    start = text.find(place)
    return refusal(text, (start, start + len(place) - 1), description)


def _only_expression(text: str, statements: Sequence[exp.Expr | None]) -> exp.Expr:
    select = statements[0] if len(statements) == 1 else None
    if type(select) is not exp.Select:
        raise InvalidExpression("one scalar expression is needed, without ; and without set operations")
    for name, clause in select.args.items():
        if clause and name != "expressions":
            raise InvalidExpression(f"a scalar expression has no {name.strip('_').upper()} clause")
    if len(select.expressions) != 1:
        raise InvalidExpression(f"one scalar expression is needed, the text has {len(select.expressions)}")
    tree: exp.Expr = select.expressions[0]
    if isinstance(tree, exp.Alias):
        raise refusal(text, span_of(tree), "an expression takes no alias: the feature has its name")
    while type(tree) is exp.Paren:
        tree = tree.this
    return tree


def _check_size(tree: exp.Expr) -> None:
    """Counts without recursion, since a flat sum is a tree as deep as it is long."""
    count, level = 0, [tree]
    for _ in range(MAX_DEPTH + 1):
        count += len(level)
        if count > MAX_NODES:
            raise InvalidExpression(f"the expression has more than {MAX_NODES} parts")
        level = [child for node in level for child in node.iter_expressions()]
        if not level:
            return
    raise InvalidExpression(f"the expression is deeper than {MAX_DEPTH} operations; split it into features")


# Places in the text.


def refusal(text: str, span: Span, problem: str, near: Sequence[str] = ()) -> InvalidExpression:
    """The error that says `problem`, where in the text it is, and which names are near."""
    hint = f". Did you mean {' or '.join(near)}?" if near else ""
    if span is None:
        return InvalidExpression(f"{problem}{hint}")
    start, end = span
    return InvalidExpression(f"{problem} at character {start + 1}{hint}\n{_picture(text, start, end)}", position=start)


def span_of(node: exp.Expr) -> Span:
    """The place of the node in the text, from the tokens that sqlglot noted; its parent's if there are none."""
    at: exp.Expr | None = node
    while at is not None:
        noted = [part.meta for part in at.walk() if "start" in part.meta]
        if noted:
            first, last = min(meta["start"] for meta in noted), max(meta["end"] for meta in noted)
            return first - len(_SELECT), last - len(_SELECT)
        at = at.parent
    return None


def _picture(text: str, start: int, end: int, width: int = 100) -> str:
    """The line of the place, cut to `width` characters, with carets below it."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", start) if "\n" in text[start:] else len(text)
    left = max(line_start, start - width // 2)
    shown = text[left : min(line_end, left + width)].replace("\t", " ")
    carets = max(1, min(end + 1 - start, len(shown) - (start - left)))
    return f"  {shown}\n  {' ' * (start - left)}{'^' * carets}"


def words(node: exp.Expr) -> str:
    """A node as people call it."""
    if isinstance(node, exp.Anonymous):
        return f"{node.name}()"
    return node.sql_name() if isinstance(node, exp.Func) else node.key.upper()
