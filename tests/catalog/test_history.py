"""What was changed of a thing, by whom, when and why, in the keys of a definitions file; and the way back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, InvalidDefinition, NotAllowed, NotFound
from tests.catalog.registry.conftest import holder

pytestmark = [pytest.mark.django_db, pytest.mark.database]

SHOP = """
owners:
- {name: growth, email: growth@example.com}
entities:
- {name: customer, join_keys: [{name: customer_id, dtype: string}]}
feature_groups:
- name: purchases
  entity: customer
  status: active
  source: {kind: file, path: purchases.csv}
  inputs: [{name: spent, dtype: float64}]
  features:
  - {name: total, dtype: int64, description: So far., validation: {min_value: 0}}
  - {name: average, dtype: float64, transformation: {expression: spent / total}}
feature_services:
- {name: churn, version: 1, status: draft, features: ['purchases:total', 'purchases:average']}
"""


def apply(tmp_path: Path, text: str = SHOP) -> None:
    from catalog import definitions

    path = tmp_path / "shop.yaml"
    path.write_text(text)
    apart()
    definitions.apply([path])


def apart() -> None:
    """What was written so far is an hour old: it is not one change with what comes."""
    from simple_history.utils import get_history_model_for_model

    from catalog import history
    from catalog.models import GroupInput, JoinKey, RequestInput, ServiceFeature

    for model in (*history.KINDS, GroupInput, RequestInput, JoinKey, ServiceFeature):
        records = get_history_model_for_model(model)
        for record in records.objects.all():
            records.objects.filter(pk=record.pk).update(history_date=record.history_date - timedelta(hours=1))


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    """The group of SHOP, applied once."""
    from catalog.models import FeatureGroup

    apply(tmp_path)
    return FeatureGroup.objects.get(name="purchases")


def user(name: str, **fields: Any) -> Any:
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username=name, defaults=fields or {"is_superuser": True})[0]


def changes(thing: Any) -> list[Any]:
    from catalog import history

    return history.changes_of(type(thing).objects.get(pk=thing.pk))


def test_an_apply_is_one_change_of_each_thing_it_touches_in_the_keys_of_a_file(shop: Any, tmp_path: Path) -> None:
    apply(tmp_path, SHOP.replace("{min_value: 0}", "{min_value: 1, not_null: true}").replace("So far.", "All."))
    total = shop.features.get(name="total")
    newest, first = changes(total)
    assert newest.fields == (
        ("description", "So far.", "All."),
        ("validation.min_value", 0, 1),
        ("validation.not_null", None, True),
    )
    assert (newest.reason, newest.by, newest.is_first, first.is_first) == ("apply", "", False, True)
    assert ("dtype", None, "int64") in first.fields
    assert newest.at - first.at > timedelta(minutes=59)
    assert len(changes(shop)) == 1  # a rule of a feature is no change of the group


def test_parts_sources_tags_and_lists_are_told_with_what_they_belong_to(shop: Any, tmp_path: Path) -> None:
    from catalog.models import Entity, FeatureService

    changed = SHOP.replace(
        "{name: spent, dtype: float64}", "{name: spent, dtype: float64}, {name: city, dtype: string}"
    )
    changed = changed.replace("purchases.csv", "p/*.csv").replace(
        "entity: customer\n", "entity: customer\n  tags: [new]\n"
    )
    changed = changed.replace("['purchases:total', 'purchases:average']", "['purchases:average', 'purchases:total']")
    changed = changed.replace("  - {name: average", "  - {name: count, dtype: int64}\n  - {name: average")
    apply(tmp_path, changed)
    spent, city = {"name": "spent", "dtype": "float64"}, {"name": "city", "dtype": "string"}
    assert {key: (old and [*old], new and [*new]) for key, old, new in changes(shop)[0].fields} == {
        "tags": (None, ["new"]),
        "inputs": ([spent], [spent, city]),
        "features": (["total", "average"], ["total", "count", "average"]),
        "source.path": ([*"purchases.csv"], [*"p/*.csv"]),
    }
    service = changes(FeatureService.objects.get())[0].fields
    assert [(key, list(old), list(new)) for key, old, new in service] == [
        ("features", ["purchases:total", "purchases:average"], ["purchases:average", "purchases:total"])
    ]
    (made,) = changes(Entity.objects.get())
    assert dict(field[::2] for field in made.fields)["join_keys"] == ({"name": "customer_id", "dtype": "string"},)


def test_a_person_a_key_and_the_shell_are_named(shop: Any) -> None:
    from catalog.actions import at_shell
    from catalog.models import ApiKey
    from catalog.registry import edits, kinds

    ci = holder("read", "registry", name="ci")
    public_id = ApiKey.objects.get().public_id
    total = shop.features.get(name="total")
    ci.edit("features/purchases/total", {"description": "By a key."})
    apart()
    edits.change_state(at_shell("root"), kinds.FEATURES, ["purchases", "total"], edits.Transition("deprecated", "Old."))
    apart()
    person = user("ada")
    edits.change(person, kinds.FEATURES, ["purchases", "total"], {"description": "x"}, if_match="*", dry_run=False)
    told = [(change.by, change.principal, change.fields[0][0]) for change in changes(total)[:3]]
    assert told == [
        ("ada", f"user:{person.pk}", "description"),
        ("shell root Old.", "shell:root", "status"),
        (f"key {public_id} ci", f"key:{public_id}", "description"),
    ]
    assert changes(total)[1].fields[-1] == ("deprecation_reason", None, "Old.")


def test_a_revert_is_an_edit_that_leaves_the_status(shop: Any, tmp_path: Path) -> None:
    from catalog import history
    from catalog.lifecycle import change_status

    total = shop.features.get(name="total")
    apply(tmp_path, SHOP.replace("{min_value: 0}", "{min_value: 1, not_null: true}").replace("So far.", "All."))
    total.refresh_from_db()
    change_status(total, "deprecated", reason="Old.")
    apart()
    first = changes(total)[-1]
    planned = history.revert(total, first.id, user("ada"), dry_run=True)
    assert {field.field for field in planned.changes[0].fields} == {"description", "validation"}
    total.refresh_from_db()
    assert total.description == "All."
    history.revert(total, first.id, user("ada"))
    total.refresh_from_db()
    assert (total.description, total.validation) == ("So far.", {"min_value": 0})
    assert (total.status, total.deprecation_reason) == ("deprecated", "Old.")
    newest = changes(total)[0]
    assert (newest.by, newest.reason) == ("ada", f"revert to change {first.id}")
    assert history.revert(total, newest.id, user("ada")).changes == ()


def test_what_belongs_to_a_thing_comes_back_with_it(shop: Any, tmp_path: Path) -> None:
    from catalog import history
    from catalog.models import DataSource, Entity, FeatureService, Owner

    changed = SHOP.replace(
        "{name: spent, dtype: float64}", "{name: spent, dtype: float64}, {name: city, dtype: string}"
    )
    changed = changed.replace("purchases.csv", "p/*.csv").replace("growth@", "us@").replace("customer_id", "id")
    changed = changed.replace("['purchases:total', 'purchases:average']", "['purchases:total']")
    changed = changed.replace("  - {name: average", "  - {name: count, dtype: int64}\n  - {name: average")
    apply(tmp_path, changed)
    apart()
    for thing in (shop, FeatureService.objects.get(), Entity.objects.get(), Owner.objects.get()):
        history.revert(thing, changes(thing)[-1].id, user("ada"))
    assert [column.name for column in shop.inputs.all()] == ["spent"]
    assert [feature.name for feature in shop.features.all()] == ["total", "count", "average"]
    assert DataSource.objects.get().path == "purchases.csv"
    assert FeatureService.objects.get().feature_names() == ["purchases:total", "purchases:average"]
    assert (Entity.objects.get().join_keys.get().name, Owner.objects.get().email) == (
        "customer_id",
        "growth@example.com",
    )


def test_a_source_is_reverted_by_itself(shop: Any, tmp_path: Path) -> None:
    from catalog import history

    apply(tmp_path, SHOP.replace("purchases.csv", "p/*.csv"))
    assert changes(shop.source)[0].fields == (("path", "purchases.csv", "p/*.csv"),)
    history.revert(shop.source, changes(shop.source)[-1].id, user("ada"))
    shop.source.refresh_from_db()
    assert shop.source.path == "purchases.csv"


def test_what_would_need_a_new_group_version_is_not_reverted(shop: Any, tmp_path: Path) -> None:
    from catalog import history
    from catalog.schemas import current_schema

    apply(tmp_path, SHOP.replace("spent / total", "total / spent"))
    average = shop.features.get(name="average")
    current_schema(shop)  # rows are stored under the definition of now
    with pytest.raises(InvalidDefinition) as refused:
        history.revert(average, changes(average)[-1].id, user("ada"))
    assert "that needs version: 2" in str(refused.value)
    average.refresh_from_db()
    assert average.expression == "total / spent"


def test_who_may_not_edit_does_not_revert_and_a_wrong_change_is_told(shop: Any, tmp_path: Path) -> None:
    from catalog import history

    apply(tmp_path, SHOP.replace("So far.", "All."))
    total = shop.features.get(name="total")
    first = changes(total)[-1].id
    with pytest.raises((NotAllowed, NotFound)):
        history.revert(total, first, user("nobody", is_staff=True))
    with pytest.raises(NotFound, match="has no change 999999"):
        history.revert(total, 999_999, user("ada"))
    total.refresh_from_db()
    assert total.description == "All."


def test_an_owner_that_is_gone_is_named_in_the_history_and_refused_by_name_in_a_revert(shop: Any) -> None:
    from catalog import history
    from catalog.models import Owner

    total = shop.features.get(name="total")
    apart()
    total.owner = Owner.objects.create(name="gone")
    total.save()
    apart()
    total.owner = None
    total.save()
    Owner.objects.get(name="gone").delete()
    newest, middle, _ = changes(total)
    assert (newest.fields, middle.fields) == ((("owner", "gone", None),), (("owner", None, "gone"),))
    with pytest.raises(InvalidDefinition, match="1 problem") as refused:
        history.revert(total, middle.id, user("ada"))
    assert "there is no owner named 'gone'" in str(refused.value)


def test_saves_without_a_difference_are_no_changes(shop: Any) -> None:
    apart()
    for _ in range(3):
        shop.save()
    assert len(changes(shop)) == 1


def test_a_deleted_thing_has_its_last_change_and_is_not_brought_back(shop: Any) -> None:
    from catalog import history

    average = shop.features.get(name="average")
    pk = average.pk
    apart()
    shop.features.get(name="average").chosen_by.all().delete()
    average.delete()
    average.pk = average.id = pk
    told = history.changes_of(average)
    assert (told[0].is_deletion, told[0].fields) == (True, ())
    with pytest.raises(Conflict, match="was not there after"):
        history.revert(average, told[0].id, user("ada"))


def test_a_long_history_costs_no_query_more() -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from catalog.history import changes_of
    from catalog.models import Tag
    from tests.factories import make_customer_group

    group = make_customer_group()
    group.tags.add(Tag.objects.create(name="first"))

    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert changes_of(group)
        return len(asked)

    few = queries()
    for number in range(10):
        group.description = f"The words of change {number}."
        group.save()
    assert queries() == few
