"""The short way answers what the whole way through Django answers, to everybody who may and may not ask."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from tests.serving.conftest import Hub

pytestmark = pytest.mark.usefixtures("one_connection")

C1 = {"customer_id": ["C1"]}
#: Each answer has an id and a time of its own, and DRF says in every answer what else the address would take.
NOT_COMPARED = {"X-Request-ID", "Server-Timing", "Allow"}
VECTORS, ONE = "/api/v1/vectors", "/features/customer/C1"


@dataclass
class Answer:
    status: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Whole:
    """Django's own way, which counts who comes along it."""

    asked: int = 0
    handler: WSGIHandler = field(default_factory=WSGIHandler)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[Any]:
        self.asked += 1
        return self.handler(environ, start_response)


def environ_of(method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> dict[str, Any]:
    given = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),  # as WSGI has it
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "HTTP_HOST": "localhost",
        **given,
    }


def ask(application: Any, environ: dict[str, Any]) -> Answer:
    answer = Answer()

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        answer.status, answer.headers = status, dict(headers)
        assert len(answer.headers) == len(headers)

    answer.body = b"".join(application(environ, start_response))
    return answer


def both(method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> tuple[Answer, Answer, int]:
    """The short way's answer, the whole way's, and how often the short way had asked Django."""
    from serving.hot_path import HotPath

    django = Whole()
    short = ask(HotPath(django), environ_of(method, path, body, query, **headers))
    asked = django.asked
    return short, ask(django, environ_of(method, path, body, query, **headers)), asked


def assert_equal(short: Answer, whole: Answer) -> None:
    assert (short.status, short.body) == (whole.status, whole.body)
    told, wanted = ({n: v for n, v in answer.headers.items() if n not in NOT_COMPARED} for answer in (short, whole))
    assert told == wanted
    assert short.headers["X-Request-ID"]
    assert re.fullmatch(r"total;dur=[0-9.]+", short.headers["Server-Timing"])


def bodies() -> list[Any]:
    total = ["customer_purchases:total"]
    every = ["average", "customer_purchases:segment", "is_member", "last_seen", "taste", "recent", "tickets"]
    return [
        {"features": every, "entities": {"customer_id": ["C1", "C2", "C3", "nobody", "C1"]}},
        {"features": every, "entities": C1, "include": ["statuses", "event_timestamps"]},
        {"feature_service": "churn", "entities": C1},
        {"feature_service": "churn@1", "entities": C1},
        {"feature_service": "chorn", "entities": C1},
        {"features": ["totel"], "entities": C1},
        {"features": total, "entities": {"customer_id": ["x"] * 1_001}},
        {"features": total, "entities": {}},
        {"features": total},
        [],
        "text",
    ]


@pytest.mark.parametrize("number", range(len(bodies())))
def test_vectors_are_the_same_both_ways_errors_too(hub: Hub, number: int) -> None:
    body = json.dumps(bodies()[number]).encode()
    short, whole, asked = both("POST", VECTORS, body, authorization=f"Bearer {hub.key}")
    assert asked == 0
    assert_equal(short, whole)


#: Addresses of one entity with their queries, right and wrong ones.
ADDRESSES = [
    (ONE, ""),
    (f"{ONE}/", ""),
    (ONE, "features=total,average&include=meta"),
    (ONE, "feature_service=churn&int64=string"),
    (ONE, "features=total&features=average"),
    (ONE, "feature=total"),
    (ONE, "features=totel"),
    ("/features/customer/nobody", ""),
    ("/features/customer/Zoë~s~cé", ""),
    ("/features/custumer/C1", ""),
    ("/features/shop/FR", ""),
]


@pytest.mark.parametrize(("path", "query"), ADDRESSES)
def test_one_entity_is_the_same_both_ways_errors_too(hub: Hub, path: str, query: str) -> None:
    short, whole, asked = both("GET", path, query=query, authorization=f"Bearer {hub.key}")
    assert asked == 0
    if "meta" in query:  # ages are counted from two moments
        for answer in (short, whole):
            answer.body, answer.headers["Content-Length"] = b"", ""
    assert_equal(short, whole)


@pytest.mark.parametrize("body", [b"", b"{", b'{"features": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused_the_same_both_ways(hub: Hub, body: bytes) -> None:
    short, whole, asked = both("POST", VECTORS, body, authorization=f"Bearer {hub.key}")
    assert asked == 0
    assert short.status.startswith("400")
    assert_equal(short, whole)


@pytest.mark.parametrize("header", ["", "Bearer fh_wrong", "Basic YTpi", "Bearer", "Api-Key {key}", "bearer  {key}"])
def test_who_may_not_read_is_refused_the_same_both_ways(hub: Hub, header: str) -> None:
    headers = {"authorization": header.format(key=hub.key)} if header else {}
    for method, path, body in (("GET", ONE, b""), ("POST", VECTORS, json.dumps(bodies()[0]).encode())):
        short, whole, asked = both(method, path, body, **headers)
        assert asked == (0 if header else 1)
        assert short.status.startswith("200" if "{key}" in header else "401")
        assert_equal(short, whole)


def test_a_key_that_may_not_read_is_refused_the_same_both_ways(hub: Hub) -> None:
    from catalog.access import create_key

    key = create_key(name="writes", scopes=["write"])[1]
    short, whole, asked = both("GET", ONE, authorization=f"Bearer {key}")
    assert (asked, short.status) == (0, "403 Forbidden")
    assert_equal(short, whole)


def test_with_anonymous_reads_on_this_machine_reads_by_the_short_way_too(hub: Hub, settings: Settings) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    short, whole, asked = both("GET", ONE)
    assert (asked, short.status) == (0, "200 OK")
    assert_equal(short, whole)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/features", {}),
        ("GET", "/features/customer/total/metadata", {}),
        ("HEAD", ONE, {}),
        ("DELETE", ONE, {}),
        ("POST", f"{VECTORS}/more", {}),
        ("GET", VECTORS, {}),
        ("GET", ONE, {"accept": "text/html, application/json;q=0.9"}),
        ("GET", ONE, {"accept": "application/vnd.apache.arrow.stream;q=0.9"}),
        ("GET", ONE, {"host": "evil.example"}),
        ("GET", ONE, {"cookie": "sessionid=none"}),
    ],
)
def test_what_the_short_way_is_not_for_goes_through_django(
    hub: Hub, method: str, path: str, headers: dict[str, str]
) -> None:
    given = {} if "cookie" in headers else {"authorization": f"Bearer {hub.key}"}
    short, whole, asked = both(method, path, **given, **headers)
    assert asked == 1
    assert (short.status, short.body) == (whole.status, whole.body)


def test_a_session_reads_through_django(hub: Hub) -> None:
    browser = Client()
    browser.force_login(User.objects.create(username="ada", is_superuser=True))
    short, _, asked = both("GET", ONE, cookie=f"sessionid={browser.cookies['sessionid'].value}")
    assert (asked, short.status) == (1, "200 OK")


def test_behind_tls_the_short_way_sends_callers_there_and_says_so_in_its_headers(hub: Hub, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 3600
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    plain, _, asked = both("GET", ONE, authorization=f"Bearer {hub.key}")
    assert (asked, plain.status) == (1, "301 Moved Permanently")
    short, whole, asked = both("GET", ONE, authorization=f"Bearer {hub.key}", x_forwarded_proto="https")
    assert (asked, short.status) == (0, "200 OK")
    assert short.headers["Strict-Transport-Security"] == "max-age=3600"
    assert_equal(short, whole)


def test_what_is_remembered_of_one_host_is_not_said_to_another(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import hot_path

    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 3600
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    monkeypatch.setattr(hot_path, "HOSTS_REMEMBERED", 2)
    django = Whole()
    application = hot_path.HotPath(django)

    def status(host: str, scheme: str) -> str:
        headers = {"authorization": f"Bearer {hub.key}", "host": host, "x_forwarded_proto": scheme}
        return ask(application, environ_of("GET", ONE, **headers)).status[:3]

    asked = [("localhost", "https"), ("localhost", "http"), ("evil.example", "https"), ("testserver", "https")]
    assert [status(*each) for each in asked * 2] == ["200", "301", "400", "200"] * 2
    assert django.asked == 4
    assert len(application._added) <= 2


def test_arrow_by_accept_is_the_same_both_ways(hub: Hub) -> None:
    body = json.dumps(bodies()[0]).encode()
    arrow = "application/vnd.apache.arrow.stream"
    for method, path, sent in (("POST", VECTORS, body), ("GET", ONE, b"")):
        short, whole, asked = both(method, path, sent, authorization=f"Bearer {hub.key}", accept=arrow)
        assert (asked, short.headers["Content-Type"]) == (0, arrow)
        assert_equal(short, whole)


@pytest.mark.parametrize(("given", "echoed"), [("abc-1", True), ("a b", False), ("x" * 129, False)])
def test_a_sensible_request_id_is_echoed(hub: Hub, given: str, echoed: bool) -> None:
    short, _, _ = both("GET", ONE, authorization=f"Bearer {hub.key}", x_request_id=given)
    assert (short.headers["X-Request-ID"] == given) == echoed


def test_a_warm_request_is_one_command_and_no_query(
    hub: Hub, redis_client: redis.Redis, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    from serving.hot_path import HotPath

    application, key = HotPath(Whole()), f"Bearer {hub.key}"

    def read() -> None:
        assert ask(application, environ_of("GET", ONE, authorization=key)).status == "200 OK"

    read()
    before = redis_client.info("stats")["total_commands_processed"]
    with django_assert_num_queries(0):
        read()
    assert redis_client.info("stats")["total_commands_processed"] - before == 2  # the read, and the INFO before it


def test_the_server_loads_the_short_way() -> None:
    asked = "from featurehub.rsgi import application; print(type(application._hot).__name__)"
    told = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout == "HotPath\n"
