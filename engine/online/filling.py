"""Bringing an offline table online and claiming, inside Redis, how far: a claim that is true of whatever Redis holds.

Redis may go back in time at any moment, also between two batches: a replica takes over, an old file is restored, a
server starts from a file that lacks the last second. What it then holds is the result of all commands up to some
earlier one. Therefore the position up to which the store holds a group's table lies in Redis, next to the rows, and
each batch raises a counter of its filling in the step that stores it. A batch that was lost leaves the counter behind,
and then the filling may not claim its position. The argument: docs/adr/0010-positions-beside-the-rows.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from engine.errors import Unavailable
from engine.online.store import UPSERT_BATCH, OnlineStore, newest_of_each_key


class Filling:
    """Rows of one group version on their way into the store.

    found: the version of the offline table up to which the store held it when this filling began, or NOTHING.
    """

    def __init__(self, store: OnlineStore, group: str, version: int) -> None:
        """Raises Unavailable when Redis does not answer."""
        self._store = store
        self._group = (group, version)
        self._counter = f"{store.prefix}:filling:{uuid.uuid4().hex}"
        self._steps = 0
        self._shares = store.shares()
        self._found = [store.positions([self._group], [share])[0] for share in self._shares]
        self.found = min(self._found)

    def upsert(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """As `OnlineStore.upsert`, at the pace of bulk work. Raises Unavailable also when Redis lost earlier rows."""
        newest = newest_of_each_key(rows)
        for start in range(0, len(newest), UPSERT_BATCH):
            batch = newest[start : start + UPSERT_BATCH]
            self._store.pace.wait(len(batch))
            self._steps += 1
            if not self._store.step(batch, self._counter, self._steps, self._shares):
                raise _lost()

    def reach(self, version: int, *, after: int) -> None:
        """Claim that the store holds the table up to `version`, given that it held it up to `after` before.

        Raises Unavailable, claiming nothing that is not true, when Redis lost something that this rests on, and when
        slots of a cluster were moved meanwhile.
        """
        if not self._steps and all(version == found for found in self._found):
            return
        if self._store.shares() != self._shares:
            raise Unavailable("Slots of the Redis Cluster were moved while rows were brought there; they come again.")
        reached = [
            self._store.reach(self._group, self._counter, share, [self._steps, after, version, found])
            for share, found in zip(self._shares, self._found, strict=True)
        ]
        if not all(reached):
            raise _lost()


def _lost() -> Unavailable:
    return Unavailable("The online store went back in time while rows were brought there; they are brought again.")
