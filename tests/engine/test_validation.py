"""Which values break which rule, what becomes of their rows, and which rules are refused when they are saved."""

from __future__ import annotations

import math
from dataclasses import fields
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.schema import Dtype, FeatureColumn, Transformation
from engine.validation import Validated, Validation, problems_of, validate
from engine.violations import Violation

NAN, INF = math.nan, math.inf


def feature(dtype: str, validation: Validation, *, name: str = "value", computed: bool = False) -> FeatureColumn:
    return FeatureColumn(name, Dtype.parse(dtype), Transformation(function="m.f") if computed else None, validation)


def check(dtype: str, values: list[object], validation: Validation, *, computed: bool = False) -> Validated:
    frame = pl.DataFrame({"value": pl.Series(values, dtype=Dtype.parse(dtype).polars, strict=False)})
    return validate(frame, [feature(dtype, validation, computed=computed)], seen={})


def rows(violations: list[Violation]) -> dict[str, list[int]]:
    by_rule = {violation.rule: violation.rows.to_list() for violation in violations}
    assert len(by_rule) == len(violations), "a rule was reported twice"
    return by_rule


BIG = 2**53

CASES: list[tuple[str, Validation, list[object], dict[str, list[int]]]] = [
    ("int64", Validation(), [1, None], {}),
    ("int64", Validation(not_null=True), [1, None, None], {"not_null": [1, 2]}),
    ("int64", Validation(min_value=0, max_value=9), [-1, 0, 9, 10, None], {"min_value": [0], "max_value": [3]}),
    ("int64", Validation(min_value=BIG + 1), [BIG, BIG + 1, BIG + 2], {"min_value": [0]}),
    ("int64", Validation(max_value=BIG), [BIG, BIG + 1], {"max_value": [1]}),
    ("int64", Validation(max_value=float(BIG)), [BIG, BIG + 1], {"max_value": [1]}),
    ("int64", Validation(min_value=0.5, max_value=1.5), [0, 1, 2], {"min_value": [0], "max_value": [2]}),
    ("int64", Validation(min_value=2**63 - 1), [2**63 - 2, 2**63 - 1], {"min_value": [0]}),
    (
        "float64",
        Validation(min_value=0.0, max_value=1.0),
        [-5e-324, -0.0, 1.0, 1.0000000000000002],
        {"min_value": [0], "max_value": [3]},
    ),
    ("float64", Validation(min_value=BIG + 1), [float(BIG), float(BIG + 2)], {"min_value": [0]}),
    ("float64", Validation(max_value=BIG + 3), [float(BIG + 2), float(BIG + 4)], {"max_value": [1]}),
    (
        "float64",
        Validation(min_value=0, max_value=1),
        [NAN, INF, -INF, None, 2.0],
        {"finite": [0, 1, 2], "max_value": [4]},
    ),
    ("float64", Validation(), [NAN, 1.0], {"finite": [0]}),
    (
        "float64",
        Validation(allowed_values=(1, 2.5)),
        [1.0, 2.5, 3.0, None, NAN],
        {"finite": [4], "allowed_values": [2]},
    ),
    ("int64", Validation(allowed_values=(1, BIG + 1)), [1, BIG, BIG + 1, None], {"allowed_values": [1]}),
    ("bool", Validation(allowed_values=(True,)), [True, False, None], {"allowed_values": [1]}),
    ("string", Validation(allowed_values=("gold", "silver")), ["gold", "Gold", "", None], {"allowed_values": [1, 2]}),
    ("int64", Validation(unique=True), [1, 2, 1, None, None, 1], {"unique": [2, 5]}),
    ("float64", Validation(unique=True), [0.0, -0.0, NAN, NAN], {"finite": [2, 3], "unique": [1]}),
    ("string", Validation(unique=True), ["a", "A", "a", ""], {"unique": [2]}),
    ("timestamp", Validation(unique=True), [datetime(2026, 1, 1, tzinfo=UTC)] * 2, {"unique": [1]}),
    ("string", Validation(regex="[a-z]+"), ["ab", "ab1", "1ab", "", "ab\n", None], {"regex": [1, 2, 3, 4]}),
    ("string", Validation(regex="a|b"), ["a", "b", "ab", "ax"], {"regex": [2, 3]}),
    ("string", Validation(regex="(?m)^a$"), ["a", "a\na"], {"regex": [1]}),
    (
        "string",
        Validation(min_length=2, max_length=3),
        ["a", "ab", "\u00e9\u00e9\u00e9", "abcd", None],
        {"length": [0, 3]},
    ),
    ("string", Validation(min_length=1), ["", "a"], {"length": [0]}),
    ("string", Validation(max_length=0), ["", "a"], {"length": [1]}),
    ("list<int64>", Validation(min_length=1, max_length=2), [[], [1], [1, 2, 3], None], {"length": [0, 2]}),
    ("list<int64>", Validation(not_null=True), [[], None], {"not_null": [1]}),
    ("embedding(2)", Validation(not_null=True), [[1.0, 2.0], None], {"not_null": [1]}),
    (
        "int64",
        Validation(min_value=5, allowed_values=(7,), unique=True),
        [1, 7, 1],
        {"min_value": [0, 2], "allowed_values": [0, 2], "unique": [2]},
    ),
]


