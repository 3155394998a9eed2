"""GET /metrics: requests by both ways, the state of the stores, and what it costs to nobody else."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.utils import timezone

from tests.serving.conftest import Hub, push_row
from tests.serving.test_hot_path import ONE, VECTORS, Whole, ask, environ_of

pytestmark = pytest.mark.usefixtures("one_connection")


def metrics(hub: Hub) -> dict[str, float]:
    response = hub.get("/metrics")
    assert (response.status_code, response["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = [line for line in response.content.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def count(seen: dict[str, float], route: str, method: str, status: int) -> float:
    name = f'featurehub_request_seconds_count{{method="{method}",route="{route}",status="{status}"}}'
    return seen.get(name, 0)


def test_requests_are_counted_by_route_method_and_status_on_both_ways(hub: Hub) -> None:
    from serving.hot_path import HotPath

    before = metrics(hub)
    application, key = HotPath(Whole()), f"Bearer {hub.key}"
    for _ in range(3):
        ask(application, environ_of("GET", ONE, authorization=key))
    ask(application, environ_of("POST", VECTORS, b"{", authorization=key))
    hub.get("/groups")
    hub.get("/nowhere")
    hub.client.generic("BREW", "/groups")
    after = metrics(hub)
    grown = {
        asked: count(after, *asked) - count(before, *asked)
        for asked in [
            ("entity-vector", "GET", 200),
            ("vectors", "POST", 400),
            ("groups", "GET", 200),
            ("none", "GET", 404),
            ("groups", "other", 401),
        ]
    }
    assert list(grown.values()) == [3, 1, 1, 1, 1]


def test_an_answer_says_what_it_took(hub: Hub) -> None:
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", hub.get("/groups")["Server-Timing"])


def test_the_state_of_the_stores_is_told(hub: Hub) -> None:
    push_row("support", customer_id="C9", tickets=1, segment="calm")
    seen = metrics(hub)
    assert seen['featurehub_up{store="database"}'] == seen['featurehub_up{store="online_store"}'] == 1
    assert seen['featurehub_undrained_rows{group="support"}'] == 2
    assert seen['featurehub_undrained_rows{group="customer_purchases"}'] == 3
    assert 0 <= seen['featurehub_undrained_seconds{group="support"}'] < 3600
    assert seen["featurehub_offline_damaged"] == 0
    assert seen["featurehub_catalog_version"] > 0


def test_rows_in_quarantine_are_told_by_group(hub: Hub) -> None:
    from catalog.models import Acceptance, FeatureGroup, Run, RunState
    from ingestion.models import QuarantinedRule

    group = FeatureGroup.objects.get(name="support")
    run = Run.objects.create(
        group=group, group_version=group.version, acceptance=Acceptance.take(), state=RunState.SUCCEEDED
    )
    for rule, rows, discarded_at in (("min_value", 7, None), ("max_value", 2, None), ("not_null", 5, timezone.now())):
        QuarantinedRule.objects.create(run=run, column="tickets", rule=rule, row_count=rows, discarded_at=discarded_at)
    seen = metrics(hub)
    assert seen['featurehub_quarantined_rows{group="support"}'] == 9
    assert seen['featurehub_runs{kind="ingest",state="succeeded"}'] == 1


def test_whether_the_process_lives_needs_no_store_and_no_key(hub: Hub) -> None:
    assert Client().get("/healthz").json() == {"status": "alive"}
    assert Client().get("/readyz").json()["status"] == "healthy"
    assert Client().get("/metrics").status_code == 401
