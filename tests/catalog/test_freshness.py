"""How new a group's newest event is, and which groups are stale; many groups in one query."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOON = datetime(2024, 11, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


def make(name: str = "customer_purchases", **fields: Any) -> Any:
    from tests.factories import make_customer_group

    return make_customer_group(name, features={}, **fields)


def known(group: Any) -> tuple[int, datetime]:
    from catalog.models import GroupFreshness

    found = GroupFreshness.objects.get(group=group)
    return found.group_version, found.newest_event_at


def stale(now: datetime = NOON) -> set[str]:
    from catalog import freshness
    from catalog.models import FeatureGroup

    return {group.name for group in freshness.stale(FeatureGroup.objects.all(), now=now)}


def test_the_newest_event_is_only_ever_raised_for_the_same_version() -> None:
    from catalog.freshness import observe

    group = make()
    for newest, then in [(NOON, NOON), (NOON - MICROSECOND, NOON), (NOON + MICROSECOND, NOON + MICROSECOND)]:
        observe(group.pk, 1, newest)
        assert known(group) == (1, then)
    observe(group.pk, 2, NOON - DAY)  # a new version begins anew
    assert known(group) == (2, NOON - DAY)
    observe(group.pk, 1, NOON + DAY)  # late rows of the version before
    assert known(group) == (2, NOON - DAY)


def test_to_observe_is_one_statement(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    from catalog.freshness import observe

    group = make()
    for newest in (NOON, NOON + DAY, NOON):
        with django_assert_num_queries(1):
            observe(group.pk, 1, newest)


@pytest.mark.django_db(transaction=True)
def test_of_racing_writers_the_newest_event_stays() -> None:
    from catalog.freshness import observe

    group = make()
    together = threading.Barrier(4)

    def write(first: int) -> None:
        together.wait()
        for second in range(first, 60, 4):
            observe(group.pk, 1, NOON + timedelta(seconds=59 - second))
        connection.close()

    writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert known(group) == (1, NOON + timedelta(seconds=59))


def test_a_group_is_stale_beyond_its_target_or_without_one_beyond_its_ttl() -> None:
    from catalog.freshness import observe

    for name, fields in {
        "at_its_target": {"freshness": DAY},
        "beyond_its_target": {"freshness": DAY - MICROSECOND},
        "at_its_ttl": {"ttl": DAY},  # which is inclusive
        "beyond_its_ttl": {"ttl": DAY - MICROSECOND},
        "beyond_its_target_within_its_ttl": {"freshness": timedelta(hours=1), "ttl": 2 * DAY},
        "within_its_target_beyond_its_ttl": {"freshness": 2 * DAY, "ttl": timedelta(hours=1)},
        "without_either": {},
        "of_a_century": {"ttl": timedelta(days=36_500)},
    }.items():
        observe(make(name, **fields).pk, 1, NOON - DAY)
    make("empty", freshness=MICROSECOND)
    assert stale() == {"beyond_its_target", "beyond_its_ttl", "beyond_its_target_within_its_ttl"}


def test_events_of_the_first_and_the_last_century_are_compared() -> None:
    from catalog.freshness import observe

    observe(make("ancient", ttl=timedelta(days=36_500)).pk, 1, datetime(1, 1, 1, tzinfo=UTC))
    observe(make("far_ahead", ttl=timedelta(days=36_500)).pk, 1, datetime(9999, 12, 31, tzinfo=UTC))
    assert stale() == {"ancient"}


def test_what_is_not_served_is_not_stale() -> None:
    from catalog.freshness import observe

    for status in ("draft", "active", "deprecated", "archived"):
        observe(make(status, status=status, freshness=DAY).pk, 1, NOON - 2 * DAY)
    assert stale() == {"active", "deprecated"}


def test_a_new_version_without_rows_is_empty_and_not_stale() -> None:
    from catalog.freshness import age_of, newest_of, observe

    group = make(freshness=DAY)
    observe(group.pk, 1, NOON - 2 * DAY)
    assert (stale(), newest_of(group)) == ({group.name}, NOON - 2 * DAY)
    group.version = 2
    group.save()
    assert (stale(), newest_of(group), age_of(group)) == (set(), None, None)


def test_the_age_of_a_group_is_the_time_since_its_newest_event() -> None:
    from catalog.freshness import age_of, observe

    group = make()
    assert age_of(group) is None
    before = timezone.now()
    observe(group.pk, 1, before - DAY)
    age = age_of(group)
    assert age is not None
    assert DAY <= age <= DAY + (timezone.now() - before)


def test_any_number_of_groups_is_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    from catalog.freshness import observe

    for number in range(30):
        observe(make(f"group_{number}", freshness=DAY).pk, 1, NOON - 2 * DAY)
    with django_assert_num_queries(1):
        assert len(stale()) == 30


def test_prometheus_is_told_the_age_of_each_group_and_how_many_are_stale(redis_clean: Any) -> None:
    from catalog import access
    from catalog.freshness import observe

    observe(make("old", freshness=DAY).pk, 1, timezone.now() - 2 * DAY)
    observe(make("new", freshness=DAY).pk, 1, timezone.now())
    make("empty", freshness=DAY)
    key = access.create_key(name="prometheus", scopes=["read"])[1]
    text = Client(headers={"Authorization": f"Bearer {key}"}).get("/metrics").content.decode()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("featurehub_"))
    ages = {name: float(value) for name, value in samples.items() if name.startswith("featurehub_newest_event_seconds")}
    assert ages.keys() == {f'featurehub_newest_event_seconds{{group="{name}"}}' for name in ("old", "new")}
    assert 0 <= ages['featurehub_newest_event_seconds{group="old"}'] - 2 * DAY.total_seconds() < 60
    assert 0 <= ages['featurehub_newest_event_seconds{group="new"}'] < 60
    assert float(samples["featurehub_stale_groups"]) == 1
