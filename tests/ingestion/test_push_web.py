"""Pushing to a real web server over real sockets: bodies that lie or are cut short, parallel repeats, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from catalog import access
from catalog.bodies import MAX_BYTES
from catalog.models import FeatureGroup
from ingestion import drain
from ingestion.models import IdempotencyKey, PushBatch
from ingestion.tasks import catch_up
from tests.factories import make_customer_group, purchase
from tests.ingestion import contents
from tests.ingestion.processes import PROJECT, environment

ROWS = "/api/v1/groups/customer_purchases/rows"
BODY = json.dumps({"rows": [purchase("C1")]}).encode()

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Web:
    """A web server of two threads in a process of its own, and a key that writes."""

    process: subprocess.Popen[str]
    port: int
    key: str

    def post(self, body: Any, *, key: str = "", path: str = ROWS, **headers: str) -> tuple[int, Any]:
        """Send a body (an iterable goes in chunks); the status and the document of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Host": "localhost", "Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        sent |= headers | ({"Idempotency-Key": key} if key else {})
        try:
            connection.request("POST", path, body, sent, encode_chunked=not isinstance(body, bytes))
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None  # what the server itself refuses has no body
        finally:
            connection.close()

    def send_raw(self, headers: str, *parts: bytes) -> socket.socket:
        """A connection on which a push has begun."""
        started = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        head = f"POST {ROWS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
        started.sendall(f"{head}Content-Type: application/json\r\n{headers}\r\n\r\n".encode())
        with suppress(OSError):  # the server may have answered and hung up by then
            for part in parts:
                started.sendall(part)
        return started

    def memory(self) -> int:
        """Bytes of memory that the server's processes hold."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(process.memory_info().rss for process in family)


Start = Callable[..., Web]


@pytest.fixture
def start(sources: Path) -> Iterator[Start]:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    running: list[subprocess.Popen[str]] = []

    def start(**extra: str) -> Web:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        options = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
        command = [sys.executable, "-m", "granian", *options, "--blocking-threads", "2", "featurehub.wsgi:application"]
        env = environment() | extra
        process = subprocess.Popen(
            command, cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        wait_for(process, port)
        return Web(process, port, key)

    yield start
    for process in running:
        end(process)


def wait_for(process: subprocess.Popen[str], port: int) -> None:
    """Until the server takes connections; what comes then it holds until the application is there."""
    for _ in range(1_200):
        assert process.poll() is None, process.communicate()[0]
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError("the web server does not listen")


def end(process: subprocess.Popen[str]) -> None:
    """kill -9 of a server and all of its processes."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def answer_on(started: socket.socket) -> bytes:
    with started:
        return started.recv(100)


def test_bodies_are_bounded_however_they_are_sent(group: FeatureGroup, start: Start) -> None:
    web = start()
    assert web.post(BODY)[0] == 200
    assert web.post(iter([BODY[:7], BODY[7:]]))[0] == 200  # chunked, without a declared length
    before = web.memory()
    # More than is taken, declared: refused unread.
    assert answer_on(web.send_raw(f"Content-Length: {MAX_BYTES + 1}")).startswith(b"HTTP/1.1 413")
    # In chunks without end: refused when it is too much.
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    assert answer_on(web.send_raw("Transfer-Encoding: chunked", *[chunk] * 60)).startswith(b"HTTP/1.1 413")
    assert web.memory() - before < 8 * MAX_BYTES
    # A gigabyte of zeros, deflated: not inflated.
    status, problem = web.post(b"\x1f\x8b\x08\x00", **{"Content-Encoding": "gzip"})
    assert (status, problem["code"]) == (415, "unsupported_media_type")
    # Two lengths, or a length that is none, can be read in two ways.
    assert answer_on(web.send_raw("Content-Length: 3\r\nContent-Length: 4", b"{}")).startswith(b"HTTP/1.1 400")
    assert answer_on(web.send_raw("Content-Length: 3x", b"{}")).startswith(b"HTTP/1.1 400")
    # A megabyte of key.
    with suppress(OSError, HTTPException):
        assert 400 <= web.post(BODY, key="k" * 1_000_000)[0] < 500
    assert web.post(BODY)[0] == 200
    assert PushBatch.objects.count() == 3


def test_senders_who_go_away_in_the_middle_leave_nothing(group: FeatureGroup, start: Start) -> None:
    web = start()
    web.send_raw(f"Content-Length: {len(BODY) + 9}", BODY).close()
    # The server does not tell the end of a chunked body from a sender who went away: a document has to be whole.
    web.send_raw("Transfer-Encoding: chunked", b"%x\r\n" % (len(BODY) - 1), BODY[:-1]).close()
    assert web.post(json.dumps({"rows": [purchase("C2")]}).encode())[0] == 200
    assert sorted(contents.online(group)) == ["s2:C2"]


def test_parallel_repeats_over_http_are_done_once(group: FeatureGroup, start: Start) -> None:
    web = start()
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(lambda _: web.post(BODY, key="k1"), range(16)))
    assert answers == [(200, {"accepted": 1, "quarantined": 0, "online": "applied"})] * 16
    assert PushBatch.objects.count() == IdempotencyKey.objects.count() == 1


@pytest.mark.parametrize("point", ["push.after_log_commit", "push.after_upsert"])
def test_after_kill_9_a_repeat_is_answered_and_the_row_is_there_once(
    group: FeatureGroup, start: Start, point: str
) -> None:
    doomed = start(FH_FAULTS_ARMED="1", FH_FAULT=f"{point}:1:kill")
    with pytest.raises((OSError, HTTPException)):
        doomed.post(BODY, key="k1")
    assert PushBatch.objects.count() == 1
    status, answer = start().post(BODY, key="k1")
    assert (status, answer) == (200, {"accepted": 1, "quarantined": 0, "online": "applied"})
    drain.drain(group)
    assert (len(contents.offline(group)), sorted(contents.online(group))) == (1, ["s2:C1"])


def test_after_kill_9_the_row_comes_online_without_a_repeat(group: FeatureGroup, start: Start) -> None:
    doomed = start(FH_FAULTS_ARMED="1", FH_FAULT="push.after_log_commit:1:kill")
    with pytest.raises((OSError, HTTPException)):
        doomed.post(BODY)
    assert contents.online(group) == {}
    catch_up()
    assert (len(contents.offline(group)), sorted(contents.online(group))) == (1, ["s2:C1"])
