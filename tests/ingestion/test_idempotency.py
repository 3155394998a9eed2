"""The same request under the same Idempotency-Key is done once and answered as before, also side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from catalog import access
from catalog.models import Acceptance, FeatureGroup
from engine.errors import InvalidInput
from ingestion import drain
from ingestion.idempotency import check_key, fingerprint, forget_expired
from ingestion.models import IdempotencyKey, PushBatch
from tests.factories import ELEVEN, TEN, make_customer_group, purchase
from tests.ingestion import contents

pytestmark = pytest.mark.database

ROWS = "/api/v1/groups/customer_purchases/rows"


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def caller(name: str) -> Client:
    _, key = access.create_key(name=name, scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


@pytest.fixture
def client() -> Client:
    return caller("writer")


def send(client: Client, *rows: dict[str, Any], key: str = "k1", path: str = ROWS) -> Any:
    return client.post(path, {"rows": list(rows)}, content_type="application/json", headers={"Idempotency-Key": key})


def test_a_repeated_request_is_answered_as_before_and_done_once(group: FeatureGroup, client: Client) -> None:
    first = send(client, purchase("C1"), purchase("C2"))
    assert (first.status_code, first.json()) == (200, {"accepted": 2, "quarantined": 0, "online": "applied"})
    for _ in range(2):
        again = send(client, purchase("C1"), purchase("C2"))
        assert (again.status_code, again.json()) == (200, first.json())
    assert (PushBatch.objects.count(), Acceptance.objects.count(), drain.drain(group)) == (1, 1, 2)
    assert send(client, purchase("C1"), purchase("C2")).json() == first.json()  # and after it has landed
    assert len(contents.offline(group)) == 2


def test_another_request_under_a_key_is_422_and_not_done(group: FeatureGroup, client: Client) -> None:
    send(client, purchase("C1"))
    for answer in (send(client, purchase("C2")), send(client, purchase("C1"), path=f"{ROWS}?on_error=quarantine")):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert sorted(contents.online(group)) == ["s2:C1"]


def test_a_key_belongs_to_who_sent_it_the_route_and_the_group(group: FeatureGroup, client: Client) -> None:
    make_customer_group("other_purchases")
    headers = {"Idempotency-Key": "k1"}
    one = {"total_spent": 1.0, "total_purchases": 1, "customer_segment": "gold", "timestamp": TEN}
    namesake = caller("writer")  # two keys of one name are two principals
    assert send(client, purchase("C1")).status_code == 200
    assert send(namesake, purchase("C2")).status_code == 200
    assert send(client, purchase("C3"), path="/api/v1/groups/other_purchases/rows").status_code == 200
    ingested = client.post("/ingest/customer_purchases/C4", one, content_type="application/json", headers=headers)
    assert ingested.status_code == 201
    assert client.delete(f"{ROWS}/C5", headers=headers).status_code == 200
    assert PushBatch.objects.count() == IdempotencyKey.objects.count() == 5


def test_of_one_row_its_id_is_part_of_what_is_said(group: FeatureGroup, client: Client) -> None:
    one = {"total_spent": 1.0, "total_purchases": 1, "customer_segment": "gold", "timestamp": TEN}
    statuses = [
        client.post(path, one, content_type="application/json", headers={"Idempotency-Key": "k"}).status_code
        for path in ("/ingest/customer_purchases/C1", "/ingest/customer_purchases/C1", "/ingest/customer_purchases/C2")
    ]
    assert statuses == [201, 201, 422]


def test_a_repeated_row_without_a_time_keeps_the_time_of_the_first(group: FeatureGroup, client: Client) -> None:
    one = {"total_spent": 1.0, "total_purchases": 1, "customer_segment": "gold"}
    for _ in range(2):
        headers = {"Idempotency-Key": "k"}
        client.post("/ingest/customer_purchases/C1", one, content_type="application/json", headers=headers)
    assert PushBatch.objects.count() == 1


def test_a_refused_request_leaves_its_key_unused(group: FeatureGroup, client: Client) -> None:
    assert send(client, purchase(total_purchases=-1)).status_code == 422
    assert not IdempotencyKey.objects.exists()
    assert send(client, purchase()).status_code == 200


def test_counts_of_quarantined_rows_are_kept_too(group: FeatureGroup, client: Client) -> None:
    path = f"{ROWS}?on_error=quarantine"
    for _ in range(2):
        answer = send(client, purchase(), purchase(total_purchases=-1), path=path)
        assert answer.json() == {"accepted": 1, "quarantined": 1, "online": "applied"}
    assert group.runs.count() == 1


def test_a_request_of_no_rows_uses_its_key(group: FeatureGroup, client: Client) -> None:
    assert [send(client).json()["accepted"] for _ in range(2)] == [0, 0]
    assert send(client, purchase()).status_code == 422


def test_online_is_told_as_it_is_now(
    group: FeatureGroup, client: Client, redis_down: Callable[[], AbstractContextManager[None]]
) -> None:
    with redis_down():
        answers = [send(client, purchase()) for _ in range(2)]
        assert [(a.status_code, a.json()["online"]) for a in answers] == [(202, "pending")] * 2
    assert contents.online(group) == {}
    again = send(client, purchase())  # brings it online itself, so that what it says is so
    assert (again.status_code, again.json()["online"], sorted(contents.online(group))) == (200, "applied", ["s2:C1"])
    with redis_down():
        assert send(client, purchase()).json()["online"] == "pending"


def test_a_repetition_does_not_put_an_older_row_over_a_newer_one(group: FeatureGroup, client: Client) -> None:
    send(client, purchase(at=TEN, total_purchases=10))
    send(client, purchase(at=ELEVEN, total_purchases=11), key="k2")
    send(client, purchase(at=TEN, total_purchases=10))
    assert contents.online(group)["s2:C1"]["total_purchases"] == 11


def test_a_key_is_forgotten_after_a_day(group: FeatureGroup, client: Client) -> None:
    send(client, purchase("C1"))
    send(client, purchase("C2"), key="k2")
    day = timedelta(hours=24)
    IdempotencyKey.objects.filter(key="k1").update(created_at=timezone.now() - day)
    assert send(client, purchase("C3")).json()["accepted"] == 1  # also before anybody has cleaned up
    assert forget_expired() == 0
    IdempotencyKey.objects.filter(key="k1").update(created_at=timezone.now() - day)
    assert forget_expired() == 1
    assert [record.key for record in IdempotencyKey.objects.all()] == ["k2"]
    assert PushBatch.objects.count() == 3


def test_an_answer_outlives_the_log_row_that_it_was_about(group: FeatureGroup, client: Client) -> None:
    first = send(client, purchase())
    drain.drain(group)
    PushBatch.objects.all().delete()
    assert send(client, purchase()).json() == first.json()


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "a\tb", "k" * 256, "k" * 1_000_000, "\x7f"])
def test_what_is_no_key_is_400(group: FeatureGroup, client: Client, key: str) -> None:
    answer = send(client, purchase(), key=key)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert len(answer.content) < 1_000
    assert not PushBatch.objects.exists()


@pytest.mark.parametrize("key", ["k", "k" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "!~"])
def test_a_key_is_up_to_255_visible_characters(key: str) -> None:
    assert check_key(key) == key


def test_a_key_with_a_line_break_after_it_is_none() -> None:
    with pytest.raises(InvalidInput):
        check_key("k\n")


@given(st.lists(st.binary(max_size=3), max_size=3), st.lists(st.binary(max_size=3), max_size=3))
def test_two_requests_share_a_fingerprint_only_when_they_say_the_same(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


@pytest.mark.django_db(transaction=True)
def test_of_many_parallel_requests_under_one_key_one_is_done_and_all_get_its_counts(group: FeatureGroup) -> None:
    client = caller("writer")
    send(client, purchase("first"), key="before")
    headers, start, answers = client.defaults | {}, threading.Barrier(8), []

    def race() -> None:
        own = Client(raise_request_exception=False)
        own.defaults.update(headers)
        start.wait()
        answers.append(send(own, purchase("C1"), purchase("C2")))
        connection.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [(answer.status_code, answer.json()) for answer in answers]
    assert told == [(200, {"accepted": 2, "quarantined": 0, "online": "applied"})] * 8
    assert PushBatch.objects.count() == 2
