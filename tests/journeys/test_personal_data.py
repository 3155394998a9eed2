"""A canary id and canary values go through every way in, and are searched for in all that the hub puts out.

The entity's join keys and one group are tagged `pii`. Whoever reads without `pii:read` sees neither, wherever they were
not the one who sent them; the log, the metrics, problem details and the messages of the broker have them for nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import Settings

from catalog import access, runs
from catalog.models import Feature, FeatureGroup, Run, RunKind, Tag, TrainingDataset
from ingestion.models import QuarantinedRule
from tests.admin_pages import pages_of
from tests.factories import add_feature, make_customer_group, purchase, write_csv
from tests.ingestion import workers
from tests.ingestion.web import Start, Web, running_webs

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

#: An id and values that nothing else has; one of them a number, as some people's ids are.
ID, NUMBER, VALUE, INPUT = "Zq7canaryid", 8_814_207_733, "Zq7canaryvalue", 77_310_442.25
CANARIES = (ID, str(NUMBER), VALUE, str(INPUT))
ROWS = "/api/v1/groups/customer_purchases/rows"


@dataclass
class Hub:
    """What a caller asks of a web process, and all that it answered."""

    web: Web
    reader: str
    answers: list[tuple[str, bytes]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> tuple[int, bytes]:
        """The status and the body; kept for the search unless the caller holds `pii:read` or sent what comes back."""
        connection = HTTPConnection("127.0.0.1", self.web.port, timeout=30)
        sent = {"Host": "localhost", "Authorization": f"Bearer {key or self.reader}"}
        sent |= {"Content-Type": "application/json", **headers}
        try:
            data = json.dumps(body).encode() if body is not None else b""
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        if not key or answer.status >= 400:
            self.answers.append((f"{method} {path} {answer.headers}", told + str(answer.headers).encode()))
        return answer.status, told


@pytest.fixture
def group(sources: Path, settings: Settings) -> FeatureGroup:
    """customer_purchases, tagged `pii` as their entity is."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    group = make_customer_group(source="*.csv", keys={"customer_id": "string"})
    add_feature(group, "note", "string", max_length=8)
    add_feature(group, "account", "int64", max_value=10)
    pii = Tag.objects.create(name="pii")
    group.tags.add(pii)
    group.entity.tags.add(pii)
    make_customer_group("support", features={"tickets": "int64"}, source="support.csv")  # of the same entity, untagged
    return group


@pytest.fixture
def start(sources: Path) -> Iterator[Start]:
    with running_webs() as start_one:
        yield start_one


def good_row(id: str, **fields: Any) -> dict[str, Any]:
    return purchase(id, **({"note": "ok", "account": 1} | fields))


def bad_row() -> dict[str, Any]:
    """A row that breaks rules with the canaries in it."""
    return good_row(ID, total_spent=INPUT, note=VALUE, account=NUMBER)


def send_everything(hub: Hub, group: FeatureGroup, sources: Path, log: Path) -> dict[str, Run]:
    """All ways in: pushes, files, a failed run, training datasets; the runs by what became of them."""
    key = hub.web.key
    good = good_row(ID, total_spent=INPUT)
    assert hub.ask("POST", ROWS, {"rows": [good]}, key=key)[0] == 200
    assert (
        hub.ask("POST", f"/ingest/support/{ID}", {"purchased_at": good["purchased_at"], "tickets": 3}, key=key)[0] < 300
    )
    for rows in (
        [bad_row()],
        [{**good, "customer_id": NUMBER}],
        [{**good, "total_spent": f"{INPUT}"}],
        [{**good, "purchased_at": VALUE}],
        [{**good, "customer_segment": VALUE}],
    ):
        assert hub.ask("POST", ROWS, {"rows": rows}, key=key)[0] == 422
    assert hub.ask("POST", f"{ROWS}?on_error=quarantine", {"rows": [bad_row(), good]}, key=key)[0] == 200
    for path in (f"/ingest/support/{ID}", f"/api/v1/groups/support/rows/{ID},{ID}", f"/ingest/nothing/{ID}"):
        body = {"customer_id": VALUE, "purchased_at": good["purchased_at"], "tickets": VALUE}
        assert hub.ask("POST", path, body, key=key)[0] >= 400
        assert hub.ask("DELETE", path, key=key)[0] >= 400
    many = [good_row(f"G{n}") for n in range(60)]
    write_csv(sources / "some.csv", [*many, bad_row(), good_row(ID, total_purchases=-NUMBER)])
    (sources / "ragged.csv").write_text(f"customer_id,purchased_at\n{ID},{VALUE},{NUMBER},{INPUT}\n")
    write_csv(sources / "mostly.csv", [bad_row() for _ in range(9)])
    done = {name: Run.queue(group, paths=[sources / f"{name}.csv"]) for name in ("some", "ragged", "mostly")}
    for run in done.values():
        runs.hint(run)
    for name, spine in {
        "good": [{"customer_id": ID, "event_timestamp": "2026-01-01T00:00:00Z", "label": VALUE}],
        "plain": [{"customer_id": ID, "event_timestamp": "2026-01-01T00:00:00Z"}],
        "bad": [{"customer_id": ID, "event_timestamp": VALUE}],
        "worse": [{"customer_id": NUMBER, "event_timestamp": "2026-01-01T00:00:00Z", "label": [VALUE, NUMBER]}],
    }.items():
        features = ["support:tickets"] if name == "plain" else ["customer_purchases:note"]
        body = {"name": name, "features": features, "spine": spine}
        status = hub.ask("POST", "/api/v1/training-datasets", body, key=key)[0]
        assert status == (202 if name in ("good", "plain") else 422)
    (sources / "spine.csv").write_text(f"customer_id,event_timestamp\n{ID},{VALUE}\n")
    body = {"name": "of_a_file", "features": ["note"], "spine": {"path": "spine.csv"}}
    assert hub.ask("POST", "/api/v1/training-datasets", body, key=key)[0] == 422
    workers.until(lambda: not Run.objects.filter(state__in=["queued", "running"]).exists(), log, seconds=90)
    for name in ("good", "plain"):
        done[name] = TrainingDataset.objects.get(name=name).run
    for run in done.values():
        run.refresh_from_db()
    assert {name: run.state for name, run in done.items()} == {
        **dict.fromkeys(("some", "good", "plain"), "succeeded"),
        **dict.fromkeys(("ragged", "mostly"), "failed"),
    }
    return done


