"""Derived features: their order, their Python functions, and that no row's failure touches its neighbours."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Conflict, InvalidDefinition, InvalidInput, UnknownName
from engine.expressions import compile_expression
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema, Transformation
from engine.transformations import Transformer, compile_group
from tests.engine.expressions.conftest import COLUMNS, ERROR, MAX, MIN, NOON, frame_of


def expression(name: str, text: str, dtype: str = "float64") -> FeatureColumn:
    return FeatureColumn(name, Dtype.parse(dtype), Transformation(expression=text))


def function(name: str, path: str, *arguments: str, dtype: str = "float64", rowwise: bool = False) -> FeatureColumn:
    transformation = Transformation(function=path, arguments=arguments, rowwise=rowwise)
    return FeatureColumn(name, Dtype.parse(dtype), transformation)


def group(*features: FeatureColumn) -> GroupSchema:
    inputs = tuple(Field(name.lower().replace(" ", "_"), dtype) for name, dtype in COLUMNS.items())
    return GroupSchema("purchases", 1, 1, (Field("customer_id", Dtype("string")),), features, inputs)


def rows(**values: Any) -> pl.DataFrame:
    frame = frame_of(**values).rename({"Total Spent": "total_spent"})
    return frame.with_columns(pl.Series("customer_id", [f"C{n}" for n in range(1, frame.height + 1)]))


def told(transformer: Transformer, frame: pl.DataFrame) -> dict[str, list[int]]:
    """The violating rows of each feature."""
    found: dict[str, list[int]] = {}
    for violation in transformer.apply(frame)[1]:
        assert violation.rule == "transformation"
        assert violation.rows.dtype == pl.UInt32
        found.setdefault(violation.column, []).extend(violation.rows.to_list())
    return found


def test_derived_features_are_computed_in_the_order_of_their_dependencies() -> None:
    transformer = compile_group(
        group(
            expression("twice", "average * 2"),
            expression("average", "x / a"),
            expression("who", "customer_id", "string"),
        )
    )
    frame, violations = transformer.apply(rows(a=[2, 4], x=[1.0, 2.0]))
    assert frame["twice"].to_list() == [1.0, 1.0]
    assert frame["who"].to_list() == ["C1", "C2"]
    assert violations == []
    assert transformer.references == {
        "twice": frozenset({"average"}),
        "average": frozenset({"x", "a"}),
        "who": frozenset({"customer_id"}),
    }
    assert transformer.lineage("twice") == {"average", "x", "a"}
    with pytest.raises(UnknownName, match="twise"):
        transformer.lineage("twise")


def test_given_features_have_no_lineage_and_keep_their_columns() -> None:
    transformer = compile_group(group(FeatureColumn("n", Dtype("int64")), expression("next", "n + 1", "int64")))
    frame, _ = transformer.apply(rows(a=[1]).with_columns(n=pl.lit(4, dtype=pl.Int64)))
    assert (frame["n"].item(), frame["next"].item()) == (4, 5)
    assert transformer.lineage("n") == frozenset()


def test_a_violating_row_is_null_and_reported_once_by_the_feature_that_raised() -> None:
    transformer = compile_group(
        group(
            expression("average", "x / a"),
            expression("filled", "COALESCE(average, 0)"),
            expression("other", "CAST(s AS BIGINT) + filled"),
        )
    )
    frame, violations = transformer.apply(rows(a=[2, 0, 4, 1], x=[1.0, 1.0, None, 1.0], s=["1", "x", "1", "x"]))
    assert frame["average"].to_list() == [0.5, None, None, 1.0]
    assert frame["filled"].to_list() == [0.5, None, 0.0, 1.0]
    assert frame["other"].to_list() == [1.5, None, 1.0, None]
    assert [(v.column, v.rows.to_list()) for v in violations] == [("average", [1]), ("other", [3])]
    assert "'average' could not be computed: a result that is not a finite number" in violations[0].detail


def test_constant_features_fill_every_row_and_no_row() -> None:
    transformer = compile_group(group(expression("one", "1", "int64"), expression("half", "x / one * 0.5")))
    assert transformer.apply(rows(x=[1.0, 3.0]))[0]["half"].to_list() == [0.5, 1.5]
    empty, violations = transformer.apply(rows(x=[1.0]).clear())
    assert empty.height == 0
    assert empty.schema["half"] == pl.Float64
    assert violations == []


def test_cycles_are_refused_by_name_and_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidDefinition) as refused:
        compile_group(
            group(
                expression("first", "second + 1"),
                expression("second", "third + 1"),
                expression("third", "first + 1"),
                expression("own", "own + 1"),
                expression("wrong", "nothing + 1"),
                expression("typed", "x", "int64"),
                function("foreign", "os.system", "s", dtype="int64"),
                FeatureColumn("both", Dtype("int64"), Transformation(expression="a", function="m.f")),
            )
        )
    problems = {problem.pointer: problem.detail for problem in refused.value.problems}
    assert problems.keys() == {"first", "own", "wrong", "typed", "foreign", "both"}
    assert problems["first"].endswith("first -> second -> third -> first")
    assert problems["own"].endswith("own -> own")
    assert "not in an allow-listed module" in problems["foreign"]


@pytest.fixture
def modules() -> Iterator[types.ModuleType]:
    """A module of transformations, with an innocent import in it and an evil namesake beside it."""
    import os
    import posixpath

    made = {name: types.ModuleType(name) for name in ("myfeatures", "myfeatures.spend", "myfeaturesevil")}
    made["myfeatures"].__dict__.update(os=os, join=posixpath.join, nothing=3)
    sys.modules.update(made)
    yield made["myfeatures.spend"]
    for name in made:
        del sys.modules[name]


def define(module: types.ModuleType, body: Callable[..., Any]) -> None:
    body.__module__ = module.__name__
    module.__dict__["body"] = body


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "myfeatures.os.system",
        "myfeatures.join",
        "myfeatures.nothing",
        "myfeatures.absent",
        "myfeatures.absent.body",
        "myfeaturesevil.body",
        "myfeatures",
        ".body",
    ],
)
def test_only_functions_of_allow_listed_modules_are_taken(path: str, modules: types.ModuleType) -> None:
    define(sys.modules["myfeaturesevil"], lambda frame: frame["a"])
    with pytest.raises(InvalidDefinition) as refused:
        compile_group(group(function("f", path, "a")), modules=["myfeatures"])
    assert refused.value.problems[0].pointer == "f"


def test_a_function_over_a_frame_gives_a_column(modules: types.ModuleType) -> None:
    define(modules, lambda frame: frame["a"] * frame["x"])
    transformer = compile_group(group(function("f", "myfeatures.spend.body", "a", "x")), modules=["myfeatures"])
    assert transformer.apply(rows(a=[2, None], x=[1.5, 1.0]))[0]["f"].to_list() == [3.0, None]
    assert transformer.references["f"] == {"a", "x"}


def test_what_a_function_over_a_frame_returns_is_cast_strictly(modules: types.ModuleType) -> None:
    define(modules, lambda frame: frame["x"])
    features = [function(d, "myfeatures.spend.body", "x", dtype=d) for d in ("int64", "float64")]
    transformer = compile_group(group(*features), modules=["myfeatures.spend"])
    frame = rows(x=[1.0, 1.5, None, float("inf")])
    assert told(transformer, frame) == {"int64": [1, 3], "float64": [3]}
    assert transformer.apply(frame)[0]["int64"].to_list() == [1, None, None, None]


@pytest.mark.parametrize(
    "body",
    [
        lambda frame: 1 / 0,
        lambda frame: frame["x"].head(1),
        lambda frame: [1.0, 2.0],
        lambda frame: frame["x"].cast(pl.String),
        lambda frame: frame["nothing"],
    ],
)
def test_a_function_that_fails_for_a_frame_fails_the_batch_by_name(
    body: Callable[..., Any], modules: types.ModuleType
) -> None:
    define(modules, body)
    transformer = compile_group(group(function("f", "myfeatures.spend.body", "x")), modules=["myfeatures"])
    with pytest.raises(InvalidInput, match=r"function myfeatures\.spend\.body"):
        transformer.apply(rows(x=[1.0, 2.0]))


def test_a_frame_function_gives_embeddings_of_the_declared_length(modules: types.ModuleType) -> None:
    answer = pl.Series([[1.0, 2.0], [1.0], [float("nan"), 0.0], [None, 1.0], None])
    define(modules, lambda frame: answer)
    schema = group(function("f", "myfeatures.spend.body", "x", dtype="embedding(2)"))
    transformer = compile_group(schema, modules=["myfeatures"])
    frame = rows(x=[1.0] * 5)
    assert told(transformer, frame) == {"f": [1, 2, 3]}
    assert transformer.apply(frame)[0]["f"].to_list() == [[1.0, 2.0], None, None, None, None]


def test_an_exception_on_one_row_is_a_violation_of_that_row(modules: types.ModuleType) -> None:
    define(modules, lambda row: 10.0 / row["a"])
    transformer = compile_group(
        group(function("f", "myfeatures.spend.body", "a", rowwise=True), expression("g", "COALESCE(f, 0)")),
        modules=["myfeatures"],
    )
    frame, violations = transformer.apply(rows(a=[2, 0, 5, None]))
    assert frame["f"].to_list() == [5.0, None, 2.0, None]
    assert frame["g"].to_list() == [5.0, None, 2.0, None]
    assert [(v.column, v.rows.to_list()) for v in violations] == [("f", [1]), ("f", [3])]
    assert "raised ZeroDivisionError on line " in violations[0].detail  # its text may quote a value
    assert all(len(v.detail) <= 200 for v in violations)


def test_a_row_that_is_broken_already_is_not_handed_to_functions(modules: types.ModuleType) -> None:
    seen: list[Any] = []
    define(modules, lambda row: seen.append(row["average"]) or 1)
    transformer = compile_group(
        group(expression("average", "x / a"), function("f", "myfeatures.spend.body", "average", rowwise=True)),
        modules=["myfeatures"],
    )
    assert told(transformer, rows(a=[0, 1, 1], x=[1.0, 2.0, None])) == {"average": [0]}
    assert seen == [2.0, None]


def test_what_a_function_over_a_frame_makes_of_a_broken_row_is_not_kept(modules: types.ModuleType) -> None:
    define(modules, lambda frame: frame["average"].fill_null(0.5))
    schema = group(expression("average", "x / a"), function("f", "myfeatures.spend.body", "average", dtype="int64"))
    transformer = compile_group(schema, modules=["myfeatures"])
    frame = rows(a=[0, 1, 1, 1], x=[1.0, 2.0, 0.25, None])
    assert told(transformer, frame) == {"average": [0], "f": [2, 3]}
    assert transformer.apply(frame)[0]["f"].to_list() == [None, 2, None, None]


@pytest.mark.parametrize(
    ("dtype", "returned", "expected"),
    [
        ("int64", 3, 3),
        ("int64", np.int32(3), 3),
        ("int64", True, ERROR),
        ("int64", 3.0, ERROR),
        ("int64", 2**63, ERROR),
        ("float64", 3, 3.0),
        ("float64", 2**53 + 1, ERROR),
        ("float64", 2**2000, ERROR),
        ("float64", float("nan"), ERROR),
        ("float64", "3", ERROR),
        ("bool", False, False),
        ("bool", 0, ERROR),
        ("string", "ok", "ok"),
        ("string", "\ud800", ERROR),
        ("string", b"ok", ERROR),
        ("timestamp", NOON, NOON),
        ("timestamp", NOON.replace(tzinfo=None), ERROR),
        ("embedding(2)", [1, 0.5], [1.0, 0.5]),
        ("embedding(2)", np.array([1.0, 0.5]), [1.0, 0.5]),
        ("embedding(2)", [1.0], ERROR),
        ("embedding(2)", [1.0, 1e300], ERROR),
        ("list<int64>", (1, 2), [1, 2]),
        ("list<int64>", [1, None], ERROR),
        ("list<string>", "ab", ERROR),
        ("int64", None, None),
    ],
)
def test_what_a_function_returns_for_a_row_must_be_of_the_dtype(
    dtype: str, returned: Any, expected: Any, modules: types.ModuleType
) -> None:
    define(modules, lambda row: returned)
    schema = group(function("f", "myfeatures.spend.body", "a", dtype=dtype, rowwise=True))
    transformer = compile_group(schema, modules=["myfeatures"])
    frame, violations = transformer.apply(rows(a=[1]))
    assert frame.schema["f"] == Dtype.parse(dtype).polars
    assert (ERROR if violations else frame["f"].to_list()[0]) == expected


def test_a_local_transformation_needs_the_process_that_holds_it() -> None:
    local = FeatureColumn("ratio", Dtype("float64"), Transformation(local="<lambda>"))
    schema = group(local)
    with pytest.raises(Conflict, match=r"'ratio'.*Write it as an expression"):
        compile_group(schema)
    transformer = compile_group(schema, local={"ratio": lambda row: row["x"] / row["a"]})
    assert transformer.apply(rows(a=[2], x=[1.0]))[0]["ratio"].item() == 0.5
    assert told(transformer, rows(a=[0, 1], x=[1.0, 1.0])) == {"ratio": [0]}


# f(batch) = the rows' f(row) put together.

PROPERTY = [
    "a + b - 1",
    "a * b",
    "a // b",
    "a % b",
    "-a + ABS(b)",
    "a / b",
    "x / 3",
    "x - y",
    "x / y / 7",
    "x * y + a",
    "POW(x, y)",
    "POW(x, 2)",
    "POW(2, y)",
    "POW(x, 5) + POW(x, 0.5)",
    "EXP(x) + LN(y)",
    "SQRT(x) + LOG10(y)",
    "ROUND(x, 2) + ROUND(y, 1)",
    "FLOOR(x) - CEIL(y) + SIGN(x)",
    "LEAST(a, b, x) + GREATEST(x, y)",
    "CASE WHEN b > 0 THEN a // b WHEN p THEN CAST(x AS BIGINT) ELSE a * 2 END",
    "COALESCE(NULLIF(a, b), CAST(s AS BIGINT), a + b)",
    "p AND a // b > 0 OR q",
    "a IN (0, 1, b, a // b) AND s NOT IN ('1', 'x')",
    "x BETWEEN y AND a",
    "CAST(s AS DOUBLE) + CAST(s AS BIGINT)",
    "TRY_CAST(s AS TIMESTAMP) > t",
    "CAST(x - y AS VARCHAR) || CAST(t AS VARCHAR) || s",
    "SUBSTR(s, a, b) || UPPER(u) || TRIM(s)",
    "SUBSTR('constant', a) || REPLACE(s, 'x', 'yy')",
    "LENGTH(s) + EXTRACT(EPOCH FROM t) + EXTRACT(DOW FROM t)",
    "s LIKE '%x_' OR STARTS_WITH(s, u) OR REGEXP_LIKE('x1', '[0-9]')",
    "CAST(a AS BOOLEAN) IS DISTINCT FROM p",
    "1 / 3 + POW(3, 0.1)",
]
INTEGERS = st.none() | st.sampled_from([0, 1, -1, 2, 3, MAX, MIN, 2**53 + 1]) | st.integers(MIN, MAX)
FLOATS = st.none() | st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5, 1e308, 5e-324]) | st.floats(-1e6, 1e6)
TEXTS = (
    st.none() | st.sampled_from(["", "1", "-7", "1.5", "x", "xyx", "nan", "2026-01-01T00:00:00Z", "ß İ"]) | st.text()
)
TIMES = st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
BOOLEANS = st.none() | st.booleans()
ROWS = st.tuples(INTEGERS, INTEGERS, FLOATS, FLOATS, TEXTS, TEXTS, BOOLEANS, BOOLEANS, TIMES)


def property_group() -> Transformer:
    dtypes = [str(compile_expression(text, COLUMNS).dtype) for text in PROPERTY]
    features = [expression(f"f{n}", text, dtype) for n, (text, dtype) in enumerate(zip(PROPERTY, dtypes, strict=True))]
    return compile_group(group(*features, expression("late", "COALESCE(f0, 0) + f1", "int64")))


PROPERTY_GROUP = property_group()


def test_a_power_does_not_depend_on_how_many_rows_there_are() -> None:
    """Polars multiplies x by itself where the column of exponents is one row long: another last bit."""
    transformer = compile_group(group(expression("power", "POW(x, y)")))
    frame = rows(x=[n / 7 for n in range(1, 400)], y=[3.0, 2.0, 0.5] * 133)
    alone = [transformer.apply(frame[row])[0]["power"].item() for row in range(frame.height)]
    assert transformer.apply(frame)[0]["power"].to_list() == alone


def outcome(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """One dict for each row: values by feature, ERROR where the row violates it."""
    found, violations = PROPERTY_GROUP.apply(frame)
    answers = found.select(PROPERTY_GROUP.schema.feature_names).to_dicts()
    for violation in violations:
        for row in violation.rows:
            assert answers[row][violation.column] is None
            answers[row][violation.column] = ERROR
    return answers


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=6))
def test_a_batch_gives_what_its_rows_give_alone(values: list[tuple[Any, ...]]) -> None:
    frame = rows(**dict(zip(["a", "b", "x", "y", "s", "u", "p", "q", "t"], zip(*values, strict=True), strict=True)))
    alone = [answer for row in range(frame.height) for answer in outcome(frame[row])]
    assert repr(outcome(frame)) == repr(alone)  # repr tells -0.0 from 0.0


def test_a_large_batch_gives_what_its_parts_give() -> None:
    generator = np.random.default_rng(1)
    count = 2_500
    frame = rows(
        a=generator.integers(-3, 4, count),
        b=generator.integers(-3, 4, count),
        x=generator.normal(size=count),
        y=generator.integers(-2, 3, count) / 2,
        s=generator.choice(["1", "x", "1.5", "2026-01-01T00:00:00Z"], count),
        u=generator.choice(["", "x"], count),
        p=generator.choice([True, False], count),
        q=generator.choice([True, False], count),
        t=[NOON] * count,
    )
    parts = [answer for start in range(0, count, 100) for answer in outcome(frame[start : start + 100])]
    assert repr(outcome(frame)) == repr(parts)
