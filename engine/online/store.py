"""The newest row of every entity in Redis: read with one command, written only by version order.

A row's key is `<prefix>:<group>:<version>:{<entity key>}`; the braces are a hash tag, so that all groups of one
entity lie in one slot and one MGET reads them. `<prefix>:state` holds what a process must know before it trusts
what it read: the catalog version and the epoch of the store's contents.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
import redis.exceptions
import redis.lock

from engine.errors import Unavailable
from engine.online import scripts, server, topology
from engine.online.cluster import Cluster
from engine.online.node import Node
from engine.online.one_server import OneServer
from engine.online.pace import Pace
from engine.online.pipelined import Pipelined
from engine.online.replies import page
from engine.online.server import Server
from engine.online.share import Share, key_of_share

#: Where the version of a row lies in its value (codec.py); compared as bytes it is the version order.
VERSION_BYTES = slice(2, 34)

STATE = re.compile(rb"(\d{1,18}):([0-9a-f]{1,32})")
POSITION = re.compile(rb"-1|\d{1,15}")
#: The position of a store that holds nothing of a table.
NOTHING = -1

#: Keys that one SCAN looks at: some 0.3 ms in which Redis does nothing else.
SCANNED_AT_ONCE = 1_000
#: Keys that a scan hands out at a time, or a few more.
SCANNED_KEYS = 10_000
_GLOB = re.compile(rb"[*?\[\]\\]")

#: How often a row that changes meanwhile is looked at before it is left for later.
REMOVE_ATTEMPTS = 20

#: Keys per call of the script: enough to spread its cost, few enough that readers wait at most a few ms.
UPSERT_BATCH = 500


@dataclass(frozen=True, slots=True)
class State:
    """What the store says of itself: the catalog version to plan with, and the epoch of its contents."""

    catalog_version: int
    epoch: str

    @classmethod
    def parse(cls, raw: bytes) -> State | None:
        """The state in these bytes; None when they are not one."""
        match = STATE.fullmatch(raw)
        return cls(int(match[1]), match[2].decode()) if match else None


class OnlineStore:
    """Rows and state under one key prefix of one Redis, or of one Redis Cluster.

    `url` is redis://, rediss:// or unix://; a cluster's is redis+cluster:// or rediss+cluster:// with some of its
    nodes, as `redis+cluster://one:6379,other:6379`.

    Every method raises Unavailable when Redis does not answer or answers with an error; after a few calls in a row
    without an answer at once, for a second each time (breaker.py). May be shared by threads.
    """

    def __init__(self, url: str, prefix: str, *, bulk_rows_per_second: int = 0) -> None:
        self.prefix = prefix
        self.state_key = f"{prefix}:state".encode()
        self.pace = Pace(bulk_rows_per_second)
        self._server_key = f"{prefix}:server".encode()
        is_cluster = url.partition("://")[0] in topology.SCHEMES
        self._redis: OneServer | Cluster = Cluster(url, prefix) if is_cluster else OneServer(url, prefix)

    # Rows.

    def row_prefix(self, group: str, version: int) -> bytes:
        """What stands before the entity key in the keys of one group version; `row_key` closes it."""
        return f"{self.prefix}:{group}:{version}:{{".encode()

    def read(self, keys: Sequence[bytes]) -> tuple[bytes | None, list[bytes | None]]:
        """The raw state and the values of `keys`, in order: in one command, on a cluster in one for each slot.

        No state where the store is cold; on a cluster also where a node of the asked keys is. A key that holds another
        Redis type reads as absent, as MGET has it.
        """
        return self._redis.read(keys)

    def pipelined(self, loop: asyncio.AbstractEventLoop) -> Pipelined | None:
        """Reads of an event loop, of `state_key` first and then of rows; None where only threads can ask."""
        return self._redis.pipelined(loop)

    def upsert(self, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """Store each (key, value) whose version is above the stored one; how many were stored.

        Safe to repeat, to reorder and to race: the highest version of each key wins in the end.
        """
        newest = newest_of_each_key(rows)
        stored = 0
        for start in range(0, len(newest), UPSERT_BATCH):
            stored += self._redis.upsert(newest[start : start + UPSERT_BATCH])
        return stored

    def scan(self, group: str, version: int) -> Iterator[list[bytes]]:
        """The keys of the rows of a group version, some thousands at a time: each that is there all the while, once or
        more often.

        Goes over every key of the Redis database, SCANNED_AT_ONCE a call, at the pace of bulk work. On a cluster raises
        Unavailable, if need be at the end, when slots were moved meanwhile.
        """
        pattern = _GLOB.sub(rb"\\\g<0>", self.row_prefix(group, version)) + b"*"
        shares = self._redis.shares_at_rest()
        for share in shares:
            yield from self._scan_of(share.node, pattern)
        if self._redis.shares_at_rest() != shares:
            raise Unavailable("Slots of the Redis Cluster were moved while its keys were gone over; try again.")

    def _scan_of(self, node: Node, pattern: bytes) -> Iterator[list[bytes]]:
        cursor, keys = 0, list[bytes]()
        while True:
            self.pace.wait(SCANNED_AT_ONCE)
            with node.asking():
                cursor, found = _scanned(node.clients["bulk"], cursor, pattern)
            keys += found
            if keys and (cursor == 0 or len(keys) >= SCANNED_KEYS):
                yield keys
                keys = []
            if cursor == 0:
                return

    def read_bulk(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order, at the pace of bulk work; None without one.

        A key that holds another Redis type has the value b"", which is no row either.
        """
        values: list[bytes | None] = []
        for start in range(0, len(keys), UPSERT_BATCH):
            batch = list(keys[start : start + UPSERT_BATCH])
            self.pace.wait(len(batch))
            values += self._with_other_types(batch, self._redis.values(batch, work="bulk"))
        return values

    def _with_other_types(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> Iterator[bytes | None]:
        """The values that MGET gave, with b"" where it gave none although the key is there."""
        asked = [key for key, value in zip(keys, values, strict=True) if value is None]
        there = iter(self._redis.exist(asked) if asked else ())
        return (value if value is not None else b"" if next(there) else None for value in values)

    def remove(self, group: str, version: int) -> int:
        """Take every row of a group version away, and before them its position; how many rows there were.

        At the pace of bulk work. Killed anywhere it goes on when it is called again.
        """
        for share in self._redis.shares():
            self._redis.command("DEL", share.key(self._position_name(group, version)), work="bulk")
        removed = 0
        for keys in self.scan(group, version):
            for start in range(0, len(keys), UPSERT_BATCH):
                batch = keys[start : start + UPSERT_BATCH]
                self.pace.wait(len(batch))
                removed += self._redis.unlink(batch)
        return removed

    def remove_row(self, key: bytes, is_unwanted: Callable[[bytes], bool]) -> bool:
        """Delete the row under `key` if its value is unwanted; whether one was deleted.

        A value that another writer stores meanwhile is looked at by itself, never deleted unseen. Raises Unavailable
        also when the key is written all the while.
        """
        for _ in range(REMOVE_ATTEMPTS):
            (value,) = self._redis.values([key], work="bulk")
            if value is not None and not is_unwanted(value):
                return False
            if self._redis.run(scripts.REMOVE, [key], [value or b""], work="bulk"):
                return True
            if value is None:
                return False
        raise Unavailable("A row that is to go is being written all the while; try again.")

    def forget_removed(self, *, seconds: float) -> str:
        """Have Redis write its file anew, as what was deleted stands in the old one; what came of it, in words.

        Waits up to `seconds` for it: raises Unavailable when it is not done by then, or failed.
        """
        ends = time.monotonic() + seconds
        done = {self._written_anew(node, ends, seconds) for node in self._nodes()}
        return ", ".join(sorted(done))

    def _written_anew(self, node: Node, ends: float, seconds: float) -> str:
        try:
            with node.asking():
                aof = server.begin_writing_anew(node.clients["bulk"])
        except Unavailable as error:
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                return "not allowed: the hub's user may not have Redis write its file anew"
            raise
        while time.monotonic() < ends:
            with node.asking():
                if server.has_written_anew(node.clients["bulk"], aof=aof):
                    return "append-only file written anew" if aof else "snapshot written anew"
            time.sleep(0.02)
        raise Unavailable(f"Redis has not written its file anew within {seconds:g} s.")

    # How far the rows go.

    def shares(self) -> tuple[Share, ...]:
        """What each server holds now; each has positions of its own."""
        return self._redis.shares()

    def position_key(self, group: str, version: int, share: Share | None = None) -> bytes:
        """Where a group version's position lies: the version of its offline table up to which the share, or the one
        server, holds it."""
        name = self._position_name(group, version)
        return share.key(name) if share else name.encode()

    def _position_name(self, group: str, version: int) -> str:
        return f"{self.prefix}:position:{group}:{version}"

    def positions(self, groups: Sequence[tuple[str, int]], shares: Sequence[Share] | None = None) -> list[int]:
        """The position of each (group, version), in order: the lowest of the shares; NOTHING without one."""
        if not groups:
            return []
        asked = self._redis.shares() if shares is None else shares
        of_shares = [self._positions_of([self.position_key(*group, share) for group in groups]) for share in asked]
        return [min(positions) for positions in zip(*of_shares, strict=True)]

    def _positions_of(self, keys: Sequence[bytes]) -> list[int]:
        return [
            int(value) if value and POSITION.fullmatch(value) else NOTHING
            for value in self._redis.values(keys, work="read")
        ]

    def step(self, rows: Sequence[tuple[bytes, bytes]], counter: str, step: int, shares: Sequence[Share]) -> bool:
        """`upsert` of a batch as one step of a filling (filling.py), counted in `counter` of each share; whether Redis
        still has every step before."""
        return self._redis.step(rows, counter, step, shares)

    def reach(self, group: tuple[str, int], counter: str, share: Share, numbers: Sequence[int]) -> bool:
        """What ends a filling (scripts.REACH) of a share; whether its new position is true."""
        keys = [self.position_key(*group, share), share.key(counter)]
        return self._redis.run(scripts.REACH, keys, numbers, work="bulk") > 0

    def carry_positions(self, servers: Sequence[Server], groups: Sequence[tuple[str, int]]) -> None:
        """Give the shares of a cluster whose slots were moved the positions of those that they come from.

        Only where that is true of sure: every server that holds something has been running since it was last known,
        when the slots lay as before, and every slot has its mark. Else the new shares have no position, and are filled.
        """
        known = self.known_servers()
        before, now = ({one.slots for one in them if one.slots} for them in (known, servers))
        state = self.state()
        if before == now or not {one.run_id for one in servers if one.slots} <= {one.run_id for one in known}:
            return
        if state is None or not self._redis.is_marked(state.epoch, everywhere=True):
            return
        for name in (self._position_name(*group) for group in groups):
            position = min(self._positions_of([key_of_share(name, slots) for slots in before]), default=NOTHING)
            for slots in now - before if position > NOTHING else ():
                self._redis.command("SET", key_of_share(name, slots), str(position), "NX", work="bulk")
            for slots in before - now:
                self._redis.command("DEL", key_of_share(name, slots), work="bulk")

    # State.

    def state(self) -> State | None:
        """The published state; None on an empty Redis, and while a node of a cluster has lost its rows."""
        raw = self._redis.get(self.state_key)
        state = None if raw is None else State.parse(raw)
        return state if state and self._redis.is_marked(state.epoch) else None

    def publish(self, state: State) -> None:
        """Raise the catalog version that readers see; nothing happens on a cold store."""
        self._redis.run(scripts.PUBLISH, [self.state_key], [state.catalog_version, state.epoch], work="write")
        self._redis.forget_state()

    def begin_filling(self, epoch: str) -> None:
        """Say that what the store holds from now on is of this epoch; on a cluster in every slot, by a mark that goes
        where its rows go."""
        self._redis.mark(epoch)

    def open_for_reading(self, state: State) -> None:
        """Declare the store filled, since `begin_filling`: from now on readers trust what it holds.

        Raises Unavailable where a node of a cluster lost its rows meanwhile, and with them its marks.
        """
        if not self._redis.is_marked(state.epoch, everywhere=True):
            raise Unavailable("A node of the Redis Cluster lost its rows while it was filled; it is filled again.")
        self._redis.command("SET", self.state_key, f"{state.catalog_version}:{state.epoch}", work="write")
        self._redis.forget_state()

    def close_for_reading(self) -> None:
        """Declare the store cold: every reader is told so by its next command; on a cluster within 100 ms."""
        self._redis.command("DEL", self.state_key, work="write")
        self._redis.forget_state()

    # The servers.

    def _nodes(self) -> list[Node]:
        return [share.node for share in self._redis.shares()]

    def servers(self) -> tuple[Server, ...]:
        """What the servers say of themselves; none when this user may not ask (INFO)."""
        try:
            found = [self._server(share.node, share.slots) for share in self._redis.shares()]
        except Unavailable as error:
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                return ()
            raise
        for node in self._redis.idle_nodes():
            with suppress(Unavailable):  # nothing of the store is lost with it
                found.append(self._server(node))
        return tuple(found)

    def _server(self, node: Node, slots: str = "") -> Server:
        with node.asking():
            return server.asked(node.clients["read"], slots)

    def known_servers(self) -> tuple[Server, ...]:
        """The servers as they were when the store was last seen to be whole; none when that was never noted."""
        raw = self._redis.get(self._server_key)
        return server.from_text((raw or b"").decode("ascii", "replace"))

    def note_servers(self, servers: Sequence[Server]) -> None:
        """Keep what the servers said for `known_servers`."""
        self._redis.command("SET", self._server_key, server.to_text(servers), work="write")

    @contextmanager
    def exclusive(self, name: str, *, seconds: float) -> Iterator[redis.lock.Lock | None]:
        """A lock in this Redis, held for `seconds` unless extended; None when another process holds it."""
        key = f"{self.prefix}:lock:{name}"
        node = self._redis.node_of(key.encode())
        lock = node.clients["bulk"].lock(key, timeout=seconds, blocking=False)
        with node.asking():
            held = lock.acquire()
        try:
            yield lock if held else None
        finally:
            if held:
                with node.asking(), suppress(redis.exceptions.LockNotOwnedError):
                    lock.release()

    def extend(self, lock: redis.lock.Lock, *, seconds: float) -> None:
        """Hold a lock for `seconds` from now on; raises Unavailable also when it is no longer held."""
        with self._redis.node_of(str(lock.name).encode()).asking():
            lock.extend(seconds, replace_ttl=True)

    def ping(self) -> None:
        """Nothing, when every server answers."""
        for node in self._nodes():
            with node.asking():
                node.clients["read"].ping()

    def close(self) -> None:
        self._redis.close()


def _scanned(client: redis.Redis, cursor: int, pattern: bytes) -> tuple[int, list[bytes]]:
    """The next cursor, and some keys."""
    try:
        return page(client.scan(cursor, match=pattern, count=SCANNED_AT_ONCE))
    except (TypeError, ValueError) as error:  # raised by what redis-py makes of an answer that is no page
        raise redis.InvalidResponse("A page of keys was asked for, and something else was answered") from error


def newest_of_each_key(rows: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
    """The rows with each key once: the one whose version bytes are highest."""
    if len(dict(rows)) == len(rows):
        return rows
    newest: dict[bytes, bytes] = {}
    for key, value in rows:
        if key not in newest or newest[key][VERSION_BYTES] < value[VERSION_BYTES]:
            newest[key] = value
    return list(newest.items())


def row_key(prefix: bytes, entity_key: bytes) -> bytes:
    """The Redis key of one row, from `OnlineStore.row_prefix` and an entity key."""
    return prefix + entity_key + b"}"


def row_keys(prefix: bytes, entity_keys: Iterable[bytes]) -> list[bytes]:
    """The same of many rows of one group version."""
    return [prefix + key + b"}" for key in entity_keys]
