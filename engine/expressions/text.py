"""Functions of text: case, trimming, parts of it, replacement, and the patterns of LIKE and REGEXP_LIKE."""

from __future__ import annotations

from functools import partial

import polars as pl
from sqlglot import exp

from engine.expressions.nodes import Node, Operation, combine
from engine.expressions.scope import ONE, TWO, Rules, Scope
from engine.schema import Kind

MAX_PATTERN = 200
MAX_REPLACEMENT = 100
NEGATIVE_LENGTH = "a SUBSTR of negative length"


def _function(scope: Scope, node: exp.Expr, *, operation: Operation, kind: Kind = "string") -> Node:
    part = scope.string(node.this)
    return combine(kind, operation(part.value), [part])


def _trim(scope: Scope, node: exp.Expr) -> Node:
    """TRIM, LTRIM and RTRIM take away spaces, as in SQL, and no other white space."""
    part = scope.string(node.this)
    strip = {"LEADING": part.value.str.strip_chars_start, "TRAILING": part.value.str.strip_chars_end}
    position = str(node.args.get("position") or "BOTH")
    return combine("string", strip.get(position, part.value.str.strip_chars)(" "), [part])


def _substring(scope: Scope, node: exp.Expr) -> Node:
    """The characters from `start` (the first is 1) to `start + length - 1`, as far as they exist."""
    parts = [scope.string(node.this), scope.typed(node.args.get("start") or exp.Null(), "int64")]
    start = parts[1].value.clip(-(2**40), 2**40)
    offset = pl.max_horizontal(start - 1, pl.lit(0, dtype=pl.Int64))
    if node.args.get("length") is None:
        value = pl.when(start.is_not_null()).then(parts[0].value.str.slice(offset))
        return combine("string", value, parts, reads=2)
    parts.append(scope.typed(node.args["length"], "int64"))
    length = parts[2].value.clip(0, 2**41)
    taken = pl.max_horizontal(start - 1 + length - offset, pl.lit(0, dtype=pl.Int64)).cast(pl.UInt64)
    # Polars reads a NULL length as "to the end".
    known = start.is_not_null() & length.is_not_null()
    value = pl.when(known).then(parts[0].value.str.slice(offset, taken))
    fails = (parts[2].value < 0).fill_null(False)
    return combine("string", value, parts, fails=fails, reason=NEGATIVE_LENGTH, reads=4)


def _concat(scope: Scope, node: exp.Expr) -> Node:
    parts = [scope.string(place) for place in node.expressions or (node.this, node.expression)]
    return combine("string", pl.concat_str([part.value for part in parts], ignore_nulls=False), parts)


def _replace(scope: Scope, node: exp.Expr) -> Node:
    part = scope.string(node.this)
    old = scope.text_literal(node.expression, "the text to replace")
    new = scope.text_literal(node.args.get("replacement") or exp.Null(), "the replacement")
    if not old or len(new) > MAX_REPLACEMENT:
        scope.refuse(node, f"REPLACE takes a text that is not empty and a replacement of at most {MAX_REPLACEMENT}")
    if len(new.encode()) > len(old.encode()) and node.find_ancestor(exp.Replace):
        scope.refuse(node, "a REPLACE inside a REPLACE cannot make the text longer")
    return combine("string", part.value.str.replace_all(old, new, literal=True), [part])


def _starts_with(scope: Scope, node: exp.Expr) -> Node:
    parts = [scope.string(node.this), scope.string(node.expression)]
    return combine("bool", parts[0].value.str.starts_with(parts[1].value), parts)


def _like(scope: Scope, node: exp.Expr, escape: str = "") -> Node:
    part = scope.string(node.this)
    pattern = scope.text_literal(node.expression, "the pattern of LIKE")
    matches = part.value.str.contains(_like_regex(scope, node, pattern, escape))
    return combine("bool", matches.not_() if node.args.get("negate") else matches, [part])


def _like_regex(scope: Scope, node: exp.Expr, pattern: str, escape: str) -> str:
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


def _like_escape(scope: Scope, node: exp.Expr) -> Node:
    escape = scope.text_literal(node.expression, "the ESCAPE of LIKE")
    if type(node.this) is not exp.Like or len(escape) != 1:
        scope.refuse(node, "ESCAPE takes one character, after LIKE")
    return _like(scope, node.this, escape)


def _regexp_like(scope: Scope, node: exp.Expr) -> Node:
    """True where the pattern is found anywhere; the syntax is Rust's, whose matching takes linear time."""
    part = scope.string(node.this)
    pattern = scope.text_literal(node.expression, "the pattern of REGEXP_LIKE")
    if len(pattern) > MAX_PATTERN:
        scope.refuse(node.expression, f"a pattern has at most {MAX_PATTERN} characters")
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.ComputeError as problem:
        scope.refuse(node.expression, f"the pattern is no regular expression: {str(problem).splitlines()[0]}")
    return combine("bool", part.value.str.contains(pattern), [part])


RULES: Rules = {
    exp.Upper: (partial(_function, operation=lambda text: text.str.to_uppercase()), ONE),
    exp.Lower: (partial(_function, operation=lambda text: text.str.to_lowercase()), ONE),
    exp.Length: (partial(_function, operation=lambda text: text.str.len_chars().cast(pl.Int64), kind="int64"), ONE),
    exp.Trim: (_trim, ("this", "position")),
    exp.Substring: (_substring, ("this", "start", "length")),
    exp.Concat: (_concat, ("expressions",)),
    exp.DPipe: (_concat, TWO),
    exp.Replace: (_replace, ("this", "expression", "replacement")),
    exp.StartsWith: (_starts_with, TWO),
    exp.Like: (_like, TWO),
    exp.Escape: (_like_escape, TWO),
    exp.RegexpLike: (_regexp_like, TWO),
}
