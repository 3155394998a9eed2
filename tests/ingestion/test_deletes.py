"""A deleted entity is gone from both stores; what is older stays dead whenever it arrives, what is newer revives it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.test import Client
from django.utils import timezone

from catalog import access
from catalog.models import Acceptance, Entity, FeatureGroup
from catalog.writable import layouts_of
from ingestion import drain, materialize
from ingestion.models import PushBatch
from ingestion.push import Pushed, delete, push
from ingestion.push_rows import rows_of
from ingestion.tasks import catch_up
from serving.training import Asked, build
from tests.factories import ELEVEN, NOON, TEN, add_feature, make_customer_group, make_entity, purchase
from tests.ingestion import contents

pytestmark = pytest.mark.database

ROWS = "/api/v1/groups/customer_purchases/rows"
C1 = {"customer_id": "C1"}


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


@pytest.fixture
def client() -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


def served(client: Client, id: str = "C1") -> Any:
    """The served total of purchases, None for an entity that is not found."""
    answer = client.get(f"/features/customer/{id}?features=total_purchases")
    return answer.json()["total_purchases"] if answer.status_code == 200 else None


def test_a_deleted_entity_is_not_found(group: FeatureGroup, client: Client) -> None:
    push(group, [purchase("C1"), purchase("C2")])
    answer = client.delete(f"{ROWS}/C1")
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "quarantined": 0, "online": "applied"})
    assert client.get("/features/customer/C1").json()["code"] == "entity_not_found"
    assert (served(client), served(client, "C2")) == (None, 4)


def test_the_tombstone_goes_the_way_of_every_row(group: FeatureGroup) -> None:
    add_feature(group, "visits", "int64", not_null=True)  # rules are about values, which a tombstone has none of
    assert delete(group, C1, at=TEN, by="ada") == Pushed(1, "applied")
    batch = PushBatch.objects.get()
    (logged,) = rows_of(batch).to_dicts()
    assert (batch.pushed_by, batch.row_count, logged["_deleted"], logged["_accepted"]) == (
        "ada",
        1,
        True,
        batch.acceptance_id,
    )
    assert logged["event_timestamp"] == datetime(2024, 11, 1, 10, tzinfo=UTC)
    assert logged["created_timestamp"] == batch.acceptance.accepted_at
    values = ["total_spent", "total_purchases", "avg_purchase_value", "customer_segment", "visits"]
    assert [logged[name] for name in values] == [None] * 5
    online = contents.online_rows(group)["s2:C1"]
    assert (online.deleted, online.values) == (True, [])
    assert drain.drain(group) == 1
    assert contents.offline(group) == [logged]


def test_what_is_older_stays_dead_and_what_is_newer_revives(group: FeatureGroup, client: Client) -> None:
    push(group, [purchase(at=TEN, total_purchases=10)])
    delete(group, C1, at=ELEVEN)
    push(group, [purchase(at="2024-11-01T10:30:00Z", total_purchases=9)])
    assert served(client) is None
    push(group, [purchase(at=NOON, total_purchases=12)])
    assert served(client) == 12


def test_a_row_accepted_after_a_deletion_of_the_same_time_revives(group: FeatureGroup, client: Client) -> None:
    delete(group, C1, at=TEN)
    push(group, [purchase(at=TEN, total_purchases=1)])
    assert served(client) == 1
    delete(group, C1, at=TEN)
    assert served(client) is None


def test_a_deletion_of_the_past_does_not_reach_what_is_newer(group: FeatureGroup, client: Client) -> None:
    push(group, [purchase(at=ELEVEN, total_purchases=11)])
    delete(group, C1, at=TEN)
    assert served(client) == 11


def test_in_any_order_of_arrival_both_stores_end_alike(group: FeatureGroup) -> None:
    push(group, [purchase(at=TEN, total_purchases=1)])
    delete(group, C1, at=ELEVEN)
    push(group, [purchase(at=TEN, total_purchases=2)])
    push(group, [purchase("C2", at=NOON)])
    delete(group, {"customer_id": "C2"}, at=ELEVEN)
    frames = [rows_of(batch) for batch in PushBatch.objects.order_by("pk")]
    expected = contents.online_rows(group)
    assert (expected["s2:C1"].deleted, expected["s2:C2"].deleted) == (True, False)
    for order in islice(permutations(frames), 0, None, 7):
        contents.forget_online(group)
        for frame in order:
            materialize.upsert_frame(group, frame, layouts_of(group))
        assert contents.online_rows(group) == expected
    drain.drain(group)
    contents.forget_online(group)
    materialize.materialize(group, full=True)
    assert contents.online_rows(group) == expected


def test_history_before_the_deletion_stays_and_is_joined(group: FeatureGroup, client: Client) -> None:
    push(group, [purchase(at=TEN, total_purchases=10)])
    delete(group, C1, at=ELEVEN)
    times = [datetime(2024, 11, 1, hour, minute, tzinfo=UTC) for hour, minute in ((10, 30), (11, 0), (12, 0))]
    spine = pa.table({"customer_id": ["C1"] * 3, "event_timestamp": times})
    joined = build(Asked("", ("customer_purchases:total_purchases",)), spine)
    assert joined is not None
    assert joined["total_purchases"].to_pylist() == [10, None, None]


def test_deleting_who_was_never_there_is_no_error_and_keeps_older_rows_out(group: FeatureGroup, client: Client) -> None:
    assert client.delete(f"{ROWS}/nobody?timestamp={NOON}").status_code == 200
    push(group, [purchase("nobody", at=TEN)])
    assert served(client, "nobody") is None


def test_with_redis_down_a_deletion_is_pending_and_done_later(
    group: FeatureGroup, client: Client, redis_down: Callable[[], AbstractContextManager[None]]
) -> None:
    push(group, [purchase()])
    with redis_down():
        answer = client.delete(f"{ROWS}/C1")
    assert (answer.status_code, answer.json()["online"], served(client)) == (202, "pending", 4)
    catch_up()
    assert served(client) is None


def test_without_a_time_it_is_now(group: FeatureGroup, client: Client) -> None:
    before = timezone.now()
    client.delete(f"{ROWS}/C1")
    (logged,) = rows_of(PushBatch.objects.get()).to_dicts()
    assert before <= logged["event_timestamp"] <= timezone.now()


@pytest.mark.parametrize("offset", ["%2B01:00", "-05:30", "Z", "z"])
def test_a_time_has_any_offset(group: FeatureGroup, client: Client, offset: str) -> None:
    assert client.delete(f"{ROWS}/C1?timestamp=2024-11-01T10:00:00{offset}").status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("timestamp=2024-11-01T10:00:00", 422),
        ("timestamp=yesterday", 422),
        ("timestamp=", 422),
        ("timestamp=9999-12-31T23:59:59Z", 422),
        ("timestamp=%00", 422),
        ("timestamp=2024-11-01T10:00:00Z&timestamp=2024-11-01T11:00:00Z", 400),
        ("time=2024-11-01T10:00:00Z", 400),
    ],
)
def test_what_is_no_time_to_delete_at_is_refused(group: FeatureGroup, client: Client, query: str, status: int) -> None:
    assert client.delete(f"{ROWS}/C1?{query}").status_code == status
    assert not Acceptance.objects.exists()


def test_a_deletion_may_be_ahead_by_the_allowed_skew_and_no_more(group: FeatureGroup, client: Client) -> None:
    statuses = [
        client.delete(f"{ROWS}/C1", QUERY_STRING=f"timestamp={(timezone.now() + ahead):%Y-%m-%dT%H:%M:%SZ}").status_code
        for ahead in (timedelta(minutes=4), timedelta(minutes=6))
    ]
    assert statuses == [200, 422]


def test_a_group_that_is_unknown_or_archived_deletes_nothing(group: FeatureGroup, client: Client) -> None:
    assert client.delete("/api/v1/groups/customer_purchase/rows/C1").json()["code"] == "unknown_name"
    FeatureGroup.objects.update(status="archived")
    assert client.delete(f"{ROWS}/C1").status_code == 409


def test_a_composite_id_is_its_parts(sources: Path, client: Client) -> None:
    make_entity("shop", {"country": "string", "shop_number": "int64"})
    shops = FeatureGroup.objects.create(name="ratings", entity=Entity.objects.get(name="shop"), status="active")
    add_feature(shops, "rating", "float64")
    push(shops, [{"country": "a/b,c", "shop_number": 7, "event_timestamp": TEN, "rating": 0.5}])
    assert client.delete("/api/v1/groups/ratings/rows/a~sb~cc,7").status_code == 200
    assert contents.online_rows(shops)["s5:a/b,ci1:7"].deleted
