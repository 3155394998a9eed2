"""A Redis that answers with errors or over a bad line: reads are 503, pushes are kept, and nothing is a 500."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from catalog import access, snapshot, stores
from catalog.models import FeatureGroup
from engine.errors import Unavailable
from engine.online.node import CONNECT_TIMEOUT_SECONDS, TIMEOUT_SECONDS
from featurehub import private_redis
from ingestion.tasks import catch_up
from tests.conftest import HOME
from tests.factories import ELEVEN, make_customer_group, purchase
from tests.ingestion import contents
from tests.ingestion.redis_stand_ins import Line, Stub

ROWS = "/api/v1/groups/customer_purchases/rows"
READS = ["/features/customer/C1?features=total_purchases", "/api/v1/vectors"]

ANSWERS = {
    "MISCONF": b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n",
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "NOSCRIPT": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    "BUSY": b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    "MOVED": b"-MOVED 3999 127.0.0.1:1\r\n",
    "ASK": b"-ASK 3999 127.0.0.1:1\r\n",
    "CLUSTERDOWN": b"-CLUSTERDOWN The cluster is down\r\n",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    "OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "NOAUTH": b"-NOAUTH Authentication required.\r\n",
    "NOPERM": b"-NOPERM this user has no permissions to run this command\r\n",
    "MAXCLIENTS": b"-ERR max number of clients reached\r\n",
    "a text": b"+OK\r\n",
    "a number": b":7\r\n",
    "no value": b"$-1\r\n",
    "a short list": b"*1\r\n$1\r\nx\r\n",
    "a list of numbers": b"*2\r\n:1\r\n:2\r\n",
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "bytes": b"\x00\xff\xfe",
}


@pytest.fixture
def caller(sources: Path) -> Client:
    make_customer_group()
    _, key = access.create_key(name="caller", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


def use(settings: Settings, url: str) -> None:
    settings.ONLINE_REDIS_URL = url
    stores.online().close()
    stores.online.cache_clear()
    snapshot.forget()


@pytest.fixture
def stub(caller: Client, settings: Settings, tmp_path: Path) -> Iterator[Stub]:
    before = settings.ONLINE_REDIS_URL
    with Stub.running(tmp_path / "stub.sock") as stub:
        use(settings, stub.url)
        yield stub
        use(settings, before)


def post(caller: Client, path: str, body: Any, **how: Any) -> HttpResponse:
    return caller.post(path, json.dumps(body), content_type="application/json", **how)


def read(caller: Client, path: str) -> HttpResponse:
    if path == "/api/v1/vectors":
        asked = {"features": ["customer_purchases:total_purchases"], "entities": {"customer_id": ["C1"]}}
        return post(caller, path, asked)
    return caller.get(path)


def push(caller: Client, **row: Any) -> HttpResponse:
    return post(caller, ROWS, {"rows": [purchase("C1", **row)]})


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_redis_answers_reads_are_503_and_pushes_are_kept(caller: Client, stub: Stub, answer: str) -> None:
    stub.answer = ANSWERS[answer]
    for path in READS:
        response = read(caller, path)
        assert (response.status_code, response["Retry-After"]) == (503, "1"), response.content
        assert json.loads(response.content)["code"] == "unavailable"
    response = push(caller)
    assert (response.status_code, json.loads(response.content)["online"]) == (202, "pending")
    response = caller.delete(f"{ROWS}/C1")
    assert (response.status_code, json.loads(response.content)["online"]) == (202, "pending")
    assert post(caller, "/ingest/customer_purchases/C1", {"total_purchases": 1}).status_code in (201, 202)
    assert caller.get("/health").status_code == 503
    assert caller.get("/features").status_code == 200
    catch_up()  # what is kept goes offline all the same
    assert len(contents.offline(FeatureGroup.objects.get())) == 3
    assert b"MGET" in stub.asked


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_redis_answers_no_page_of_keys_and_no_values_are_made_of_it(stub: Stub, answer: str) -> None:
    stub.answer = ANSWERS[answer]
    with pytest.raises(Unavailable):
        list(stores.online().scan("customer_purchases", 1))
    with pytest.raises(Unavailable):
        stores.online().read_bulk([b"a", b"b"])


# The line.


@pytest.fixture
def line(caller: Client, settings: Settings, tmp_path: Path) -> Iterator[Line]:
    """A line to the session's Redis, on which the store is warm and holds one row."""
    before = settings.ONLINE_REDIS_URL
    assert push(caller).status_code == 200
    with Line.running(tmp_path / "line.sock", private_redis.socket_path(HOME)) as line:
        use(settings, line.url)
        assert read(caller, READS[0]).status_code == 200
        yield line
        use(settings, before)


def quickest(caller: Client, path: str, *, rounds: int = 3) -> tuple[set[int], float]:
    """The statuses of some reads and the seconds of the quickest: the machine may be busy, the promise is ours."""
    statuses, took = set(), []
    for _ in range(rounds):
        began = time.perf_counter()
        statuses.add(read(caller, path).status_code)
        took.append(time.perf_counter() - began)
    return statuses, min(took)


