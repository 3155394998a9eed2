"""A push is accepted as a whole or refused as a whole; once answered it is in the log and, unless pending, online."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import access
from catalog.models import Acceptance, FeatureGroup
from catalog.writable import layouts_of
from engine.errors import Conflict, InvalidRows, UnknownName
from ingestion import drain, materialize
from ingestion.models import PushBatch
from ingestion.push import Pushed, find_group, push
from ingestion.push_rows import NAMED_PROBLEMS, rows_of
from ingestion.tasks import catch_up
from tests.factories import ELEVEN, NOON, TEN, add_feature, make_customer_group, purchase
from tests.ingestion import contents

pytestmark = pytest.mark.database

AT_TEN = datetime(2024, 11, 1, 10, tzinfo=UTC)


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def nothing_was_kept(group: FeatureGroup) -> bool:
    return not (PushBatch.objects.exists() or Acceptance.objects.exists() or contents.online(group))


def test_pushed_rows_are_logged_and_online_when_it_returns(group: FeatureGroup) -> None:
    assert push(group, [purchase("C1"), purchase("C2", ELEVEN)], by="ada") == Pushed(2, "applied")
    assert contents.online(group)["s2:C1"] == {
        "total_purchases": 4,
        "avg_purchase_value": 25.0,
        "customer_segment": "gold",
    }
    batch = PushBatch.objects.get()
    assert (batch.row_count, batch.pushed_by, batch.group_version, batch.drain) == (2, "ada", 1, None)
    logged = rows_of(batch).to_dicts()
    assert [(row["customer_id"], row["_ordinal"], row["_accepted"]) for row in logged] == [
        ("C1", 0, batch.acceptance_id),
        ("C2", 1, batch.acceptance_id),
    ]
    assert {row["created_timestamp"] for row in logged} == {batch.acceptance.accepted_at}
    assert contents.offline(group) == []  # the drain's work


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"total_purchases": 1.5}, "/rows/1/total_purchases: type: "),
        ({"total_purchases": 2**63}, "/rows/1/total_purchases: type: "),
        ({"total_purchases": "4"}, "/rows/1/total_purchases: type: "),
        ({"total_purchases": None}, "/rows/1/total_purchases: not_null: "),
        ({"total_purchases": -1}, "/rows/1/total_purchases: min_value: "),
        ({"total_spent": float("nan")}, "/rows/1/total_spent: type: "),
        ({"total_spent": float("inf")}, "/rows/1/total_spent: type: "),
        ({"customer_segment": "golden"}, "/rows/1/customer_segment: allowed_values: "),
        ({"customer_id": 7}, "/rows/1/customer_id: type: "),
        ({"customer_id": None}, "/rows/1/customer_id: missing: "),
        ({"purchased_at": "2024-11-01T10:00:00"}, "/rows/1/event_timestamp: type: "),
        ({"purchased_at": "9999-12-31T23:59:59Z"}, "/rows/1/event_timestamp: future: "),
        ({"purchased_at": None}, "/rows/1/event_timestamp: missing: "),
        ({"golden": True}, "/rows/1/golden: the name is not part of the group."),
    ],
)
def test_one_bad_row_refuses_all_naming_row_and_column(
    group: FeatureGroup, change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidRows) as refused:
        push(group, [purchase("C1"), purchase("C2") | change, purchase("C3")])
    assert [str(problem) for problem in refused.value.problems if str(problem).startswith(pointer)]
    assert len(refused.value.problems) == 1
    assert nothing_was_kept(group)


def test_every_bad_row_is_named_up_to_a_limit(group: FeatureGroup) -> None:
    with pytest.raises(InvalidRows, match="takes none of the 50 rows") as refused:
        push(group, [purchase(total_purchases=-1)] * 50)
    assert [problem.pointer for problem in refused.value.problems] == [
        f"/rows/{n}/total_purchases" for n in range(NAMED_PROBLEMS)
    ]


def test_a_push_of_no_rows_leaves_nothing_behind(group: FeatureGroup) -> None:
    assert push(group, []) == Pushed(0, "applied")
    assert nothing_was_kept(group)
    push(group, [purchase()])
    assert drain.drain(group) == 1


def test_policies_that_keep_a_row_keep_a_pushed_one(group: FeatureGroup) -> None:
    add_feature(group, "visits", "int64", min_value=0, on_violation="set_null")
    add_feature(group, "returns", "int64", min_value=0, on_violation="warn")
    push(group, [purchase(visits=-1, returns=-2)])
    stored = contents.online(group)["s2:C1"]
    assert (stored["visits"], stored["returns"]) == (None, -2)


def test_a_row_without_event_time_takes_the_default_only_where_one_is_given(group: FeatureGroup) -> None:
    row = purchase()
    del row["purchased_at"]
    push(group, [row], default_event_timestamp=AT_TEN)
    assert rows_of(PushBatch.objects.get())["event_timestamp"].to_list() == [AT_TEN]


def test_an_older_event_pushed_later_does_not_replace_a_newer_one(group: FeatureGroup) -> None:
    push(group, [purchase(at=ELEVEN, total_purchases=11)])
    push(group, [purchase(at=TEN, total_purchases=10)])
    assert contents.online(group)["s2:C1"]["total_purchases"] == 11
    push(group, [purchase(at=ELEVEN, total_purchases=12)])  # a tie of times: accepted later wins
    assert contents.online(group)["s2:C1"]["total_purchases"] == 12


def test_of_equal_times_in_one_push_the_later_row_wins(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1), purchase(total_purchases=2)])
    assert contents.online(group)["s2:C1"]["total_purchases"] == 2


def test_any_order_repetition_and_split_of_accepted_rows_ends_in_one_value(group: FeatureGroup) -> None:
    for at, total in ((NOON, 1), (TEN, 2), (NOON, 3), (ELEVEN, 4)):
        push(group, [purchase(at=at, total_purchases=total)])
    frames = [rows_of(batch) for batch in PushBatch.objects.order_by("pk")]
    expected = contents.online_rows(group)
    assert expected["s2:C1"].values[0] == 3  # noon twice; of the two the one accepted later
    for order in permutations(frames):
        contents.forget_online(group)
        for frame in (*order, order[0]):
            materialize.upsert_frame(group, frame, layouts_of(group))
        assert contents.online_rows(group) == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=12), st.data()
)
def test_however_rows_are_split_the_newest_wins(
    group: FeatureGroup, rows: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    contents.forget_online(group)
    cut = data.draw(st.integers(0, len(rows)))
    given_rows = [purchase(who, [TEN, ELEVEN, NOON][hour], total_purchases=total) for who, hour, total in rows]
    for part in (given_rows[:cut], given_rows[cut:]):
        push(group, part)
    newest: dict[str, tuple[int, int]] = {}
    for who, hour, total in rows:  # a later row of the same hour replaces an earlier one
        if who not in newest or hour >= newest[who][0]:
            newest[who] = (hour, total)
    online = {key[-1]: row["total_purchases"] for key, row in contents.online(group).items()}
    assert online == {who: total for who, (_, total) in newest.items()}


@pytest.mark.django_db(transaction=True)
def test_racing_pushes_of_one_customer_end_in_the_newest(group: FeatureGroup) -> None:
    push(group, [purchase("first")])
    start = threading.Barrier(4)

    def race(seed: int) -> None:
        start.wait()
        for n in range(8):
            push(group, [purchase(at=f"2024-11-01T10:{n:02}:{seed:02}Z", total_purchases=n * 10 + seed)])
        connection.close()

    threads = [threading.Thread(target=race, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert PushBatch.objects.count() == 33
    assert contents.online(group)["s2:C1"]["total_purchases"] == 73  # 10:07:03


# -- Redis down or cold.


def test_with_redis_down_a_push_is_pending_and_online_after_catching_up(
    group: FeatureGroup, redis_down: Callable[[], AbstractContextManager[None]]
) -> None:
    with redis_down():
        assert push(group, [purchase()]) == Pushed(1, "pending")
    assert contents.online(group) == {}
    catch_up()
    assert sorted(contents.online(group)) == ["s2:C1"]
    assert len(contents.offline(group)) == 1
    catch_up()
    assert len(contents.offline(group)) == 1


def test_on_a_cold_store_a_push_is_pending_until_it_is_rebuilt(group: FeatureGroup, redis_clean: redis.Redis) -> None:
    redis_clean.flushall()
    assert push(group, [purchase()]) == Pushed(1, "pending")
    catch_up()
    assert push(group, [purchase("C2")]) == Pushed(1, "applied")
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2"]


# -- Which groups.


def test_an_archived_group_takes_no_rows(group: FeatureGroup) -> None:
    group.status = "archived"
    group.save()
    with pytest.raises(Conflict, match="customer_purchases is archived and takes no rows"):
        find_group("customer_purchases")
    with pytest.raises(Conflict, match="customer_purchases is archived and takes no rows"):
        push(group, [purchase()])
    assert nothing_was_kept(group)


def test_a_draft_takes_rows(sources: Path) -> None:
    draft = make_customer_group(status="draft")
    assert push(find_group(draft.name), [purchase()]).accepted == 1
    assert len(contents.online(draft)) == 1


def test_an_unknown_group_is_an_error_with_near_names(group: FeatureGroup) -> None:
    with pytest.raises(UnknownName, match="customer_purchase'") as unknown:
        find_group("customer_purchase")
    assert unknown.value.problems[0].did_you_mean == ("customer_purchases",)


# -- Over HTTP.


@pytest.fixture
def client() -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"})


def test_a_row_over_http_is_online_with_its_answer(group: FeatureGroup, client: Client) -> None:
    body = {"timestamp": TEN, "total_spent": 100.0, "total_purchases": 4, "customer_segment": "gold"}
    answer = client.post("/ingest/customer_purchases/C1", body, content_type="application/json")
    assert answer.status_code == 201
    assert answer.json() | {"status": "success", "group_name": "customer_purchases", "entity_id": "C1"} == answer.json()
    assert client.get("/features/customer/C1?features=avg_purchase_value").json() == {"avg_purchase_value": 25.0}


def test_a_bad_row_over_http_is_422_with_its_place(group: FeatureGroup, client: Client) -> None:
    body = {"timestamp": TEN, "total_spent": 100.0, "total_purchases": 1.5, "customer_segment": "gold"}
    answer = client.post("/ingest/customer_purchases/C1", body, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rows")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/rows/0/total_purchases"]
    assert nothing_was_kept(group)


def test_with_redis_down_the_answer_is_202_pending(
    group: FeatureGroup, client: Client, redis_down: Callable[[], AbstractContextManager[None]]
) -> None:
    body = {"timestamp": TEN, "total_spent": 100.0, "total_purchases": 4, "customer_segment": "gold"}
    with redis_down():
        answer = client.post("/ingest/customer_purchases/C1", body, content_type="application/json")
    assert (answer.status_code, answer.json()["online"]) == (202, "pending")
