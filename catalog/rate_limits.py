"""How fast a key may ask: a token bucket for each, in the process that answers, so that no request asks Redis.

A key's limit is shared out over the web processes of a machine (`FEATUREHUB_WEB_WORKERS`): each lets its share through,
and the kernel hands connections to all of them. A bucket is one number, the moment at which it is full again
(the generic cell rate algorithm, ITU-T I.371).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import cache

from django.conf import settings

from catalog.actions import Caller, Limit
from engine.errors import TooManyRequests


class Buckets:
    """The buckets of one process, which has one of `shares` shares of every limit; `clock` gives seconds."""

    def __init__(self, shares: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shares, self._clock = shares, clock
        self._full_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str, limit: Limit) -> float:
        """Take a token of the key's bucket and answer 0, or how many seconds it takes until there is one."""
        interval = self._shares / limit.per_second
        # A share of less than one token would never let a request through.
        tolerance = (max(limit.burst / self._shares, 1.0) - 1.0) * interval
        now = self._clock()
        with self._lock:
            full_at = max(self._full_at.get(key_id, now), now)
            wait = full_at - now - tolerance
            if wait > _CLOCK_NOISE:
                return wait
            self._full_at[key_id] = full_at + interval
        return 0.0


_CLOCK_NOISE = 1e-9


@cache
def buckets() -> Buckets:
    """This process's."""
    return Buckets(settings.FEATUREHUB_WEB_WORKERS)


def require(caller: Caller) -> None:
    """Count a request of a caller that has a limit; raises TooManyRequests saying when to come again."""
    if caller.limit is None:
        return
    if wait := buckets().take(caller.key_id, caller.limit):
        error = TooManyRequests(
            f"{caller} may ask {caller.limit.per_second:g} times a second, and {caller.limit.burst:g} times at once.",
            retry_after_seconds=math.ceil(wait),
        )
        error.about = f"key:{caller.key_id}"
        raise error
