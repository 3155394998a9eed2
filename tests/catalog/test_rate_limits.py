"""How fast a key may ask: what a bucket lets through, by a clock that the test moves, and what the refused are told."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from catalog.actions import Limit
from catalog.rate_limits import Buckets

LIMIT = Limit(per_second=10, burst=3)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def taken(buckets: Buckets, times: int, *, limit: Limit = LIMIT, key: str = "k") -> int:
    """How many of so many requests at once are let through."""
    return sum(buckets.take(key, limit) == 0 for _ in range(times))


def test_a_burst_is_let_through_and_then_one_request_for_each_tenth_of_a_second() -> None:
    clock = Clock()
    buckets = Buckets(1, clock=clock)
    assert taken(buckets, 10) == 3
    assert buckets.take("k", LIMIT) == pytest.approx(0.1)
    clock.now += 0.1
    assert taken(buckets, 10) == 1
    clock.now += 0.25
    assert taken(buckets, 10) == 2
    clock.now += 3_600.0
    assert taken(buckets, 10) == 3  # a bucket that is full does not fill any further


def test_what_is_refused_takes_nothing_and_may_come_when_it_was_told_to() -> None:
    clock = Clock()
    buckets = Buckets(1, clock=clock)
    taken(buckets, 3)
    waits = {buckets.take("k", LIMIT) for _ in range(100)}
    assert len(waits) == 1
    clock.now += waits.pop()
    assert taken(buckets, 10) == 1


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(1, clock=Clock())
    assert taken(buckets, 10, key="one") == taken(buckets, 10, key="another") == 3


def test_a_limit_is_shared_out_over_the_processes() -> None:
    clock, limit = Clock(), Limit(per_second=10, burst=8)
    processes = [Buckets(4, clock=clock) for _ in range(4)]
    assert [taken(each, 100, limit=limit) for each in processes] == [2, 2, 2, 2]
    clock.now += 1.0
    assert sum(taken(each, 100, limit=limit) for each in processes) == 8
    # A share of less than one request lets one through all the same, more rarely.
    slow = Limit(per_second=1, burst=1)
    assert [taken(each, 5, limit=slow, key="slow") for each in processes] == [1, 1, 1, 1]
    assert processes[0].take("slow", slow) == pytest.approx(4.0)


@given(
    st.integers(1, 1_000),
    st.integers(1, 50),
    st.integers(1, 8),
    st.lists(st.floats(0, 0.5, allow_nan=False), min_size=1, max_size=100),
)
def test_no_stretch_of_time_lets_more_through_than_the_burst_and_its_rate(
    per_second: int, burst: int, shares: int, pauses: list[float]
) -> None:
    clock, limit, let = Clock(), Limit(per_second, burst), []
    buckets = Buckets(shares, clock=clock)
    for pause in pauses:
        clock.now += pause
        if buckets.take("k", limit) == 0:
            let.append(clock.now)
    most = max(burst / shares, 1.0)
    for first in range(len(let)):
        for last in range(first, len(let)):
            assert last - first + 1 <= most + (let[last] - let[first]) * per_second / shares + 1e-6


# -- Over HTTP


@pytest.fixture
def limited(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Clock]]:
    """A key that may ask twice at once and once in ten seconds in this process, and the clock of its bucket."""
    from catalog import keys, rate_limits

    clock = Clock()
    keys.forget()
    monkeypatch.setattr(rate_limits, "buckets", lambda: made)
    made = Buckets(10, clock=clock)
    yield keys.create_key(name="shop", scopes=["read"], requests_per_second=1, burst=20)[1], clock
    keys.forget()


def test_beyond_its_limit_a_key_is_429_and_told_when_to_come_again(limited: tuple[str, Clock]) -> None:
    key, clock = limited
    client = Client(headers={"Authorization": f"Bearer {key}"})
    assert [client.get("/groups").status_code for _ in range(3)] == [200, 200, 429]
    clock.now += 0.5
    response = client.get("/groups")
    assert response.status_code == 429
    assert response["Content-Type"] == "application/problem+json"
    assert response["Retry-After"] == "10"  # 9.5 seconds, rounded up
    problem = json.loads(response.content)
    assert (problem["code"], problem["detail"]) == (
        "too_many_requests",
        "shop may ask 1 times a second, and 20 times at once.",
    )
    clock.now += 9.5
    assert client.get("/groups").status_code == 200


@pytest.mark.usefixtures("one_connection")
def test_the_short_way_of_reads_has_the_same_limit(limited: tuple[str, Clock]) -> None:
    from serving.hot_path import HotPath

    def not_the_long_way(*_: Any) -> Any:
        raise AssertionError("this went the long way")

    told: list[tuple[str, dict[str, str]]] = []
    for _ in range(3):
        environ = RequestFactory().get("/features/customer/C1", HTTP_AUTHORIZATION=f"Bearer {limited[0]}").environ
        environ["wsgi.input"] = io.BytesIO()
        HotPath(not_the_long_way)(environ, lambda status, headers: told.append((status, dict(headers))))
    assert [status.split(" ")[0] == "429" for status, _ in told] == [False, False, True]
    assert told[2][1]["Retry-After"] == "10"


def test_a_key_without_a_limit_is_never_429(db: None) -> None:
    from catalog import keys

    keys.forget()
    client = Client(headers={"Authorization": f"Bearer {keys.create_key(name='shop', scopes=['read'])[1]}"})
    assert {client.get("/groups").status_code for _ in range(30)} == {200}


def test_taking_a_token_costs_a_request_next_to_nothing() -> None:
    buckets, limit = Buckets(2), Limit(1e6, 1e6)
    best = min(_seconds_of(buckets, limit) for _ in range(5))
    assert best < 20e-6, f"{best * 1e6:.1f} microseconds"  # some 0.5 where nothing else runs


def _seconds_of(buckets: Buckets, limit: Limit) -> float:
    started = time.perf_counter()
    for _ in range(1_000):
        buckets.take("k", limit)
    return (time.perf_counter() - started) / 1_000
