"""Reading on an event loop: all that is asked in one turn of the loop goes to Redis in one packet, over one connection.

Only the usual case is done here. Whatever else happens, such as no connection yet, one that was lost or an answer that
is an error, is told as None: the caller then asks in a thread (kept.py), where each of these has its own way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import hiredis
import redis

from engine.errors import Unavailable
from engine.online.breaker import Breaker
from engine.online.kept import LEAST_SECONDS
from engine.online.replies import texts

SECONDS_BETWEEN_CONNECTS = 0.5

#: What MGET answers, or None.
Values = list[bytes | None] | None


class Pipelined:
    """A connection to the server that a client of redis-py knows; made on first use, and again when it is lost.

    Belongs to one event loop. `breaker` hears of answers and of time-outs, and is asked before.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, client: redis.Redis, breaker: Breaker) -> None:
        self._loop, self._breaker = loop, breaker
        self._server: Mapping[str, Any] = client.connection_pool.connection_kwargs
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._next_connect = 0.0

    def mget(self, keys: Sequence[bytes]) -> asyncio.Future[Values] | None:
        """The values of keys, once Redis has answered; None for what a thread has to find out.

        The future raises Unavailable when there is no answer in the time that a read may take.
        """
        connection = self._connection
        if connection is None or self._breaker.is_open:
            self._begin_to_connect()
            return None
        return connection.ask(("MGET", *keys), len(keys))

    def _begin_to_connect(self) -> None:
        if self._connection is None and self._connecting is None and self._loop.time() >= self._next_connect:
            self._next_connect = self._loop.time() + SECONDS_BETWEEN_CONNECTS
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        server = self._server
        connection = _Connection(self._loop, server["socket_timeout"], self._breaker, self._lost)
        try:
            async with asyncio.timeout(server["socket_connect_timeout"]):
                if path := server.get("path"):
                    await self._loop.create_unix_connection(lambda: connection, path)
                else:
                    await self._loop.create_connection(lambda: connection, server["host"], server["port"])
                await connection.introduce(server)
            if connection.is_open:  # it may have been lost between Redis's answer and this line
                self._connection = connection
        except (OSError, TimeoutError, Unavailable, redis.RedisError):
            connection.abort()  # whoever asks in a thread is told why
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            self._connecting = None

    def _lost(self) -> None:
        self._connection = None

    def close(self) -> None:
        """Close the connection; who has asked is left to a thread."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()


class _Asked(NamedTuple):
    texts: int
    at: float
    answer: asyncio.Future[Any]


class _Connection(asyncio.Protocol):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, breaker: Breaker, lost: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._breaker, self._lost = loop, seconds, breaker, lost
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._packed: list[bytes] = []
        self._asked: deque[_Asked] = deque()
        self._is_watched = self._is_late = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def is_open(self) -> bool:
        """Whether it was made and is not lost."""
        return self._transport is not None

    async def introduce(self, server: Mapping[str, Any]) -> None:
        """Log in and choose the database; raises ResponseError where Redis does not take it."""
        commands = []
        if password := server.get("password"):
            commands.append(("AUTH", *([server["username"]] if server.get("username") else []), password))
        commands.append(("SELECT", str(server.get("db") or 0)))
        for command in commands:
            if await self.ask(command, 0) != b"OK":
                raise redis.ResponseError(f"{command[0]} is refused")

    def ask(self, command: tuple[bytes | str, ...], count: int) -> asyncio.Future[Any]:
        """What Redis answers: so many texts, or with 0 whatever it is."""
        if not self._packed:
            self._loop.call_soon(self._send)
        self._packed.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # what it says of its arguments is one text
        answer = self._loop.create_future()
        self._asked.append(_Asked(count, self._loop.time(), answer))
        return answer

    def _send(self) -> None:
        if self._transport is None:  # lost meanwhile
            return
        self._transport.write(b"".join(self._packed))
        self._packed.clear()
        if not self._is_watched:
            self._is_watched = True
            self._loop.call_later(self._seconds, self._look_at_the_oldest)

    def _look_at_the_oldest(self) -> None:
        """Give up when it waits for too long; once more a moment later, since what is there already is taken, however
        late it is read."""
        self._is_watched = bool(self._asked)
        if not self._asked:
            return
        left = self._asked[0].at + self._seconds - self._loop.time()
        if left > 0 or not self._is_late:
            self._is_late = left <= 0
            self._loop.call_later(max(left, LEAST_SECONDS), self._look_at_the_oldest)
            return
        self._breaker.failed()
        self._end(Unavailable("The online store does not answer in time."))

    def data_received(self, data: bytes) -> None:
        self._is_late = False
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._give(reply)
        except (hiredis.HiredisError, redis.RedisError):
            self.abort()  # nothing that was asked for: of what comes behind it nobody knows what it answers

    def _give(self, reply: object) -> None:
        if not self._asked:
            raise redis.InvalidResponse("Nothing was asked for, and something was answered")
        count, _, answer = self._asked[0]
        is_error = isinstance(reply, hiredis.ReplyError)
        value = None if is_error else texts(reply, count) if count else reply
        self._asked.popleft()
        self._breaker.answered()
        if not answer.done():  # whoever asked may have gone
            answer.set_result(value)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(None)

    def abort(self) -> None:
        """Close it; what was asked and not answered is for a thread."""
        self._end(None)

    def _end(self, error: Unavailable | None) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._lost()
        while self._asked:
            answer = self._asked.popleft().answer
            if not answer.done():
                answer.set_exception(error) if error else answer.set_result(None)
