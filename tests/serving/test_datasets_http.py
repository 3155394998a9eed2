"""Training datasets over HTTP: asked for, made by a worker, taken as Parquet or Arrow, forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.test import TestCase

from catalog import runs
from catalog.models import Run, TrainingDataset
from serving.tasks import build_dataset
from tests import spark
from tests.serving.conftest import NOW, Hub
from tests.serving.test_entity_vector import answer_of

ROUTE = "/api/v1/training-datasets"


def test_over_http_it_is_asked_for_made_by_a_worker_and_taken(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Run] = []
    monkeypatch.setattr(runs, "hint", told.append)
    rows = [
        {"customer_id": "C1", "event_timestamp": NOW.isoformat(), "label": 1.5},
        {"customer_id": "C9", "label": None},
    ]
    rows[1]["event_timestamp"] = NOW.isoformat()
    body = {"name": "churn", "features": ["tickets"], "spine": rows, "statuses": True}
    with TestCase.captureOnCommitCallbacks(execute=True):
        response = hub.post("/api/v1/training-datasets", body)
    asked = response.json()
    assert response.status_code == 202
    assert (asked["state"], asked["rows"], response["Location"]) == ("queued", None, f"{ROUTE}/churn")
    assert answer_of(hub.get(f"{ROUTE}/churn/data"), 409)["detail"].startswith("The dataset churn is not there")
    build_dataset.apply([str(told[0].pk)])
    done = answer_of(hub.get(f"{ROUTE}/churn"))
    assert (done["state"], done["rows"], done["progress"], done["null_rates"]) == ("succeeded", 2, 1, {"tickets": 0.5})
    assert [one["name"] for one in answer_of(hub.get(ROUTE))["datasets"]] == ["churn"]
    parquet = hub.get(f"{ROUTE}/churn/data")
    table = pq.read_table(pa.BufferReader(b"".join(parquet)))  # type: ignore[arg-type]
    assert table["tickets__status"].to_pylist() == ["PRESENT", "NOT_FOUND"]
    arrow = hub.get(f"{ROUTE}/churn/data", Accept="application/vnd.apache.arrow.stream")
    assert pa.ipc.open_stream(b"".join(arrow)).read_all().equals(table)  # type: ignore[arg-type]
    assert hub.client.delete(f"{ROUTE}/churn", headers={"Authorization": f"Bearer {hub.key}"}).status_code == 204
    assert answer_of(hub.get(f"{ROUTE}/churn"), 404)["code"] == "not_found"


def test_the_engine_that_a_body_names_is_the_run_s_or_refused_where_it_is_not(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [{"customer_id": "C1", "event_timestamp": NOW.isoformat()}]
    body = {"name": "churn", "features": ["tickets"], "spine": rows, "engine": "spark"}
    with monkeypatch.context() as patched:
        spark.hide_java(patched, tmp_path)
        assert "Spark" in answer_of(hub.post(ROUTE, body), 400)["detail"]
    assert not TrainingDataset.objects.exists()
    if reason := spark.missing():
        pytest.skip(reason)
    assert hub.post(ROUTE, body).status_code == 202
    assert TrainingDataset.objects.get().run.on_spark


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "churn"}, 400, "spine"),
        ({"name": 7, "spine": [], "features": ["tickets"]}, 400, "name is a text"),
        ({"name": "churn", "spine": [], "features": ["tickets"], "feature_service": "churn"}, 400, "one of"),
        ({"name": "churn", "spine": "x", "features": ["tickets"]}, 400, "spine is a list"),
        ({"name": "churn", "spine": {"path": "../../etc/passwd"}, "features": ["tickets"]}, 422, "source root"),
        ({"name": "churn", "spine": [1], "features": ["tickets"]}, 422, "a row is an object"),
        ({"name": "churn", "spine": [{"customer_id": "C1", "event_timestamp": "2026-01-01T00:00:00"}]}, 422, "row 0"),
        ({"name": "churn", "spine": [{"customer_id": 7, "event_timestamp": "2026-01-01T00:00:00Z"}]}, 422, "row 0"),
        ({"name": "churn", "spine": [{"event_timestamp": "2026-01-01T00:00:00Z"}]}, 422, "customer_id"),
        ({"name": "churn", "spine": [], "features": ["tikets"]}, 400, "tikets"),
        ({"name": "churn", "spine": [], "features": ["tickets"], "known_at": "yes"}, 400, "true or false"),
        ({"name": "churn", "spine": [], "features": ["tickets"], "engine": "flink"}, 400, "duckdb, spark"),
    ],
)
def test_what_a_body_lacks_is_said_before_any_work(hub: Hub, body: dict[str, Any], status: int, said: str) -> None:
    whole = body if "features" in body or "spine" not in body else {**body, "features": ["tickets"]}
    assert said in hub.post(ROUTE, whole).content.decode()
    assert hub.post(ROUTE, whole).status_code == status
    assert not TrainingDataset.objects.exists()
