"""After three calls without an answer nobody waits any more, but one caller a second who looks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from engine.errors import Unavailable
from engine.online.breaker import Breaker
from engine.online.pace import Pace
from engine.online.store import OnlineStore


class Clock:
    """Seconds that pass when a test says so, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failed(times: int) -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(times):
        breaker.failed()
    return breaker, clock


@pytest.mark.parametrize(("failures", "is_open"), [(0, False), (2, False), (3, True), (4, True)])
def test_three_failures_in_a_row_open_it(failures: int, is_open: bool) -> None:
    assert failed(failures)[0].is_open is is_open


def test_an_answer_between_failures_starts_the_count_again() -> None:
    breaker, _ = failed(2)
    breaker.answered()
    breaker.failed()
    breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open


def test_one_caller_a_second_probes_and_the_others_do_not_wait() -> None:
    breaker, clock = failed(3)
    assert not breaker.claims_probe()
    clock.now += 0.99
    assert not breaker.claims_probe()
    clock.now += 0.01
    assert [breaker.claims_probe() for _ in range(3)] == [True, False, False]
    clock.now += 1  # the one who probed was killed
    assert [breaker.claims_probe() for _ in range(2)] == [True, False]


def test_of_callers_at_one_moment_exactly_one_probes() -> None:
    breaker, clock = failed(3)
    clock.now += 1
    start = Barrier(8)

    def claim(_: int) -> bool:
        start.wait(timeout=30)
        return breaker.claims_probe()

    with ThreadPoolExecutor(8) as callers:
        assert sum(callers.map(claim, range(8))) == 1


def test_a_probe_that_fails_keeps_it_open_and_one_that_is_answered_closes_it() -> None:
    breaker, clock = failed(3)
    clock.now += 1
    assert breaker.claims_probe()
    clock.now += 0.2
    breaker.failed()
    clock.now += 0.9
    assert not breaker.claims_probe()
    clock.now += 0.1
    assert breaker.claims_probe()
    breaker.answered()
    assert not breaker.is_open
    assert breaker.claims_probe()


@pytest.mark.parametrize(
    "call", [lambda store: store.read([]), lambda store: store.upsert([(b"k", b"v" * 43)]), lambda store: store.ping()]
)
def test_a_store_that_was_not_there_three_times_is_not_asked_again_at_once(
    tmp_path: Path, call: Callable[[OnlineStore], object]
) -> None:
    store = OnlineStore(f"unix://{tmp_path}/nobody.sock", "fh")
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"nobody\.sock"):
            call(store)
    with pytest.raises(Unavailable, match="it did not a moment ago"):
        call(store)


# The pace of bulk work.


def test_rows_are_spread_over_the_time_that_their_number_takes() -> None:
    clock = Clock()
    pace = Pace(1_000, clock=clock, sleep=clock.sleep)
    for rows in (500, 500, 250, 1):
        pace.wait(rows)
    assert clock.slept == [0, 0.5, 0.5, 0.25]


def test_a_pause_is_not_made_up_for_by_a_burst() -> None:
    clock = Clock()
    pace = Pace(1_000, clock=clock, sleep=clock.sleep)
    pace.wait(500)
    clock.now += 60
    pace.wait(500)
    pace.wait(500)
    assert clock.slept == [0, 0, 0.5]


def test_without_a_pace_nobody_sleeps() -> None:
    clock = Clock()
    pace = Pace(0, clock=clock, sleep=clock.sleep)
    pace.wait(1_000_000)
    assert clock.slept == []