@pytest.mark.parametrize(("dtype", "validation", "values", "broken"), CASES)
def test_each_rule_is_broken_by_exactly_these_rows(
    dtype: str, validation: Validation, values: list[object], broken: dict[str, list[int]]
) -> None:
    validated = check(dtype, values, validation)
    assert rows(validated.rejected) == broken
    assert (validated.warned, validated.nulled) == ([], [])
    assert all(violation.rows.dtype == pl.UInt32 and violation.column == "value" for violation in validated.rejected)


@pytest.mark.parametrize("dtype", ["embedding(2)", "list<float64>"])
def test_a_computed_list_with_nan_infinity_or_null_is_not_finite(dtype: str) -> None:
    values = [[1.0, 2.0], [1.0, NAN], [INF, 0.0], [1.0, None], None]
    assert rows(check(dtype, values, Validation(), computed=True).rejected) == {"finite": [1, 2, 3]}


def test_set_null_takes_the_value_away_once_and_does_not_break_not_null() -> None:
    rules = Validation(min_value=0, not_null=True, unique=True, on_violation="set_null")
    validated = check("int64", [-1, 5, 5, None, 6], rules)
    assert validated.frame["value"].to_list() == [None, 5, None, None, 6]
    assert rows(validated.nulled) == {"not_null": [3], "min_value": [0], "unique": [2]}
    assert (validated.rejected, validated.warned) == ([], [])


@pytest.mark.parametrize("dtype", ["embedding(1)", "list<float64>"])
def test_set_null_works_on_lists(dtype: str) -> None:
    validated = check(dtype, [[NAN], [1.0]], Validation(on_violation="set_null"), computed=True)
    assert validated.frame["value"].to_list() == [None, [1.0]]
    assert validated.frame["value"].dtype == Dtype.parse(dtype).polars


def test_warn_keeps_the_value_and_reports_it() -> None:
    validated = check("int64", [-1, 1], Validation(min_value=0, on_violation="warn"))
    assert validated.frame["value"].to_list() == [-1, 1]
    assert rows(validated.warned) == {"min_value": [0]}
    assert (validated.rejected, validated.nulled) == ([], [])


def test_a_warning_is_not_enough_for_nan_since_it_is_never_stored() -> None:
    validated = check("float64", [NAN, 1.0], Validation(max_value=0.5, on_violation="warn"))
    assert (rows(validated.rejected), rows(validated.warned)) == ({"finite": [0]}, {"max_value": [1]})
    assert check("float64", [NAN, 1.0], Validation(on_violation="set_null")).frame["value"].to_list() == [None, 1.0]


def test_unique_holds_across_the_chunks_of_one_run_and_not_across_runs() -> None:
    features = [feature("string", Validation(unique=True), name=name) for name in ("email", "phone")]
    chunks = [
        pl.DataFrame({"email": ["a", "b"], "phone": ["a", "c"]}),
        pl.DataFrame({"email": ["c", "a"], "phone": ["d", "e"]}),
    ]
    seen: dict[str, set[object]] = {}
    first, second = (validate(chunk, features, seen=seen) for chunk in chunks)
    assert first.rejected == []
    assert [(violation.column, violation.rows.to_list()) for violation in second.rejected] == [("email", [1])]
    assert validate(chunks[1], features, seen={}).rejected == []


