"""A real web server whose Redis is not there, hangs, or is killed under it: 503 at once, and back by itself."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_django import Settings

from catalog import snapshot, stores
from catalog.models import FeatureGroup
from featurehub import private_redis
from ingestion import materialize
from ingestion.push import push
from ingestion.tasks import catch_up
from tests.engine.online.rewinding import Rewinding
from tests.factories import ELEVEN, make_customer_group, purchase
from tests.ingestion import contents
from tests.ingestion.redis_stand_ins import Stub
from tests.ingestion.test_redis_errors import ANSWERS
from tests.ingestion.web import BODY, Start, Web

pytestmark = pytest.mark.django_db(transaction=True)

BUDGET_SECONDS = 0.25
BACK_SECONDS = 5.0
SECONDS_OF_LOAD = 300
READ = "/features/customer/C1?features=total_purchases"
VECTORS = {"features": ["customer_purchases:total_purchases"], "entities": {"customer_id": ["C1"]}}


@pytest.fixture
def own_redis(sources: Path, settings: Settings, tmp_path: Path) -> Iterator[Rewinding]:
    """A redis-server for this test and its web server, with one customer online; it is this process's store too."""
    home = tmp_path / "home"
    with private_redis.running(home):
        server, before = Rewinding(home), settings.ONLINE_REDIS_URL
        use(settings, server.url)
        materialize.ensure_warm()
        push(make_customer_group(source="*.csv"), [purchase("C1")])
        yield server
        server.wake()
        use(settings, before)


def use(settings: Settings, url: str) -> None:
    settings.ONLINE_REDIS_URL = url
    stores.online().close()
    stores.online.cache_clear()
    snapshot.forget()


