"""Reads as Feast's server answers them, shape by shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving.conftest import YESTERDAY, Hub
from tests.serving.test_entity_vector import answer_of

PATH = "/feast/get-online-features"
EPOCH = "1970-01-01T00:00:00Z"


def columns(answer: Any) -> dict[str, list[Any]]:
    return dict(
        zip(answer["metadata"]["feature_names"], [result["values"] for result in answer["results"]], strict=True)
    )


def test_an_answer_has_a_column_per_join_key_and_feature(hub: Hub) -> None:
    asked = {"features": ["customer_purchases:total", "support:tickets"], "entities": {"customer_id": ["C1", "nobody"]}}
    day = YESTERDAY.isoformat().replace("+00:00", "Z")
    statuses, times = ["PRESENT", "NOT_FOUND"], [day, EPOCH]
    assert answer_of(hub.post(PATH, asked)) == {
        "metadata": {"feature_names": ["customer_id", "total", "tickets"]},
        "results": [
            {"values": ["C1", "nobody"], "statuses": ["PRESENT"] * 2, "event_timestamps": [EPOCH] * 2},
            {"values": [4, None], "statuses": statuses, "event_timestamps": times},
            {"values": [2, None], "statuses": statuses, "event_timestamps": times},
        ],
    }


def test_null_too_old_and_never_written_are_told_apart(hub: Hub) -> None:
    asked = {"features": ["customer_purchases:total"], "entities": {"customer_id": ["C2", "C3", "nobody"]}}
    result = answer_of(hub.post(PATH, asked))["results"][1]
    assert result["statuses"] == ["NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert result["values"] == [None] * 3


def test_a_service_may_stand_for_the_features_and_full_names_have_the_group(hub: Hub) -> None:
    asked = {"feature_service": "churn", "entities": {"customer_id": ["C1"]}}
    assert columns(answer_of(hub.post(PATH, asked))) == {"customer_id": ["C1"], "average": [25.0], "total": [4]}
    full = columns(answer_of(hub.post(PATH, asked | {"full_feature_names": True, "features": []})))
    assert list(full) == ["customer_id", "customer_purchases__average", "customer_purchases__total"]


def test_a_timestamp_is_in_seconds_and_lists_are_lists(hub: Hub) -> None:
    asked = {"features": [f"customer_purchases:{n}" for n in ("last_seen", "taste", "recent")]}
    found = columns(answer_of(hub.post(PATH, asked | {"entities": {"customer_id": ["C1", "C2"]}})))
    assert found["last_seen"] == [1767323045, None]
    assert found["taste"] == [[0.5, -1.0, 0.25], None]
    assert found["recent"] == [[1, 2**60], None]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"features": ["customer_purchases:totel"], "entities": {"customer_id": ["C1"]}}, 400, "totel"),
        ({"features": [], "entities": {"customer_id": ["C1"]}}, 400, "at least one"),
        ({"features": ["support:tickets"], "entities": [["C1"]]}, 400, "object of columns"),
        ({"features": ["support:tickets"]}, 400, "keys are"),
        (
            {"features": ["support:segment", "customer_purchases:segment"], "entities": {"customer_id": ["C1"]}},
            400,
            "full_feature_names",
        ),
    ],
)
def test_what_cannot_be_read_is_a_problem(hub: Hub, body: Any, status: int, told: str) -> None:
    assert told in json.dumps(answer_of(hub.post(PATH, body), status))


def test_the_body_is_json_whatever_its_content_type(hub: Hub) -> None:
    body = json.dumps({"feature_service": "churn", "entities": {"customer_id": ["C1"]}})
    sent = hub.client.post(PATH, body, content_type="text/plain", headers={"Authorization": f"Bearer {hub.key}"})
    assert columns(answer_of(sent))["total"] == [4]


def test_health_is_open(hub: Hub) -> None:
    assert answer_of(hub.client.get("/feast/health")) == {}