def test_rules_of_several_features_are_reported_feature_by_feature() -> None:
    features = [
        feature("int64", Validation(min_value=0), name="total"),
        feature("string", Validation(allowed_values=("gold",), on_violation="warn"), name="segment"),
        feature("float64", Validation(not_null=True, on_violation="set_null"), name="spent"),
        feature("bool", Validation(), name="active"),
    ]
    frame = pl.DataFrame(
        {"segment": ["x", "gold"], "total": [-1, -2], "spent": [None, 1.0], "active": [None, True], "other": [1, 2]}
    )
    validated = validate(frame, features, seen={})
    assert [(v.column, v.rule, v.rows.to_list()) for v in validated.rejected] == [("total", "min_value", [0, 1])]
    assert [(v.column, v.rule, v.rows.to_list()) for v in validated.warned] == [("segment", "allowed_values", [0])]
    assert [(v.column, v.rule, v.rows.to_list()) for v in validated.nulled] == [("spent", "not_null", [0])]
    assert validated.frame.equals(frame)


def test_an_empty_frame_breaks_nothing() -> None:
    everything = Validation(not_null=True, allowed_values=("a",), unique=True, regex="a", min_length=1)
    assert check("string", [], everything).rejected == []


def test_details_name_the_rule_and_its_limits() -> None:
    details = [
        check("int64", [5], Validation(max_value=3)).rejected,
        check("string", ["x"], Validation(allowed_values=("gold", "silver"))).rejected,
        check("string", ["x"], Validation(allowed_values=tuple("abcdefghijkl"))).rejected,
        check("string", ["x"], Validation(regex="[0-9]+")).rejected,
        check("string", ["x"], Validation(min_length=2, max_length=4)).rejected,
    ]
    assert [violations[0].detail for violations in details] == [
        "is above the maximum 3",
        "is not one of 'gold', 'silver'",
        "is not one of 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', ...",
        "does not match '[0-9]+' from end to end",
        "has not 2 to 4 characters",
    ]


BOUNDS = st.integers(-(2**63), 2**63 - 1) | st.integers(BIG - 3, BIG + 3) | st.floats(-(2.0**62), 2.0**62)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["int64", "float64"]), st.lists(BOUNDS | st.none(), min_size=1, max_size=6), BOUNDS)
def test_bounds_compare_as_python_does_exactly(dtype: str, values: list[float | None], bound: float) -> None:
    number = int if dtype == "int64" else float
    column = [None if value is None else number(value) for value in values]
    below = [row for row, value in enumerate(column) if value is not None and value < bound]
    above = [row for row, value in enumerate(column) if value is not None and value > bound]
    assert rows(check(dtype, column, Validation(min_value=bound)).rejected).get("min_value", []) == below
    assert rows(check(dtype, column, Validation(max_value=bound)).rejected).get("max_value", []) == above


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5) | st.none(), max_size=12), st.integers(0, 12))
def test_validating_in_two_chunks_finds_what_one_chunk_finds(values: list[int | None], cut: int) -> None:
    rules = Validation(not_null=True, min_value=1, max_value=4, unique=True)
    whole = check("int64", values, rules)
    seen: dict[str, set[object]] = {}
    found: set[tuple[str, int]] = set()
    for start, part in ((0, values[:cut]), (cut, values[cut:])):
        frame = pl.DataFrame({"value": pl.Series(part, dtype=pl.Int64)})
        chunk = validate(frame, [feature("int64", rules)], seen=seen)
        found |= {(rule, start + row) for rule, broken in rows(chunk.rejected).items() for row in broken}
    assert found == {(rule, row) for rule, broken in rows(whole.rejected).items() for row in broken}


GOOD_RULES: list[tuple[str, Validation]] = [
    ("int64", Validation(not_null=True, min_value=0, max_value=0.0, unique=True, allowed_values=(0, -(2**63)))),
    ("float64", Validation(min_value=-1, max_value=1e308, allowed_values=(1, 0.5))),
    ("bool", Validation(not_null=True, allowed_values=(True,))),
    ("string", Validation(regex=r"[^@]+@[^@]+", min_length=0, max_length=10, allowed_values=("", "a@b"), unique=True)),
    ("timestamp", Validation(not_null=True, unique=True)),
    ("embedding(3)", Validation(not_null=True, min_length=3, max_length=3)),
    ("list<string>", Validation(not_null=True, max_length=5)),
]

