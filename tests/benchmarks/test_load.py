"""The load generator posts each body once, counts what it should, and takes no wrong answer for a right one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import Endpoint, Load, Sent, WrongAnswer, _load, ask, percentile, send

BODIES = [b"row %d" % number for number in range(8)]


@contextmanager
def server(answer: Callable[[bytes], tuple[int, bytes]]) -> Iterator[Endpoint]:
    """A server on a free port that answers a posted body; a right answer is 200 and `taken`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            status, text = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is for what went wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Endpoint(listening.server_port, "/push", lambda status, body: (status, body) == (200, b"taken"))
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize("connections", [1, 4])
def test_each_body_is_posted_once_and_so_many_at_a_time(connections: int) -> None:
    posted: list[bytes] = []
    together = threading.Barrier(connections)

    def answer(body: bytes) -> tuple[int, bytes]:
        posted.append(body)
        together.wait(timeout=10)  # broken, and so a wrong answer, unless as many requests are under way
        return 200, b"taken"

    with server(answer) as endpoint:
        load = send(endpoint, BODIES, connections=connections)
    assert sorted(posted) == BODIES
    assert (len(load.latencies), load.refused) == (len(BODIES), 0)


def test_a_body_that_is_refused_for_now_is_sent_again_and_the_refusal_counted() -> None:
    posted: Counter[bytes] = Counter()

    def answer(body: bytes) -> tuple[int, bytes]:
        posted[body] += 1
        return (503, b"busy") if posted[body] == 1 and body in BODIES[:3] else (200, b"taken")

    with server(answer) as endpoint:
        load = send(endpoint, BODIES, connections=2)
    assert posted == {body: 2 if body in BODIES[:3] else 1 for body in BODIES}
    assert (len(load.latencies), load.refused) == (len(BODIES), 3)


@pytest.mark.parametrize(
    ("status", "text"), [(200, b"taken, all but one"), (202, b"taken"), (422, b"wrong"), (503, b"busy, always")]
)
def test_a_wrong_answer_ends_the_measurement(status: int, text: bytes) -> None:
    with server(lambda _: (status, text)) as endpoint, pytest.raises(WrongAnswer, match=str(status)):
        send(endpoint, BODIES, connections=2)


def test_a_request_outside_the_load_gives_status_and_body() -> None:
    with server(lambda body: (201, body[::-1])) as endpoint:
        assert ask(endpoint.port, "POST", "/", b"abc") == (201, b"cba")


def test_a_load_lasts_from_the_first_sending_to_the_last_answer() -> None:
    load = _load([Sent(10.0, 11.0, 0), Sent(10.5, 13.0, 2), Sent(11.0, 12.0, 1)])
    assert load == Load(latencies=(1.0, 2.5, 1.0), seconds=3.0, refused=3)
    assert load.requests_per_second == 1.0


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0), (0.005, 1.0), (0.991, 100.0)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected
