"""What expressions mean, for which rows they raise, and in which dtype their results come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import InvalidExpression
from engine.expressions import compile_expression
from engine.schema import Dtype
from tests.engine.expressions.conftest import COLUMNS, ERROR, MAX, MIN, NOON, frame_of, result, results

ROW: dict[str, Any] = {"a": 7, "b": -2, "x": 2.5, "y": -0.5, "s": "Ada Lovelace", "u": "", "p": True, "t": NOON}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # arithmetic
        ("a + b * 2", 3),
        ("-a", -7),
        ("a - -b", 5),
        ("a / b", -3.5),
        ("a // b", -3),
        ("a DIV b", -3),
        ("-7 // 2", -3),
        ("a % b", 1),
        ("MOD(-7, 3)", -1),
        ("7 // -2 * -2 + 7 % -2", 7),
        ("a + x", 9.5),
        ("1 + 2", 3),
        ("x / 49 * 0 + 49.0 / 49", 1.0),
        ("1e3 + .5", 1000.5),
        ('"Total Spent" IS NULL', True),
        # functions of numbers
        ("ABS(b)", 2),
        ("ABS(y)", 0.5),
        ("SIGN(y)", -1.0),
        ("ROUND(2.5)", 3.0),
        ("ROUND(-2.5)", -3.0),
        ("ROUND(3.14159, 2)", 3.14),
        ("ROUND(a)", 7),
        ("FLOOR(y)", -1.0),
        ("CEIL(x)", 3.0),
        ("CEILING(a)", 7),
        ("SQRT(x * 10)", 5.0),
        ("LN(1)", 0.0),
        ("EXP(0)", 1.0),
        ("LOG10(1000)", 3.0),
        ("LOG10(0.001)", -3.0),
        ("POW(x, 2)", 6.25),
        ("POWER(2, b)", 0.25),
        ("LEAST(a, b, 3)", -2),
        ("GREATEST(a, x, NULL)", 7.0),
        # comparisons and logic
        ("a > b AND x <= 2.5", True),
        ("a = 7.0", True),
        ("a <> 7 OR NOT p", False),
        ("a IN (1, 7)", True),
        ("a NOT IN (1, b)", True),
        ("x IN (1, 2.5)", True),
        ("a BETWEEN b AND 7", True),
        ("a NOT BETWEEN 8 AND 9", True),
        ("a IS DISTINCT FROM b", True),
        ("NULL IS NOT DISTINCT FROM q", True),
        ("p IS TRUE", True),
        ("q IS TRUE", False),
        ("q IS NULL", True),
        ("t > TIMESTAMP '2026-01-04T12:30:15Z'", True),
        ("t = CAST('2026-01-04T13:30:15.5+01:00' AS TIMESTAMP)", True),
        # branches
        ("CASE WHEN a > 0 THEN x / a ELSE 0 END", 2.5 / 7),
        ("CASE WHEN q THEN 1 WHEN p THEN 2 END", 2),
        ("CASE WHEN q THEN 1 END", None),
        ("CASE a WHEN 1 THEN 'one' WHEN 7 THEN 'seven' ELSE s END", "seven"),
        ("IF(p, a, x)", 7.0),
        ("IIF(q, a, NULL)", None),
        ("COALESCE(q, p)", True),
        ("COALESCE(NULL, x, a)", 2.5),
        ("NULLIF(a, 7)", None),
        ("NULLIF(a, b)", 7),
        # text
        ("UPPER(s) || LOWER(s)", "ADA LOVELACEada lovelace"),
        ("CONCAT(s, '!', u)", "Ada Lovelace!"),
        ("LENGTH('äß€')", 3),
        ("TRIM('  a ') || LTRIM(' b') || RTRIM('c ')", "abc"),
        ("SUBSTR(s, 5)", "Lovelace"),
        ("SUBSTR(s, 1, 3)", "Ada"),
        ("SUBSTRING(s FROM 5 FOR 4)", "Love"),
        ("SUBSTR(s, 0, 3)", "Ad"),
        ("SUBSTR(s, -5, 3)", ""),
        ("SUBSTR(s, 12, 9223372036854775807)", "e"),
        ("REPLACE(s, 'a', '$0')", "Ad$0 Lovel$0ce"),
        ("STARTS_WITH(s, 'Ada')", True),
        ("s LIKE 'Ada%'", True),
        ("s LIKE 'Ada'", False),
        ("s LIKE '%Lov_lac_'", True),
        ("s NOT LIKE '%.%'", True),
        ("'50% off' LIKE '50!% %' ESCAPE '!'", True),
        ("'500 off' LIKE '50!% %' ESCAPE '!'", False),
        ("'a\nb' LIKE 'a_b'", True),
        ("REGEXP_LIKE(s, 'L[a-z]+e$')", True),
        ("'it''s'", "it's"),
        # time
        ("EXTRACT(YEAR FROM t)", 2026),
        ("EXTRACT(DOW FROM t)", 0),
        ("EXTRACT(SECOND FROM t)", 15),
        ("EXTRACT(EPOCH FROM t)", 1767529815.5),
        # casts
        ("CAST('12' AS BIGINT) + CAST(2.0 AS INT)", 14),
        ("CAST(a AS DOUBLE)", 7.0),
        ("CAST(a AS VARCHAR) || CAST(p AS VARCHAR) || CAST(x AS VARCHAR)", "7true2.5"),
        ("CAST(t AS VARCHAR)", "2026-01-04T12:30:15.500000Z"),
        ("CAST(p AS BIGINT)", 1),
        ("CAST('TRUE' AS BOOLEAN)", True),
        ("CAST(x - 1.5 AS BOOLEAN)", True),
        ("CAST(0.0 AS BOOLEAN)", False),
        ("CAST('1.5e1' AS DOUBLE)", 15.0),
        ("TRY_CAST(s AS BIGINT)", None),
        ("TRY_CAST(x AS BIGINT)", None),
        ("CAST(NULL AS VARCHAR)", None),
        ("TRY_CAST('2026-01-01T00:00:00' AS TIMESTAMP)", None),
        ("9223372036854775807", MAX),
        ("-9223372036854775808", MIN),
    ],
)
def test_an_expression_means_what_sql_means(text: str, expected: Any) -> None:
    found = result(text, **ROW)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("a + b", {"a": MAX, "b": 1}),
        ("a - b", {"a": MIN, "b": 1}),
        ("a * b", {"a": 2**32, "b": 2**31}),
        ("a * 2 // 4", {"a": MAX}),
        ("-a", {"a": MIN}),
        ("ABS(a)", {"a": MIN}),
        ("a // b", {"a": MIN, "b": -1}),
        ("a // b", {"a": 1, "b": 0}),
        ("a % b", {"a": 1, "b": 0}),
        ("a / b", {"a": 1, "b": 0}),
        ("a / b", {"a": 0, "b": 0}),
        ("x / y", {"x": 1.0, "y": 0.0}),
        ("1 / (x / y)", {"x": 1.0, "y": 0.0}),
        ("x * y", {"x": 1e200, "y": 1e200}),
        ("x + y - y", {"x": 1e308, "y": 1e308}),
        ("LN(x)", {"x": 0.0}),
        ("LOG10(x)", {"x": -1.0}),
        ("SQRT(x)", {"x": -1.0}),
        ("EXP(x)", {"x": 1000.0}),
        ("EXP(-EXP(x))", {"x": 1000.0}),
        ("POW(x, y)", {"x": -1.0, "y": 0.5}),
        ("POW(x, -1)", {"x": 0.0}),
        ("CAST(x AS BIGINT)", {"x": 1.5}),
        ("CAST(x AS BIGINT)", {"x": 2.0**63}),
        ("CAST(s AS BIGINT)", {"s": "12x"}),
        ("CAST(s AS BIGINT)", {"s": "9223372036854775808"}),
        ("CAST(s AS BIGINT)", {"s": " 1"}),
        ("CAST(s AS DOUBLE)", {"s": "nan"}),
        ("CAST(s AS DOUBLE)", {"s": "1e400"}),
        ("CAST(s AS BOOLEAN)", {"s": "x"}),
        ("CAST(a AS BOOLEAN)", {"a": 2}),
        ("CAST(x AS BOOLEAN)", {"x": 0.5}),
        ("CAST(s AS TIMESTAMP)", {"s": "2026-01-01T00:00:00"}),
        ("CAST(s AS TIMESTAMP)", {"s": "2026-02-30T00:00:00Z"}),
        ("CAST(s AS TIMESTAMP)", {"s": "2026-01-01T00:00:60Z"}),
        ("CAST(s AS TIMESTAMP)", {"s": "2026-01-01T00:00:00.0000001Z"}),
        ("CAST(s AS TIMESTAMP)", {"s": "0000-01-01T00:00:00Z"}),
        ("SUBSTR(s, 1, a)", {"s": "abc", "a": -1}),
        # an error that is evaluated counts whatever is beside it
        ("a // 0 IS NULL", {"a": 1}),
        ("COALESCE(a // b, 1)", {"a": 1, "b": 0}),
        ("CASE WHEN a // b > 0 THEN 1 ELSE 2 END", {"a": 1, "b": 0}),
        ("p AND a // b > 0", {"p": None, "a": 1, "b": 0}),
        ("a // b > 0 AND p", {"p": False, "a": 1, "b": 0}),
        ("ABS(a // b) * 2 - 1", {"a": 1, "b": 0}),
        ("COALESCE(NULL, a * a * b) * 0", {"a": MAX, "b": 0}),
        ("x + a * a", {"x": 1.0, "a": MAX}),
        ("a IN (2, a // b)", {"a": 1, "b": 0}),
    ],
)
def test_a_row_that_cannot_be_computed_is_an_error_of_that_row(text: str, row: Mapping[str, Any]) -> None:
    assert result(text, **row) == ERROR
    assert compile_expression(text, COLUMNS).reasons


@pytest.mark.parametrize(
    "text", ["a + 1", "a = 1", "NOT q", "s || 'x'", "CONCAT(s, 'x')", "ROUND(x)", "SUBSTR('abc', a)"]
)
def test_null_goes_through(text: str) -> None:
    assert result(text, a=None) is None


@pytest.mark.parametrize(
    ("text", "declared", "expected"),
    [
        ("a", "float64", 7.0),
        ("NULL", "string", None),
        ("vector", "embedding(2)", [1.0, 2.0]),
        ("(a)", "int64", 7),
    ],
)
def test_a_result_is_cast_to_the_declared_dtype_where_nothing_is_lost(text: str, declared: str, expected: Any) -> None:
    compiled = compile_expression(text, COLUMNS, dtype=Dtype.parse(declared))
    assert results(compiled, frame_of(a=[7], vector=[[1.0, 2.0]])) == [expected]


@pytest.mark.parametrize(
    ("text", "declared", "way_out"),
    [
        ("x", "int64", r"wrap it in CAST\(... AS BIGINT\)"),
        ("s", "timestamp", r"wrap it in CAST\(... AS TIMESTAMP\)"),
        ("vector", "embedding(3)", "declared embedding"),
        ("a", "embedding(3)", "declared embedding"),
        ("NULL", "list<string>", "declared list"),
    ],
)
def test_a_result_that_does_not_fit_the_declared_dtype_is_refused(text: str, declared: str, way_out: str) -> None:
    with pytest.raises(InvalidExpression, match=way_out):
        compile_expression(text, COLUMNS, dtype=Dtype.parse(declared))


def test_references_are_the_columns_that_the_text_names() -> None:
    compiled = compile_expression('CASE WHEN a > 0 THEN "Total Spent" ELSE x END', COLUMNS)
    assert compiled.references == {"a", "Total Spent", "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 > COALESCE(x, 5.0)", False),
        ("NULLIF('a', COALESCE('', u, s))", "a"),
        ("NULL IN (COALESCE(TIMESTAMP '2026-01-31T00:00:00Z', t), t)", None),
    ],
)
def test_constants_that_nulls_leave_are_one_value_for_each_row(text: str, expected: Any) -> None:
    """Polars makes one row of what consists of constants and of columns that are null in every row."""
    compiled = compile_expression(text, COLUMNS)
    assert results(compiled, frame_of(a=[1, 2, 3])) == [expected] * 3