def read_everything(hub: Hub, group: FeatureGroup, done: dict[str, Run]) -> None:
    """All ways out over HTTP, by somebody who may not read personal values."""
    quarantine = "/api/v1/groups/customer_purchases/quarantine"
    status, told = hub.ask("GET", quarantine)
    assert status == 200
    assert json.loads(told)["results"]
    for run in done.values():
        assert hub.ask("GET", f"/api/v1/runs/{run.pk}")[0] == 200
    for run in Run.objects.exclude(kind=RunKind.TRAIN):
        assert hub.ask("GET", f"/api/v1/runs/{run.pk}")[0] == 200
    for name in ("good", "plain"):
        assert hub.ask("GET", f"/api/v1/training-datasets/{name}")[0] == 200
        for kind in ("application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"):
            assert hub.ask("GET", f"/api/v1/training-datasets/{name}/data", Accept=kind)[0] == 403
    for path in ("/api/v1/training-datasets", "/metrics", "/groups", "/features", "/health", "/openapi.json"):
        hub.ask("GET", path)
    for feature in Feature.objects.all():
        hub.ask("GET", f"/features/customer/{feature.name}/metadata")
    vectors = {"features": ["customer_purchases:note"], "entities": {"customer_id": [ID]}}
    assert hub.ask("POST", "/api/v1/vectors", vectors)[0] == 403
    assert hub.ask("GET", f"/features/customer/{ID}?features=note")[0] == 403
    assert hub.ask("GET", f"/features/customer/{ID},{VALUE}")[0] >= 400
    assert hub.ask("GET", f"/features/custmer/{ID}")[0] == 404
    assert hub.ask("GET", f"/features/customer/{VALUE}?features=tickets")[0] == 404
    assert hub.ask("GET", "/features/customer/nobody~x?features=tickets")[0] == 400
    assert (
        hub.ask("POST", "/api/v1/vectors", {"features": ["tickets"], "entities": {"customer_id": [NUMBER]}})[0] == 400
    )


def test_somebody_who_sent_the_id_reads_what_is_not_tagged_and_with_the_right_everything(
    group: FeatureGroup, start: Start
) -> None:
    web = start()
    _, reader = access.create_key(name="reader", scopes=["read"])
    hub = Hub(web, reader)
    ticket = {"purchased_at": "2026-01-01T00:00:00Z", "tickets": 3}
    assert hub.ask("POST", f"/ingest/support/{ID}", ticket, key=web.key)[0] == 201
    assert json.loads(hub.ask("GET", f"/features/customer/{ID}?features=tickets")[1]) == {"tickets": 3}
    status, told = hub.ask("POST", "/api/v1/vectors", {"features": ["tickets"], "entities": {"customer_id": [ID]}})
    assert (status, json.loads(told)["values"]) == (200, [[3]])


def person_without_the_right() -> Client:
    """Somebody who may look at everything, but not read personal values."""
    ada = User.objects.create_user("ada", password="hush", is_staff=True)
    ada.user_permissions.set(Permission.objects.exclude(codename="read_pii_featuregroup"))
    browser = Client()
    browser.force_login(ada)
    return browser


