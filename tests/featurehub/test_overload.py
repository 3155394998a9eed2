"""More requests than the hub can do: what it can is done, the rest is told so at once, and then all is as before."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import connection

from catalog import access
from catalog.models import FeatureGroup
from featurehub import web_limits
from featurehub.environment import PROJECT
from featurehub.event_loop import Application
from ingestion.push import push
from tests.factories import make_customer_group
from tests.featurehub.open_loop import Asked, offered
from tests.featurehub.rsgi import Scope, Told
from tests.ingestion.processes import environment
from tests.ingestion.web import end, wait_for, written

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

CALLERS = 16
IDS = [f"C{number}" for number in range(1_000)]
FEATURES = [f"f{number}" for number in range(40)]


@dataclass
class Served:
    """Two web processes as they are shipped, and a read that keeps one of them busy for some milliseconds."""

    process: subprocess.Popen[str]
    port: int
    key: str

    @property
    def body(self) -> bytes:
        return json.dumps({"features": FEATURES, "entities": {"customer_id": IDS}}).encode()

    @property
    def request(self) -> bytes:
        """The read's bytes, on a connection of its own."""
        head = ["POST /api/v1/vectors HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return (
            "\r\n".join([*head, f"Content-Length: {len(self.body)}", "Connection: close", "", ""]).encode() + self.body
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Host": "localhost", "Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def answered(self, seconds: float) -> int:
        """How many reads one caller has answered who sends the next when he has the answer."""
        until, count = time.monotonic() + seconds, 0
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            while time.monotonic() < until:
                connection.request("POST", "/api/v1/vectors", self.body, self.headers)
                answer = connection.getresponse()
                answer.read()
                count += answer.status == 200
        return count

    def peak(self, seconds: float) -> float:
        """Reads answered each second to CALLERS at once, who come again whenever they were answered."""
        began = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            total = sum(callers.map(self.answered, [seconds] * CALLERS))
        return total / (time.monotonic() - began)

    def seconds_of(self, path: str) -> tuple[int, float]:
        """The status of one small request, and how long it took."""
        began = time.monotonic()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, time.monotonic() - began


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    group = make_customer_group(features=dict.fromkeys(FEATURES, "float64"))
    values = {name: number + 0.5 for number, name in enumerate(FEATURES)}
    push(group, [{"customer_id": id, "purchased_at": "2026-01-01T00:00:00Z", **values} for id in IDS])
    return group


@pytest.fixture
def served(group: FeatureGroup) -> Iterator[Served]:
    _, key = access.create_key(name="reader", scopes=["read"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    variables = environment() | {"HOST": "127.0.0.1", "PORT": str(port), "FEATUREHUB_WEB_WORKERS": "2"}
    command = [sys.executable, "-m", *_of_procfile(PROJECT / "Procfile", variables)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=variables, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            wait_for(process, port, log)
            made = Served(process, port, key)
            made.peak(0.5)  # both processes know the key and the plan
            yield made
            assert process.poll() is None, written(log)
        finally:
            end(process)


def _of_procfile(path: Path, variables: dict[str, str]) -> list[str]:
    """The command of `web` with the variables in their places."""
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("web:")]
    told = re.sub(r"\$\{(\w+):-[^}]*\}", lambda found: variables[found[1]], line.removeprefix("web:"))
    return shlex.split(told)


def overloaded(served: Served, *, seconds: float) -> tuple[float, list[Asked]]:
    """Five times what it can do is offered; the peak (of before and after, the lower), and what became of each."""
    before = served.peak(3)
    answers = offered(served.port, served.request, per_second=5 * before, seconds=seconds)
    ended = time.monotonic()
    for path in ("/healthz", f"/features/customer/C1?features={FEATURES[0]}"):
        while not is_quick(*served.seconds_of(path)):
            assert time.monotonic() - ended < 60, path
    return min(before, served.peak(3)), answers


def is_quick(status: int, seconds: float) -> bool:
    return status == 200 and seconds < 0.25


def goodput(answers: list[Asked], seconds: float) -> float:
    """Reads answered each second while the load was on."""
    return sum(one.status == 200 and one.due + one.seconds < seconds for one in answers) / seconds


def check(answers: list[Asked]) -> None:
    """Nothing but 200, 429 and 503, each with the time to come again, and nobody left without an answer."""
    statuses = Counter(one.status for one in answers)
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200] > 0
    assert statuses[503] > 0
    assert all(one.says_when for one in answers if one.status != 200)


def check_times(answers: list[Asked]) -> None:
    """Asked only where nothing else keeps the machine busy."""
    accepted = sorted(one.seconds for one in answers if one.status == 200)
    assert accepted[int(0.99 * len(accepted))] < 4.0
    refused = sorted(one.seconds for one in answers if one.status == 503)
    assert refused[len(refused) // 2] < 0.5


def test_offered_five_times_what_it_can_do_it_answers_everybody(served: Served) -> None:
    _, answers = overloaded(served, seconds=6)
    check(answers)


@pytest.mark.soak
def test_offered_five_times_what_it_can_do_for_long_it_does_most_of_it(served: Served) -> None:
    peak, answers = overloaded(served, seconds=60)
    check(answers)
    check_times(answers)
    assert goodput(answers, 60) >= 0.7 * peak


def test_connections_that_ask_for_nothing_keep_nobody_out(served: Served) -> None:
    """A pool of callers keeps its connections; the server counts connections where it limits what it takes."""
    with ExitStack() as idle:
        for _ in range(300):
            connection = idle.enter_context(closing(HTTPConnection("127.0.0.1", served.port, timeout=10)))
            connection.request("GET", "/healthz", headers=served.headers)
            connection.getresponse().read()
        assert served.seconds_of("/healthz")[0] == 200


def test_however_many_threads_a_process_has_a_few_connections_to_the_database_stay(served: Served) -> None:
    """Each request is one that looks into the database, and more are sent at once than are worked at."""
    if connection.vendor != "sqlite":
        pytest.skip("counts the open files of SQLite")
    database = str(connection.settings_dict["NAME"])

    def ask(_: int) -> int:
        return served.seconds_of("/groups")[0]

    with ThreadPoolExecutor(48) as callers:
        statuses = Counter(callers.map(ask, range(600)))
    assert set(statuses) <= {200, 503}
    workers = psutil.Process(served.process.pid).children(recursive=True)
    open_files = [sum(file.path == database for file in worker.open_files()) for worker in workers]
    assert max(open_files) > 0
    # SQLite leaves a file open for a while whose connection was closed; one is the thread's that writes down counts.
    assert max(open_files) <= 2 * web_limits.AT_WORK + 1


def test_both_procfiles_and_the_development_stack_start_the_web_alike() -> None:
    from featurehub.embedded import commands
    from featurehub.environment import read_environment

    wanted = {"--interface": "rsgi", "--loop": "uvloop", "--backpressure": str(web_limits.CONNECTIONS)}
    words = [commands(read_environment({"FEATUREHUB_HOME": "/nowhere"}))["web"]]
    variables = {"HOST": "h", "PORT": "1", "FEATUREHUB_WEB_WORKERS": "2"}
    words += [_of_procfile(PROJECT / name, variables) for name in ("Procfile", "featurehub/Procfile")]
    for command in words:
        assert {name: command[command.index(name) + 1] for name in wanted} == wanted


# -- The gate by itself


class Door:
    """An application in which requests stay until they are let go."""

    def __init__(self) -> None:
        self.inside, self.most, self.lock, self.open = 0, 0, threading.Lock(), threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.open.wait(20)
        with self.lock:
            self.inside -= 1
        start_response("200 OK", [])
        return [b"done"]

    def steps(self, environ: dict[str, Any]) -> None:
        """None of these requests is a read of vectors."""


async def asked(gate: Application, path: str = "/groups", **headers: str) -> Told:
    told = Told()
    await gate.__rsgi__(Scope(path, headers=headers), told)
    return told


def at_once(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def gate_of(door: Any, **limits: Any) -> Application:
    """Made on the event loop that runs, as granian does it."""
    gate = Application(door, **limits)
    gate.__rsgi_init__(asyncio.get_running_loop())
    return gate


async def wait_until(holds: Any) -> None:
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


def test_some_are_worked_at_some_wait_and_further_ones_are_refused_at_once() -> None:
    async def work() -> None:
        door = Door()
        gate = gate_of(door, at_work=2, at_once=5, seconds_to_wait=20)
        taken = [asyncio.create_task(asked(gate)) for _ in range(5)]
        await wait_until(lambda: door.inside == 2)
        assert [(await asked(gate)).status, (await asked(gate)).status] == [503, 503]
        alive = asyncio.create_task(asked(gate, "/healthz"))
        await wait_until(lambda: door.inside == 3)  # whoever asks whether it lives is let in always
        door.open.set()
        assert (await alive).body == b"done"
        assert [(await one).body for one in taken] == [b"done"] * 5
        assert door.most == 3
        assert (await asked(gate)).body == b"done"

    at_once(work)


def test_who_waits_too_long_is_refused_and_leaves_the_place() -> None:
    async def work() -> None:
        door = Door()
        gate = gate_of(door, at_work=1, at_once=2, seconds_to_wait=0.05)
        taken = asyncio.create_task(asked(gate))
        await wait_until(lambda: door.inside == 1)
        assert [(await asked(gate)).status for _ in range(5)] == [503] * 5
        door.open.set()
        assert (await taken).body == b"done"
        assert (await asked(gate)).body == b"done"

    at_once(work)


def test_a_request_that_fails_leaves_its_place() -> None:
    class Failing(Door):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
            raise ValueError

    async def work() -> None:
        gate = gate_of(Failing(), at_work=1, at_once=1, seconds_to_wait=0.05)
        for _ in range(3):
            with pytest.raises(ValueError):  # noqa: PT011  it has no text
                await asked(gate)

    at_once(work)


def test_a_refusal_is_a_problem_that_says_when_to_come_again() -> None:
    async def work() -> None:
        door = Door()
        gate = gate_of(door, at_work=1, at_once=1)
        taken = asyncio.create_task(asked(gate))
        await wait_until(lambda: door.inside == 1)
        told = await asked(gate, **{"x-request-id": "mine"})
        door.open.set()
        assert ((await taken).status, told.status) == (200, 503)
        assert (told.headers["Retry-After"], told.headers["X-Request-ID"]) == ("1", "mine")
        assert told.headers["Content-Type"] == "application/problem+json"
        assert json.loads(told.body)["code"] == "unavailable"

    at_once(work)
