"""Whether to ask a server at all: after three calls in a row without an answer the next ones need not wait for one.

A server that hangs costs each caller its whole time-out. With four threads in a web process that is the end of every
other route too, so after a few such calls nobody waits any more but one, now and then, who finds out if it is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FAILURES = 3
SECONDS_BETWEEN_PROBES = 1.0


class Breaker:
    """Counts calls without an answer, across threads. `clock` gives seconds that only rise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_probe_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server is held to be down: only who claims the next probe may ask it."""
        return self._next_probe_at is not None

    def claims_probe(self) -> bool:
        """Whether the caller is the one that is to find out whether the server is back; a probe that never reports
        is made up for by the next one."""
        with self._lock:
            now = self._clock()
            if self._next_probe_at is None or now < self._next_probe_at:
                return self._next_probe_at is None
            self._next_probe_at = now + SECONDS_BETWEEN_PROBES
            return True

    def answered(self) -> None:
        """The server said something, be it an error."""
        if self._failures:
            with self._lock:
                self._failures, self._next_probe_at = 0, None

    def failed(self) -> None:
        """The server did not answer in time, or is not there."""
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES:
                self._next_probe_at = self._clock() + SECONDS_BETWEEN_PROBES
