"""Five different answers, from rows as they lie in Redis: TTL edges, tombstones, older schemas, foreign bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis

from tests.serving.conftest import YESTERDAY, Hub
from tests.serving.test_entity_vector import answer_of

TTL_US = 90 * 86_400_000_000
EVENT_US = int(YESTERDAY.timestamp()) * 1_000_000
PURCHASES = ["total", "segment", "is_member", "last_seen", "taste", "recent", "average"]
ASKED = [f"customer_purchases:{name}" for name in PURCHASES]


@pytest.fixture
def row_of(redis_client: redis.Redis) -> Callable[[str], tuple[bytes, bytes]]:
    """The key and the bytes of a customer's purchases."""
    from catalog import stores
    from engine.entity_key import encode_key
    from engine.online.store import row_key

    def row_of(customer: str) -> tuple[bytes, bytes]:
        key = row_key(stores.online().row_prefix("customer_purchases", 1), encode_key([customer]))
        value = redis_client.get(key)
        assert isinstance(value, bytes)
        return key, value

    return row_of


def statuses(now_us: int | None = None, customer: str = "C1") -> tuple[list[str], list[object]]:
    from serving import vectors

    found = vectors.read(vectors.of_features(ASKED), {"customer_id": [customer]}, now_us=now_us)
    return list(found.statuses[0]), found.json_values()[0]


@pytest.mark.parametrize(
    ("age_us", "status"),
    [
        (TTL_US - 1, "PRESENT"),
        (TTL_US, "PRESENT"),  # inclusive
        (TTL_US + 1, "OUTSIDE_MAX_AGE"),
        (-1, "PRESENT"),  # an event within the clock skew is served
    ],
)
def test_a_value_is_served_until_it_is_exactly_as_old_as_the_ttl(hub: Hub, age_us: int, status: str) -> None:
    found, values = statuses(EVENT_US + age_us)
    assert set(found) == {status}
    assert (values[0] == 4) == (status == "PRESENT")


def test_a_value_outside_its_age_is_withheld_over_http_with_its_time(hub: Hub) -> None:
    answer = answer_of(hub.get("/features/customer/C3?features=total&include=meta"))
    assert answer["features"] == {"total": None}
    assert answer["meta"]["total"]["status"] == "OUTSIDE_MAX_AGE"
    assert answer["meta"]["total"]["age_seconds"] >= 365 * 86_400


def test_null_is_a_value_of_its_own(hub: Hub) -> None:
    found, values = statuses(customer="C2")
    assert found == [*["NULL_VALUE"] * 6, "PRESENT"]
    assert values == [*[None] * 6, 0.0]  # the average of no total is 0, as its expression says


def test_a_tombstone_reads_as_never_written(hub: Hub, redis_client: redis.Redis, row_of: Any) -> None:
    from engine.online.codec import decode_row, encode_row

    key, value = row_of("C1")
    redis_client.set(key, encode_row(replace(decode_row(value), deleted=True, values=[])))
    assert statuses() == (["NOT_FOUND"] * 7, [None] * 7)
    assert answer_of(hub.get("/features/customer_purchases/C1"), 404)["code"] == "entity_not_found"


def test_a_feature_that_came_after_a_row_is_not_found_in_it_and_its_neighbours_are(hub: Hub) -> None:
    from catalog import snapshot
    from catalog.models import FeatureGroup
    from catalog.schemas import current_schema
    from tests.factories import add_feature

    group = FeatureGroup.objects.get(name="customer_purchases")
    add_feature(group, "newcomer", "int64")
    current_schema(group)
    snapshot.forget()
    answer = answer_of(hub.get("/features/customer/C1?features=newcomer,total,is_member&include=meta"))
    assert answer["features"] == {"newcomer": None, "total": 4, "is_member": True}
    assert [m["status"] for m in answer["meta"].values()] == ["NOT_FOUND", "PRESENT", "PRESENT"]


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


