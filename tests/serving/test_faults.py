"""Down is not empty: a store that is gone, hung or wiped is said to be so, at once, and is used again by itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from tests.serving.conftest import Hub, forget
from tests.serving.test_entity_vector import answer_of

READS = ["/features/customer/C1", "/api/v1/vectors"]


def ask(hub: Hub, path: str) -> HttpResponse:
    if path == "/api/v1/vectors":
        return hub.vectors(feature_service="churn", entities={"customer_id": ["C1"]})
    return hub.get(path)


@contextmanager
def redis_at(settings: Settings, url: str) -> Iterator[None]:
    before, settings.ONLINE_REDIS_URL = settings.ONLINE_REDIS_URL, url
    _reopen()
    yield
    settings.ONLINE_REDIS_URL = before
    _reopen()


def _reopen() -> None:
    from catalog import stores

    stores.online().close()
    stores.online.cache_clear()


@contextmanager
def hung_server(folder: Path) -> Iterator[str]:
    """A server that takes connections and never says a word."""
    path = str(folder / "hung.sock")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen(16)
        yield f"unix://{path}?db=0"


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("how", ["dead", "hung"])
def test_a_store_that_does_not_answer_is_503_within_250_ms(
    hub: Hub, settings: Settings, tmp_path: Path, path: str, how: str
) -> None:
    assert ask(hub, path).status_code == 200
    with hung_server(tmp_path) as hung, redis_at(settings, hung if how == "hung" else f"unix://{tmp_path}/no.sock"):
        began = time.perf_counter()
        response = ask(hub, path)
        took = time.perf_counter() - began
    answer = answer_of(response, 503)
    assert (answer["code"], response["Retry-After"]) == ("unavailable", "1")
    assert took < 0.25
    assert ask(hub, path).status_code == 200  # back by itself


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("contents", [None, b"nonsense", b"7:another epoch", b"x:y", b""])
def test_a_wiped_store_is_cold_and_no_entity_is_called_unknown(
    hub: Hub, redis_client: redis.Redis, path: str, contents: bytes | None
) -> None:
    redis_client.flushall()
    if contents is not None:
        redis_client.set("fh:state", contents)
    response = ask(hub, path)
    assert answer_of(response, 503)["code"] == "online_store_cold"
    assert response["Retry-After"] == "1"


def test_a_state_of_another_redis_type_is_cold(hub: Hub, redis_client: redis.Redis) -> None:
    redis_client.delete("fh:state")
    redis_client.rpush("fh:state", "1:x")
    assert answer_of(hub.get("/features/customer/C1"), 503)["code"] == "online_store_cold"


@pytest.mark.parametrize("slash", ["", "/"])
def test_health_needs_no_key_and_says_healthy_of_the_service_now(hub: Hub, slash: str) -> None:
    answer = answer_of(hub.client.get(f"/health{slash}"))
    assert list(answer) == ["status", "service", "timestamp"]
    assert (answer["status"], answer["service"]) == ("healthy", "featurehub")
    assert answer["timestamp"].endswith("Z")


def test_health_names_the_store_that_is_down(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    with redis_at(settings, f"unix://{tmp_path}/no.sock"):
        response = hub.client.get("/health")
    assert response.status_code == 503
    answer = json.loads(response.content)
    assert (answer["status"], answer["down"]) == ("degraded", ["online_store"])
    assert answer["reasons"] == {"online_store": "It does not answer."}


@pytest.mark.parametrize("contents", [None, b"7:abcd", b"nonsense"])
def test_health_names_a_store_that_is_cold(hub: Hub, redis_client: redis.Redis, contents: bytes | None) -> None:
    redis_client.flushall()
    if contents is not None:
        redis_client.set("fh:state", contents)
    response = hub.client.get("/health")
    assert response.status_code == 503
    answer = json.loads(response.content)
    assert (answer["status"], answer["down"]) == ("degraded", ["online_store"])
    assert answer["reasons"]["online_store"].startswith("It is cold")


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_health_names_a_policy_that_evicts_rows(hub: Hub, redis_client: redis.Redis, policy: str) -> None:
    redis_client.config_set("maxmemory-policy", policy)
    try:
        response = hub.client.get("/health")
        assert hub.get("/features/customer/C1").status_code == 200
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert response.status_code == 503
    answer = json.loads(response.content)
    assert (answer["down"], policy in answer["reasons"]["online_store"]) == (["online_store"], True)
    assert hub.client.get("/health").status_code == 200


def test_health_names_the_database_when_it_is_down(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stopping the database of a test session would end the session; this is how Django says that one is gone.
    with monkeypatch.context() as patched:
        patched.setattr(connection, "cursor", _no_database)
        response = hub.client.get("/health")
    assert response.status_code == 503
    assert json.loads(response.content)["down"] == ["database"]


def _no_database(*_: object) -> None:
    raise OperationalError("server closed the connection unexpectedly: SELECT secret FROM passwords")


def test_a_database_that_is_down_is_503_and_says_nothing_of_what_it_said(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.get("/features/customer/C1").status_code == 200
    with monkeypatch.context() as patched:
        patched.setattr(connection, "cursor", _no_database)
        response = hub.get("/groups")
        served = hub.get("/features/customer/C1")
    answer = answer_of(response, 503)
    assert (answer["code"], response["Retry-After"]) == ("unavailable", "1")
    assert b"SELECT" not in response.content
    assert served.status_code == 200  # reading features needs Redis alone


def test_a_process_that_saw_redis_fail_asks_the_database_again(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    from catalog import snapshot

    assert hub.get("/features/customer/C1").status_code == 200
    known = snapshot.current()
    with redis_at(settings, f"unix://{tmp_path}/no.sock"):
        with CaptureQueriesContext(connection) as queries:
            assert hub.get("/features/customer/C1").status_code == 503
        assert len(queries) == 0  # while Redis is down the database is left alone
    assert hub.get("/features/customer/C1").status_code == 200
    assert snapshot.current() is not known
    forget()
