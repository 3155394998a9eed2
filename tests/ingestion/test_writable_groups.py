"""What a push works from is read once, and again after any change of a definition, whoever made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from catalog import writable
from catalog.models import FeatureGroup, Status
from engine.errors import Conflict, InvalidRows, UnknownName
from ingestion.push import find_target, push
from tests.factories import add_feature, make_customer_group, purchase
from tests.ingestion import processes


def _save_rule(group: FeatureGroup, rules: dict[str, object]) -> None:
    feature = group.features.get(name="total_purchases")
    feature.validation = rules
    feature.save()


def _save_status(group: FeatureGroup, status: Status) -> None:
    group.status = status
    group.save()


def _rename_entity(group: FeatureGroup) -> None:
    group.entity.name = "client"
    group.entity.save()


CHANGES: dict[str, Callable[[FeatureGroup], object]] = {
    "a rule": lambda group: _save_rule(group, {"max_value": 3}),
    "a new feature": lambda group: add_feature(group, "visits", "int64"),
    "a removed feature": lambda group: group.features.get(name="customer_segment").delete(),
    "a new request input": lambda group: group.request_inputs.create(name="cart_value", dtype="float64"),
    "a new input": lambda group: group.inputs.create(name="shipping", dtype="float64"),
    "a join key": lambda group: group.entity.join_keys.get().save(),
    "the status": lambda group: _save_status(group, Status.DEPRECATED),
    "the entity's name": _rename_entity,
}


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def test_a_known_group_costs_one_query(group: FeatureGroup) -> None:
    writable.find(group.name)  # records its schema, which is a change
    known = writable.find(group.name)
    with CaptureQueriesContext(connection) as asked:
        assert writable.find(group.name) is known
        assert find_target(group.name) is known.group
    assert len(asked) == 2


def test_a_push_of_a_known_group_asks_only_about_its_own_rows(group: FeatureGroup) -> None:
    push(group, [purchase()])
    push(group, [purchase()])
    with CaptureQueriesContext(connection) as asked:
        push(group, [purchase()])
    tables = [query["sql"].split(" WHERE")[0] for query in asked if "SAVEPOINT" not in query["sql"]]
    assert [table for table in tables if "catalogstate" in table] == [tables[0], tables[1], tables[-1]]
    assert [table.split('"')[1] for table in tables[2:-1]] == ["catalog_acceptance", "ingestion_pushbatch"]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_after_any_change_of_a_definition_it_is_read_again(
    group: FeatureGroup, change: Callable[[FeatureGroup], object]
) -> None:
    push(group, [purchase()])
    before = writable.find(group.name)
    change(group)
    assert writable.find(group.name) is not before


def test_a_change_of_another_process_holds_for_the_next_push(transactional_db: None, group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=4)])
    changed = processes.run_python(
        "import django; django.setup()\n"
        "from catalog.models import Feature\n"
        "feature = Feature.objects.get(name='total_purchases')\n"
        "feature.validation = {'max_value': 3}\n"
        "feature.save()\n"
    )
    assert changed.returncode == 0, changed.stderr
    with pytest.raises(InvalidRows, match="max_value"):
        push(group, [purchase(total_purchases=4)])


def test_what_a_rolled_back_change_left_is_not_used(group: FeatureGroup) -> None:
    """A number would be given again to the next change, and stand for what was rolled back."""
    push(group, [purchase()])
    with transaction.atomic():
        _save_rule(group, {"max_value": 3})
        with pytest.raises(InvalidRows):
            push(group, [purchase(total_purchases=4)])
        transaction.set_rollback(True)
    _save_rule(group, {"max_value": 9})
    assert push(group, [purchase(total_purchases=4)]).accepted == 1


def test_an_archived_or_an_unknown_group_is_no_target(group: FeatureGroup) -> None:
    with pytest.raises(UnknownName, match="customer_purchase'"):
        find_target("customer_purchase")
    _save_status(group, Status.ARCHIVED)
    with pytest.raises(Conflict, match="archived"):
        find_target(group.name)
