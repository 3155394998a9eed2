"""Kills processes of a stack at random moments, by kill -9, stops others for a while, and starts the killed ones again.

A seed fixes the choices: who, when after the last one, how long it stays away, and what a Redis comes back with. It
cannot fix how the processes themselves are scheduled.
"""

from __future__ import annotations

import heapq
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tests.model.history import Fault
from tests.model.shown import Rewind
from tests.model.stack import ComesBack, Member, Redis, Stack

#: Who is killed how often, and what is stopped how often for each kill.
VICTIMS = {"web": 2, "web process": 3, "worker": 5, "beat": 2, "redis": 6}
PAUSES_PER_KILL = 0.3
PAUSED = {"web": 1, "worker": 2, "redis": 1}
COMES_BACK: dict[ComesBack, int] = {"file": 5, "wiped": 3, "old file": 2}

#: Seconds that a process is left alone after its start, so that it is at work when it is killed; on a busy machine as
#: many as the web server took for its first answer.
SECONDS_TO_GET_GOING = {"web": 3.0, "worker": 3.0, "beat": 2.0, "redis": 0.5}
#: But no longer than this; then it is killed as it is.
SECONDS_OF_PATIENCE = 8.0
SECONDS_BETWEEN_KILLS = (0.1, 1.5)
SECONDS_AWAY = (0.0, 1.5)
SECONDS_PAUSED = (0.5, 3.0)
#: How long after a Redis came back with less than it had its readers may see less, at most: until the worker, which may
#: be killed meanwhile, looks.
SECONDS_TO_NOTICE = 20.0

Choice = TypeVar("Choice", bound=str)


@dataclass
class Monkey:
    """What it has done is in `kills` and `pauses`, by victim."""

    stack: Stack
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    rewinds: list[Rewind] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: What it did, in seconds since 1970.
    deeds: list[tuple[float, str]] = field(default_factory=list)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

    def work(self, kills: int) -> None:
        """Kill so many times, then let everything come back."""
        while self.kills.total() < kills:
            self._wait(self.rng.uniform(*SECONDS_BETWEEN_KILLS))
            if self.rng.random() < PAUSES_PER_KILL:
                self._pause(_chosen(self.rng, PAUSED))
            self._kill()
        while self._due:
            self._wait(max(0.0, self._due[0][0] - time.monotonic()))

    def _wait(self, seconds: float) -> None:
        """Sleep, and do meanwhile what falls due."""
        end = time.monotonic() + seconds
        while self._due and self._due[0][0] <= end:
            at, _, action = heapq.heappop(self._due)
            time.sleep(max(0.0, at - time.monotonic()))
            action()
        time.sleep(max(0.0, end - time.monotonic()))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, self.kills.total() + self.pauses.total(), action))

    def _kill(self) -> None:
        victim, comes_back = _chosen(self.rng, VICTIMS), _chosen(self.rng, COMES_BACK)
        away = self.rng.uniform(*SECONDS_AWAY)
        target = self._target(victim)
        self._wait_until_at_work(target)
        self.look()
        if isinstance(target, Redis):
            self._kill_redis(target, away, comes_back)
        elif victim == "web process":
            self._note(victim, self.kills, target.kill_oldest_child())
        else:
            target.kill()
            self._note(victim, self.kills)
            self._later(away, target.start)

    def _wait_until_at_work(self, target: Member | Redis) -> None:
        seconds = SECONDS_TO_GET_GOING[target.name]
        if isinstance(target, Member):
            seconds = max(seconds, min(self.stack.seconds_to_come_up, SECONDS_OF_PATIENCE))
        while not (target.is_up and time.time() > target.started_at + seconds):
            self._wait(0.1)

    def look(self) -> None:
        """Nobody may end by himself; who did is started again, as a supervisor would."""
        for member in self.stack.members:
            if member.has_ended:
                self.faults.append(Fault("ended by itself", f"{member.name}; its log is {member.log}"))
                member.kill()
                member.start()

    def _note(self, victim: str, counted: Counter[str], times: int = 1) -> None:
        counted[victim] += times
        self.deeds.append((time.time(), f"{'kills' if counted is self.kills else 'stops'} {victim}"))

    def _kill_redis(self, target: Redis, away: float, comes_back: ComesBack) -> None:
        at = time.time()
        target.kill()
        if comes_back == "old file" and not target.has_kept:
            comes_back = "file"
        self._note(f"redis, back with {_ARTICLE[comes_back]}", self.kills)
        if comes_back != "old file":
            target.keep()
        if comes_back != "wiped":
            self.rewinds.append(Rewind(at, at + away + SECONDS_TO_NOTICE))
        self._later(away, partial(target.start, comes_back))

    def _pause(self, victim: str) -> None:
        target = self._target(victim)
        seconds = self.rng.uniform(*SECONDS_PAUSED)
        if target.is_up:
            target.signal(signal.SIGSTOP)
            self._note(victim, self.pauses)
            self._later(seconds, partial(target.signal, signal.SIGCONT))

    def _target(self, victim: str) -> Member | Redis:
        if victim == "redis":
            return self.stack.redis
        if victim == "worker":
            return self.rng.choice(self.stack.workers)
        return self.stack.beat if victim == "beat" else self.stack.web


_ARTICLE = {"file": "its file", "wiped": "nothing", "old file": "an old file"}


def _chosen(rng: random.Random, weights: Mapping[Choice, int]) -> Choice:
    return rng.choices(list(weights), list(weights.values()))[0]
