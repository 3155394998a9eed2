"""What a Redis server says of itself, as far as it bears on whether it keeps rows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import redis

from engine.errors import Unavailable

_SERVER = re.compile(r"([0-9a-zA-Z]{0,64}):(\d{1,18}):([a-z-]{0,32})(?::([0-9,-]*))?")
#: What Redis is at while it writes its file anew.
_WRITING = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")


@dataclass(frozen=True, slots=True)
class Server:
    """One server, as it was when it was asked.

    run_id: another one after each start. evicted_keys: removed for want of memory since then, by `policy`.
    slots: of a cluster those that it held, as `0-5460,7000`.
    """

    run_id: str
    evicted_keys: int
    policy: str
    slots: str = ""

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


def may_have_evicted(servers: Iterable[Server], known: Sequence[Server]) -> bool:
    """Whether one of them may have evicted rows since they were `known`.

    One that was started anew is held against whichever known one evicts rows: any of them may be the one that it was.
    """
    worst = max(known, key=lambda one: one.evicts_rows, default=None)
    by_run = {one.run_id: one for one in known}
    return any(server.may_have_evicted_since(by_run.get(server.run_id, worst)) for server in servers)


def to_text(servers: Iterable[Server]) -> str:
    """The servers as one text, for `from_text`."""
    return ";".join(
        f"{server.run_id}:{server.evicted_keys}:{server.policy}" + (f":{server.slots}" if server.slots else "")
        for server in servers
    )


def from_text(text: str) -> tuple[Server, ...]:
    """The servers that `to_text` wrote; none where one of them cannot be read."""
    matches = [_SERVER.fullmatch(part) for part in text.split(";")]
    found = [Server(match[1], int(match[2]), match[3], match[4] or "") for match in matches if match]
    return tuple(found) if len(found) == len(matches) else ()


def asked(client: redis.Redis, slots: str = "") -> Server:
    """What the server of `client` says of itself."""
    try:
        info = client.info()
        evicted, policy = int(info.get("evicted_keys", 0)), str(info.get("maxmemory_policy", ""))
        return Server(str(info["run_id"]), evicted, policy, slots)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # redis-py takes any answer for the text of INFO
        raise redis.InvalidResponse("INFO was asked for, and something else was answered") from error


def begin_writing_anew(client: redis.Redis) -> bool:
    """Have the server write its file anew, from what it holds now; whether that is its append-only file."""
    aof = bool(_persistence(client)["aof_enabled"])
    try:
        if aof:
            client.bgrewriteaof()
        else:
            client.bgsave(schedule=True)
    except redis.ResponseError as error:
        if "already in progress" not in str(error):  # one that began before: it is waited for, and asked for again
            raise
        time.sleep(0.2)
        return begin_writing_anew(client)
    return aof


def has_written_anew(client: redis.Redis, *, aof: bool) -> bool:
    """Whether the server is done with it. Raises Unavailable when it failed."""
    found = _persistence(client)
    if any(found.get(name) for name in _WRITING):
        return False
    if found["aof_last_bgrewrite_status" if aof else "rdb_last_bgsave_status"] != "ok":
        raise Unavailable("Redis could not write its file anew; its log says why.")
    return True


def _persistence(client: redis.Redis) -> dict[str, object]:
    found = client.info("persistence")
    if not isinstance(found, dict) or "aof_enabled" not in found:
        raise redis.InvalidResponse("INFO was asked for, and something else was answered")
    return found
