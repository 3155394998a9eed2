"""Who reads what: counted without a query, written down by day, and a reason not to archive."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from tests.serving.conftest import Hub
from tests.serving.test_hot_path import ONE, VECTORS, Whole, ask, environ_of

pytestmark = [pytest.mark.usefixtures("one_connection"), pytest.mark.database]
TODAY = timezone.now().date()


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    from catalog import usage

    usage._counted.clear()


def read(key: str, *features: str, times: int = 1) -> None:
    from serving.hot_path import HotPath

    body = json.dumps({"features": list(features), "entities": {"customer_id": ["C1"]}}).encode()
    for _ in range(times):
        answer = ask(HotPath(Whole()), environ_of("POST", VECTORS, body, authorization=f"Bearer {key}"))
        assert answer.status == "200 OK", answer.body


def uses() -> set[tuple[str, str, int]]:
    from catalog.models import FeatureUse

    return {(str(use.feature), use.reader, use.requests) for use in FeatureUse.objects.select_related("feature__group")}


def reader(hub: Hub) -> str:
    return f"key:{hub.key.split('_')[1]}"


def test_reads_are_counted_by_feature_key_and_day_without_a_query(
    hub: Hub, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    from catalog import usage

    read(hub.key, "customer_purchases:total")
    with django_assert_num_queries(0):
        read(hub.key, "customer_purchases:total", "support:tickets", times=2)
    assert uses() == set()
    assert usage.record() == 2
    assert uses() == {("customer_purchases:total", reader(hub), 3), ("support:tickets", reader(hub), 2)}
    read(hub.key, "support:tickets")
    usage.record()
    assert ("support:tickets", reader(hub), 3) in uses()
    assert usage.record() == 0


def test_every_way_to_read_is_counted(hub: Hub, settings: Settings) -> None:
    from catalog import usage

    asked = {"features": ["support:tickets"], "entities": {"customer_id": ["C1"]}}
    hub.get(f"{ONE}?features=support:tickets")
    hub.post(VECTORS, asked)
    hub.post("/feast/get-online-features", asked)
    settings.FEATUREHUB_ANONYMOUS_READS = True
    hub.client.get(f"{ONE}?features=support:tickets")
    hub.get(f"{ONE}?features=nothing")  # refused, so nobody has read anything
    usage.record()
    assert uses() == {("support:tickets", reader(hub), 3), ("support:tickets", "anonymous", 1)}


def test_threads_count_every_request(hub: Hub) -> None:
    from catalog import usage
    from catalog.access import caller_of

    caller = caller_of(hub.key)
    threads = [
        threading.Thread(target=lambda: [usage.count(("support:tickets",), caller) for _ in range(2_000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage.record()
    assert uses() == {("support:tickets", reader(hub), 8_000)}


def test_what_cannot_be_written_is_written_later(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog import usage

    read(hub.key, "support:tickets")
    with monkeypatch.context() as broken:
        broken.setattr(usage, "_ADD", "INSERT INTO nowhere VALUES (%s, %s, %s, %s)")
        with pytest.raises(DatabaseError):
            usage.record()
    read(hub.key, "support:tickets")
    usage.record()
    assert uses() == {("support:tickets", reader(hub), 2)}


def test_a_feature_that_is_gone_since_is_left_out(hub: Hub) -> None:
    from catalog import usage
    from catalog.access import caller_of

    usage.count(("support:gone", "support:tickets"), caller_of(hub.key))
    assert usage.record() == 1


def test_what_is_still_asked_for_is_not_archived_until_its_readers_are_gone(hub: Hub) -> None:
    from catalog import usage
    from catalog.access import revoke_key
    from catalog.lifecycle import change_status
    from catalog.models import Feature, FeatureGroup, Status
    from engine.errors import StillRead

    read(hub.key, "support:tickets", times=2)
    usage.record()
    feature = Feature.objects.get(group__name="support", name="tickets")
    told = rf"the key 'tests' \(2 requests, the last on {TODAY}\)"
    for thing in (feature, FeatureGroup.objects.get(name="support")):
        with pytest.raises(StillRead, match=told):
            change_status(thing, Status.ARCHIVED)
    revoke_key(hub.key.split("_")[1])
    change_status(feature, Status.ARCHIVED)


@pytest.mark.parametrize(("days", "blocks"), [(30, True), (31, False)])
def test_who_has_not_read_for_a_month_reads_no_more(hub: Hub, days: int, blocks: bool) -> None:
    from catalog.lifecycle import readers_of
    from catalog.models import Feature, FeatureUse

    feature = Feature.objects.get(group__name="support", name="tickets")
    FeatureUse.objects.create(feature=feature, reader="anonymous", day=TODAY - timedelta(days=days), requests=1)
    assert bool(readers_of(feature)) == blocks


def test_old_counts_are_forgotten(hub: Hub) -> None:
    from catalog import usage
    from catalog.models import Feature, FeatureUse

    feature = Feature.objects.get(group__name="support", name="tickets")
    for days in (400, 401):
        FeatureUse.objects.create(feature=feature, reader="anonymous", day=TODAY - timedelta(days=days), requests=1)
    assert (usage.forget_old(), FeatureUse.objects.count()) == (1, 1)
