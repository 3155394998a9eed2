"""POST /api/v1/vectors: its exact shape, what it refuses, and what one request costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from tests.serving.conftest import LAST_YEAR, YESTERDAY, Hub, push_row
from tests.serving.test_entity_vector import answer_of

TOTAL = ["customer_purchases:total"]
C1 = {"customer_id": ["C1"]}


def z(moment: Any) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_answer_has_names_entities_and_a_row_of_values_per_entity(hub: Hub, slash: str) -> None:
    answer = answer_of(hub.post(f"/api/v1/vectors{slash}", {"feature_service": "churn", "entities": C1}))
    assert list(answer) == ["feature_names", "entities", "values"]
    assert answer == {
        "feature_names": ["customer_purchases:average", "customer_purchases:total"],
        "entities": C1,
        "values": [[25.0, 4]],
    }


def test_order_and_repeats_are_kept_with_statuses_and_times_beside_the_values(hub: Hub) -> None:
    answer = answer_of(
        hub.vectors(
            features=["tickets", "customer_purchases:total", "tickets"],
            entities={"customer_id": ["C3", "C1", "nobody", "C1", "C2"]},
            include=["statuses", "event_timestamps"],
        )
    )
    assert answer["feature_names"] == ["support:tickets", "customer_purchases:total", "support:tickets"]
    assert answer["entities"] == {"customer_id": ["C3", "C1", "nobody", "C1", "C2"]}
    c1 = [2, 4, 2]
    assert answer["values"] == [[None] * 3, c1, [None] * 3, c1, [None] * 3]
    gone = "NOT_FOUND"
    assert answer["statuses"] == [
        [gone, "OUTSIDE_MAX_AGE", gone],
        ["PRESENT"] * 3,
        [gone] * 3,
        ["PRESENT"] * 3,
        [gone, "NULL_VALUE", gone],
    ]
    day = z(YESTERDAY)
    assert answer["event_timestamps"] == [
        [None, z(LAST_YEAR), None],
        [day] * 3,
        [None] * 3,
        [day] * 3,
        [None, day, None],
    ]


@pytest.mark.parametrize(("include", "keys"), [([], []), (["statuses"], ["statuses"])])
def test_only_what_is_included_stands_in_the_answer(hub: Hub, include: list[str], keys: list[str]) -> None:
    answer = answer_of(hub.vectors(features=TOTAL, entities=C1, include=include))
    assert list(answer) == ["feature_names", "entities", "values", *keys]


def test_features_of_several_entities_are_asked_with_all_their_join_keys(hub: Hub) -> None:
    push_row("shop_ratings", country="FR", shop_number=7, rating=4.5)
    push_row("product_stock", product_id=2**62, stock=3)
    columns = {"customer_id": ["C1"], "shop_number": [7], "product_id": [2**62], "country": ["FR"]}
    asked = ["stock", "rating", "customer_purchases:total"]
    assert answer_of(hub.vectors(features=asked, entities=columns))["values"] == [[3, 4.5, 4]]


def test_every_dtype_has_its_json_form(hub: Hub) -> None:
    asked = [f"customer_purchases:{n}" for n in ("segment", "is_member", "last_seen", "taste", "recent", "average")]
    values = answer_of(hub.vectors(features=asked, entities=C1))["values"]
    assert values == [["gold", True, "2026-01-02T03:04:05Z", [0.5, -1.0, 0.25], [1, 2**60], 25.0]]


def test_int64_values_are_texts_when_asked_and_the_entities_stay_as_they_came(hub: Hub) -> None:
    push_row("product_stock", product_id=2**60, stock=2**62)
    body = {"features": ["stock"], "entities": {"product_id": [2**60]}}
    assert answer_of(hub.post("/api/v1/vectors?int64=string", body))["values"] == [[str(2**62)]]
    assert answer_of(hub.vectors(**body))["entities"] == {"product_id": [2**60]}


def test_no_entities_give_no_values(hub: Hub) -> None:
    answer = answer_of(hub.vectors(features=TOTAL, entities={"customer_id": []}, include=["statuses"]))
    assert (answer["values"], answer["statuses"]) == ([], [])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"entities": C1}, "one of feature_service and features"),
        ({"features": TOTAL, "feature_service": "churn", "entities": C1}, "one of feature_service and features"),
        ({"features": [], "entities": C1}, "at least one"),
        ({"features": [1], "entities": C1}, "at least one"),
        ({"features": "total", "entities": C1}, "at least one"),
        ({"feature_service": ["churn"], "entities": C1}, "a name"),
        ({"features": TOTAL}, "entities"),
        ({"features": TOTAL, "entities": C1, "includes": []}, "keys are"),
        ({"features": TOTAL, "entities": C1, "include": ["values"]}, "include is a list"),
        ({"features": TOTAL, "entities": C1, "include": [{}]}, "include is a list"),
        ({"features": TOTAL, "entities": C1, "include": None}, "include is a list"),
        ({"features": TOTAL, "entities": [["C1"]]}, "object of columns"),
        ({"features": TOTAL, "entities": {"customer_id": "C1"}}, "object of columns"),
        ({"features": TOTAL, "entities": {}}, "customer_id"),
        ({"features": TOTAL, "entities": {"customer": ["C1"]}}, "customer_id"),
        ({"features": TOTAL, "entities": {**C1, "product_id": [1]}}, "customer_id"),
        ({"features": [*TOTAL, "stock"], "entities": {**C1, "product_id": [1, 2]}}, "differ in length"),
        ({"features": TOTAL, "entities": {"customer_id": [1]}}, "is a string; got an integer"),
        ({"features": TOTAL, "entities": {"customer_id": [None]}}, "is a string; got null"),
        ({"features": TOTAL, "entities": {"customer_id": ["x" * 513]}}, "512 bytes"),
        ({"features": TOTAL, "entities": {"customer_id": ["\ud83d"]}}, "half of a surrogate pair"),
        ({"features": TOTAL, "entities": {"\ud83d": ["C1"]}}, "half of a surrogate pair"),
        ({"features": ["stock"], "entities": {"product_id": [True]}}, "is a int64; got a boolean"),
        ({"features": ["stock"], "entities": {"product_id": [1.0]}}, "is a int64; got a float"),
        ({"features": ["stock"], "entities": {"product_id": ["1"]}}, "is a int64; got a string"),
        ({"features": ["stock"], "entities": {"product_id": [2**63]}}, "does not fit"),
        ({"features": ["segment"], "entities": C1}, "several groups"),
        ({"features": ["totl"], "entities": C1}, "no feature named 'totl'"),
        ({"feature_service": "churn@0", "entities": C1}, "churn@1"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_saying_why(hub: Hub, body: dict[str, Any], told: str) -> None:
    answer = answer_of(hub.vectors(**body), 400)
    assert told in answer["detail"]


def test_the_join_keys_that_are_missing_and_unknown_are_both_named(hub: Hub) -> None:
    answer = answer_of(hub.vectors(features=TOTAL, entities={"customer": ["C1"]}), 400)
    assert [(e["pointer"], e["did_you_mean"]) for e in answer["errors"]] == [
        ("/entities/customer_id", []),
        ("/entities/customer", ["customer_id"]),
    ]


@pytest.mark.parametrize("path", ["/api/v1/vectors?int64=yes", "/api/v1/vectors?in64=string"])
def test_an_unknown_parameter_of_the_address_is_refused(hub: Hub, path: str) -> None:
    assert "int64" in answer_of(hub.post(path, {"features": TOTAL, "entities": C1}), 400)["detail"]


@pytest.mark.parametrize(("rows", "times", "status"), [(1_000, 1, 200), (1_001, 1, 413), (1_000, 101, 413)])
def test_a_request_has_at_most_1000_rows_and_100000_values(hub: Hub, rows: int, times: int, status: int) -> None:
    body = {"features": TOTAL * times, "entities": {"customer_id": ["C1"] * rows}}
    answer = answer_of(hub.vectors(**body), status)
    assert status == 200 or answer["code"] == "too_large"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "not JSON"),
        (b"not json", 400, "not JSON"),
        (b"\xff{}", 400, "UTF-8"),
        (b"[]", 400, "an array"),
        (b'{"a": 1, "a": 2}', 400, "repeats the key 'a'"),
        (b'{"a": NaN}', 400, "NaN"),
        (b"[" * 100_000, 400, "nested"),
        (b'"' + b"x" * (10 << 20) + b'"', 413, "bytes"),
    ],
)
def test_a_body_that_is_not_one_strict_json_object_is_refused(hub: Hub, body: bytes, status: int, told: str) -> None:
    assert told in answer_of(hub.post("/api/v1/vectors", body), status)["detail"]


def test_one_request_is_one_redis_command_and_no_query(
    hub: Hub, redis_client: redis.Redis, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    body = {"features": [*TOTAL, "tickets"], "entities": {"customer_id": ["C1", "C2", "nobody"]}}
    for path in ("vectors", "lookup"):
        ask = (lambda: hub.vectors(**body)) if path == "vectors" else (lambda: hub.get("/features/customer/C1"))
        assert ask().status_code == 200  # the key, the catalog and the plan are known from here on
        redis_client.config_resetstat()
        with django_assert_num_queries(0):
            assert ask().status_code == 200
        assert calls(redis_client) == {"mget": 1}


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was called since the last reset, but for ours that ask so."""
    stats: dict[str, Any] = client.info("commandstats")
    ours = {"config|resetstat", "config", "info"}
    return {name.removeprefix("cmdstat_"): s["calls"] for name, s in stats.items() if name[8:] not in ours}