def broker_messages(url: str) -> bytes:
    """All that lies in the broker: lists of messages, and those that were taken and not acknowledged."""
    read: dict[bytes, Callable[[redis.Redis, bytes], Any]] = {
        b"list": lambda client, key: client.lrange(key, 0, -1),
        b"hash": lambda client, key: client.hgetall(key),
    }
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter())
        return repr([(key, read.get(client.type(key), lambda *_: b"")(client, key)) for key in keys]).encode()


def test_a_canary_is_in_no_output(
    group: FeatureGroup, sources: Path, start: Start, tmp_path: Path, settings: Settings
) -> None:
    _, reader = access.create_key(name="reader", scopes=["read"])
    web, log = start(FEATUREHUB_LOG_LEVEL="INFO", FEATUREHUB_LOG_REQUESTS="true"), tmp_path / "worker.log"
    hub = Hub(web, reader)
    with workers.worker(log):
        done = send_everything(hub, group, sources, log)
    # With no worker, what is handed out stays in the broker.
    for name in ("ragged", "mostly"):
        runs.retry(done[name], by="ada")
        runs.hint(done[name])
    body = {
        "name": "later",
        "features": ["note"],
        "spine": [{"customer_id": ID, "event_timestamp": "2026-01-01T00:00:00Z"}],
    }
    assert hub.ask("POST", "/api/v1/training-datasets", body, key=web.key)[0] == 202
    read_everything(hub, group, done)

    assert any(ID in json.dumps(rule.samples) for rule in QuarantinedRule.objects.all())
    assert any(VALUE in json.dumps(rule.samples) for rule in QuarantinedRule.objects.all())
    messages = broker_messages(settings.BROKER_REDIS_URL)
    assert b"ingest_run" in messages
    outputs = {
        **dict(hub.answers),
        **dict(pages_of(person_without_the_right())),
        "the web's log": web.log().encode(),
        "the worker's log": log.read_bytes(),
        "the broker": messages,
    }
    assert len(outputs) > 100
    secrets = [settings.SECRET_KEY, *(key.split("_")[2] for key in (web.key, reader))]
    found = {(where, one) for where, told in outputs.items() for one in (*CANARIES, *secrets) if one.encode() in told}
    assert found == set()


def test_who_has_the_right_sees_them(group: FeatureGroup, start: Start, sources: Path) -> None:
    """So that the search above can find what it looks for."""
    from ingestion.ingest import ingest

    rows = [*(good_row(f"G{n}") for n in range(60)), bad_row()]
    run = ingest(group, paths=[write_csv(sources / "s.csv", rows)])
    assert run.state == "succeeded"
    _, full = access.create_key(name="full", scopes=["read", "pii:read"])
    told = Hub(start(), full).ask("GET", "/api/v1/groups/customer_purchases/quarantine")[1]
    assert all(canary.encode() in told for canary in (ID, VALUE, str(NUMBER)))
    browser = Client()
    browser.force_login(User.objects.create_superuser("root", password="hush"))
    assert any(VALUE.encode() in page for _, page in pages_of(browser))


def test_the_tag_on_an_entity_alone_guards_its_keys(sources: Path, start: Start) -> None:
    """No feature and no group is tagged: values by an id that somebody sent are free, everybody's ids are not."""
    from ingestion.ingest import ingest

    group = make_customer_group()
    group.entity.tags.add(Tag.objects.create(name="pii"))
    ingest(
        group,
        paths=[
            write_csv(sources / "s.csv", [*(purchase(f"G{n}") for n in range(60)), purchase(ID, total_purchases=-1)])
        ],
    )
    web = start()
    _, reader = access.create_key(name="reader", scopes=["read"])
    hub = Hub(web, reader)
    status, told = hub.ask("GET", "/api/v1/groups/customer_purchases/quarantine")
    assert (status, [rule["samples"] for rule in json.loads(told)["results"]]) == (200, [[]])
    assert hub.ask("GET", "/features/customer/G1?features=total_purchases")[0] == 200
    group.entity.tags.clear()
    assert ID.encode() in hub.ask("GET", "/api/v1/groups/customer_purchases/quarantine")[1]


def test_a_dataset_of_untagged_features_needs_the_right_for_its_keys(sources: Path, start: Start) -> None:
    group = make_customer_group()
    run = Run.queue(None, kind=RunKind.TRAIN)
    TrainingDataset.objects.create(
        name="churn", run=run, features=["total_purchases"], event_timestamp="event_timestamp"
    )
    hub = Hub(start(), access.create_key(name="reader", scopes=["read"])[1])
    path = "/api/v1/training-datasets/churn/data"
    assert json.loads(hub.ask("GET", path)[1])["code"] == "conflict"  # it is not made yet
    group.entity.tags.add(Tag.objects.create(name="pii"))
    status, told = hub.ask("GET", path)
    assert (status, json.loads(told)["errors"][0]["pointer"]) == (403, "customer_purchases:customer_id")
