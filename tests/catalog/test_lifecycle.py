"""What a status may become, what that needs, who still reads a thing, and what is recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from engine.errors import Conflict, InvalidInput, StillRead

pytestmark = [pytest.mark.django_db, pytest.mark.database]

SUNSET = datetime(2030, 1, 31, tzinfo=UTC)
STATUSES = ("draft", "active", "deprecated", "archived")
ALLOWED = {
    ("draft", "active"),
    ("draft", "archived"),
    ("active", "deprecated"),
    ("active", "archived"),
    ("deprecated", "active"),
    ("deprecated", "archived"),
    ("archived", "active"),
}


@pytest.fixture
def group() -> Any:
    from tests.factories import make_customer_group

    return make_customer_group()


@pytest.fixture
def service(group: Any) -> Any:
    """churn@1, active, reading total_purchases."""
    from catalog.models import FeatureService

    made = FeatureService.objects.create(name="churn")
    made.chosen.create(feature=group.features.get(name="total_purchases"), position=0)
    return made


def change(thing: Any, status: str, **how: Any) -> Any:
    from catalog.lifecycle import change_status

    change_status(thing, status, **how)
    thing.refresh_from_db()
    return thing


@pytest.mark.parametrize("wanted", STATUSES)
@pytest.mark.parametrize("now", STATUSES)
@pytest.mark.parametrize("kind", ["feature", "group", "service"])
def test_a_status_becomes_only_what_may_follow_it(group: Any, kind: str, now: str, wanted: str) -> None:
    from catalog.models import FeatureService

    things = {"feature": group.features.first(), "group": group, "service": FeatureService(name="churn")}
    thing = things[kind]
    thing.status = now
    thing.save()
    if now == wanted or (now, wanted) in ALLOWED:
        assert change(thing, wanted).status == wanted
    else:
        with pytest.raises(Conflict, match=f"is {now} and cannot become {wanted}"):
            change(thing, wanted)
        thing.refresh_from_db()
        assert thing.status == now


def test_deprecating_records_when_why_until_when_and_what_to_use_and_activating_forgets_it(group: Any) -> None:
    total, average = group.features.get(name="total_purchases"), group.features.get(name="avg_purchase_value")
    change(total, "deprecated", reason="wrong", replaced_by=average, sunset=SUNSET)
    assert (total.deprecation_reason, total.replaced_by, total.sunset_at) == ("wrong", average, SUNSET)
    first = total.deprecated_at
    assert first is not None
    change(total, "deprecated", reason="still wrong")
    assert (total.deprecated_at, total.deprecation_reason, total.replaced_by) == (first, "still wrong", average)
    change(total, "active")
    assert (total.deprecated_at, total.deprecation_reason, total.replaced_by, total.sunset_at) == (None, "", None, None)


def test_deprecating_a_group_twice_keeps_the_first_time(group: Any) -> None:
    first = change(group, "deprecated").deprecated_at
    assert first is not None
    assert change(group, "deprecated", reason="again").deprecated_at == first
    assert change(group, "active").deprecated_at is None


def test_nothing_happens_to_what_is_there_already(group: Any) -> None:
    change(group, "deprecated")
    changes, updated = group.history.count(), group.updated_at
    change(group, "deprecated")
    assert (group.history.count(), group.updated_at) == (changes, updated)


def test_a_change_is_in_the_history_with_who_what_and_why(group: Any) -> None:
    total = change(group.features.get(name="total_purchases"), "deprecated", by="ada", reason="wrong")
    newest = total.history.first()
    assert (newest.status, newest.history_change_reason) == ("deprecated", "deprecated by ada wrong")


def test_a_refused_change_leaves_no_history(group: Any) -> None:
    before = group.history.count()
    with pytest.raises(Conflict):
        change(group, "draft")
    assert group.history.count() == before


def test_archiving_what_is_read_is_refused_naming_the_readers(group: Any, service: Any) -> None:
    total = group.features.get(name="total_purchases")
    for thing in (total, group):
        with pytest.raises(StillRead, match="read by churn@1"):
            change(thing, "archived")
    change(group.features.get(name="customer_segment"), "archived")
    change(service, "deprecated")
    with pytest.raises(StillRead):
        change(total, "archived")
    change(service, "archived")
    assert change(total, "archived").status == "archived"
    assert change(group, "archived").status == "archived"


def test_every_reader_is_named_once(group: Any, service: Any) -> None:
    from catalog.lifecycle import readers_of
    from catalog.models import FeatureService

    second = FeatureService.objects.create(name="churn", version=2)
    for position, feature in enumerate(group.features.all()):
        second.chosen.create(feature=feature, position=position)
    assert readers_of(group) == ["churn@1", "churn@2"]
    assert readers_of(group.features.get(name="customer_segment")) == ["churn@2"]
    assert readers_of(service) == []


@pytest.mark.parametrize("status", ["active", "archived"])
def test_a_replacement_belongs_to_a_deprecation_of_a_feature(group: Any, status: str) -> None:
    total, average = group.features.get(name="total_purchases"), group.features.get(name="avg_purchase_value")
    for thing, how in ((total, {"replaced_by": average}), (total, {"sunset": SUNSET}), (group, {"sunset": SUNSET})):
        with pytest.raises(InvalidInput, match="belong to a feature that is deprecated"):
            change(thing, status, **how)
    with pytest.raises(InvalidInput, match="belong to a feature"):
        change(group, "deprecated", sunset=SUNSET)


def test_a_feature_is_not_replaced_by_itself(group: Any) -> None:
    total = group.features.get(name="total_purchases")
    with pytest.raises(InvalidInput, match="replaced by itself"):
        change(total, "deprecated", replaced_by=total)
    assert group.features.get(name="total_purchases").status == ""


@pytest.mark.parametrize(
    ("own", "of_group", "effective"),
    [
        ("", "active", "active"),
        ("", "archived", "archived"),
        ("active", "draft", "draft"),
        ("draft", "active", "draft"),
        ("deprecated", "active", "deprecated"),
        ("active", "deprecated", "deprecated"),
        ("deprecated", "draft", "draft"),
        ("draft", "archived", "archived"),
        ("archived", "active", "archived"),
    ],
)
def test_the_more_restrictive_of_a_features_and_its_groups_status_counts(
    own: str, of_group: str, effective: str
) -> None:
    from catalog.models.status import effective_status

    assert effective_status(own, of_group) == effective


# -- Undo


def undone(thing: Any, **how: Any) -> Any:
    from catalog.lifecycle import undo

    undo(thing, **how)
    thing.refresh_from_db()
    return thing


def test_undoing_a_deprecation_clears_it_and_undoing_that_brings_all_of_it_back(group: Any) -> None:
    total, average = group.features.get(name="total_purchases"), group.features.get(name="avg_purchase_value")
    change(total, "deprecated", reason="wrong", replaced_by=average, sunset=SUNSET)
    at = total.deprecated_at
    undone(total, by="ada")
    assert (total.status, total.effective_status) == ("", "active")  # it follows its group again
    assert (total.deprecated_at, total.deprecation_reason, total.replaced_by, total.sunset_at) == (None, "", None, None)
    assert total.history.first().history_change_reason == "undo, active by ada"
    undone(total)
    assert (total.status, total.deprecated_at, total.deprecation_reason) == ("deprecated", at, "wrong")
    assert (total.replaced_by, total.sunset_at) == (average, SUNSET)


def test_the_last_reason_of_a_deprecation_is_the_one_that_comes_back(group: Any) -> None:
    segment = group.features.get(name="customer_segment")
    change(segment, "deprecated", reason="wrong", sunset=SUNSET)
    change(segment, "deprecated", reason="still wrong")
    change(segment, "active")
    undone(segment)
    assert (segment.status, segment.deprecation_reason, segment.sunset_at) == ("deprecated", "still wrong", SUNSET)


def test_archived_does_not_become_deprecated_by_an_undo_either(group: Any) -> None:
    segment = group.features.get(name="customer_segment")
    change(segment, "deprecated", reason="wrong")
    change(segment, "archived")
    with pytest.raises(Conflict, match="cannot become deprecated; it can become active"):
        undone(segment)


def test_the_last_change_of_a_group_and_of_a_service_is_undone(group: Any, service: Any) -> None:
    at = change(group, "deprecated").deprecated_at
    assert undone(group).status == "active"
    assert (undone(group).status, group.deprecated_at) == ("deprecated", at)
    change(service, "archived")
    assert undone(service).status == "active"


def test_an_undo_without_a_way_back_or_with_readers_is_refused(group: Any, service: Any) -> None:
    total, segment = service.features.get(), group.features.get(name="customer_segment")
    with pytest.raises(Conflict, match="had no other status"):
        undone(segment)
    segment.status = "draft"
    segment.save()
    change(segment, "active")
    with pytest.raises(Conflict, match="is active and cannot become draft"):
        undone(segment)
    change(service, "archived")
    change(total, "archived")
    change(total, "active")
    change(service, "active")
    with pytest.raises(StillRead, match="read by churn@1"):
        undone(total)
    assert change(total, "active").status == "active"


def test_an_undo_is_refused_when_the_replacement_of_then_is_gone(group: Any) -> None:
    from tests.factories import add_feature

    total, new = group.features.get(name="total_purchases"), add_feature(group, "gone", "int64")
    change(total, "deprecated", replaced_by=new)
    change(total, "active")
    new.delete()
    with pytest.raises(Conflict, match="is not there any more; deprecate it anew"):
        undone(total)
