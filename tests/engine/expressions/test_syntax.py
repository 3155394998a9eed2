"""Which text is refused, how quickly, and how its place is shown."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidExpression
from engine.expressions import compile_expression
from engine.schema import DTYPE_KINDS, Dtype
from tests.engine.expressions.conftest import COLUMNS, result

REFUSED = [
    "",
    "   ",
    "a b",
    "a AS b",
    "a, b",
    "a; b",
    "*",
    "COUNT(*)",
    "DISTINCT a",
    "ALL a",
    "a FROM t",
    "a WHERE p",
    "a LIMIT 1",
    "a UNION SELECT b",
    "a INTO b",
    "(SELECT 1)",
    "EXISTS(SELECT 1)",
    "a IN (SELECT 1)",
    "SUM(a)",
    "AVG(x)",
    "SUM(a) OVER ()",
    "LAG(a) OVER (ORDER BY b)",
    "NOW()",
    "CURRENT_TIMESTAMP",
    "CURRENT_DATE",
    "RANDOM()",
    "UUID()",
    "my_function(a)",
    '"SUM"(a)',
    "read_csv('/etc/passwd')",
    "read_text('/etc/passwd')",
    "query('SELECT 1')",
    "getenv('SECRET_KEY')",
    "a; DROP TABLE catalog_feature",
    "a) FROM t; --",
    "COPY (SELECT 1) TO '/tmp/x'",
    "ATTACH 'x.db'",
    "PRAGMA version",
    "SET threads = 1",
    "INSTALL httpfs",
    "a /* b */ FROM t",
    "s = \u2018x\u2019",
    "\u0430",  # looks like a
    "__import__('os')",
    "a.__class__",
    "{{a}}",
    "a.b",
    "nothing",
    "A",
    "a[1]",
    "a & b",
    "a ^ 2",
    "a ** 2",
    ":a",
    "?",
    "@a",
    "$1",
    "(a, b)",
    "{'a': 1}",
    "a -> a + 1",
    "INTERVAL 1 DAY",
    "DATE '2026-01-01'",
    "t + INTERVAL 1 DAY",
    "t - t",
    "a = '7'",
    "a = p",
    "t > '2026-01-01T00:00:00Z'",
    "TIMESTAMP '2026-01-01'",
    "CAST('x' AS BIGINT)",
    "CAST(a AS DECIMAL(3, 1))",
    "CAST(s AS VARCHAR(3))",
    "CAST(a AS SMALLINT)",
    "CAST(t AS BIGINT)",
    "CAST(a AS BIGINT FORMAT 'x')",
    "s + 1",
    "s || 1",
    "a AND p",
    "NOT a",
    "-s",
    "CASE WHEN a THEN 1 END",
    "CASE WHEN p THEN 1 ELSE 'x' END",
    "COALESCE(a, s)",
    "NULL",
    "ABS()",
    "FLOOR()",
    "ABS(a, b)",
    "ABS(DISTINCT a)",
    "ABS(vector)",
    "vector = vector",
    "ROUND(x, a)",
    "ROUND(x, 2, 1)",
    "ROUND(x, -1)",
    "LOG(x)",
    "s LIKE u",
    "s LIKE 'a!' ESCAPE '!'",
    "s LIKE 'a' ESCAPE 'ab'",
    "s ILIKE 'a'",
    "REGEXP_LIKE(s, u)",
    "REGEXP_LIKE(s, '(')",
    "REGEXP_LIKE(s, '(a{1000}){1000}')",
    "REGEXP_LIKE(s, 'a', 'i')",
    "REPLACE(s, '', 'a')",
    "REPLACE(REPLACE(s, 'a', 'aaaa'), 'a', 'aaaa')",
    "EXTRACT(CENTURY FROM t)",
    "EXTRACT(YEAR FROM a)",
    "x % 2.0",
    "99999999999999999999",
    "1e400",
    "a >",
    "'open",
    "\x00",
    "a COLLATE b",
    "t AT TIME ZONE 'UTC'",
    # bombs
    "REPEAT(s, 2000000000)",
    "REPEAT('a', 2000000000)",
    "LPAD(s, 2000000000, 'a')",
    "RPAD(s, 2000000000, 'a')",
    "SPACE(2000000000)",
    "RANGE(50000000)",
    "GENERATE_SERIES(1, 50000000)",
    "LIST_VALUE(1, 2)",
    "ARRAY[1, 2]",
    "+".join(["a"] * 1_900),
    "+".join(["a"] * 5_000),
    "+".join(["a"] * 70),
    "(" * 1_000 + "a" + ")" * 1_000,
    "-" + " -" * 1_900 + "a",
    "NOT " * 900 + "p",
    "CASE WHEN p THEN " * 100 + "1" + " END" * 100,
    "ABS(" * 600 + "a" + ")" * 600,
    " AND ".join(["p"] * 570),
    "a" + "::INT" * 700,
    "[" * 1_000,
    "NULLIF(" * 29 + "a" + ", 1)" * 29,
    "LOG10(" * 6 + "x" + ")" * 6,
    "a IN (" + ",".join(["1"] * 600) + ")",
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:40]))
def test_what_is_no_checked_scalar_expression_is_refused_quickly(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InvalidExpression) as refused:
        compile_expression(text, COLUMNS)
    assert time.perf_counter() - start < 10  # what is not bounded here takes minutes
    assert refused.value.__cause__ is None or len(str(refused.value)) < 1_000


def test_a_pattern_that_others_take_for_ever_over_is_matched_in_linear_time() -> None:
    start = time.perf_counter()
    for pattern in ("^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)*x"):
        assert result(f"REGEXP_LIKE(s, '{pattern}')", s="a" * 50_000 + "!") is False
    assert time.perf_counter() - start < 10


def test_thirty_brackets_are_allowed_and_no_more() -> None:
    assert result("(" * 30 + "a" + ")" * 30, a=1) == 1
    with pytest.raises(InvalidExpression, match="nested deeper than 30 brackets at character 31"):
        compile_expression("(" * 31 + "a" + ")" * 31, COLUMNS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*"ab()+-*/,='<>|%x.1;[]{}?:@$", "CASE ", " WHEN ", " END", "NOT ", " IN ", "SUM"])))
def test_no_text_gets_past_invalid_expression(tokens: list[str]) -> None:
    with contextlib.suppress(InvalidExpression):
        assert compile_expression("".join(tokens), COLUMNS).dtype.kind in DTYPE_KINDS


def test_a_refusal_points_at_the_place_and_offers_near_names() -> None:
    columns = {"total_spent": Dtype("float64"), "n": Dtype("int64")}
    with pytest.raises(InvalidExpression) as refused:
        compile_expression("CASE WHEN total_spend > 0\n  THEN n END", columns)
    assert refused.value.position == 10
    assert str(refused.value) == (
        "unknown column 'total_spend' at character 11. Did you mean total_spent?\n"
        "  CASE WHEN total_spend > 0\n"
        "            ^^^^^^^^^^^"
    )


def test_an_unknown_function_is_refused_by_name_at_its_place() -> None:
    with pytest.raises(InvalidExpression, match=r"no function SQRTT .* at character 5. Did you mean SQRT\?") as refused:
        compile_expression("a + SQRTT(x)", COLUMNS)
    assert refused.value.position == 4


def test_a_place_in_a_long_line_is_cut_out_of_it() -> None:
    with pytest.raises(InvalidExpression) as refused:
        compile_expression(" + ".join(["a"] * 40) + " + wrong + " + " + ".join(["a"] * 15), COLUMNS)
    _, line, carets = str(refused.value).splitlines()
    assert len(line) <= 102
    assert line[carets.index("^") : carets.rindex("^") + 1] == "wrong"
