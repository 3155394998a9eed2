"""Features that are computed on request, in the catalog: how they are defined, what is refused, who is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client

from catalog import definitions, schemas
from catalog.lifecycle import change_status, readers_of
from catalog.models import FeatureGroup, Status
from engine.errors import InvalidDefinition, StillRead
from tests.catalog.test_api import answer_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]

SHOP = """\
entities:
  - name: customer
    join_keys: [{name: customer_id, dtype: string}]
feature_groups:
  - name: purchases
    entity: customer
    status: active
    event_timestamp: purchased_at
    inputs:
      - {name: total_spent, dtype: float64}
    request_inputs:
      - {name: cart_value, dtype: float64}
      - {name: cart_items, dtype: int64}
    features:
      - {name: total, dtype: int64}
      - {name: average, dtype: float64, transformation: {expression: "total_spent / total"}}
      - {name: cart_ratio, dtype: float64, transformation: {expression: "cart_value / average"}}
      - {name: is_large, dtype: bool, transformation: {expression: "cart_ratio > 2 AND cart_items > 1"}}
feature_services:
  - {name: cart, features: [purchases:total, purchases:is_large]}
"""


def written(folder: Path, *changes: tuple[str, str]) -> str:
    text = SHOP
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "shop.yaml"
    path.write_text(text)
    return str(path)


def test_features_that_read_a_request_input_are_computed_on_request_and_no_schema_has_them(tmp_path: Path) -> None:
    plan = definitions.apply([written(tmp_path)])
    effects = {change.name: change.effects for change in plan.changes if change.effects}
    assert effects == {
        "purchases:cart_ratio": ("computed on request: never stored",),
        "purchases:is_large": ("computed on request: never stored",),
        "cart@1": ("computed on request: readers send cart_value (float64), cart_items (int64)",),
    }
    schema = schemas.current_schema(FeatureGroup.objects.get())
    assert schema.feature_names == ("total", "average")
    assert schema.raw_names == ("customer_id", "purchased_at", "total_spent", "total")
    assert [name for name in schema.offline.names if name.startswith(("cart", "is_"))] == []
    stored = FeatureGroup.objects.get().schemas.get().columns
    assert "cart" not in json.dumps(stored)


def test_an_export_has_the_request_inputs_and_plans_without_difference(tmp_path: Path) -> None:
    file = written(tmp_path)
    definitions.apply([file])
    assert definitions.plan([file]).changes == ()
    (tmp_path / "exported.yaml").write_text(definitions.export())
    assert definitions.plan([tmp_path / "exported.yaml"]).changes == ()
    (group,) = yaml.safe_load(definitions.export())["feature_groups"]
    assert group["request_inputs"][0] == {"name": "cart_value", "dtype": "float64"}


def test_what_is_computed_on_request_changes_in_place_also_when_rows_are_stored(tmp_path: Path) -> None:
    definitions.apply([written(tmp_path)])
    before = schemas.current_schema(FeatureGroup.objects.get()).schema_id
    changed = written(
        tmp_path,
        ("cart_value / average", "cart_value - average"),
        ("{name: cart_items, dtype: int64}", "{name: cart_items, dtype: float64}"),
    )
    (group, ratio) = definitions.apply([changed]).changes
    assert (group.name, ratio.name) == ("purchases", "purchases:cart_ratio")
    assert (group.effects, ratio.effects) == (("read by cart@1",), ())
    assert schemas.current_schema(FeatureGroup.objects.get()).schema_id == before


TAKEN = "the name is taken by"
REFUSED: dict[str, tuple[tuple[str, str], str, str]] = {
    "a circle": (("cart_value / average", "CASE WHEN is_large THEN cart_value END"), "[2].transformation", "itself: "),
    "a type": (("cart_items > 1", "cart_items > 'x'"), "[3].transformation", "do not go together"),
    "a declared type": (("name: cart_ratio, dtype: float64", "name: cart_ratio, dtype: int64"), "[2]", "CAST"),
    "a typing error": (("cart_value / average", "cart_value / avrage"), "[2].transformation", "Did you mean average?"),
    "an input": (("cart_value / average", "cart_value / total_spent"), "[2]", "total_spent is an input, which no"),
    "a join key": (("cart_items > 1", "cart_items > 1 AND customer_id = 'C1'"), "[3]", "customer_id is a join key"),
    "a rule": (('cart_value / average"}}', 'cart_value"}, validation: {min_value: 0}}'), "[2].validation", "rules are"),
    "a function": (
        ('{expression: "cart_value / average"}', "{function: shop.ratio, arguments: [cart_value]}"),
        "[2].transformation",
        "only an expression",
    ),
    "a name of a feature": (("{name: cart_items,", "{name: total,"), "[0].name", f"{TAKEN} the request input"),
    "a name of an input": (("{name: cart_items,", "{name: total_spent,"), "", f"{TAKEN} the input"),
    "a name of a key": (("{name: cart_items,", "{name: customer_id,"), "", f"{TAKEN} the join key"),
    "a name twice": (("{name: cart_items,", "{name: cart_value,"), "request_inputs[1]", "stands twice"),
    "a reserved name": (
        ("{name: cart_items,", "{name: event_timestamp,"),
        "request_inputs[1].name",
        "every stored row",
    ),
    "a dtype": (("cart_items, dtype: int64", "cart_items, dtype: int32"), "request_inputs[1].dtype", "is not a dtype"),
    "a key": (("cart_items, dtype", "cart_items, dtpe"), "request_inputs[1].dtpe", "Did you mean dtype"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_definition_that_cannot_be_used_is_refused_by_name(tmp_path: Path, what: str) -> None:
    change, place, words = REFUSED[what]
    with pytest.raises(InvalidDefinition) as refused:
        definitions.apply([written(tmp_path, change)])
    told = [str(problem) for problem in refused.value.problems]
    assert any(place in line.split(": ")[0] and words in line for line in told), told
    assert not FeatureGroup.objects.exists()


def test_a_stored_feature_becomes_one_that_is_computed_on_request_with_a_new_version_only(tmp_path: Path) -> None:
    definitions.apply([written(tmp_path)])
    schemas.current_schema(FeatureGroup.objects.get())
    change = ("total_spent / total", "cart_value / total")
    with pytest.raises(InvalidDefinition, match="average is computed on request now: that needs version: 2"):
        definitions.plan([written(tmp_path, change)])
    definitions.apply([written(tmp_path, change, ("entity: customer\n", "entity: customer\n    version: 2\n"))])
    assert schemas.current_schema(FeatureGroup.objects.get()).feature_names == ("total",)


def test_lists_say_what_is_computed_on_request_and_what_it_needs(tmp_path: Path) -> None:
    from catalog import access, keys

    definitions.apply([written(tmp_path)])
    keys.forget()
    key = access.create_key(name="tests", scopes=["read"])[1]
    client = Client(headers={"Authorization": f"Bearer {key}"})
    listed = {f["name"]: f for f in answer_of(client.get("/features"))["features"]}
    value, items = {"name": "cart_value", "dtype": "float64"}, {"name": "cart_items", "dtype": "int64"}
    needs: dict[str, Any] = {name: (f["on_request"], f["request_inputs"]) for name, f in listed.items()}
    assert needs == {
        "total": (False, []),
        "average": (False, []),
        "cart_ratio": (True, [value]),
        "is_large": (True, [value, items]),
    }
    told = answer_of(client.get("/features/customer/is_large/metadata"))
    assert (told["on_request"], told["request_inputs"]) == (True, [value, items])
    keys.forget()


def test_what_is_computed_from_a_stored_feature_reads_it_until_it_is_archived_itself(tmp_path: Path) -> None:
    definitions.apply([written(tmp_path, ("[purchases:total, purchases:is_large]", "[purchases:total]"))])
    group = FeatureGroup.objects.get(name="purchases")
    average, total = group.features.get(name="average"), group.features.get(name="total")
    with pytest.raises(StillRead, match="purchases:cart_ratio, purchases:is_large"):
        change_status(average, Status.ARCHIVED)
    change_status(group.features.get(name="cart_ratio"), Status.ARCHIVED)
    assert readers_of(average) == ["purchases:is_large"]  # through the archived one
    change_status(group.features.get(name="is_large"), Status.ARCHIVED)
    change_status(average, Status.ARCHIVED)
    assert readers_of(total) == ["cart@1"]
