"""Closed-loop load over HTTP on loopback: a connection sends its next request when the one before was answered.

The same few lines drive every server that is compared, so that what they cost is in every figure alike.
"""

from __future__ import annotations

import http.client
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

#: A request that is not answered within this time ends the measurement.
SECONDS_TO_ANSWER = 60.0
#: How often a request is sent again that is refused for now (503), as a client would.
SENT_AT_MOST = 10
UNAVAILABLE = 503


class WrongAnswer(AssertionError):
    """A server answered something else than that it took the rows."""


@dataclass(frozen=True, slots=True)
class Sent:
    """When a request was first sent, when its right answer had been read, and how often it was refused before."""

    started: float
    ended: float
    refused: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where bodies are posted to, and what a right answer is: `is_right(status, body)`."""

    port: int
    path: str
    is_right: Callable[[int, bytes], bool]
    headers: dict[str, str] = field(default_factory=dict)

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is open and stays so."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_TO_ANSWER)
        connection.connect()
        return connection

    def post(self, connection: http.client.HTTPConnection, body: bytes) -> Sent:
        """Post until the answer is right; raises WrongAnswer for one that is neither that nor 503."""
        started = time.perf_counter()
        for refused in range(SENT_AT_MOST):
            connection.request("POST", self.path, body, {"Content-Type": "application/json", **self.headers})
            answer = connection.getresponse()
            text = answer.read()
            ended = time.perf_counter()
            if self.is_right(answer.status, text):
                return Sent(started, ended, refused)
            if answer.status != UNAVAILABLE:
                break
        raise WrongAnswer(f"{self.path} answered {answer.status}: {text[:300]!r}")


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured: the seconds that each request took until it was taken, in order of sending; the seconds from
    the first sending to the last answer; how many answers were refusals."""

    latencies: tuple[float, ...]
    seconds: float
    refused: int = 0

    @property
    def requests_per_second(self) -> float:
        return len(self.latencies) / self.seconds


def send(endpoint: Endpoint, bodies: Sequence[bytes], *, connections: int) -> Load:
    """Post each of `bodies` once, over so many connections at a time; raises WrongAnswer for the first wrong answer."""
    waiting: SimpleQueue[bytes] = SimpleQueue()
    for body in bodies:
        waiting.put(body)
    opened = [endpoint.connect() for _ in range(connections)]
    try:
        with ThreadPoolExecutor(connections) as pool:
            parts = list(pool.map(lambda connection: _post_waiting(waiting, endpoint, connection), opened))
    finally:
        for connection in opened:
            connection.close()
    return _load(sorted((one for part in parts for one in part), key=lambda one: one.started))


def _post_waiting(
    waiting: SimpleQueue[bytes], endpoint: Endpoint, connection: http.client.HTTPConnection
) -> list[Sent]:
    """Post what is waiting until nothing is."""
    sent = []
    while True:
        try:
            body = waiting.get_nowait()
        except Empty:
            return sent
        sent.append(endpoint.post(connection, body))


def _load(sent: Sequence[Sent]) -> Load:
    return Load(
        latencies=tuple(one.ended - one.started for one in sent),
        seconds=max(one.ended for one in sent) - sent[0].started,
        refused=sum(one.refused for one in sent),
    )


def ask(
    port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """The status and the body of one request that is not measured."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_TO_ANSWER)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def percentile(latencies: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of all does not exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5), percentile([4.0, 1.0, 3.0, 2.0], 0.99)
    (2.0, 4.0)
    """
    return sorted(latencies)[math.ceil(share * len(latencies)) - 1]