BAD_RULES: list[tuple[str, Validation, str]] = [
    ("int64", Validation(min_value=2, max_value=1), "min_value 2 is above max_value 1"),
    ("int64", Validation(min_value=0.5), "whole number of 64 bits"),
    ("int64", Validation(max_value=2**63), "whole number of 64 bits"),
    ("int64", Validation(min_value=True), "min_value must be a number"),
    ("int64", Validation(min_value="1"), "min_value must be a number"),  # type: ignore[arg-type]
    ("float64", Validation(min_value=NAN), "finite"),
    ("float64", Validation(max_value=INF), "finite"),
    ("float64", Validation(max_value=10**400), "finite"),
    ("string", Validation(min_value=1), "min_value is for int64 and float64, not for string"),
    ("bool", Validation(max_value=1), "max_value is for"),
    ("timestamp", Validation(min_value=0), "not for timestamp"),
    ("list<int64>", Validation(max_value=0), "not for list<int64>"),
    ("int64", Validation(allowed_values=()), "allowed_values is empty"),
    ("int64", Validation(allowed_values=(1, 1.0, True, "1", 2**63)), "has 1.0, True, '1', 9223372036854775808"),
    ("float64", Validation(allowed_values=(1.0, NAN, BIG + 1)), "has nan, 9007199254740993,"),
    ("bool", Validation(allowed_values=(1,)), "allowed_values has 1,"),
    ("string", Validation(allowed_values=("a", 1)), "allowed_values has 1,"),
    ("string", Validation(allowed_values=("\ud800",)), "cannot be a value of string"),
    ("string", Validation(allowed_values=(None,)), "allowed_values has None"),  # type: ignore[arg-type]
    ("timestamp", Validation(allowed_values=("2026-01-01",)), "not for timestamp"),
    ("embedding(2)", Validation(allowed_values=(1.0,)), "not for embedding(2)"),
    ("string", Validation(regex="("), "does not compile: unclosed group"),
    ("string", Validation(regex="a)|(b"), "does not compile: unopened group"),
    ("string", Validation(regex="(?=a)"), "look-around"),
    ("string", Validation(regex="(?x)a # comment"), "does not compile"),
    ("string", Validation(regex="a{1000}{1000}{100}"), "size limit"),
    ("string", Validation(regex="\ud800"), "does not compile"),
    ("int64", Validation(regex="a"), "regex is for string, not for int64"),
    ("string", Validation(min_length=-1), "min_length must be a whole number from 0"),
    ("string", Validation(max_length=True), "max_length must be"),
    ("string", Validation(min_length=3, max_length=2), "min_length 3 is above max_length 2"),
    ("int64", Validation(min_length=1, max_length=2), "min_length with max_length is for string"),
    ("embedding(2)", Validation(unique=True), "unique is not possible"),
    ("list<int64>", Validation(unique=True), "unique is not possible"),
]


@pytest.mark.parametrize(("dtype", "validation"), GOOD_RULES)
def test_rules_that_can_be_applied_have_no_problems(dtype: str, validation: Validation) -> None:
    assert problems_of(validation, Dtype.parse(dtype)) == []
    check(dtype, [None], validation)


@pytest.mark.parametrize(("dtype", "validation", "message"), BAD_RULES)
def test_a_rule_that_cannot_be_applied_is_refused_when_it_is_saved(
    dtype: str, validation: Validation, message: str
) -> None:
    (problem,) = problems_of(validation, Dtype.parse(dtype))
    assert message in problem


def test_all_problems_of_a_feature_are_named_at_once() -> None:
    wrong = Validation(min_value=1, regex="(", min_length=-1, allowed_values=())
    assert len(problems_of(wrong, Dtype.parse("string"))) == 4


def test_every_rule_reported_is_named_as_its_field() -> None:
    reported = {rule for *_, broken in CASES for rule in broken}
    assert reported - {"length", "finite"} == {f.name for f in fields(Validation)} - {
        "min_length",
        "max_length",
        "on_violation",
    }