@pytest.mark.parametrize("path", READS)
def test_a_line_slower_than_the_budget_is_503_within_it_and_used_again_when_it_is_quick(
    caller: Client, line: Line, path: str
) -> None:
    line.delay = TIMEOUT_SECONDS["read"] + 0.1
    assert quickest(caller, path, rounds=2)[0] == {503}
    line.delay = 0.0
    assert_back(caller, path)


@pytest.mark.parametrize("path", READS)
def test_a_line_within_the_budget_is_waited_for(caller: Client, line: Line, path: str) -> None:
    line.delay = TIMEOUT_SECONDS["read"] / 4
    statuses, took = quickest(caller, path)
    assert 200 in statuses
    assert took >= line.delay


@pytest.mark.parametrize("path", READS)
def test_a_half_open_line_is_503_within_the_budget(caller: Client, line: Line, path: str) -> None:
    line.swallows = True
    statuses, took = quickest(caller, path, rounds=2)
    assert statuses == {503}
    assert took < TIMEOUT_SECONDS["read"] + CONNECT_TIMEOUT_SECONDS
    line.swallows = False
    assert_back(caller, path)


@pytest.mark.parametrize("bytes_", [0, 1, 7, 40])
@pytest.mark.parametrize("path", READS)
def test_an_answer_that_is_cut_off_is_503_and_never_half_a_vector(
    caller: Client, line: Line, path: str, bytes_: int
) -> None:
    line.cuts_in = bytes_
    assert quickest(caller, path, rounds=2)[0] == {503}
    line.cuts_in = None
    assert_back(caller, path)


def test_a_push_whose_answer_is_lost_is_pending_and_its_repeat_is_harmless(caller: Client, line: Line) -> None:
    line.cuts_after = b"EVALSHA"
    response = push(caller, purchased_at=ELEVEN, total_purchases=9)
    assert (response.status_code, json.loads(response.content)["online"]) == (202, "pending")
    line.cuts_after = None
    assert_back(caller, READS[0])
    assert read(caller, READS[0]).json() == {"total_purchases": 9}  # Redis had done it
    response = push(caller, purchased_at=ELEVEN, total_purchases=9)
    assert (response.status_code, json.loads(response.content)["online"]) == (200, "applied")
    catch_up()
    assert read(caller, READS[0]).json() == {"total_purchases": 9}
    assert len(contents.online(FeatureGroup.objects.get())) == 1


def test_a_bringing_whose_answer_is_lost_claims_nothing_and_is_done_again(caller: Client, line: Line) -> None:
    group = FeatureGroup.objects.get()
    line.cuts_after = b"EVALSHA"
    catch_up()
    assert group.online_cursors.get().delta_version == -1
    line.cuts_after = None
    assert_back(caller, READS[0])
    catch_up()
    assert group.online_cursors.get().delta_version == 1
    assert stores.online().positions([(group.name, 1)]) == [1]


def test_a_line_that_is_cut_now_and_then_loses_doubles_and_invents_nothing(caller: Client, line: Line) -> None:
    """One in fifty requests does not reach Redis, and of one in fifty nobody learns what became of it."""
    group, newest = FeatureGroup.objects.get(), 4
    pushes: Counter[int] = Counter()
    reads: Counter[int] = Counter()
    line.odds = 0.02
    for number in range(200):
        at = f"2024-11-01T12:{number // 60:02}:{number % 60:02}Z"
        body = {"rows": [purchase("C1", at, total_purchases=number + 10), purchase(f"D{number}")]}
        for _ in range(2):  # the second one repeats it, as a sender does who is not sure
            answer = post(caller, ROWS, body, headers={"Idempotency-Key": f"k{number}"})
            pushes[answer.status_code] += 1
            assert json.loads(answer.content)["accepted"] == 2
            if answer.status_code == 200:
                newest = number + 10
        got = read(caller, READS[0])
        reads[got.status_code] += 1
        if got.status_code == 200:
            assert json.loads(got.content)["total_purchases"] >= newest
        if number % 20 == 0:
            catch_up()
    line.odds = 0.0
    assert (pushes.keys(), reads.keys()) == ({200, 202}, {200, 503})
    assert line.cuts >= 10
    assert_back(caller, READS[0])
    catch_up()
    assert read(caller, READS[0]).json() == {"total_purchases": 209}
    assert sorted(contents.online(group)) == sorted(["s2:C1", *(f"s{len(f'D{n}')}:D{n}" for n in range(200))])
    offline = Counter((row["customer_id"], row["event_timestamp"]) for row in contents.offline(group))
    assert (len(offline), set(offline.values())) == (401, {1})


def assert_back(caller: Client, path: str) -> None:
    """Reads are answered again, by themselves, within five seconds."""
    deadline = time.monotonic() + TIMEOUT_SECONDS["bulk"]
    while read(caller, path).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
