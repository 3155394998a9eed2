"""The newest row of every entity in Redis: read with one command, written only by version order.

A row's key is `<prefix>:<group>:<version>:{<entity key>}`; the braces are a hash tag, so that all groups of one
entity lie in one slot and one MGET reads them. `<prefix>:state` holds what a process must know before it trusts
what it read: the catalog version and the epoch of the store's contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import redis
import redis.exceptions
import redis.lock
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import Unavailable

CONNECT_TIMEOUT_SECONDS = 0.1
READ_TIMEOUT_SECONDS = 0.2
WRITE_TIMEOUT_SECONDS = 5.0

#: Store each value whose 32 version bytes (offset 2) are above those stored under its key. The halves are read as
#: 32-bit numbers: Lua compares strings by the server's locale, and its doubles end at 2**53. Whatever is not a row of
#: ours (too short, another format, another Redis type) is overwritten, and so is another value of the same version: one
#: version is one row, so the stored bytes are damaged. A key comes once in a call. Answers how many values were stored.
UPSERT = """
local rows = redis.call('MGET', unpack(KEYS))
local newer = {}
for i, old in ipairs(rows) do
  local new, wins = ARGV[i], true
  if old and #old >= 34 and string.byte(old) == 1 then
    local n = {struct.unpack('>I4I4I4I4I4I4I4I4', new, 3)}
    local o = {struct.unpack('>I4I4I4I4I4I4I4I4', old, 3)}
    wins = new ~= old
    for half = 1, 8 do
      if n[half] ~= o[half] then wins = n[half] > o[half]; break end
    end
  end
  if wins then
    newer[#newer + 1] = KEYS[i]
    newer[#newer + 1] = new
  end
end
if #newer > 0 then redis.call('MSET', unpack(newer)) end
return #newer / 2
"""

#: Raise the catalog version of a store that holds this epoch; a cold store, or a later version, is left alone.
PUBLISH = """
local read = redis.call('GET', KEYS[1])
if not read then return 0 end
local version, epoch = string.match(read, '^(%d+):(.*)$')
if epoch ~= ARGV[2] or tonumber(version) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1
"""

#: Where the version of a row lies in its value (codec.py); compared as bytes it is the version order.
VERSION_BYTES = slice(2, 34)

STATE = re.compile(rb"(\d{1,18}):([0-9a-f]{1,32})")

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
    """Rows and state under one key prefix of one Redis. `url` is redis://, rediss:// or unix://."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self.state_key = f"{prefix}:state".encode()
        self._reader = _client(url, READ_TIMEOUT_SECONDS)
        self._writer = _client(url, WRITE_TIMEOUT_SECONDS)
        self._upsert = self._writer.register_script(UPSERT)
        self._publish = self._writer.register_script(PUBLISH)

    def row_prefix(self, group: str, version: int) -> bytes:
        """What stands before the entity key in the keys of one group version; `row_key` closes it."""
        return f"{self.prefix}:{group}:{version}:{{".encode()

    def read(self, keys: Sequence[bytes]) -> tuple[bytes | None, list[bytes | None]]:
        """The raw state and the values of `keys`, in order, in one command; raises Unavailable.

        A key that holds another Redis type reads as absent, as MGET has it.
        """
        with redis_errors():
            state, *values = cast(list[bytes | None], self._reader.mget([self.state_key, *keys]))
        return state, values

    def upsert(self, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """Store each (key, value) whose version is above the stored one; how many were stored. Raises Unavailable.

        Safe to repeat, to reorder and to race: the highest version of each key wins in the end.
        """
        newest = _newest_of_each_key(rows)
        stored = 0
        with redis_errors():
            for start in range(0, len(newest), UPSERT_BATCH):
                batch = newest[start : start + UPSERT_BATCH]
                stored += self._upsert(keys=[key for key, _ in batch], args=[value for _, value in batch])
        return stored

    def state(self) -> State | None:
        """The published state; None on an empty Redis."""
        with redis_errors():
            raw = cast(bytes | None, self._reader.get(self.state_key))
        return None if raw is None else State.parse(raw)

    def publish(self, state: State) -> None:
        """Raise the catalog version that readers see; nothing happens on a cold store. Raises Unavailable."""
        with redis_errors():
            self._publish(keys=[self.state_key], args=[state.catalog_version, state.epoch])

    def open_for_reading(self, state: State) -> None:
        """Declare the store filled: from now on readers trust what it holds. Raises Unavailable."""
        with redis_errors():
            self._writer.set(self.state_key, f"{state.catalog_version}:{state.epoch}")

    @contextmanager
    def exclusive(self, name: str, *, seconds: float) -> Iterator[redis.lock.Lock | None]:
        """A lock in this Redis, held for `seconds` unless extended; None when another process holds it."""
        lock = self._writer.lock(f"{self.prefix}:lock:{name}", timeout=seconds, blocking=False)
        with redis_errors():
            held = lock.acquire()
        try:
            yield lock if held else None
        finally:
            if held:
                with redis_errors(), suppress(redis.exceptions.LockNotOwnedError):
                    lock.release()

    def ping(self) -> None:
        """Raises Unavailable when Redis does not answer in time."""
        with redis_errors():
            self._reader.ping()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _newest_of_each_key(rows: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
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


def _client(url: str, timeout_seconds: float) -> redis.Redis:
    # redis-py's own defaults retry ten times and take 4 s to notice a dead server.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turns every way in which Redis fails to answer into Unavailable."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise Unavailable(f"The online store does not answer: {error}") from error