def get(web: Web, path: str) -> tuple[int, Any, float]:
    """Status, document and seconds of one GET."""
    began = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", web.port, timeout=20)
    try:
        connection.request("GET", path, headers={"Host": "localhost", "Authorization": f"Bearer {web.key}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), time.perf_counter() - began
    finally:
        connection.close()


def until_200(web: Web, path: str = READ, *, seconds: float = BACK_SECONDS) -> float:
    """How long it takes until a path answers 200; fails after `seconds`."""
    began = time.monotonic()
    while get(web, path)[0] != 200:
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def assert_503_within_the_budget(web: Web, *, reads: int = 40) -> None:
    """Four callers at once, so that a thread that waits is felt by the others. The machine may be busy, so one in ten
    may be late; a thread that waited for Redis each time would make all of them so."""
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: get(web, READ), range(reads)))
    assert {(status, document["code"]) for status, document, _ in answers} == {(503, "unavailable")}
    assert sorted(took for *_, took in answers)[reads * 9 // 10] < BUDGET_SECONDS


def test_a_web_server_starts_without_redis_and_serves_when_it_comes(own_redis: Rewinding, start: Start) -> None:
    own_redis.kill()
    web = start(REDIS_URL=own_redis.url)
    status, health, _ = get(web, "/health")
    assert (status, health["status"], health["down"]) == (503, "degraded", ["online_store"])
    assert_503_within_the_budget(web)
    assert [get(web, path)[0] for path in ("/groups", "/features", "/features/customer/total_purchases/metadata")] == [
        200
    ] * 3
    assert web.post(BODY) == (202, {"accepted": 1, "quarantined": 0, "online": "pending"})
    own_redis.start()
    until_200(web)
    assert get(web, "/health")[0] == 200


def test_a_hung_redis_costs_no_thread_and_is_used_again_when_it_wakes(own_redis: Rewinding, start: Start) -> None:
    web = start(REDIS_URL=own_redis.url)
    until_200(web, seconds=20)
    own_redis.stop()
    began = time.monotonic()
    assert web.post(BODY)[0] == 202
    assert time.monotonic() - began < 1.5 + BUDGET_SECONDS
    assert_503_within_the_budget(web)
    began = time.monotonic()
    for _ in range(5):
        assert web.post(BODY)[0] == 202
    assert time.monotonic() - began < 3  # if each waited for Redis, it would be five seconds and more
    assert web.post(b"", path="/api/v1/groups/customer_purchases/runs")[0] == 503  # the broker hangs too
    with ThreadPoolExecutor(8) as callers:  # twice the threads of the server
        reads = [callers.submit(get, web, READ) for _ in range(16)]
        assert get(web, "/groups")[0] == 200
        assert {read.result()[0] for read in reads} == {503}
    own_redis.wake()
    until_200(web)
    assert web.post(BODY)[1]["online"] == "applied"


def test_a_redis_that_is_killed_under_load_and_started_again_loses_and_invents_nothing(
    own_redis: Rewinding, start: Start
) -> None:
    """Only 200 and 503 to readers, only 200 and 202 to writers, and at the end every value that was accepted."""
    web, stop = start(REDIS_URL=own_redis.url), threading.Event()
    until_200(web, seconds=20)
    seen: Counter[int] = Counter()

    def keep_reading() -> None:
        while not stop.is_set():
            seen[get(web, READ)[0]] += 1

    def keep_pushing(writer: int) -> int:
        accepted = 0
        while not stop.is_set():
            row = purchase(f"W{writer}", ELEVEN, total_purchases=accepted + 1)
            status, _ = web.post(json.dumps({"rows": [row]}).encode())
            assert status in (200, 202)
            accepted += 1
        return accepted

    with ThreadPoolExecutor(3) as load:
        writers = [load.submit(keep_pushing, number) for number in range(2)]
        reader = load.submit(keep_reading)
        time.sleep(0.5)
        for _ in range(2):
            own_redis.kill()
            time.sleep(0.5)
            own_redis.start()
            until_200(web)
        stop.set()
        counts = [writer.result() for writer in writers]
        reader.result()
    assert seen.keys() == {200, 503}
    catch_up()
    online = contents.online(FeatureGroup.objects.get())
    assert [online[f"s2:W{number}"]["total_purchases"] for number in range(2)] == counts


def test_no_route_is_a_500_when_store_cache_and_broker_answer_with_errors(
    sources: Path, start: Start, tmp_path: Path
) -> None:
    make_customer_group(source="*.csv")
    with Stub.running(tmp_path / "stub.sock") as stub:
        web = start(REDIS_URL=stub.url)
        for answer in ("MISCONF", "READONLY", "LOADING", "OOM"):
            stub.answer = ANSWERS[answer]
            assert get(web, READ)[0] == 503
            assert web.post(json.dumps(VECTORS).encode(), path="/api/v1/vectors")[0] == 503
            assert web.post(BODY)[0] == 202
            assert web.post(b"", path="/api/v1/groups/customer_purchases/runs")[0] in (202, 503)
            assert [get(web, path)[0] for path in ("/groups", "/features", "/health")] == [200, 200, 503]
        for child in psutil.Process(web.process.pid).children(recursive=True):
            child.kill()  # so that the stub has nobody to wait for
        web.process.kill()


@dataclass(frozen=True)
class Asked:
    """One request of a load: when it was sent, its answer's status and whether it says when to come again."""

    sent: float
    status: int
    says_when: bool


def load(web: Web, *, per_second: int, seconds: float) -> list[Asked]:
    """Requests at an even pace, whatever becomes of those before: an open loop."""

    def ask() -> Asked:
        sent = time.monotonic()
        status, headers, _ = web.ask("GET", READ)
        return Asked(sent, status, bool(headers["Retry-After"]))

    began = time.monotonic()
    with ThreadPoolExecutor(64) as callers:
        asked = []
        for number in range(int(per_second * seconds)):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            asked.append(callers.submit(ask))
        return [one.result() for one in asked]


@pytest.mark.soak
def test_under_load_for_minutes_a_restart_of_redis_is_503_and_all_else_is_200(
    own_redis: Rewinding, start: Start
) -> None:
    web = start(REDIS_URL=own_redis.url)
    until_200(web)
    with ThreadPoolExecutor(1) as beside:
        loaded = beside.submit(load, web, per_second=200, seconds=SECONDS_OF_LOAD)
        time.sleep(SECONDS_OF_LOAD / 3)
        killed = time.monotonic()
        own_redis.kill()
        time.sleep(2)
        own_redis.start()
        back = time.monotonic() + BACK_SECONDS
        answers = loaded.result()
    assert len(answers) == 200 * SECONDS_OF_LOAD
    assert {answer.status for answer in answers} == {200, 503}
    assert all(answer.says_when for answer in answers if answer.status == 503)
    outside = [answer.status for answer in answers if not killed - BUDGET_SECONDS <= answer.sent <= back]
    assert outside.count(200) / len(outside) >= 0.9995
