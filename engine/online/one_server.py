"""Rows on one Redis server: any number of keys in one command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import cache

from redis.commands.core import Script

from engine.online import scripts
from engine.online.node import Node, Work
from engine.online.pipelined import Pipelined
from engine.online.replies import number, text, texts
from engine.online.share import Share

Row = tuple[bytes, bytes]


class OneServer:
    """The server at `url`; every method raises Unavailable. The same methods as those of Cluster (cluster.py)."""

    def __init__(self, url: str, prefix: str) -> None:
        self._node, self._speaks_tls = Node(url), url.startswith("rediss://")
        self._kept = self._node.kept["read"]
        self._state_key = f"{prefix}:state".encode()
        self._shares = (Share("", self._node),)
        self._script = cache(self._register)

    def _register(self, script: str, work: Work) -> Script:
        return self._node.clients[work].register_script(script)

    def read(self, keys: Sequence[bytes]) -> tuple[bytes | None, list[bytes | None]]:
        """The raw state and the values of `keys`, in order, in one command."""
        with self._node.asking():
            state, *values = texts(self._kept.mget([self._state_key, *keys]), len(keys) + 1)
        return state, values

    def pipelined(self, loop: asyncio.AbstractEventLoop) -> Pipelined | None:
        """Reads of an event loop; None over TLS, which threads speak alone."""
        return None if self._speaks_tls else self._node.pipelined(loop)

    def upsert(self, rows: Sequence[Row]) -> int:
        """Store each (key, value) that is newer than what is there; how many were. A key comes once."""
        return self.run(scripts.UPSERT, [key for key, _ in rows], [value for _, value in rows], work="write")

    def step(self, rows: Sequence[Row], counter: str, step: int, shares: Sequence[Share]) -> bool:
        """`upsert` as one step of a filling; whether every step before is still there."""
        (share,) = shares
        keys = [*(key for key, _ in rows), share.key(counter)]
        return self.run(scripts.STEP, keys, [*(value for _, value in rows), step], work="bulk") >= 0

    def values(self, keys: Sequence[bytes], *, work: Work) -> list[bytes | None]:
        """What MGET answers of `keys`."""
        with self._node.asking():
            return texts(self._node.clients[work].mget(keys), len(keys))

    def exist(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether each key is there, of whatever type."""
        with self._node.asking(), self._node.clients["bulk"].pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(key)
            return [number(reply) > 0 for reply in pipeline.execute()]

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys, whose memory is freed beside Redis's one thread; how many were there."""
        with self._node.asking():
            return number(self._node.clients["bulk"].unlink(*keys))

    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | int | str], *, work: Work) -> int:
        """What a script (scripts.py) answers."""
        with self._node.asking():
            return number(self._script(script, work)(keys=list(keys), args=arguments))

    def get(self, key: bytes) -> bytes | None:
        """The text under one key."""
        with self._node.asking():
            return text(self._node.clients["read"].get(key))

    def command(self, name: str, key: bytes, *arguments: bytes | str, work: Work) -> object:
        """What Redis answers to a command about one key."""
        with self._node.asking():
            client = self._node.clients[work]
            return client.execute_command(name, key, *arguments)  # type: ignore[no-untyped-call]

    def node_of(self, key: bytes) -> Node:
        """The server on which the key lies."""
        return self._node

    def shares(self) -> tuple[Share, ...]:
        """What each server holds: here one, and all."""
        return self._shares

    def shares_at_rest(self) -> tuple[Share, ...]:
        """The same."""
        return self._shares

    def idle_nodes(self) -> Iterator[Node]:
        """The servers that hold nothing yet: there are none."""
        return iter(())

    def mark(self, epoch: str) -> None:
        """Nothing: who loses rows here loses the state too."""

    def is_marked(self, epoch: str, *, everywhere: bool = False) -> bool:
        """True, by `mark`."""
        return True

    def forget_state(self) -> None:
        """Nothing: it is read with each row."""

    def close(self) -> None:
        self._node.close()
