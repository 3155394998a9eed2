"""Reading with a connection that each thread keeps: what a client and its pool do around a command takes longer than
Redis does for one (measured: 38 us for an MGET of one key through both, 17 us on the connection itself).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakSet

import hiredis
import redis
from redis.connection import AbstractConnection

from engine.process_id import process_id

#: A command and its arguments.
Arguments = Sequence[bytes | str | int]

#: An answer that is there already is taken, however late it is.
LEAST_SECONDS = 0.001


class KeptConnections:
    """One connection per thread, made as the client's pool would make it and gone with its thread.

    Raises what redis-py raises, at once: the client's time-outs hold, and nothing is tried again but a read on a
    connection that the server had closed meanwhile, as one that was started anew has.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._local = threading.local()
        self._all: WeakSet[AbstractConnection] = WeakSet()

    def mget(self, keys: Sequence[bytes]) -> object:
        """What Redis answers to MGET; the caller sees to it that these are as many texts."""
        connection: AbstractConnection | None = getattr(self._local, "connection", None)
        if connection is not None and connection.pid == process_id():
            with suppress(redis.ConnectionError):  # closed by the server, as by one that was started anew
                return _asked(connection, keys)
        return _asked(self._connect(), keys)

    def send(self, commands: Sequence[Arguments]) -> Sent:
        """Send commands that may be repeated, all at once, and go on before they are answered."""
        connection: AbstractConnection | None = getattr(self._local, "connection", None)
        if connection is not None and connection.pid == process_id():
            with suppress(redis.ConnectionError):
                return Sent(commands, _sent(connection, commands), self._connect)
        return Sent(commands, _sent(self._connect(), commands))

    def _connect(self) -> AbstractConnection:
        connection = self._local.connection = self._pool.connection_class(**self._pool.connection_kwargs)
        self._all.add(connection)
        return connection

    def close(self) -> None:
        """Close every thread's connection; a thread that asks again gets another one."""
        for connection in list(self._all):
            connection.disconnect()  # type: ignore[no-untyped-call]


class Sent:
    """Commands on their way. Either their replies are read, or they are given up: another command would get them."""

    def __init__(
        self,
        commands: Sequence[Arguments],
        connection: AbstractConnection,
        reconnect: Callable[[], AbstractConnection] | None = None,
    ) -> None:
        self._commands = commands
        self._connection: AbstractConnection | None = connection
        self._reconnect = reconnect

    def replies(self, ends: float) -> list[object]:
        """A reply to each command; an error that Redis answers is one too. `ends`: when, on time.monotonic(), nobody
        waits any longer: raises TimeoutError then, and ConnectionError."""
        connection, self._connection = self._connection, None
        assert connection is not None  # noqa: S101  replies are read once
        if self._reconnect is not None:
            with suppress(redis.ConnectionError):  # a kept one that the server had closed meanwhile
                return self._read(connection, ends)
            connection = _sent(self._reconnect(), self._commands)
        return self._read(connection, ends)

    def _read(self, connection: AbstractConnection, ends: float) -> list[object]:
        replies: list[object] = []
        try:
            for _ in self._commands:
                seconds = max(ends - time.monotonic(), LEAST_SECONDS)
                try:
                    replies.append(connection.read_response(timeout=seconds))
                except redis.ResponseError as error:
                    replies.append(error)
        except BaseException:
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        return replies

    def give_up(self) -> None:
        """Close the connection unless the replies were read."""
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]


def _sent(connection: AbstractConnection, commands: Sequence[Arguments]) -> AbstractConnection:
    try:
        packed = [hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]  # as below
        connection.send_packed_command([b"".join(packed)])  # type: ignore[no-untyped-call]
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return connection


def _asked(connection: AbstractConnection, keys: Sequence[bytes]) -> object:
    try:
        # redis-py's own packing takes twice as long; what hiredis says of the types of its arguments is one text.
        command = hiredis.pack_command(("MGET", *keys))  # type: ignore[arg-type]
        connection.send_packed_command([command])  # type: ignore[no-untyped-call]
        return connection.read_response()
    except redis.ResponseError:
        raise  # it was an answer, and the next one is the next command's
    except BaseException:
        # Its answer may still come, and would be taken for the next command's.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