def with_values(value: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    from engine.online.codec import decode_row, encode_row

    row = decode_row(value)
    return encode_row(replace(row, values=change(row.values)))


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda value: b"",
    "garbage": lambda value: b"hello",
    "long garbage": lambda value: b"\x01" * 500,
    "truncated": lambda value: value[:-5],
    "one bit": lambda value: value[:50] + bytes([value[50] ^ 1]) + value[51:],
    "another format": lambda value: sealed(b"\x02" + value[1:-4]),
    "unknown schema": lambda value: sealed(value[:34] + (999).to_bytes(4, "big") + value[38:-4]),
    "impossible time": lambda value: sealed(value[:2] + b"\xff" * 8 + value[10:-4]),
    "no msgpack": lambda value: sealed(value[:38] + b"\xc1"),
    "no array": lambda value: sealed(value[:38] + msgspec.msgpack.encode({"total": 4})),
    "too few values": lambda value: with_values(value, lambda values: values[:3]),
    "a text for an int64": lambda value: with_values(value, lambda values: ["4", *values[1:]]),
    "a bool for an int64": lambda value: with_values(value, lambda values: [True, *values[1:]]),
    "a text for a timestamp": lambda value: with_values(value, lambda v: [*v[:3], "today", *v[4:]]),
    "a number for an embedding": lambda value: with_values(value, lambda v: [*v[:4], 7, *v[5:]]),
    "null beside a wrong type": lambda value: with_values(value, lambda v: [None, 1, *v[2:]]),
}


@pytest.mark.parametrize("how", SPOILED)
def test_bytes_that_cannot_be_read_are_invalid_and_never_a_server_error(
    hub: Hub, redis_client: redis.Redis, row_of: Any, how: str
) -> None:
    key, value = row_of("C1")
    redis_client.set(key, SPOILED[how](value))
    assert statuses() == (["INVALID"] * 7, [None] * 7)
    answer = answer_of(hub.get(f"/features/customer/C1?features={','.join([*ASKED, 'tickets'])}&include=meta"))
    assert answer["features"] == dict.fromkeys(ASKED) | {"tickets": 2}
    unread = {"status": "INVALID", "event_timestamp": None, "age_seconds": None}
    meta = [answer["meta"][name] for name in ASKED]
    assert meta == [unread | {"group": "customer_purchases", "version": 1}] * 7


def test_bytes_that_cannot_be_read_are_invalid_where_a_row_is_read_in_part(
    hub: Hub, redis_client: redis.Redis, row_of: Any
) -> None:
    from catalog import snapshot
    from catalog.models import FeatureGroup
    from catalog.schemas import current_schema
    from tests.factories import add_feature

    group = FeatureGroup.objects.get(name="customer_purchases")
    add_feature(group, "newcomer", "int64")
    current_schema(group)
    snapshot.forget()
    key, value = row_of("C1")
    redis_client.set(key, SPOILED["a text for an int64"](value))
    meta = answer_of(hub.get("/features/customer/C1?features=newcomer,total&include=meta"))["meta"]
    assert {m["status"] for m in meta.values()} == {"INVALID"}


def test_a_row_of_every_null_but_one_is_present_where_it_is(hub: Hub, redis_client: redis.Redis, row_of: Any) -> None:
    key, value = row_of("C1")
    redis_client.set(key, with_values(value, lambda values: [values[0], *[None] * 6]))
    assert statuses() == (["PRESENT", *["NULL_VALUE"] * 6], [4, *[None] * 6])


def test_a_key_of_another_redis_type_reads_as_absent(hub: Hub, redis_client: redis.Redis, row_of: Any) -> None:
    key, _ = row_of("C1")
    redis_client.delete(key)
    redis_client.rpush(key, "x")
    assert set(statuses()[0]) == {"NOT_FOUND"}


def test_an_unreadable_row_alone_is_answered_and_not_called_unknown(
    hub: Hub, redis_client: redis.Redis, row_of: Any
) -> None:
    key, _ = row_of("C1")
    redis_client.set(key, b"spoiled")
    assert answer_of(hub.get("/features/customer_purchases/C1?features=total")) == {"total": None}


def test_a_year_is_what_it_says() -> None:
    from serving.vectors import FIRST_US, LAST_US, rfc3339

    assert (rfc3339(FIRST_US), rfc3339(LAST_US)) == ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")
    assert timedelta(microseconds=TTL_US) == timedelta(days=90)
