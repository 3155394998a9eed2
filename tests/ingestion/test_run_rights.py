"""Whoever asked for a run must still be allowed to when a worker takes it up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from catalog import keys, runs
from catalog.models import FeatureGroup, GroupRole, Owner, Role, Run, RunState
from ingestion import ingest
from ingestion.tasks import ingest_run
from tests.factories import make_customer_group

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

CSV = "customer_id,purchased_at,total_purchases,total_spent,customer_segment\nC1,2024-11-01T10:00:00Z,2,9.5,gold\n"


@pytest.fixture
def group(sources: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureGroup:
    """Its runs are queued and not handed to the broker: the tests take them up themselves."""
    from ingestion import api

    monkeypatch.setattr(api, "hand_over", lambda run: None)
    (sources / "c.csv").write_text(CSV)
    return make_customer_group(source="c.csv")


def asked_by(client: Client, **options: Any) -> Run:
    response = client.post("/api/v1/groups/customer_purchases/runs", **options)
    assert response.status_code == 202, response.content
    return Run.objects.select_related("group__entity", "group__source", "acceptance").get(
        pk=json.loads(response.content)["id"]
    )


def with_key(**fields: Any) -> tuple[str, Client]:
    key, text = keys.create_key(name="shop", scopes=["write"], **fields)
    return key.public_id, Client(headers={"Authorization": f"Bearer {text}"})


def carried_out(run: Run) -> tuple[str, str, int]:
    ingest_run(str(run.pk))
    run.refresh_from_db()
    return run.state, run.error_code, run.rows_accepted


def test_a_run_of_a_key_that_is_still_valid_is_carried_out(group: FeatureGroup) -> None:
    public_id, client = with_key(groups=["customer_purchases"])
    run = asked_by(client)
    keys.rotate_key(public_id, old_ends_at=timezone.now())  # a new secret is the same key
    assert carried_out(run) == (RunState.SUCCEEDED, "", 1)


def test_a_run_of_a_key_that_was_revoked_meanwhile_fails_and_nothing_of_it_lands(group: FeatureGroup) -> None:
    from catalog import stores

    public_id, client = with_key()
    run = asked_by(client)
    keys.revoke_key(public_id)
    assert carried_out(run) == (RunState.FAILED, "not_allowed", 0)
    assert "shop may not write customer_purchases any more" in run.error
    assert run.attempts == 0
    assert stores.offline(group.name, group.version).open() is None


def test_a_run_of_a_person_whose_role_was_taken_away_fails(group: FeatureGroup) -> None:
    person = User.objects.create(username="ada")
    team = Owner.objects.create(name="growth")
    team.members.add(person)
    role = GroupRole.objects.create(group=group, team=team, role=Role.EDITOR)
    browser = Client()
    browser.force_login(person)
    kept, lost = asked_by(browser), asked_by(browser)
    assert carried_out(kept)[0] == RunState.SUCCEEDED
    role.role = Role.VIEWER
    role.save()
    assert carried_out(lost)[:2] == (RunState.FAILED, "not_allowed")


def test_whoever_retries_such_a_run_makes_it_theirs(group: FeatureGroup) -> None:
    public_id, client = with_key()
    run = asked_by(client)
    keys.revoke_key(public_id)
    carried_out(run)
    runs.retry(run, by="ada")
    assert carried_out(run) == (RunState.SUCCEEDED, "", 1)


def test_a_run_of_a_schedule_or_a_command_asks_nobody(group: FeatureGroup) -> None:
    run = ingest.ingest(group, by="command")
    assert (run.state, run.principal) == (RunState.SUCCEEDED, "")


def test_a_dataset_of_a_key_that_was_revoked_meanwhile_is_not_made(group: FeatureGroup) -> None:
    from serving import datasets, datasets_api

    ingest.ingest(group)
    public_id, client = with_key()
    spine = [{"customer_id": "C1", "event_timestamp": "2025-01-01T00:00:00Z"}]
    body = {"name": "churn", "features": ["customer_purchases:total_purchases"], "spine": spine}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets_api.datasets, "hand_over", lambda dataset: None)
        response = client.post("/api/v1/training-datasets", json.dumps(body), "application/json")
    assert response.status_code == 202, response.content
    keys.revoke_key(public_id)
    datasets.execute(datasets.find("churn").run)
    run = datasets.find("churn").run
    assert (run.state, run.error_code) == (RunState.FAILED, "not_allowed")
