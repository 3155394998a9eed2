"""Chains of sums, IEEE division, and zeros."""

from __future__ import annotations

import polars as pl

from engine.expressions import compile_expression
from tests.engine.expressions.conftest import COLUMNS, ERROR, MAX, frame_of, result, results


def test_a_chain_of_sums_is_exact_and_judged_at_its_end() -> None:
    assert result("a + 1 - 1", a=MAX) == MAX
    assert result("(a + a) - a", a=MAX) == MAX
    assert result("a + a - 1", a=MAX) == ERROR


def test_a_chain_with_a_null_operand_is_null() -> None:
    assert result("a // b + NULL", a=1, b=0) is None
    assert result("x / y * NULL", x=1.0, y=0.0) is None


def test_a_chain_tells_whatever_can_raise_in_it() -> None:
    reasons = ("an integer beyond 64 bits", "an integer division by zero or beyond 64 bits")
    assert compile_expression("a // b * 2", COLUMNS).reasons == reasons


def test_a_zero_that_comes_out_has_no_sign() -> None:
    for text, zero in (("x - y", 0.0), ("x * -1", 0.0), ("x", -0.0)):
        for height in (1, 2):
            frame = frame_of(x=[zero] * height, y=[0.0] * height)
            assert repr(results(compile_expression(text, COLUMNS), frame)) == repr([0.0] * height)
    assert result("CAST(x - y AS VARCHAR)", x=0.0, y=0.0) == "0.0"


def test_division_is_ieee_division_whatever_the_divisor_is_and_however_many_rows_there_are() -> None:
    numbers = [float(n) for n in range(1, 200)]
    constant = compile_expression("x / 49", COLUMNS)
    assert results(constant, frame_of(x=numbers)) == [n / 49 for n in numbers]
    assert [results(constant, frame_of(x=[n]))[0] for n in numbers] == [n / 49 for n in numbers]
    literal_column = frame_of(x=numbers).with_columns(y=pl.lit(49.0))
    assert results(compile_expression("x / y", COLUMNS), literal_column) == [n / 49 for n in numbers]
