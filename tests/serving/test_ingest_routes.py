"""The routes of the way in, in their exact shape, and that what they took is served by the next read."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError

from tests.serving.conftest import Hub
from tests.serving.test_entity_vector import answer_of

ROW = {"tickets": 9, "segment": "loud"}


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_row_is_taken_and_served_by_the_next_read(hub: Hub, slash: str) -> None:
    response = hub.post(f"/ingest/support/C1{slash}", ROW)
    assert response.status_code == 201
    answer = json.loads(response.content)
    assert answer == {"status": "success", "group_name": "support", "entity_id": "C1", "online": "applied"}
    assert answer_of(hub.get("/features/support/C1")) == ROW


def test_an_older_row_is_taken_and_does_not_replace_a_newer_one(hub: Hub) -> None:
    assert hub.post("/ingest/support/C1", ROW | {"timestamp": "2020-01-01T00:00:00Z"}).status_code == 201
    assert answer_of(hub.get("/features/support/C1"))["tickets"] == 2


@pytest.mark.parametrize(
    ("path", "row", "status", "code"),
    [
        ("/ingest/suport/C1", ROW, 400, "unknown_name"),
        ("/ingest/support/C1", ROW | {"tickets": 1.5}, 422, "invalid_rows"),
        ("/ingest/support/C1", ROW | {"ticket": 1}, 422, "invalid_rows"),
        ("/ingest/support/C1", ROW | {"timestamp": "2024-01-01T00:00:00"}, 422, "invalid_rows"),
        ("/ingest/support/C1", ROW | {"customer_id": "C2"}, 409, "conflict"),
        ("/ingest/support/a,b", ROW, 400, "invalid_input"),
        ("/ingest/support/C1", [ROW], 400, "invalid_input"),
        ("/api/v1/groups/support/runs", {}, 422, "invalid_source"),
        ("/api/v1/groups/suport/runs", {}, 400, "unknown_name"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(hub: Hub, path: str, row: Any, status: int, code: str) -> None:
    assert answer_of(hub.post(path, row), status)["code"] == code


def test_rows_of_an_archived_group_are_refused(hub: Hub) -> None:
    from catalog.models import FeatureGroup

    support = FeatureGroup.objects.get(name="support")
    support.status = "archived"
    support.save()
    assert answer_of(hub.post("/ingest/support/C1", ROW), 409)["code"] == "conflict"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_run_is_queued_and_can_be_asked_about(hub: Hub, slash: str, give_a_source: None) -> None:
    response = hub.post(f"/api/v1/groups/support/runs{slash}", {})
    assert response.status_code == 202
    run = json.loads(response.content)
    assert (run["group"], run["state"], run["kind"], UUID(run["id"])) == (
        "support",
        "queued",
        "ingest",
        UUID(run["id"]),
    )
    assert response["Location"] == f"/api/v1/runs/{run['id']}"
    asked = answer_of(hub.get(f"/api/v1/runs/{run['id']}{slash}"))
    assert asked == run
    assert list(asked)[:8] == ["id", "kind", "group", "group_version", "state", "attempts", "progress", "read"]


@pytest.mark.parametrize("id", ["00000000-0000-0000-0000-000000000000", "nonsense"])
def test_a_run_that_does_not_exist_is_404(hub: Hub, id: str) -> None:
    assert answer_of(hub.get(f"/api/v1/runs/{id}"), 404)["code"] == "not_found"


def test_a_run_that_no_worker_can_be_told_of_is_refused_and_recorded_as_failed(
    hub: Hub, give_a_source: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog.models import Run
    from engine.errors import Unavailable
    from ingestion import api

    def no_broker(run_id: str) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(api.ingest_run, "delay", no_broker)  # the broker is the session's Redis, which others use
    run = Run.queue(_support())
    with pytest.raises(Unavailable, match="not started"):
        api.hand_over(run)
    run.refresh_from_db()
    assert (run.state, run.error_code) == ("failed", "unavailable")


def _support() -> Any:
    from catalog.models import FeatureGroup

    return FeatureGroup.objects.get(name="support")


@pytest.fixture
def give_a_source(hub: Hub) -> None:
    from catalog.models import DataSource

    group = _support()
    group.source = DataSource.objects.create(name="support_files", path="support/*.csv")
    group.save()
