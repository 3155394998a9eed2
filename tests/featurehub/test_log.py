"""The log of real processes: JSON lines that name the request or the run, with no secret and no value in them."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from catalog import access
from catalog.log_lines import JsonLines, ReadableLines, StderrLines
from catalog.models import FeatureGroup, Run
from catalog.redaction import redacted
from featurehub.environment import PROJECT
from tests.factories import make_customer_group, purchase
from tests.ingestion import workers
from tests.ingestion.web import Start, running_webs

pytestmark = pytest.mark.django_db(transaction=True)

CANARY = "Wq7canary5Zs"
FIELDS = {"time", "level", "logger", "message"}


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group(source="*.csv")


@pytest.fixture
def start(sources: Path) -> Iterator[Start]:
    with running_webs() as start_one:
        yield start_one


def lines_of(text: str) -> list[dict[str, Any]]:
    """The JSON lines of a log; what a server prints before it has loaded the hub is no such line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# -- A web process


def test_a_line_of_a_request_says_what_was_asked_who_asked_and_how_it_ended(group: FeatureGroup, start: Start) -> None:
    web = start(FEATUREHUB_LOG_REQUESTS="true")
    web.ask("POST", "/api/v1/groups/customer_purchases/rows", json.dumps({"rows": [purchase(CANARY)]}).encode())
    web.ask("GET", f"/features/customer/{CANARY}?features=total_purchases", **{"X-Request-ID": "mine"})
    web.ask("GET", f"/groups/?name={CANARY}")
    answered = [line for line in lines_of(web.log()) if line["logger"] == "featurehub.requests"]
    wanted = [
        ("POST", "/api/v1/groups/<group>/rows", 200),
        ("GET", "/features/<entity>/<id>", 200),
        ("GET", "/groups", 200),
    ]
    assert [(line["method"], line["route"], line["status"]) for line in answered] == wanted
    public_id = web.key.split("_")[1]
    for line in answered:
        assert line["caller"] == f"key:{public_id}"
        assert 0 < line["duration_ms"] < 60_000
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert abs(datetime.fromisoformat(line["time"]).timestamp() - time.time()) < 600
    assert answered[1]["request_id"] == "mine"
    assert len({line["request_id"] for line in answered}) == 3
    assert CANARY not in web.log()


def test_no_line_is_written_of_a_request_unless_that_is_asked_for(group: FeatureGroup, start: Start) -> None:
    web = start()
    assert web.ask("GET", "/groups")[0] == 200
    assert web.ask("GET", "/features/customer/C1?features=total_purchases")[0] == 404
    assert "featurehub.requests" not in web.log()


def test_no_key_reaches_the_log_from_a_header_a_query_a_body_or_a_path(group: FeatureGroup, start: Start) -> None:
    web = start(FEATUREHUB_LOG_REQUESTS="true", FEATUREHUB_LOG_LEVEL="DEBUG")
    _, other = access.create_key(name="other", scopes=["read"])
    secret, row = other.split("_")[2], "/api/v1/groups/customer_purchases/rows"
    body = json.dumps({"rows": [purchase("C1", customer_segment=other)], "key": other}).encode()
    wrong = f"{other[:-1]}x"
    for sent in (other, wrong, f"{other} {other}", other[:30]):
        for scheme in ("Bearer", "Api-Key", "Basic", ""):
            web.ask("GET", "/groups", Authorization=f"{scheme} {sent}".strip())
    web.ask("GET", f"/groups?api_key={other}")
    web.ask("GET", f"/features/customer/{other}?features={other}")
    web.ask("GET", f"/nothing/{other}")
    web.ask("GET", "/admin/", Cookie=f"sessionid={other}", Authorization="")
    web.ask("POST", f"{row}?key={other}", body)
    web.ask("POST", row, body[:-1])
    web.ask("GET", "/groups", Host=f"{other}.example")
    log = web.log()
    assert len(lines_of(log)) > 15
    assert secret[:12] not in log


FAILING = f"""
from featurehub.rsgi import application
from catalog import api, health

def get(self, request):
    local = "{CANARY}"
    return float(local)

api.GroupsView.get = get  # through DRF
health.LiveView.dispatch = get  # past it, as a page
"""


