"""Rejected rows over HTTP, by command and in the admin: listed, replayed, discarded, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from kombu.exceptions import OperationalError

from catalog import access
from catalog.models import FeatureGroup, Run, RunKind, RunState, Status
from ingestion import api
from ingestion.ingest import execute, ingest
from ingestion.models import QuarantinedRule
from ingestion.push import push
from ingestion.settle import Selection, discard
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import contents, workers

QUARANTINE = "/api/v1/groups/customer_purchases/quarantine"
GOOD = [purchase(f"G{n}") for n in range(30)]


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


@pytest.fixture
def first(group: FeatureGroup, sources: Path) -> Run:
    """A run with rejected rows: 30 and 31 have a negative number of purchases, 32 an unknown segment."""
    bad = [purchase("C1", total_purchases=-1), purchase("C2", total_purchases=-2)]
    unknown = purchase("C3", customer_segment="golden")
    return ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, *bad, unknown])])


@pytest.fixture
def client(db: None) -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


def post(client: Client, action: str, **body: Any) -> Any:
    return client.post(f"{QUARANTINE}/{action}", body, content_type="application/json")


def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(QUARANTINE + query)
    assert answer.status_code == 200, answer.content
    return answer.json()["results"]


def customers(group: FeatureGroup) -> set[str]:
    return {row["customer_id"] for row in contents.offline(group)} - {row["customer_id"] for row in GOOD}


# -- HTTP.


def test_rejected_rows_are_listed_by_rule_newest_first(group: FeatureGroup, first: Run, client: Client) -> None:
    assert {(one["column"], one["rule"], one["rows"], one["pending"]) for one in listed(client)} == {
        ("customer_segment", "allowed_values", 1, 1),
        ("total_purchases", "min_value", 2, 2),
    }
    (one,) = listed(client, "?column=total_purchases&rule=min_value&state=pending")
    assert one == {
        "id": QuarantinedRule.objects.get(column="total_purchases").pk,
        "group": "customer_purchases",
        "run": str(first.pk),
        "kind": "ingest",
        "column": "total_purchases",
        "rule": "min_value",
        "detail": "is below the minimum 0",
        "rows": 2,
        "pending": 2,
        "state": "pending",
        "samples": one["samples"],
        "replay": None,
        "discarded": None,
        "created_at": one["created_at"],
    }
    assert [sample["row"] for sample in one["samples"]] == [30, 31]
    assert json.loads(one["samples"][0]["payload"])["total_purchases"] == "-1"
    assert listed(client, f"?run={first.pk}&state=discarded") == []


def test_a_page_is_bounded_and_leads_to_the_next_and_back(group: FeatureGroup, client: Client) -> None:
    for number in range(5):
        push(group, [purchase(f"C{number}", total_purchases=-1)], on_error="quarantine")
    page = client.get(f"{QUARANTINE}?limit=2").json()
    seen = [one["id"] for one in page["results"]]
    assert (len(seen), page["previous"]) == (2, None)
    while page["next"]:
        previous, page = page, client.get(page["next"]).json()
        seen += [one["id"] for one in page["results"]]
        assert client.get(page["previous"]).json()["results"] == previous["results"]
    assert seen == sorted(QuarantinedRule.objects.values_list("pk", flat=True), reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        "?runs=1",
        "?run=nonsense",
        "?run=",
        "?column=%00",
        "?rule=",
        "?state=new",
        "?state=",
        "?limit=0",
        "?limit=201",
        "?limit=-1",
        "?limit=x",
        "?cursor=nonsense",
        "?cursor=cD14",
        "?limit=1&limit=2",
    ],
)
def test_a_query_that_is_not_one_is_400(group: FeatureGroup, client: Client, query: str) -> None:
    answer = client.get(QUARANTINE + query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), answer.content


@pytest.mark.parametrize(
    ("action", "body", "refused"),
    [
        ("replay", {"runs": "x"}, (400, "/runs")),
        ("replay", {"run": "x"}, (400, "/run")),
        ("replay", {"run": None}, (400, "/run")),
        ("replay", {"run": "00000000-0000-0000-0000-000000000000"}, (404, None)),
        ("replay", {"column": "total"}, (404, None)),
        ("replay", {"column": "a\0"}, (400, "/column")),
        ("replay", {"rule": ["min_value"]}, (400, "/rule")),
        ("replay", {"row": 30}, (400, None)),
        ("replay", {"row": True}, (400, "/row")),
        ("replay", {"row": -1}, (400, "/row")),
        ("replay", {"row": 2**63}, (400, "/row")),
        ("replay", {"row": "30"}, (400, "/row")),
        ("replay", {"values": {"total_purchases": 1}}, (400, None)),
        ("replay", {"values": []}, (400, "/values")),
        ("replay", {"values": {"total_purchases": "1"}, "row": 30}, (422, "/values/total_purchases")),
        ("replay", {"values": {"total_purchase": 1}, "row": 30}, (422, "/values/total_purchase")),
        ("replay", {"reason": "x"}, (400, "/reason")),
        ("discard", {}, (400, "/reason")),
        ("discard", {"reason": ""}, (400, "/reason")),
        ("discard", {"reason": "\t"}, (400, None)),
        ("discard", {"reason": 1}, (400, "/reason")),
        ("discard", {"reason": "x", "values": {}}, (400, "/values")),
    ],
)
def test_a_body_that_is_not_one_is_refused_by_name(
    first: Run, client: Client, action: str, body: dict[str, Any], refused: tuple[int, str | None]
) -> None:
    status, pointer = refused
    answer = post(client, action, **body)
    assert answer.status_code == status, answer.content
    assert [error["pointer"] for error in answer.json()["errors"]] == ([pointer] if pointer else [])
    assert not Run.objects.filter(kind=RunKind.REPLAY).exists()
    assert {one["state"] for one in listed(client)} == {"pending"}


def test_a_replay_over_http_is_a_queued_run_for_the_worker(
    group: FeatureGroup, first: Run, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks() as told:
        answer = post(client, "replay", run=str(first.pk), row=30, values={"total_purchases": 3})
    run = answer.json()
    assert (answer.status_code, answer["Location"], len(told)) == (202, f"/api/v1/runs/{run['id']}", 1)
    assert (run["kind"], run["state"]) == ("replay", "queued")
    assert Run.objects.get(pk=run["id"]).requested_by == "writer"
    execute(Run.objects.get(pk=run["id"]))
    assert customers(group) == {"C1"}
    assert [one["pending"] for one in listed(client, "?column=total_purchases")] == [1]
    conflict = post(client, "replay", run=str(first.pk), row=30)
    assert (conflict.status_code, conflict.json()["code"]) == (409, "conflict")


@pytest.mark.django_db(transaction=True)
def test_a_worker_carries_a_replay_out(group: FeatureGroup, first: Run, client: Client, tmp_path: Path) -> None:
    group.features.filter(name="total_purchases").update(validation={})
    log = tmp_path / "worker.log"
    with workers.worker(log) as process:
        run = post(client, "replay", column="total_purchases").json()
        workers.until(lambda: Run.objects.get(pk=run["id"]).state == RunState.SUCCEEDED, log)
        process.terminate()
        process.wait(20)
    assert sorted(customers(group)) == ["C1", "C2"]
    (one,) = listed(client, "?state=replayed")
    assert (one["replay"], one["pending"]) == (run["id"], 0)


@pytest.mark.django_db(transaction=True)
def test_a_replay_that_no_worker_can_be_told_of_gives_its_rows_back(
    first: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_broker(run_id: str) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(api.ingest_run, "delay", no_broker)  # the broker is the session's Redis, which others use
    assert post(client, "replay").status_code == 503
    assert {one["state"] for one in listed(client)} == {"pending"}


def test_discarding_over_http_says_how_many(first: Run, client: Client) -> None:
    answer = post(client, "discard", column="total_purchases", reason="orders of a test")
    assert (answer.status_code, answer.json()) == (200, {"discarded": 2})
    (one,) = listed(client, "?state=discarded")
    assert (one["discarded"]["by"], one["discarded"]["reason"]) == ("writer", "orders of a test")
    assert post(client, "discard", run=str(first.pk), row=32, reason="too").json() == {"discarded": 1}
    assert [one["state"] for one in listed(client, "?column=customer_segment")] == ["settled"]


def test_an_archived_group_shows_its_rows_and_takes_none(group: FeatureGroup, first: Run, client: Client) -> None:
    FeatureGroup.objects.update(status=Status.ARCHIVED)
    assert len(listed(client)) == 2
    assert post(client, "replay").status_code == 409
    assert post(client, "discard", reason="archived").json() == {"discarded": 3}


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_group_that_does_not_exist_is_named_with_near_names(group: FeatureGroup, client: Client, method: str) -> None:
    path = QUARANTINE.replace("purchases", "purchase") + ("/replay" if method == "post" else "")
    answer = getattr(client, method)(path, *([{}] if method == "post" else []), content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_name")
    assert answer.json()["errors"][0]["did_you_mean"] == ["customer_purchases"]


# -- The command.


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str, exits: int = 0) -> str:
    capsys.readouterr()
    if exits:
        with pytest.raises(SystemExit) as ended:
            call_command("quarantine", *arguments)
        assert ended.value.code == exits
    else:
        call_command("quarantine", *arguments)
    told = capsys.readouterr()
    return told.out + told.err


def test_the_command_lists_shows_replays_and_discards(
    group: FeatureGroup, first: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    name, run = group.name, str(first.pk)[:8]
    assert "pending     2 of 2 rows wait  total_purchases min_value: is below" in said_by(capsys, "list", name)
    shown = json.loads(said_by(capsys, "show", name, "--run", run, "--column", "total_purchases", "--json"))
    assert [row["row"] for row in shown] == [30, 31]
    assert '"customer_id":"C3"' in said_by(capsys, "show", name, "--run", run, "--row", "32")
    mended = ("--run", run, "--row", "30", "--values", '{"total_purchases": 3}')
    assert "read 1, accepted 1, quarantined 0 in" in said_by(capsys, "replay", name, *mended)
    assert "read 2, accepted 0, quarantined 2 in" in said_by(capsys, "replay", name, exits=3)
    assert "discarded 2 rows" in said_by(capsys, "discard", name, "--reason", "a test")
    states = {one["state"] for one in json.loads(said_by(capsys, "list", name, "--json"))}
    assert states == {"discarded", "replayed"}
    assert customers(group) == {"C1"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["discard", "customer_purchases"], "needs a reason"),
        (["show", "customer_purchases"], "name it with --run"),
        (["replay", "customer_purchases", "--rule", "regex"], "no quarantined rows with rule regex"),
        (["replay", "customer_purchases", "--values", "[]"], "a JSON object"),
        (["list", "customer"], "no feature group named 'customer'"),
        (["show", "customer_purchases", "--run", "nonsense"], "no run nonsense"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    first: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in said_by(capsys, *arguments, exits=1)


# -- The admin.

LIST = "admin:ingestion_quarantinedrule_changelist"


def page_of(rule: QuarantinedRule, name: str = "change") -> str:
    return reverse(f"admin:ingestion_quarantinedrule_{name}", args=[rule.pk])


def test_the_admin_shows_states_and_filters_by_them(first: Run, admin_client: Client) -> None:
    shown = admin_client.get(reverse(LIST)).content.decode()
    assert shown.count("hourglass_empty") == 2
    assert "total_purchases min_value" in admin_client.get(reverse(LIST) + "?state=pending").content.decode()
    assert "total_purchases min_value" not in admin_client.get(reverse(LIST) + "?state=replayed").content.decode()
    page = admin_client.get(page_of(QuarantinedRule.objects.get(column="total_purchases"))).content.decode()
    assert "&quot;customer_id&quot;:&quot;C2&quot;" in page


def test_the_admin_replays_selected_rows_after_asking(
    group: FeatureGroup, first: Run, admin_client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    chosen = {"action": "replay_selected", "_selected_action": [rule.pk for rule in QuarantinedRule.objects.all()]}
    assert "Replay 3 rows?" in admin_client.post(reverse(LIST), chosen).content.decode()
    assert not Run.objects.filter(kind=RunKind.REPLAY).exists()
    with django_capture_on_commit_callbacks() as told:
        answer = admin_client.post(reverse(LIST), chosen | {"confirmed": "yes"}, follow=True)
    run = Run.objects.get(kind=RunKind.REPLAY)
    assert (len(told), run.requested_by) == (1, "admin")
    assert "Rows of customer_purchases are replayed by" in answer.content.decode()
    refused = admin_client.post(reverse(LIST), chosen | {"confirmed": "yes"}, follow=True).content.decode()
    assert f"held by run {run.pk}" in refused


def test_the_admin_discards_with_a_reason_only(first: Run, admin_client: Client) -> None:
    rule = QuarantinedRule.objects.get(column="total_purchases")
    discard(first.group, Selection(run=first.pk, row=31), reason="one alone", by="ada")
    assert "row 31: discarded by ada, 20" in admin_client.get(page_of(rule)).content.decode()
    page = page_of(rule, "discard")
    assert "Discard 1 row?" in admin_client.get(page).content.decode()
    assert "This field is required" in admin_client.post(page, {"confirmed": "yes"}).content.decode()
    answer = admin_client.post(page, {"confirmed": "yes", "reason": "orders of a test"}, follow=True)
    assert "Discarded: rows of customer_purchases, 1" in answer.content.decode()
    rule.refresh_from_db()
    assert (rule.discarded_by, rule.discard_reason) == ("admin", "orders of a test")
    shown = admin_client.get(page_of(rule)).content.decode()
    assert ("orders of a test" in shown, page in shown) == (True, False)


def test_whoever_may_only_look_at_rejected_rows_does_not_settle_them(first: Run) -> None:
    user = User.objects.create(username="viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_quarantinedrule"))
    browser = Client()
    browser.force_login(user)
    rule = QuarantinedRule.objects.get(column="total_purchases")
    assert page_of(rule, "replay") not in browser.get(page_of(rule)).content.decode()
    assert browser.post(page_of(rule, "replay"), {"confirmed": "yes"}).status_code == 403
    assert not Run.objects.filter(kind=RunKind.REPLAY).exists()
