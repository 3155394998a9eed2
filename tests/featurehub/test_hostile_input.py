"""What is sent to do harm is data: shown as it was written, stored as it was written, or refused."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import socket
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from catalog import access, keys, runs
from catalog.models import ApiKey, FeatureGroup, FeatureService, Owner, Run, RunKind, Tag, TrainingDataset
from engine.errors import FeaturehubError
from featurehub.celery import app
from featurehub.environment import PROJECT
from ingestion.ingest import ingest
from ingestion.models import QuarantinedRule, SourceFile
from ingestion.push import push
from tests.admin_pages import pages_of
from tests.factories import make_customer_group, purchase, write_csv
from tests.featurehub.bomb import pickled_bomb, require_it_goes_off
from tests.ingestion import contents, workers
from tests.ingestion.web import Start, running_webs

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = "/api/v1/groups/customer_purchases/rows"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def group(sources: Path, settings: Settings) -> FeatureGroup:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return make_customer_group(source="*.csv")


@pytest.fixture
def start(sources: Path) -> Iterator[Start]:
    with running_webs() as start_one:
        yield start_one


@pytest.fixture
def client(group: FeatureGroup) -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


# -- Pages: markup and templates in every text that people or programs can write

IMAGE = "<img src=x onerror=\"steal('canary')\">"
END_OF_SCRIPT = "</script><svg onload=steal()>"
ATTRIBUTE = "\" onmouseover=\"steal('canary')"
TEMPLATE = "{{7*7}}{% debug %}"
HOSTILE = IMAGE + END_OF_SCRIPT + ATTRIBUTE + TEMPLATE
#: What would run if one of them was not escaped where it stands.
RUNNING = (IMAGE, END_OF_SCRIPT, ATTRIBUTE, "<svg onload", 'onerror="steal')


def write_everywhere(group: FeatureGroup, root: User) -> None:
    """The texts into everything that has one."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    from catalog.models import Erasure, FailedLogin, OfflineDamage

    owner = Owner.objects.create(name="growth", description=HOSTILE) if _has(Owner, "description") else None
    for thing in (group, group.entity, *group.features.all()):
        thing.description = HOSTILE
        thing.owner = owner
        thing.save()
    feature = group.features.first()
    assert feature is not None
    feature.deprecation_reason, feature.validation = HOSTILE, {"regex": HOSTILE, "allowed_values": [HOSTILE]}
    feature.expression = HOSTILE
    feature.save()
    service = FeatureService.objects.create(name="churn", description=HOSTILE, status="draft")
    service.chosen.create(feature=feature, position=0)
    assert group.source is not None
    type(group.source).objects.update(path=HOSTILE)
    told = {"message": HOSTILE[:255], "error": HOSTILE, "requested_by": HOSTILE[:150], "error_code": HOSTILE[:64]}
    run = Run.queue(group)
    Run.objects.filter(pk=run.pk).update(
        **told,
        state="succeeded",
        finished_at=timezone.now(),
        worker=HOSTILE,
        warnings=[{"column": HOSTILE, "rule": HOSTILE, "detail": HOSTILE, "rows": 1}],
    )
    QuarantinedRule.objects.create(
        run=run,
        column=HOSTILE[:63],
        rule=HOSTILE[:63],
        detail=HOSTILE,
        row_count=1,
        samples=[{"row": 0, "payload": HOSTILE}],
        discarded_at=timezone.now(),
        discarded_by=HOSTILE[:150],
        discard_reason=HOSTILE,
    )
    SourceFile.objects.create(group=group, group_version=1, path=HOSTILE, size=1, sha256="a" * 64, run=run)
    OfflineDamage.objects.create(group=group, group_version=1, path=HOSTILE, detail=HOSTILE)
    TrainingDataset.objects.create(
        name="set",
        run=Run.queue(None, kind=RunKind.TRAIN),
        features=[HOSTILE],
        event_timestamp=HOSTILE,
        split={"fractions": [HOSTILE]},
    )
    Erasure.objects.create(
        entity=group.entity, key_hash="a" * 64, reason=HOSTILE, run=run, until=timezone.now(), receipt={}
    )
    ApiKey.objects.filter(pk=keys.create_key(name="k", scopes=["read"])[0].pk).update(name=HOSTILE[:100])
    FailedLogin.objects.create(address="10.0.0.1", name=HOSTILE[:150], failures=1, since=timezone.now())
    User.objects.filter(pk=root.pk).update(username=HOSTILE[:150], first_name=HOSTILE[:150])
    hourly = IntervalSchedule.objects.create(every=1, period="hours")
    PeriodicTask.objects.create(name=HOSTILE[:200], description=HOSTILE, task=HOSTILE[:200], interval=hourly, args="[]")
    from django.contrib.admin.models import CHANGE, LogEntry

    LogEntry.objects.log_actions(root.pk, [group], CHANGE, change_message=HOSTILE)


