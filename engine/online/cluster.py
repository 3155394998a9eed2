"""Rows on a Redis Cluster: each entity on the node that holds its slot, the nodes asked at the same time.

What differs from one server: a command may speak of one slot only, slots move from node to node, and one node may lose
its rows while the others keep theirs. So each slot has a mark beside its rows, the epoch of the store's contents, which
is read with them and moves with them; and the state, which lies in one slot, is read beside the rows when it is older
than STATE_SECONDS. Why it is so: docs/adr/0019-a-mark-in-every-slot.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha1

import redis
import redis.exceptions
from redis.crc import key_slot

from engine.errors import Unavailable
from engine.online import scripts
from engine.online.kept import Arguments
from engine.online.node import TIMEOUT_SECONDS, Node, Work, understanding
from engine.online.one_server import Row
from engine.online.replies import number, text, texts
from engine.online.share import SLOTS, Share, numbers, tags
from engine.online.topology import Topology

#: How old the state may be that rows are read by. A change shows within 100 ms; the other half is for the reading.
STATE_SECONDS = 0.05
#: How often a command is sent on to the node that another one names.
REDIRECTIONS = 5
#: Commands that are on their way to all nodes at a time.
COMMANDS_AT_ONCE = 2_000
TRY_AGAIN_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class _Command:
    """A command about keys of one slot. Where it runs a script by its hash, `script` is the text."""

    slot: int
    arguments: Arguments
    script: str = ""


class Cluster:
    """The cluster that the servers of `url` belong to; every method raises Unavailable. It has those of OneServer."""

    def __init__(self, url: str, prefix: str) -> None:
        self._topology = Topology(url)
        self._prefix = prefix
        self._state_key = f"{prefix}:state".encode()
        self._state: tuple[bytes | None, float] = (None, -STATE_SECONDS)

    # Rows.

    @understanding()
    def read(self, keys: Sequence[bytes]) -> tuple[bytes | None, list[bytes | None]]:
        """The raw state and the values of `keys`, in order: a command for each slot, all nodes at the same time.

        No state where the mark of a slot is not of its epoch: that slot has lost its rows, or all are being filled.
        """
        raw, read_at = self._state
        now = time.monotonic()
        places = _by_slot(keys)
        commands = [_Command(slot, ("MGET", self._mark(slot), *(keys[at] for at in ats))) for slot, ats in places]
        is_old = now - read_at >= STATE_SECONDS
        if is_old:
            commands.append(self._get_state())
        replies = self._ask(commands, "read")
        if is_old:
            raw = text(replies.pop())
            self._state = (raw, now)
        values: list[bytes | None] = [None] * len(keys)
        marks = set()
        for (_, ats), reply in zip(places, replies, strict=True):
            mark, *found = texts(reply, len(ats) + 1)
            marks.add(mark)
            for at, value in zip(ats, found, strict=True):
                values[at] = value
        if marks - {_epoch(raw)} and not is_old:
            raw = text(self._ask([self._get_state()], "read")[0])  # it may have been filled anew a moment ago
            self._state = (raw, now)
        return None if marks - {_epoch(raw)} else raw, values

    def pipelined(self, loop: asyncio.AbstractEventLoop) -> None:
        """None: which node to ask, and what to do when it is another one by now, is found out in threads."""

    def _get_state(self) -> _Command:
        return _Command(key_slot(self._state_key), ("GET", self._state_key))

    @understanding()
    def upsert(self, rows: Sequence[Row]) -> int:
        """Store each (key, value) that is newer than what is there; how many were. A key comes once."""
        return sum(number(reply) for reply in self._ask(_upserts(rows), "write", script=scripts.UPSERT))

    @understanding()
    def step(self, rows: Sequence[Row], counter: str, step: int, shares: Sequence[Share]) -> bool:
        """`upsert` as one step of a filling of these shares; whether every step before is still there.

        A node carries out what is sent on one connection in that order: whoever has a count has the rows before it.
        """
        commands = _upserts(rows)
        for share in shares:
            key = share.key(counter)
            commands += [_Command(key_slot(key), ("INCR", key)), _Command(key_slot(key), ("EXPIRE", key, 3600))]
        replies = [number(reply) for reply in self._ask(commands, "bulk", script=scripts.UPSERT)]
        return all(count == step for count in replies[len(rows) :: 2])

    @understanding()
    def values(self, keys: Sequence[bytes], *, work: Work) -> list[bytes | None]:
        """What MGET answers of `keys`."""
        places = _by_slot(keys)
        replies = self._ask([_Command(slot, ("MGET", *(keys[at] for at in ats))) for slot, ats in places], work)
        values: list[bytes | None] = [None] * len(keys)
        for (_, ats), reply in zip(places, replies, strict=True):
            for at, value in zip(ats, texts(reply, len(ats)), strict=True):
                values[at] = value
        return values

    @understanding()
    def exist(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether each key is there, of whatever type."""
        return [number(reply) > 0 for reply in self._ask([_Command(key_slot(k), ("EXISTS", k)) for k in keys], "bulk")]

    @understanding()
    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys; how many were there."""
        return sum(number(reply) for reply in self._ask([_Command(key_slot(k), ("UNLINK", k)) for k in keys], "bulk"))

    @understanding()
    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | int | str], *, work: Work) -> int:
        """What a script (scripts.py) answers whose keys are all of one slot."""
        command = _Command(key_slot(keys[0]), ("EVALSHA", _hash(script), len(keys), *keys, *arguments), script)
        return number(self._ask([command], work, script=script)[0])

    @understanding()
    def get(self, key: bytes) -> bytes | None:
        """The text under one key."""
        return text(self._ask([_Command(key_slot(key), ("GET", key))], "read")[0])

    def command(self, name: str, key: bytes, *arguments: bytes | str, work: Work) -> object:
        """What Redis answers to a command about one key."""
        return self._ask([_Command(key_slot(key), (name, key, *arguments))], work)[0]

    # Marks and state.

    def _mark(self, slot: int) -> bytes:
        return f"{self._prefix}:filled:{{{tags()[slot]}}}".encode()

    def mark(self, epoch: str) -> None:
        """Say in every slot that its rows are those of this epoch."""
        for slots in _some_at_a_time(range(SLOTS)):
            self._ask([_Command(slot, ("SET", self._mark(slot), epoch)) for slot in slots], "bulk")

    @understanding()
    def is_marked(self, epoch: str, *, everywhere: bool = False) -> bool:
        """Whether the rows of every node, or `everywhere` of every slot, are those of this epoch."""
        of_nodes = [next(numbers(master.slots)) for master in self._topology.known() if master.slots]
        all_slots = range(SLOTS) if everywhere else of_nodes
        for slots in _some_at_a_time(all_slots):
            marks = self._ask([_Command(slot, ("GET", self._mark(slot))) for slot in slots], "bulk")
            if set(map(text, marks)) != {epoch.encode()}:
                return False
        return True

    def forget_state(self) -> None:
        """Read the state with the next rows, as it was changed by this process."""
        self._state = (None, -STATE_SECONDS)

    # Nodes.

    def node_of(self, key: bytes) -> Node:
        """The node on which the key lies."""
        return self._topology.owner(key_slot(key))

    def shares(self) -> tuple[Share, ...]:
        """What each master that has slots holds, as the cluster has it now, by slot."""
        shares = (Share(master.slots, master.node) for master in self._topology.look("read") if master.slots)
        return tuple(sorted(shares, key=lambda share: next(numbers(share.slots))))

    def shares_at_rest(self) -> tuple[Share, ...]:
        """The same; raises Unavailable while slots are moved, since a key on its way would be missed."""
        shares = self.shares()
        for share in shares:
            if any(master.is_moving for master in self._topology.asked_of(share.node, "bulk")):  # each tells of its own
                raise Unavailable("Slots of the Redis Cluster are being moved; this has to wait until that is done.")
        return shares

    def idle_nodes(self) -> Iterator[Node]:
        """The masters that hold no slot yet, as of the last `shares`."""
        return (master.node for master in self._topology.known() if not master.slots)

    # Asking.

    def _ask(self, commands: Sequence[_Command], work: Work, *, script: str = "") -> list[object]:
        """A reply to each command, wherever its slot is by now; errors are raised. `script`: the one that they run."""
        replies = self._sent_at_once(commands, work, script)
        for place, (command, reply) in enumerate(zip(commands, replies, strict=True)):
            if isinstance(reply, redis.ResponseError):
                replies[place] = self._redirected(command, reply, work)
        return replies

    def _sent_at_once(self, commands: Sequence[_Command], work: Work, script: str) -> list[object]:
        by_node: dict[Node, list[int]] = {}
        for place, command in enumerate(commands):
            by_node.setdefault(self._topology.owner(command.slot), []).append(place)
        # A node that was started anew or has just taken over knows no script.
        before: list[Arguments] = [("SCRIPT", "LOAD", script)] if script else []
        ends = time.monotonic() + TIMEOUT_SECONDS[work]
        replies: list[object] = [None] * len(commands)
        with ExitStack() as stack:
            sent = []
            for node, places in by_node.items():
                with node.asking():
                    on_its_way = node.kept[work].send([*before, *(commands[place].arguments for place in places)])
                stack.callback(on_its_way.give_up)
                sent.append((node, places, on_its_way))
            for node, places, on_its_way in sent:
                with node.asking():
                    for place, reply in zip(places, on_its_way.replies(ends)[len(before) :], strict=True):
                        replies[place] = reply
        return replies

    def _redirected(self, command: _Command, error: redis.ResponseError, work: Work) -> object:
        """The reply of the node that the error names, or of the one that that one names; other errors are raised."""
        if command.arguments[0] == "MGET" and len(command.arguments) > 2 and _is_half_moved(error):
            keys = command.arguments[1:]  # some of which are here and some there
            return [value for key in keys for value in self._alone(_Command(command.slot, ("MGET", key)), work)]
        if command.script:
            command = _Command(command.slot, ("EVAL", command.script, *command.arguments[2:]))
        return self._follow(command, error, work)

    def _alone(self, command: _Command, work: Work) -> list[bytes | None]:
        return texts(self._ask([command], work)[0], 1)

    def _follow(self, command: _Command, error: redis.ResponseError, work: Work) -> object:
        for times in range(REDIRECTIONS):
            if times > 1 or isinstance(error, redis.exceptions.TryAgainError):
                time.sleep(TRY_AGAIN_SECONDS)  # the nodes do not agree yet on who has the slot, or on who has the key
            node, before = self._topology.owner(command.slot), list[Arguments]()
            if isinstance(error, redis.exceptions.AskError):
                node = self._topology.named(error, node)
                if isinstance(error, redis.exceptions.MovedError):
                    self._topology.moved(command.slot, node)
                else:
                    before = [("ASKING",)]
            elif not isinstance(error, redis.exceptions.TryAgainError | redis.exceptions.NoScriptError):
                break
            with node.asking():
                ends = time.monotonic() + TIMEOUT_SECONDS[work]
                reply = node.kept[work].send([*before, command.arguments]).replies(ends)[-1]
            if not isinstance(reply, redis.ResponseError):
                return reply
            error = reply
        with understanding():
            raise error

    def close(self) -> None:
        self._topology.close()


def _upserts(rows: Iterable[Row]) -> list[_Command]:
    sha = _hash(scripts.UPSERT)
    return [_Command(key_slot(key), ("EVALSHA", sha, 1, key, value), scripts.UPSERT) for key, value in rows]


def _hash(script: str) -> str:
    """The name that Redis gives to a script."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def _some_at_a_time(slots: Sequence[int]) -> Iterator[Sequence[int]]:
    return (slots[start : start + COMMANDS_AT_ONCE] for start in range(0, len(slots), COMMANDS_AT_ONCE))


def _by_slot(keys: Sequence[bytes]) -> list[tuple[int, list[int]]]:
    places: dict[int, list[int]] = {}
    for at, key in enumerate(keys):
        places.setdefault(key_slot(key), []).append(at)
    return list(places.items())


def _epoch(raw: bytes | None) -> bytes | None:
    return raw.partition(b":")[2] if raw else None


def _is_half_moved(error: redis.ResponseError) -> bool:
    is_asked_elsewhere = isinstance(error, redis.exceptions.AskError) and not isinstance(
        error, redis.exceptions.MovedError
    )
    return is_asked_elsewhere or isinstance(error, redis.exceptions.TryAgainError)
