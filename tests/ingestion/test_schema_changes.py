"""What of a group may change while it has rows, and what is refused by name until its version is raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError

from catalog.models import CatalogState, Feature, FeatureGroup, Status
from catalog.schemas import breaking_changes, current_schema, from_stored, schema_of
from engine.errors import InvalidDefinition
from ingestion.ingest import ingest
from ingestion.push import push
from tests.factories import AVERAGE, add_feature, make_customer_group, purchase, write_csv
from tests.ingestion import contents

pytestmark = pytest.mark.database


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    """With a row that was written under schema 1."""
    made = make_customer_group()
    push(made, [purchase()])
    return made


def feature(group: FeatureGroup, name: str) -> Feature:
    return group.features.get(name=name)


def change_dtype(group: FeatureGroup) -> None:
    group.features.filter(name="total_purchases").update(dtype="float64")


def change_input(group: FeatureGroup) -> None:
    group.inputs.update(dtype="int64")


def change_expression(group: FeatureGroup) -> None:
    group.features.filter(name="avg_purchase_value").update(expression="total_spent / 2")


def make_given(group: FeatureGroup) -> None:
    group.features.filter(name="avg_purchase_value").update(expression="")


def change_event_timestamp(group: FeatureGroup) -> None:
    group.event_timestamp = "bought_at"
    group.save()


def name_created_timestamp(group: FeatureGroup) -> None:
    group.created_timestamp = "learned_at"
    group.save()


def add_join_key(group: FeatureGroup) -> None:
    group.entity.join_keys.create(name="shop", dtype="int64", position=1)


def change_join_key(group: FeatureGroup) -> None:
    group.entity.join_keys.update(dtype="int64")


BREAKING: list[tuple[Callable[[FeatureGroup], None], str]] = [
    (change_dtype, "total_purchases changed from int64 to float64"),
    (change_input, "total_spent changed from float64 to int64"),
    (change_expression, "avg_purchase_value has another transformation"),
    (make_given, "avg_purchase_value has another transformation"),
    (change_event_timestamp, "event_timestamp changed from purchased_at to bought_at"),
    (name_created_timestamp, "created_timestamp changed from none to learned_at"),
    (add_join_key, "its join keys changed"),
    (change_join_key, "its join keys changed"),
]


@pytest.mark.parametrize(("change", "named"), BREAKING)
def test_what_would_give_stored_rows_another_meaning_is_refused_by_name(
    group: FeatureGroup, sources: Path, change: Callable[[FeatureGroup], None], named: str
) -> None:
    before = contents.online_rows(group)
    change(group)
    CatalogState.redefine()  # a query sends no signal
    message = rf"customer_purchases needs version 2: {named}\."
    with pytest.raises(InvalidDefinition, match=message):
        push(group, [purchase()])
    with pytest.raises(InvalidDefinition, match=message):
        ingest(group, paths=[write_csv(sources / "a.csv", [purchase()])])
    with pytest.raises(ValidationError, match=named):
        group.full_clean()
    assert contents.online_rows(group) == before
    group.version = 2
    group.save()
    assert current_schema(group).schema_id == 2


def test_several_changes_are_named_together(group: FeatureGroup) -> None:
    change_dtype(group)
    change_expression(group)
    with pytest.raises(InvalidDefinition) as refused:
        current_schema(group)
    assert refused.value.detail == (
        "customer_purchases needs version 2: total_purchases changed from int64 to float64; "
        "avg_purchase_value has another transformation."
    )


def test_before_the_first_row_everything_may_change(sources: Path) -> None:
    group = make_customer_group()
    for change in (change_dtype, change_expression, change_event_timestamp):
        change(group)
        group.full_clean()
    assert current_schema(group).schema_id == 1


def test_what_rows_do_not_show_keeps_the_schema(group: FeatureGroup) -> None:
    group.description, group.status = "Running totals.", Status.DEPRECATED
    group.save()
    group.features.filter(name="total_purchases").update(description="So far.", validation={"max_value": 9})
    schema = current_schema(group)
    assert schema.schema_id == 1
    assert group.schemas.count() == 1
    assert schema.features[0].validation.max_value == 9  # the rules of now, not those of the record


def test_new_features_and_inputs_make_a_new_schema_once(group: FeatureGroup) -> None:
    add_feature(group, "visits", "int64")
    group.inputs.create(name="returns", dtype="int64")
    assert [current_schema(group).schema_id, current_schema(group).schema_id] == [2, 2]
    newest = from_stored(group.schemas.get(number=2))
    assert newest.feature_names == ("total_purchases", "avg_purchase_value", "customer_segment", "visits")
    assert [column.name for column in newest.inputs] == ["total_spent", "returns"]


def test_a_new_order_of_features_is_a_new_schema_in_which_each_keeps_its_name(group: FeatureGroup) -> None:
    group.features.filter(name="customer_segment").update(position=-0)
    group.features.filter(name="total_purchases").update(position=7)
    CatalogState.redefine()  # a query sends no signal
    push(group, [purchase("C2", total_purchases=9)])
    assert contents.online_rows(group)["s2:C2"].schema_id == 2
    assert contents.online(group) == {
        "s2:C1": {"total_purchases": 4, "avg_purchase_value": 25.0, "customer_segment": "gold"},
        "s2:C2": {"total_purchases": 9, "avg_purchase_value": 100.0 / 9, "customer_segment": "gold"},
    }


def test_a_feature_that_went_away_may_not_come_back_as_another_type(group: FeatureGroup) -> None:
    """The table still has its column: rows of both types in it could not be read together."""
    add_feature(group, "visits", "int64")
    push(group, [purchase(visits=1)])
    feature(group, "visits").delete()
    push(group, [purchase()])
    add_feature(group, "visits", "string")
    with pytest.raises(InvalidDefinition, match="visits changed from int64 to string"):
        push(group, [purchase(visits="many")])
    with pytest.raises(ValidationError, match="visits changed from int64 to string"):
        feature(group, "visits").full_clean()
    feature(group, "visits").delete()
    add_feature(group, "visits", "int64")
    push(group, [purchase(visits=3)])
    assert contents.online(group)["s2:C1"]["visits"] == 3


def test_a_transformation_is_the_same_after_it_was_stored(group: FeatureGroup) -> None:
    group.features.filter(name="customer_segment").update(
        function="tests.shops.segment", arguments=["total_spent"], rowwise=True, validation={}
    )
    group.version = 2
    group.save()
    defined = schema_of(group)
    stored = from_stored(group.schemas.create(version=2, number=2, columns=columns_of(group)))
    assert [column.transformation for column in stored.features] == [
        column.transformation for column in defined.features
    ]
    assert breaking_changes(stored, defined) == []
    assert stored.features[1].transformation is not None
    assert stored.features[1].transformation.expression == AVERAGE


def columns_of(group: FeatureGroup) -> dict[str, object]:
    from catalog.schemas import to_columns

    return to_columns(schema_of(group))
