"""Which features are computed on request, what each needs, and that a batch gives what its rows give."""

from __future__ import annotations

import polars as pl
import pytest

from engine.on_request import Computation, computation_of, divided, problems_of
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema, Transformation
from engine.validation import Validation

FLOAT, INT = Dtype("float64"), Dtype("int64")
SENT = (Field("cart", FLOAT), Field("items", INT))
STORED = FeatureColumn("average", FLOAT)
DERIVED = FeatureColumn("twice", FLOAT, Transformation("average * 2"))
RATIO = FeatureColumn("ratio", FLOAT, Transformation("cart / average"))
LARGE = FeatureColumn("large", Dtype("bool"), Transformation("ratio > twice OR ratio IS NULL"))
EACH = FeatureColumn("each", FLOAT, Transformation("cart / items"))


def schema(*features: FeatureColumn, sent: tuple[Field, ...] = SENT) -> GroupSchema:
    stored, on_request = divided(features, sent)
    keys, inputs = (Field("customer_id", Dtype("string")),), (Field("raw", FLOAT),)
    return GroupSchema("carts", 1, 1, keys, stored, inputs, request_inputs=sent, on_request=on_request)


def names(features: tuple[FeatureColumn, ...] | tuple[Field, ...]) -> list[str]:
    return [feature.name for feature in features]


def test_what_reads_a_request_input_itself_or_through_others_is_computed_on_request() -> None:
    made = schema(LARGE, STORED, RATIO, DERIVED, EACH)
    assert names(made.on_request) == ["large", "ratio", "each"]
    assert names(made.features) == ["average", "twice"]
    assert made.given == (Field("raw", FLOAT), Field("average", FLOAT))
    assert divided([LARGE, RATIO], ()) == ((LARGE, RATIO), ())


def test_a_computation_has_what_its_features_need_and_no_more() -> None:
    made = schema(LARGE, STORED, RATIO, DERIVED, EACH)
    large = computation_of(made, ["large"])
    assert [names(part) for part in (large.request_inputs, large.stored, large.features)] == [
        ["cart"],
        ["average", "twice"],
        ["large", "ratio"],
    ]
    each = computation_of(made, ["each"])
    assert [names(part) for part in (each.request_inputs, each.stored, each.features)] == [
        ["cart", "items"],
        [],
        ["each"],
    ]


def frame(rows: list[tuple[float | None, float | None]]) -> pl.DataFrame:
    carts, averages = zip(*rows, strict=True)
    twice = [None if average is None else average * 2 for average in averages]
    return pl.DataFrame(
        {"cart": carts, "average": averages, "twice": twice},
        schema=dict.fromkeys(["cart", "average", "twice"], pl.Float64),
    )


ROWS: list[tuple[float | None, float | None]] = [(6.0, 2.0), (1.0, 0.0), (None, 2.0), (9.0, 1.0), (5.0, None)]


def test_no_value_for_a_row_is_no_value_for_what_reads_it_and_touches_no_neighbour() -> None:
    found = computation_of(schema(LARGE, STORED, RATIO, DERIVED), ["large"]).compute(frame(ROWS))
    assert found["ratio"].values.to_list() == [3.0, None, None, 9.0, None]
    assert found["ratio"].statuses().to_list() == ["PRESENT", "INVALID", "NULL_VALUE", "PRESENT", "NULL_VALUE"]
    assert found["large"].values.to_list() == [False, None, True, True, True]
    assert found["large"].statuses().to_list() == ["PRESENT", "INVALID", "PRESENT", "PRESENT", "PRESENT"]


def test_a_stored_value_that_cannot_be_read_makes_what_reads_it_invalid() -> None:
    computation = computation_of(schema(LARGE, STORED, RATIO, DERIVED), ["large"])
    found = computation.compute(frame(ROWS), {"twice": pl.Series([False, False, True, True, False])})
    assert found["ratio"].statuses().to_list()[2:4] == ["NULL_VALUE", "PRESENT"]
    assert found["large"].statuses().to_list() == ["PRESENT", "INVALID", "INVALID", "INVALID", "PRESENT"]
    assert found["large"].values.to_list() == [False, None, None, None, True]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_of_a_batch_give_what_the_batch_gives(size: int) -> None:
    computation = computation_of(schema(LARGE, STORED, RATIO, DERIVED), ["large", "ratio"])

    def answers(of: Computation, rows: pl.DataFrame) -> list[tuple[object, ...]]:
        found = of.compute(rows)
        columns = [column for one in found.values() for column in (one.values, one.statuses())]
        return list(zip(*(column.to_list() for column in columns), strict=True))

    batch = frame(ROWS * 7)
    parts = [answer for at in range(0, batch.height, size) for answer in answers(computation, batch[at : at + size])]
    assert parts == answers(computation, batch)
    assert answers(computation, batch.clear()) == []


def test_each_problem_stands_under_its_feature() -> None:
    made = schema(
        STORED,
        FeatureColumn("a", FLOAT, Transformation("cart + raw")),
        FeatureColumn("b", Dtype("string"), Transformation("customer_id || CAST(items AS VARCHAR)")),
        FeatureColumn("c", FLOAT, Transformation(function="shop.cart", arguments=("cart",))),
        FeatureColumn("d", FLOAT, Transformation("c * 2"), Validation(not_null=True)),
        FeatureColumn("e", INT, Transformation("f + items")),
        FeatureColumn("f", INT, Transformation("e + 1")),
        FeatureColumn("g", INT, Transformation("itms + items")),
    )
    told = {problem.pointer: problem.detail for problem in problems_of(made)}
    assert list(told) == ["a", "b", "c", "d/validation", "g", "e"]
    assert "raw is an input" in told["a"]
    assert "customer_id is a join key" in told["b"]
    assert "only an expression" in told["c"]
    assert "rules are for what is stored" in told["d/validation"]
    assert "e -> f -> e" in told["e"]
    assert "Did you mean items" in told["g"]
