"""POST /api/v1/vectors answered as an Arrow stream: the same values as JSON, with their types."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from engine.schema import TIMESTAMP_ARROW
from tests.serving.conftest import Hub

FEATURES = ["customer_purchases:total", "customer_purchases:last_seen", "customer_purchases:taste", "tickets"]
BODY = {"features": FEATURES, "entities": {"customer_id": ["C1", "nobody", "C1"]}}
ACCEPT = "application/vnd.apache.arrow.stream"


def table_of(hub: Hub, **more: object) -> pa.Table:
    response = hub.post("/api/v1/vectors", BODY | more, Accept=ACCEPT)
    assert (response.status_code, response["Content-Type"]) == (200, ACCEPT), response.content
    return pa.ipc.open_stream(response.content).read_all()


def test_a_stream_has_the_keys_and_each_feature_with_its_type(hub: Hub) -> None:
    table = table_of(hub)
    assert table.column_names[:4] == ["customer_id", *FEATURES[:3]]
    assert (table.num_columns, table.column_names[4].partition(":")[2]) == (5, "tickets")
    assert [table.schema.field(n).type for n in range(4)] == [
        pa.string(),
        pa.int64(),
        TIMESTAMP_ARROW,
        pa.list_(pa.float32()),
    ]
    assert table["customer_id"].to_pylist() == ["C1", "nobody", "C1"]
    assert table["customer_purchases:total"].to_pylist() == [4, None, 4]
    assert table["customer_purchases:last_seen"][0].as_py() == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert table["customer_purchases:taste"].to_pylist() == [[0.5, -1.0, 0.25], None, [0.5, -1.0, 0.25]]


def test_statuses_and_times_stand_behind_the_features(hub: Hub) -> None:
    table = table_of(hub, include=["statuses", "event_timestamps"])
    assert table.num_columns == 1 + 3 * len(FEATURES)
    assert table["customer_purchases:total__status"].to_pylist() == ["PRESENT", "NOT_FOUND", "PRESENT"]
    assert table["customer_purchases:total__event_timestamp"].type == TIMESTAMP_ARROW
    assert table["customer_purchases:total__event_timestamp"].null_count == 1


def test_an_error_is_json_whatever_was_accepted(hub: Hub) -> None:
    response = hub.post("/api/v1/vectors", BODY | {"features": ["nothing"]}, Accept=ACCEPT)
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")


def test_one_entity_may_be_asked_for_as_arrow_too(hub: Hub) -> None:
    response = hub.get("/features/customer/C1?features=total,last_seen&include=meta", Accept=ACCEPT)
    assert (response.status_code, response["Content-Type"]) == (200, ACCEPT), response.content
    table = pa.ipc.open_stream(response.content).read_all()
    (row,) = table.select(["customer_id", FEATURES[0], f"{FEATURES[0]}__status", FEATURES[1]]).to_pylist()
    assert list(row.values()) == ["C1", 4, "PRESENT", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)]
    assert hub.get("/features/customer/nobody", Accept=ACCEPT).status_code == 404