def _has(model: Any, name: str) -> bool:
    return any(field.name == name for field in model._meta.fields)


def test_markup_and_templates_in_any_text_are_shown_as_they_were_written(group: FeatureGroup) -> None:
    root = User.objects.create_superuser("root", password="hush")
    write_everywhere(group, root)
    browser = Client()
    browser.force_login(root)
    pages = dict(pages_of(browser))
    told = {path: page.decode() for path, page in pages.items()}
    assert {path: text for path, page in told.items() for text in RUNNING if text in page} == {}
    shown = [path for path, page in told.items() if "&lt;img src=x onerror=" in page]
    assert len(shown) > 20
    assert len([path for path, page in told.items() if "{{7*7}}{% debug %}" in page]) > 5


def test_a_message_that_repeats_what_was_typed_is_escaped(group: FeatureGroup) -> None:
    browser = Client()
    browser.force_login(User.objects.create_superuser("root", password="hush"))
    for model in ("feature", "featuregroup", "entity", "run", "apikey"):
        path = reverse(f"admin:catalog_{model}_changelist")
        assert (
            IMAGE not in browser.get(path, {"q": HOSTILE, "o": HOSTILE, HOSTILE: HOSTILE}, follow=True).content.decode()
        )
    for address in ("admin:catalog_feature_add", "admin:catalog_entity_add", "admin:catalog_apikey_add"):
        page = browser.post(
            reverse(address), {"name": HOSTILE, "dtype": HOSTILE, "expression": HOSTILE}
        ).content.decode()
        assert IMAGE not in page
    assert IMAGE not in Client().post(reverse("admin:login"), {"username": HOSTILE, "password": "x"}).content.decode()


def test_a_problem_document_is_no_page(client: Client) -> None:
    response = client.get("/features/customer/C1", {"features": HOSTILE})
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert response["X-Content-Type-Options"] == "nosniff"


# -- Headers: a line end in what was sent begins no header of an answer


REQUESTS = [
    "GET /features/customer/C1%0d%0aSet-Cookie:%20canary=1?features=total_purchases HTTP/1.1",
    "GET /groups?x=%0d%0aSet-Cookie:%20canary=1 HTTP/1.1",
    "GET /admin/login/?next=%0d%0aSet-Cookie:%20canary=1 HTTP/1.1",
    "POST /api/v1/groups/customer_purchases%0d%0aSet-Cookie:%20canary=1/rows HTTP/1.1",
]
REQUEST_IDS = ["mine\tSet-Cookie: canary=1", "mine\u2028Set-Cookie: canary=1", "x" * 129]


