"""The newest row of every entity in Redis: read with one command, written only by version order.

A row's key is `<prefix>:<group>:<version>:{<entity key>}`; the braces are a hash tag, so that all groups of one
entity lie in one slot and one MGET reads them. `<prefix>:state` holds what a process must know before it trusts
what it read: the catalog version and the epoch of the store's contents.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, cast

import redis
import redis.exceptions
import redis.lock
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import Unavailable
from engine.online import scripts
from engine.online.breaker import Breaker
from engine.online.kept import KeptConnections
from engine.online.pace import Pace

CONNECT_TIMEOUT_SECONDS = 0.1
READ_TIMEOUT_SECONDS = 0.2
#: A push has somebody waiting for its answer; what Redis does not take in this time is brought later.
WRITE_TIMEOUT_SECONDS = 1.0
#: Nobody waits for bulk work, and its calls are the longest.
BULK_TIMEOUT_SECONDS = 5.0

#: What says that nobody is there or that somebody hangs, as against a server that answers with an error.
NO_ANSWER = (redis.ConnectionError, redis.TimeoutError, OSError)

#: Where the version of a row lies in its value (codec.py); compared as bytes it is the version order.
VERSION_BYTES = slice(2, 34)

STATE = re.compile(rb"(\d{1,18}):([0-9a-f]{1,32})")
POSITION = re.compile(rb"-1|\d{1,15}")
SERVER = re.compile(r"([0-9a-zA-Z]{0,64}):(\d{1,18}):([a-z-]{0,32})")
#: The position of a store that holds nothing of a table.
NOTHING = -1

_TEXT = frozenset((bytes, type(None)))

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


@dataclass(frozen=True, slots=True)
class Server:
    """What a Redis says of itself that bears on whether it keeps rows.

    run_id: another one after each start. evicted_keys: removed for want of memory since then, by `policy`.
    """

    run_id: str
    evicted_keys: int
    policy: str

    @property
    def evicts_rows(self) -> bool:
        """Whether rows go when memory is short: volatile policies touch only keys that expire, and no row does."""
        return self.policy.startswith("allkeys-")

    def may_have_evicted_since(self, known: Server | None) -> bool:
        """Whether rows may have gone since the server was `known`; None for a store that never knew it."""
        if self.policy.startswith("volatile-"):
            return False
        if known is not None and known.run_id == self.run_id:
            return self.evicted_keys > known.evicted_keys
        before_this_start = known is not None and (known.evicts_rows or self.evicts_rows)
        return self.evicted_keys > 0 or before_this_start


class OnlineStore:
    """Rows and state under one key prefix of one Redis. `url` is redis://, rediss:// or unix://.

    Every method raises Unavailable when Redis does not answer or answers with an error; after a few calls in a row
    without an answer at once, for a second each time (breaker.py). May be shared by threads.
    """

    def __init__(self, url: str, prefix: str, *, bulk_rows_per_second: int = 0) -> None:
        self.prefix = prefix
        self.state_key = f"{prefix}:state".encode()
        self.pace = Pace(bulk_rows_per_second)
        self._server_key = f"{prefix}:server".encode()
        self._breaker = Breaker()
        self._reader = _client(url, READ_TIMEOUT_SECONDS)
        self._kept = KeptConnections(self._reader)
        self._writer = _client(url, WRITE_TIMEOUT_SECONDS)
        self._bulk = _client(url, BULK_TIMEOUT_SECONDS)
        self._upsert = self._writer.register_script(scripts.UPSERT)
        self._publish = self._writer.register_script(scripts.PUBLISH)
        self._remove = self._bulk.register_script(scripts.REMOVE)
        self._bulk_scripts = {
            "step": self._bulk.register_script(scripts.STEP),
            "reach": self._bulk.register_script(scripts.REACH),
        }

    # Rows.

    def row_prefix(self, group: str, version: int) -> bytes:
        """What stands before the entity key in the keys of one group version; `row_key` closes it."""
        return f"{self.prefix}:{group}:{version}:{{".encode()

    def read(self, keys: Sequence[bytes]) -> tuple[bytes | None, list[bytes | None]]:
        """The raw state and the values of `keys`, in order, in one command.

        A key that holds another Redis type reads as absent, as MGET has it.
        """
        with self.asking():
            state, *values = _texts(self._kept.mget([self.state_key, *keys]), len(keys) + 1)
        return state, values

    def upsert(self, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """Store each (key, value) whose version is above the stored one; how many were stored.

        Safe to repeat, to reorder and to race: the highest version of each key wins in the end.
        """
        newest = newest_of_each_key(rows)
        stored = 0
        for start in range(0, len(newest), UPSERT_BATCH):
            batch = newest[start : start + UPSERT_BATCH]
            with self.asking():
                stored += _number(self._upsert(keys=[key for key, _ in batch], args=[value for _, value in batch]))
        return stored

    def scan(self, group: str, version: int) -> Iterator[list[bytes]]:
        """The keys of the rows of a group version, some thousands at a time: each that is there all the while, once or
        more often.

        Goes over every key of the Redis database, SCANNED_AT_ONCE a call, at the pace of bulk work.
        """
        pattern = _GLOB.sub(rb"\\\g<0>", self.row_prefix(group, version)) + b"*"
        cursor, keys = 0, list[bytes]()
        while True:
            self.pace.wait(SCANNED_AT_ONCE)
            with self.asking():
                cursor, found = _page(self._bulk, cursor, pattern)
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
            with self.asking():
                values += _with_other_types(self._bulk, batch, _texts(self._bulk.mget(batch), len(batch)))
        return values

    def remove(self, group: str, version: int) -> int:
        """Take every row of a group version away, and before them its position; how many rows there were.

        At the pace of bulk work. Killed anywhere it goes on when it is called again.
        """
        with self.asking():
            self._bulk.delete(self.position_key(group, version))
        removed = 0
        for keys in self.scan(group, version):
            for start in range(0, len(keys), UPSERT_BATCH):
                batch = keys[start : start + UPSERT_BATCH]
                self.pace.wait(len(batch))
                with self.asking():
                    removed += _number(self._bulk.unlink(*batch))  # which frees the memory beside Redis's one thread
        return removed

    def remove_row(self, key: bytes, is_unwanted: Callable[[bytes], bool]) -> bool:
        """Delete the row under `key` if its value is unwanted; whether one was deleted.

        A value that another writer stores meanwhile is looked at by itself, never deleted unseen. Raises Unavailable
        also when the key is written all the while.
        """
        for _ in range(REMOVE_ATTEMPTS):
            with self.asking():
                (value,) = _texts(self._bulk.mget([key]), 1)
                if value is not None and not is_unwanted(value):
                    return False
                if _number(self._remove(keys=[key], args=[value or b""])):
                    return True
                if value is None:
                    return False
        raise Unavailable("A row that is to go is being written all the while; try again.")

    def forget_removed(self, *, seconds: float) -> str:
        """Have Redis write its file anew, as what was deleted stands in the old one; what came of it, in words.

        Waits up to `seconds` for it: raises Unavailable when it is not done by then, or failed.
        """
        try:
            with self.asking():
                aof = bool(_persistence(self._bulk)["aof_enabled"])
                _write_anew(self._bulk, aof=aof)
        except Unavailable as error:
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                return "not allowed: the hub's user may not have Redis write its file anew"
            raise
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with self.asking():
                found = _persistence(self._bulk)
            if not any(found.get(name) for name in _WRITING):
                if found["aof_last_bgrewrite_status" if aof else "rdb_last_bgsave_status"] != "ok":
                    raise Unavailable("Redis could not write its file anew; its log says why.")
                return "append-only file written anew" if aof else "snapshot written anew"
            time.sleep(0.02)
        raise Unavailable(f"Redis has not written its file anew within {seconds:g} s.")

    def run_bulk(self, script: Literal["step", "reach"], keys: list[bytes], arguments: Sequence[bytes | int]) -> int:
        """What a script of bulk work answers (scripts.py)."""
        with self.asking():
            return _number(self._bulk_scripts[script](keys=keys, args=arguments))

    # How far the rows go.

    def position_key(self, group: str, version: int) -> bytes:
        """Where a group version's position lies: the version of its offline table up to which the store holds it."""
        return f"{self.prefix}:position:{group}:{version}".encode()

    def positions(self, groups: Sequence[tuple[str, int]]) -> list[int]:
        """The position of each (group, version), in order; NOTHING without one."""
        if not groups:
            return []
        keys = [self.position_key(*group) for group in groups]
        with self.asking():
            found = _texts(self._reader.mget(keys), len(keys))
        return [int(text) if text and POSITION.fullmatch(text) else NOTHING for text in found]

    # State.

    def state(self) -> State | None:
        """The published state; None on an empty Redis."""
        with self.asking():
            (raw,) = _texts([self._reader.get(self.state_key)], 1)
        return None if raw is None else State.parse(raw)

    def publish(self, state: State) -> None:
        """Raise the catalog version that readers see; nothing happens on a cold store."""
        with self.asking():
            self._publish(keys=[self.state_key], args=[state.catalog_version, state.epoch])

    def open_for_reading(self, state: State) -> None:
        """Declare the store filled: from now on readers trust what it holds."""
        with self.asking():
            self._writer.set(self.state_key, f"{state.catalog_version}:{state.epoch}")

    def close_for_reading(self) -> None:
        """Declare the store cold: every reader is told so by its next command."""
        with self.asking():
            self._writer.delete(self.state_key)

    # The server.

    def server(self) -> Server | None:
        """What the server says of itself; None when this user may not ask (INFO)."""
        try:
            with self.asking():
                return _server(self._reader)
        except Unavailable as error:
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                return None
            raise

    def known_server(self) -> Server | None:
        """The server as it was when the store was last seen to be whole; None when that was never noted."""
        with self.asking():
            (raw,) = _texts([self._reader.get(self._server_key)], 1)
        match = SERVER.fullmatch((raw or b"").decode("ascii", "replace"))
        return Server(match[1], int(match[2]), match[3]) if match else None

    def note_server(self, server: Server) -> None:
        """Keep what the server said for `known_server`."""
        with self.asking():
            self._writer.set(self._server_key, f"{server.run_id}:{server.evicted_keys}:{server.policy}")

    @contextmanager
    def exclusive(self, name: str, *, seconds: float) -> Iterator[redis.lock.Lock | None]:
        """A lock in this Redis, held for `seconds` unless extended; None when another process holds it."""
        lock = self._bulk.lock(f"{self.prefix}:lock:{name}", timeout=seconds, blocking=False)
        with self.asking():
            held = lock.acquire()
        try:
            yield lock if held else None
        finally:
            if held:
                with self.asking(), suppress(redis.exceptions.LockNotOwnedError):
                    lock.release()

    def extend(self, lock: redis.lock.Lock, *, seconds: float) -> None:
        """Hold a lock for `seconds` from now on; raises Unavailable also when it is no longer held."""
        with self.asking():
            lock.extend(seconds, replace_ttl=True)

    def ping(self) -> None:
        """Nothing, when Redis answers."""
        with self.asking():
            self._reader.ping()

    def close(self) -> None:
        for client in (self._kept, self._reader, self._writer, self._bulk):
            client.close()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Turns every way in which Redis fails to answer into Unavailable."""
        if self._breaker.is_open:
            self._find_out_whether_it_is_back()
        try:
            yield
        except NO_ANSWER as error:
            self._breaker.failed()
            raise Unavailable(f"The online store does not answer: {error}") from error
        except redis.RedisError as error:
            self._breaker.answered()
            raise Unavailable(f"The online store answers with an error: {error}") from error
        self._breaker.answered()

    def _find_out_whether_it_is_back(self) -> None:
        """By a call that costs the least when it is not; raises Unavailable then, and while another one is at it."""
        if not self._breaker.claims_probe():
            raise Unavailable("The online store does not answer: it did not a moment ago.")
        try:
            self._reader.ping()
        except NO_ANSWER as error:
            self._breaker.failed()
            raise Unavailable(f"The online store does not answer: {error}") from error
        except redis.RedisError:
            pass  # an error is an answer; what is asked next gets its own
        self._breaker.answered()


def _texts(reply: object, count: int) -> list[bytes | None]:
    """A reply of so many texts; raises InvalidResponse for any other."""
    if not isinstance(reply, list) or len(reply) != count or not _TEXT.issuperset(map(type, reply)):
        raise redis.InvalidResponse(f"{count} texts were asked for, and something else was answered")
    return reply


def _page(client: redis.Redis, cursor: int, pattern: bytes) -> tuple[int, list[bytes]]:
    """The next cursor of a SCAN, 0 at its end, and some keys; raises InvalidResponse for anything else."""
    try:
        following, keys = client.scan(cursor, match=pattern, count=SCANNED_AT_ONCE)
        return int(following), [bytes(memoryview(key)) for key in keys]  # type: ignore[arg-type]  # no text gets by
    except (TypeError, ValueError) as error:  # redis-py takes any answer for a page
        raise redis.InvalidResponse("A page of keys was asked for, and something else was answered") from error


def _with_other_types(client: redis.Redis, keys: Sequence[bytes], values: list[bytes | None]) -> Iterator[bytes | None]:
    """The values that MGET gave, with b"" where it gave none although the key is there."""
    asked = [key for key, value in zip(keys, values, strict=True) if value is None]
    if not asked:
        return iter(values)
    with client.pipeline(transaction=False) as pipeline:
        for key in asked:
            pipeline.exists(key)
        there = iter(map(_number, pipeline.execute()))
    return (value if value is not None else b"" if next(there) else None for value in values)


#: What Redis is at while it writes its file anew.
_WRITING = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")


def _persistence(client: redis.Redis) -> dict[str, object]:
    found = client.info("persistence")
    if not isinstance(found, dict) or "aof_enabled" not in found:
        raise redis.InvalidResponse("INFO was asked for, and something else was answered")
    return found


def _write_anew(client: redis.Redis, *, aof: bool) -> None:
    try:
        if aof:
            client.bgrewriteaof()
        else:
            client.bgsave(schedule=True)
    except redis.ResponseError as error:
        if "already in progress" not in str(error):  # one that began before: it is waited for, and asked for again
            raise
        time.sleep(0.2)
        _write_anew(client, aof=aof)


def _server(client: redis.Redis) -> Server:
    try:
        info = client.info()
        return Server(str(info["run_id"]), int(info.get("evicted_keys", 0)), str(info.get("maxmemory_policy", "")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # redis-py takes any answer for the text of INFO
        raise redis.InvalidResponse("INFO was asked for, and something else was answered") from error


def _number(reply: object) -> int:
    """A reply that is a whole number; raises InvalidResponse for any other."""
    try:
        return int(cast(int | bytes, reply))
    except (TypeError, ValueError) as error:
        raise redis.InvalidResponse("A number was asked for, and something else was answered") from error


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


def _client(url: str, timeout_seconds: float) -> redis.Redis:
    # redis-py's own defaults retry ten times and take 4 s to notice a dead server.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
