"""A change that a reader could notice raises the catalog version with it, and is published before it is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import transaction
from django.utils import timezone

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


@pytest.fixture(autouse=True)
def warm_store(transactional_db: None, redis_clean: redis.Redis) -> Iterator[redis.Redis]:
    from catalog import snapshot, stores
    from catalog.models import CatalogState
    from engine.online.store import State

    snapshot.forget()
    current = CatalogState.current()
    stores.online().open_for_reading(State(current.version, current.epoch))
    yield redis_clean
    snapshot.forget()


@pytest.fixture
def group() -> Any:
    from catalog.models import FeatureService
    from tests.factories import make_customer_group

    made = make_customer_group()
    FeatureService.objects.create(name="churn").chosen.create(feature=made.features.first(), position=0)
    return made


def in_database() -> int:
    from catalog.models import CatalogState

    return CatalogState.current().version


def published() -> int:
    from catalog import stores

    state = stores.online().state()
    assert state is not None
    return state.catalog_version


def saved(thing: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(thing, name, value)
    thing.save()


def tag(name: str) -> Any:
    from catalog.models import Tag

    return Tag.objects.get_or_create(name=name)[0]


def tagged(group: Any, name: str) -> Any:
    """The tag, which the group has had for a while."""
    from catalog.models import Tag

    group.tags.through.objects.create(featuregroup=group, tag=tag(name))
    return Tag.objects.get(name=name)


NOTICED: dict[str, Callable[[Any], object]] = {
    "a status": lambda g: saved(g, status="deprecated"),
    "a ttl": lambda g: saved(g, ttl=timedelta(days=1)),
    "a version": lambda g: saved(g, version=2),
    "a feature's status": lambda g: saved(g.features.first(), status="archived"),
    "a feature's sunset": lambda g: saved(g.features.first(), sunset_at=timezone.now()),
    "a replacement": lambda g: saved(g.features.first(), replaced_by=g.features.last()),
    "a new feature": lambda g: g.features.create(name="new", dtype="int64", type="numerical"),
    "a feature removed": lambda g: g.features.last().delete(),
    "a feature about persons": lambda g: g.features.first().tags.add(tag("pii")),
    "a group about persons": lambda g: g.tags.set([tag("pii")]),
    "a tag that means it now": lambda g: saved(tagged(g, "private"), name="pii"),
    "a tag that means it no more": lambda g: saved(tagged(g, "pii"), name="private"),
    "a tag that is gone": lambda g: tagged(g, "pii").delete(),
    "a new entity": lambda g: type(g.entity).objects.create(name="shop"),
    "a join key": lambda g: g.entity.join_keys.create(name="second", dtype="int64", position=1),
    "a service's status": lambda g: saved(g.features.first().services.get(), status="deprecated"),
    "a service's feature": lambda g: (
        g.features.first().services.get().chosen.create(feature=g.features.last(), position=1)
    ),
    "a feature's expression": lambda g: saved(g.features.get(name="avg_purchase_value"), expression="total_spent"),
    "a request input": lambda g: g.request_inputs.create(name="cart_value", dtype="float64"),
    "a stored schema": lambda g: g.schemas.create(version=1, number=1, columns={}),
}


UNNOTICED: dict[str, Callable[[Any], object]] = {
    "a description": lambda g: saved(g, description="better"),
    "a freshness": lambda g: saved(g, freshness=timedelta(days=1)),
    "a feature's description": lambda g: saved(g.features.first(), description="better"),
    "a feature's validation": lambda g: saved(g.features.first(), validation={"not_null": True}),
    "a tag": lambda g: g.tags.add(tag("purchases")),
    "an input": lambda g: g.inputs.create(name="raw", dtype="int64"),
    "the same once more": lambda g: saved(g, status="active"),
}


@pytest.mark.parametrize("what", NOTICED)
def test_what_a_reader_could_notice_is_published_when_it_is_committed(group: Any, what: str) -> None:
    before = in_database()
    assert published() == before
    NOTICED[what](group)
    assert in_database() > before
    assert published() == in_database()


@pytest.mark.parametrize("what", UNNOTICED)
def test_what_no_reader_could_notice_does_not_move_the_version(group: Any, what: str) -> None:
    before = in_database()
    UNNOTICED[what](group)
    assert (in_database(), published()) == (before, before)


def test_nothing_is_published_before_the_commit_and_one_publish_covers_many_changes(
    group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog import publishing

    publish, calls = publishing.publish, []
    monkeypatch.setattr(publishing, "publish", lambda: (calls.append(1), publish()))
    before = published()
    with transaction.atomic():
        saved(group, status="deprecated")
        saved(group.features.first(), status="archived")
        assert published() == before
    assert published() == in_database() > before
    assert calls == [1]


def test_a_change_that_is_rolled_back_leaves_the_version_where_it_was(group: Any) -> None:
    before = in_database()
    with transaction.atomic():
        saved(group, status="deprecated")
        transaction.set_rollback(True)
    assert (in_database(), published()) == (before, before)


def test_a_cold_store_stays_cold(group: Any, warm_store: redis.Redis) -> None:
    warm_store.flushall()
    saved(group, status="deprecated")
    assert warm_store.get("fh:state") is None


def test_a_change_is_made_while_redis_is_down(group: Any, settings: Any, tmp_path: Any) -> None:
    from catalog import stores

    settings.ONLINE_REDIS_URL = f"unix://{tmp_path}/nobody.sock?db=0"
    stores.online().close()
    stores.online.cache_clear()
    before = in_database()
    saved(group, status="deprecated")
    assert in_database() > before
    stores.online().close()
    stores.online.cache_clear()


def test_threads_that_learn_of_a_change_together_read_the_catalog_once(
    group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connection

    from catalog import snapshot, stores

    load, loads, gate = snapshot.load, [], threading.Barrier(4)
    monkeypatch.setattr(snapshot, "load", lambda: (loads.append(1), load())[1])
    raw, _ = stores.online().read([])
    seen = []

    def learn() -> None:
        gate.wait()
        seen.append(snapshot.checked_against(raw))
        connection.close()

    threads = [threading.Thread(target=learn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]
    assert len(set(map(id, seen))) == 1


def test_every_model_that_a_snapshot_reads_is_listened_to(group: Any) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from catalog import snapshot
    from catalog.models import CatalogState, Tag
    from catalog.publishing import NOTICED as LISTENED

    with CaptureQueriesContext(connection) as queries:
        snapshot.load()
    read = {part.split('"')[1] for query in queries for part in query["sql"].split("FROM ")[1:] if '"' in part}
    assert read <= {model._meta.db_table for model in (*LISTENED, Tag, CatalogState)}