def test_a_plan_is_made_once_for_what_was_asked_and_not_kept_without_end(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog import snapshot
    from serving import plan

    monkeypatch.setattr(plan, "REMEMBERED_AT_MOST", 3)
    for name in ("total", "average", "is_member", "taste", "recent", "last_seen"):
        answer_of(hub.vectors(features=[f"customer_purchases:{name}"], entities=C1))
        assert len(snapshot.current().plans) <= 3
    kept = list(snapshot.current().plans.values())
    answer_of(hub.vectors(features=["customer_purchases:last_seen"], entities=C1))
    assert list(snapshot.current().plans.values()) == kept


def test_the_first_request_reads_the_catalog_in_few_queries_whatever_its_size(hub: Hub) -> None:
    from django.db import connection

    from catalog import snapshot

    with CaptureQueriesContext(connection) as before:
        snapshot.load()
    for number in range(5):
        from tests.serving.conftest import make_group

        make_group(f"more_{number}", "product", {f"f{number}": "int64"})
    with CaptureQueriesContext(connection) as after:
        snapshot.load()
    assert len(after) == len(before) <= 13


def test_answers_are_what_json_says_whatever_the_body_was_called(hub: Hub) -> None:
    sent = json.dumps({"features": TOTAL, "entities": C1})
    response = hub.client.post(
        "/api/v1/vectors", sent, content_type="text/plain", headers={"Authorization": f"Bearer {hub.key}"}
    )
    assert answer_of(response)["values"] == [[4]]
