"""One Redis server and the ways of asking it: a time-out for each kind of work, and whether to ask at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import Unavailable
from engine.online.breaker import Breaker
from engine.online.kept import KeptConnections
from engine.online.pipelined import Pipelined

#: What is waited for: look, which server of a cluster holds what, and once more when nobody told in time; read, a
#: vector; write, a push; bulk, what nobody waits for.
Work = Literal["look", "look again", "read", "write", "bulk"]

CONNECT_TIMEOUT_SECONDS = 0.1
#: How long an answer may take. Who looks goes on to the next node, and has yet to read. A push has somebody waiting for
#: its answer; what Redis does not take in this time is brought later. Nobody waits for bulk work, and its calls are the
#: longest.
TIMEOUT_SECONDS: dict[Work, float] = {"look": 0.03, "look again": 0.1, "read": 0.2, "write": 1.0, "bulk": 5.0}

#: What says that nobody is there or that somebody hangs, as against a server that answers with an error.
NO_ANSWER = (redis.ConnectionError, redis.TimeoutError, OSError)
#: Errors that say that the caller's knowledge of a cluster is old (a redirection) or that the cluster's own state is.
_OTHER_PLACE = (redis.exceptions.AskError, redis.exceptions.ClusterDownError)


@contextmanager
def understanding() -> Iterator[None]:
    """Turns an answer that is an error, or not what was asked for, into Unavailable."""
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(f"The online store answers with an error: {error}") from error


class Node:
    """A server at `url`, with a client and kept connections for each kind of work; connects on first use.

    `doubted` is called when it does not answer, or sends to another place. May be shared by threads.
    """

    def __init__(self, url: str, doubted: Callable[[], None] = lambda: None) -> None:
        self.clients = {work: _client(url, seconds) for work, seconds in TIMEOUT_SECONDS.items()}
        self.kept = {work: KeptConnections(client) for work, client in self.clients.items()}
        self._breaker = Breaker()
        self._doubted = doubted

    @property
    def is_held_to_be_down(self) -> bool:
        """Whether the last calls went without an answer, so that only now and then one is made."""
        return self._breaker.is_open

    def pipelined(self, loop: asyncio.AbstractEventLoop) -> Pipelined:
        """Reads of an event loop, which count for the same breaker."""
        return Pipelined(loop, self.clients["read"], self._breaker)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Turns every way in which the server fails to answer into Unavailable."""
        if self._breaker.is_open:
            self._find_out_whether_it_is_back()
        try:
            yield
        except NO_ANSWER as error:
            self._breaker.failed()
            self._doubted()
            raise Unavailable(f"The online store does not answer: {error}") from error
        except redis.RedisError as error:
            self._breaker.answered()
            if isinstance(error, _OTHER_PLACE):
                self._doubted()
            raise Unavailable(f"The online store answers with an error: {error}") from error
        self._breaker.answered()

    def _find_out_whether_it_is_back(self) -> None:
        """By a call that costs the least when it is not; raises Unavailable then, and while another one is at it."""
        if not self._breaker.claims_probe():
            raise Unavailable("The online store does not answer: it did not a moment ago.")
        try:
            self.clients["read"].ping()
        except NO_ANSWER as error:
            self._breaker.failed()
            self._doubted()
            raise Unavailable(f"The online store does not answer: {error}") from error
        except redis.RedisError:
            pass  # an error is an answer; what is asked next gets its own
        self._breaker.answered()

    def close(self) -> None:
        for work, client in self.clients.items():
            self.kept[work].close()
            client.close()


def _client(url: str, timeout_seconds: float) -> redis.Redis:
    # redis-py's own defaults retry ten times and take 4 s to notice a dead server.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
