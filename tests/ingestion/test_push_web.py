"""Pushing to a real web server over real sockets: bodies that lie or are cut short, parallel repeats, and kill -9."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from catalog.bodies import MAX_BYTES
from catalog.models import FeatureGroup
from ingestion import drain
from ingestion.models import IdempotencyKey, PushBatch
from ingestion.tasks import catch_up
from tests.factories import make_customer_group, purchase
from tests.ingestion import contents
from tests.ingestion.web import BODY, Start

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_a_body_that_stops_midway_keeps_nobody_waiting(group: FeatureGroup, start: Start) -> None:
    """One process; more stalled senders than it takes requests at once."""
    web = start()
    stalled = [web.send_raw(f"Content-Length: {length}", b"{") for length in (100, 100_000) for _ in range(20)]
    assert web.post(BODY)[0] == 200
    assert web.ask("GET", "/groups")[0] == 200
    for sender in stalled:
        sender.close()
    assert web.ask("GET", "/healthz")[0] == 200
    assert "raised an exception" not in web.log()


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