def test_no_answer_has_a_header_that_the_caller_wrote(group: FeatureGroup, start: Start) -> None:
    web = start()
    for request, request_id in product(REQUESTS, REQUEST_IDS):
        head = f"{request}\r\nHost: localhost\r\nAuthorization: Bearer {web.key}\r\nX-Request-ID: {request_id}\r\n"
        with socket.create_connection(("127.0.0.1", web.port), timeout=20) as sent:
            sent.sendall(f"{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
            answered = b"".join(iter(partial(sent.recv, 65536), b"")).decode()
        headers, _, _ = answered.partition("\r\n\r\n")
        assert headers.startswith("HTTP/1.1 "), request
        assert "canary" not in headers.lower(), request
        assert request_id not in headers


# -- Keys: one, in one header


def test_a_key_counts_in_one_header_alone(group: FeatureGroup, start: Start) -> None:
    web = start()

    def status(path: str, *headers: str) -> int:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers])
        with socket.create_connection(("127.0.0.1", web.port), timeout=20) as sent:
            sent.sendall(f"{head}\r\n\r\n".encode())
            return int(b"".join(iter(lambda: sent.recv(65536), b"")).split()[1])

    good = f"Authorization: Bearer {web.key}"
    for path in ("/groups", "/features/customer/C1?features=total_purchases"):
        assert status(path, good) in (200, 404)
        assert status(path) == 401
        assert status(path, good, good) == 401  # of two nobody knows which counts
        assert status(path, "Authorization: Bearer fh_nonsense", good) == 401
        assert status(path, f"X-Api-Key: {web.key}", f"Cookie: key={web.key}") == 401
        for name in ("key", "api_key", "access_token", "Authorization"):
            separator = "&" if "?" in path else "?"
            assert status(f"{path}{separator}{name}={web.key}") in (400, 401)


def test_a_dump_of_the_database_opens_nothing(group: FeatureGroup) -> None:
    made, text = keys.create_key(name="shop", scopes=["read"])
    _, before = keys.create_key(name="other", scopes=["read"])
    rotated = keys.rotate_key(before.split("_")[1], old_ends_at=timezone.now() + timezone.timedelta(days=1))
    assert Client().get("/groups", headers={"Authorization": f"Bearer {text}"}).status_code == 200
    dump = dump_of_the_database()
    assert made.public_id in dump
    for key in (text, before, *(one for one in _texts(rotated))):
        assert key.split("_")[2][:20] not in dump
    found = set(re.findall(r"[0-9a-zA-Z_-]{40,}", dump))
    assert len(found) > 2
    for secret in found:
        for sent in (secret, f"fh_{made.public_id}_{secret}", keys._text(made.public_id, secret[:40])):
            response = Client().get("/groups", headers={"Authorization": f"Bearer {sent}"})
            assert response.status_code == 401, sent


def _texts(rotated: object) -> list[str]:
    """The texts of keys in what rotating one gives back."""
    return re.findall(r"fh_[0-9A-Za-z]+_[0-9A-Za-z]+", repr(rotated))


def dump_of_the_database() -> str:
    """Every value of every table, as a thief of the file reads them."""
    texts: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            texts += [f"{table} {row!r}" for row in cursor.fetchall()]
    return "\n".join(texts)


# -- Pickle, in every place where somebody could put one


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    """It does go off where somebody unpickles it."""
    require_it_goes_off(tmp_path)
    yield pickled_bomb(tmp_path / "left")
    assert not (tmp_path / "left").exists()


def test_what_is_put_into_the_brokers_list_past_celery_is_not_loaded_and_the_worker_goes_on(
    group: FeatureGroup, sources: Path, tmp_path: Path, bomb: bytes
) -> None:
    broker = redis.Redis.from_url(django_settings.BROKER_REDIS_URL)
    queue = f"{django_settings.FEATUREHUB_KEY_PREFIX}:celery"
    app.send_task("ingestion.tasks.ingest_run", args=["x"])
    sample = broker.lpop(queue)
    assert isinstance(sample, bytes)
    good = json.loads(sample)
    spoiled = [
        good | {"content-type": "application/x-python-serialize", "content-encoding": "binary"},
        good | {"content-type": "pickle", "content-encoding": "binary"},
        good | {"content-type": "application/json"},
        good | {"content-type": "application/x-yaml", "content-encoding": "utf-8"},
    ]
    for message in spoiled:
        broker.rpush(queue, json.dumps(message | {"body": base64.b64encode(bomb).decode()}))
    run = Run.queue(group, paths=[write_csv(sources / "a.csv", [purchase("C1")])])
    runs.hint(run)
    log = tmp_path / "worker.log"
    with workers.worker(log):
        workers.until(lambda: Run.objects.get(pk=run.pk).state == "succeeded", log)
        workers.until(lambda: broker.llen(queue) == 0, log)
    assert "ContentDisallowed" in log.read_text() or "Can't decode message body" in log.read_text()
    broker.close()


def streams(bomb: bytes) -> dict[str, bytes]:
    """Rows as an Arrow stream whose key column says that it is of a pickled type, in the ways that pyarrow had."""
    made = {}
    for name in ("arrow.py_extension_type", "arrow.opaque", "featurehub.unknown"):
        metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": bomb}
        rows = pa.Table.from_pylist([purchase("C1")])
        schema = rows.schema.set(0, rows.schema.field(0).with_metadata(metadata))
        schema = schema.with_metadata({"pandas": bomb, "pickle": bomb})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(pa.Table.from_arrays(rows.columns, schema=schema))
        made[name] = sink.getvalue()
    return made


def test_an_arrow_type_that_was_pickled_is_not_loaded(client: Client, group: FeatureGroup, bomb: bytes) -> None:
    answers = {name: client.post(ROWS, body, content_type=ARROW).status_code for name, body in streams(bomb).items()}
    assert set(answers.values()) <= {200, 400, 422}
    assert set(contents.online(group)) <= {"s2:C1"}


def test_a_file_of_pickled_objects_is_no_source(group: FeatureGroup, sources: Path, bomb: bytes) -> None:
    (sources / "a.pkl").write_bytes(bomb)
    np.save(sources / "a.npy", np.array([{"customer_id": "C1"}], dtype=object), allow_pickle=True)
    (sources / "b.parquet").write_bytes(bomb)
    (sources / "c.csv").write_bytes(bomb)
    metadata = {"pandas": bomb, "ARROW:schema": base64.b64encode(bomb)}
    pq.write_table(pa.Table.from_pylist([purchase("C1")]).replace_schema_metadata(metadata), sources / "d.parquet")
    for name in ("a.pkl", "a.npy", "b.parquet", "c.csv"):
        with pytest.raises(FeaturehubError):
            ingest(group, paths=[sources / name])
    assert contents.offline(group) == []


def test_a_session_that_was_pickled_is_nobodys(group: FeatureGroup, bomb: bytes) -> None:
    from django.contrib.sessions.models import Session

    browser = Client()
    browser.force_login(User.objects.create_superuser("root", password="hush"))
    assert browser.get("/admin/").status_code == 200
    Session.objects.update(session_data=base64.b64encode(b"hash:" + bomb).decode())
    assert browser.get("/admin/").status_code == 302


# -- Redis: what is like a script or like its protocol is an id or a value


@pytest.mark.parametrize(
    "text",
    [
        "'); redis.call('FLUSHALL') --",
        "]] redis.call('FLUSHALL') --[[",
        "*1\r\n$8\r\nFLUSHALL\r\n",
        "$-1\r\n",
        "+OK\r\n-ERR x\r\n",
        "KEYS[1]",
        "${ARGV[1]}",
        "%d %s %n",
        "\x01\x02\x7f",
        "return redis.call('DEL', KEYS[1])",
    ],
)
def test_a_script_in_an_id_and_a_value_is_stored_as_it_is(client: Client, sources: Path, text: str) -> None:
    group = make_customer_group("notes", features={"note": "string"})
    rows = [{"customer_id": text, "purchased_at": "2026-01-01T00:00:00Z", "note": text}]
    push(group, [{**rows[0], "customer_id": "kept"}])
    push(group, rows)
    push(group, [{**rows[0], "purchased_at": "2026-01-02T00:00:00Z"}])  # over the first, by the script's comparison
    asked = {"features": ["notes:note"], "entities": {"customer_id": [text, "kept"]}}
    answer = client.post("/api/v1/vectors", asked, content_type="application/json").json()
    assert answer["values"] == [[text], [text]]
    assert len(contents.online(group)) == 2


# -- More than was asked for