def test_the_traceback_of_a_500_names_its_request_and_no_value(
    group: FeatureGroup, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    web = start(application="failing:application", PYTHONPATH=str(tmp_path))
    answers = [web.ask("GET", "/groups"), web.ask("GET", "/healthz")]
    lines = [line for line in lines_of(web.log()) if "exception" in line]
    for (status, headers, problem), line, route in zip(answers, lines, ["/groups", "/healthz"], strict=True):
        assert (status, problem["code"]) == (500, "server_error")
        assert line["request_id"] == headers["X-Request-ID"]
        assert (line["level"], line["method"], line["route"]) == ("ERROR", "GET", route)
        assert "return float(local)" in line["exception"]
        assert "ValueError (its text is left out" in line["exception"]
        assert CANARY not in json.dumps(problem)
    assert CANARY not in web.log()


# -- A database and a Redis that do not answer, with a password each


def test_the_password_of_a_database_that_does_not_answer_is_not_told(tmp_path: Path) -> None:
    import psycopg  # noqa: F401  it is what fails

    variables = {
        "PATH": "/usr/bin:/bin",
        "FEATUREHUB_HOME": str(tmp_path),
        "DATABASE_URL": f"postgres://hub:{CANARY}@127.0.0.1:1/features",
        "REDIS_URL": f"redis://hub:{CANARY}2@127.0.0.1:1/0",
        "SECRET_KEY": f"{CANARY} 0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ALLOWED_HOSTS": "localhost",
        "FEATUREHUB_TLS": "false",
        "FEATUREHUB_LOG_LEVEL": "INFO",
    }
    code = (
        "import logging, django; from django.conf import settings; from django.test import Client; django.setup()\n"
        "settings.DEBUG_PROPAGATE_EXCEPTIONS = False\n"
        "client = Client(raise_request_exception=False, headers={'Host': 'localhost'})\n"
        "for path in ('/health', '/groups', '/admin/login/', '/metrics'):\n"
        "    print(path, client.get(path, headers={'Authorization': 'Bearer fh_12345678_x'}).content)\n"
        "client.post('/admin/login/', {'username': 'ada', 'password': 'hush'})\n"
        "from ingestion.tasks import catch_up\n"
        "log = logging.getLogger('spilled')\n"
        "try:\n"
        "    catch_up.delay()\n"
        "except Exception:\n"
        "    log.exception('the broker %s', settings.CELERY_BROKER_URL)\n"
        "log.error('%s %s %s', settings.DATABASES, settings.ONLINE_REDIS_URL, settings.SECRET_KEY)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=variables | {"DJANGO_SETTINGS_MODULE": "featurehub.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lines = lines_of(done.stderr)
    assert any("the database does not answer" in line["message"] for line in lines)
    assert any(line["logger"] == "spilled" and "exception" in line for line in lines)
    assert "redis://hub:***@127.0.0.1" in done.stderr
    assert CANARY not in done.stderr + done.stdout


# -- A worker


def test_a_line_of_a_worker_names_its_task_and_its_run(group: FeatureGroup, sources: Path, tmp_path: Path) -> None:
    (sources / "bad.csv").write_text("customer_id,purchased_at\nC1,2024-11-01T10:00:00Z\n")
    run = Run.queue(group, paths=[sources / "gone.csv"])
    log = tmp_path / "worker.log"
    with workers.worker(log):
        from catalog import runs

        runs.hint(run)
        workers.until(lambda: Run.objects.get(pk=run.pk).state == "failed", log)
        workers.until(lambda: "ingesting customer_purchases failed" in log.read_text(), log)
    (line,) = [one for one in lines_of(log.read_text()) if one["message"].startswith("ingesting customer_purchases")]
    assert (line["task"], line["run"]) == ("ingestion.tasks.ingest_run", str(run.pk))
    assert line.keys() >= FIELDS
    assert all(one.keys() >= FIELDS for one in lines_of(log.read_text()))


def test_a_worker_tells_a_tasks_error_without_the_value_in_it(group: FeatureGroup, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with workers.worker(log):
        workers.until(lambda: "ready" in log.read_text(), log)
        from featurehub.celery import app

        app.send_task("ingestion.tasks.ingest_run", args=[CANARY])  # no run has such an id: Django quotes it
        workers.until(lambda: "ValidationError" in log.read_text(), log)
    (line,) = [one for one in lines_of(log.read_text()) if "exception" in one]
    assert line["task"] == "ingestion.tasks.ingest_run"
    assert line["run"] == CANARY  # the task's own argument, which names no person
    del line["run"]
    assert CANARY not in json.dumps(line)


# -- What is written, in this process


def record(message: str = "told", *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("catalog.some", logging.WARNING, "", 0, message, args, None)
    vars(made).update(extra)
    return made


@pytest.mark.parametrize("lines", [JsonLines(), ReadableLines()])
def test_a_message_cannot_begin_a_line_of_its_own(lines: logging.Formatter) -> None:
    told = lines.format(record("a host %s", "evil\r\n2026-01-01 ERROR forged\x1b[2J\u2028line"))
    assert "\r" not in told
    assert "\x1b" not in told
    assert not [line for line in told.split("\n")[1:] if not line.startswith("  ")]


@pytest.mark.parametrize("lines", [JsonLines(), ReadableLines()])
def test_half_a_character_is_written_too(lines: logging.Formatter) -> None:
    assert r"\ud83d" in lines.format(record("a name %s", "\ud83d")).replace("\\\\", "\\")


def test_a_line_for_people_says_the_same() -> None:
    told = ReadableLines().format(record())
    assert re.fullmatch(r"\S+Z WARNING catalog\.some told", told)


SECRETS: dict[str, Callable[[str], str]] = {
    "a key": lambda canary: f"fh_12345678_{canary}",
    "a header": lambda canary: f"Authorization: Bearer {canary}",
    "a header of a dict": lambda canary: str({"HTTP_AUTHORIZATION": f"Bearer {canary}"}),
    "another scheme": lambda canary: f"api-key {canary}",
    "a URL": lambda canary: f"amqp://hub:{canary}@broker:5672//",
    "a URL without a user": lambda canary: f"redis://:{canary}@cache:6379/0",
    "a query": lambda canary: f"/groups?page=2&token={canary}&x=1",
    "libpq's words": lambda canary: f"host=db password={canary} user=hub",
    "a dict": lambda canary: str({"PASSWORD": canary, "USER": "hub"}),
    "JSON": lambda canary: json.dumps({"password": canary}),
}


@pytest.mark.parametrize("spelled", SECRETS)
def test_a_secret_is_masked_however_it_is_spelled(spelled: str) -> None:
    text = f"before {SECRETS[spelled](CANARY)} after"
    assert CANARY in text
    masked = redacted(text)
    assert CANARY not in masked
    assert "***" in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


def test_what_is_no_secret_stays(settings: Settings) -> None:
    text = "run 7 of customer_purchases: https://hub.example/groups, tokens and passwords are not shown"
    assert redacted(text) == text


def test_a_person_is_named_by_number_and_asked_no_database_for(group: FeatureGroup, client: Client) -> None:
    from django.contrib.auth.models import User

    ada = User.objects.create_user("ada", password="hush", is_staff=True)
    client.force_login(ada)
    response = client.get("/admin/catalog/entity/")
    line = json.loads(JsonLines().format(record(request=response.wsgi_request)))
    assert line["caller"] == f"user:{ada.pk}"
    assert line["route"] == "/admin/catalog/entity/"


class Unwritable:
    """What a line cannot be made of."""

    def __str__(self) -> str:
        raise ValueError(CANARY)


def test_a_line_that_cannot_be_written_is_told_of_without_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    handler = StderrLines()
    handler.setFormatter(JsonLines())
    handler.handle(record("of %s and %s", CANARY, Unwritable()))
    handler.handle(record("then another"))
    told, another = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (told["logger"], told["message"]) == ("catalog.some", "a line could not be written: ValueError")
    assert another["message"] == "then another"
