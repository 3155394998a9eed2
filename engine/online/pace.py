"""How fast rows may be brought online in bulk, so that those who read meanwhile stay quick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """At most so many rows per second over all threads of a process; 0 is as fast as it goes.

    `clock` gives seconds that only rise, `sleep` waits for some.
    """

    def __init__(
        self,
        rows_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows_per_second = rows_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_at = clock()

    def wait(self, rows: int) -> None:
        """Come back when `rows` more may be sent."""
        if not self._rows_per_second:
            return
        with self._lock:
            now = self._clock()
            begins_at = max(now, self._next_at)  # a pause is not made up for by a burst
            self._next_at = begins_at + rows / self._rows_per_second
        self._sleep(begins_at - now)