def test_a_body_sets_nothing_that_it_may_not(client: Client, group: FeatureGroup) -> None:
    row = purchase("C1")
    for extra in (
        {"_accepted": 10**9},
        {"_deleted": True},
        {"owner": "x"},
        {"created_timestamp": "2020-01-01T00:00:00Z"},
    ):
        response = client.post(ROWS, {"rows": [{**row, **extra}]}, content_type="application/json")
        assert response.status_code == 422, extra
    for extra in ({"requested_by": "x"}, {"state": "succeeded"}, {"principal": "user:1"}):
        response = client.post(ROWS, {"rows": [row], **extra}, content_type="application/json")
        assert response.status_code == 400, extra
        body = {"name": "d", "features": ["total_purchases"], "spine": [], **extra}
        assert client.post("/api/v1/training-datasets", body, content_type="application/json").status_code == 400
    assert contents.online(group) == {}


def test_a_form_gives_nobody_more_than_its_sender_has(group: FeatureGroup) -> None:
    ada = User.objects.create_user("ada", password="hush", is_staff=True)
    ada.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "change_user"]))
    root = User.objects.create_superuser("root", password="hush")
    browser = Client()
    browser.force_login(ada)
    everything = [permission.pk for permission in Permission.objects.all()]
    sent = {
        "username": "ada",
        "is_active": "on",
        "is_staff": "on",
        "is_superuser": "on",
        "user_permissions": everything,
    }
    browser.post(reverse("admin:auth_user_change", args=[ada.pk]), sent)
    ada.refresh_from_db()
    assert not ada.is_superuser
    assert ada.user_permissions.count() == 2
    browser.post(reverse("admin:auth_user_change", args=[root.pk]), {**sent, "username": "mine", "is_active": ""})
    root.refresh_from_db()
    assert (root.username, root.is_active) == ("root", True)


# -- The history


def test_nobody_changes_or_deletes_what_the_history_says(group: FeatureGroup) -> None:
    from django.contrib.admin import site
    from simple_history.models import registered_models

    assert {model for model in site._registry if model.__name__.startswith("Historical")} == set()
    assert len(registered_models) > 8
    browser = Client()
    browser.force_login(User.objects.create_superuser("root", password="hush"))
    feature = group.features.first()
    assert feature is not None
    feature.description = "first"
    feature.save()
    first = feature.history.first()
    before = list(feature.history.values())
    page = reverse("admin:catalog_feature_simple_history", args=[feature.pk, first.history_id])
    assert browser.get(page).status_code == 200
    assert browser.post(page, {"description": "another"}).status_code == 403
    assert list(feature.history.values()) == before
    Tag.objects.create(name="pii")


#: Changes of a recorded model past its history: when a key was last used, once a day, is nobody's change.
PAST_THE_HISTORY = {("catalog/keys.py", "ApiKey")}


def recorded_models() -> set[str]:
    from simple_history.models import registered_models

    return {model.__name__ for model in registered_models.values()}


def past_the_history(source: str, recorded: set[str]) -> set[str]:
    """The recorded models that a module changes many rows of at once, which no history sees."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = set()
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("update", "bulk_update", "bulk_create"):
            found |= {node.id for node in ast.walk(call.func) if isinstance(node, ast.Name)} & recorded
    return found


def test_every_change_of_what_has_a_history_goes_through_it() -> None:
    recorded = recorded_models()
    assert recorded > {"Feature", "FeatureGroup", "Entity", "ApiKey", "FeatureService"}
    found = set()
    for folder in ("catalog", "ingestion", "serving", "featurehub"):
        for path in (PROJECT / folder).rglob("*.py"):
            if "migrations" not in path.parts:
                found |= {
                    (str(path.relative_to(PROJECT)), name) for name in past_the_history(path.read_text(), recorded)
                }
    assert found == PAST_THE_HISTORY


def test_a_change_past_the_history_is_seen() -> None:
    source = "def f(pk):\n    Feature.objects.filter(pk=pk).update(status='archived')\n    Tag.objects.update(name='x')"
    assert past_the_history(source, {"Feature", "Entity"}) == {"Feature"}
