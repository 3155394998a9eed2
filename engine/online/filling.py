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
        self._position_key = store.position_key(group, version)
        self._counter_key = f"{store.prefix}:filling:{uuid.uuid4().hex}".encode()
        self._steps = 0
        (self.found,) = store.positions([(group, version)])

    def upsert(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """As `OnlineStore.upsert`, at the pace of bulk work. Raises Unavailable also when Redis lost earlier rows."""
        newest = newest_of_each_key(rows)
        for start in range(0, len(newest), UPSERT_BATCH):
            batch = newest[start : start + UPSERT_BATCH]
            self._store.pace.wait(len(batch))
            self._steps += 1
            keys = [key for key, _ in batch]
            values: list[bytes | int] = [value for _, value in batch]
            if self._store.run_bulk("step", [*keys, self._counter_key], [*values, self._steps]) < 0:
                raise _lost()

    def reach(self, version: int, *, after: int) -> None:
        """Claim that the store holds the table up to `version`, given that it held it up to `after` before.

        Raises Unavailable, claiming nothing, when Redis lost something that this rests on.
        """
        if version == self.found and not self._steps:
            return
        arguments = [self._steps, after, version, self.found]
        if not self._store.run_bulk("reach", [self._position_key, self._counter_key], arguments):
            raise _lost()


def _lost() -> Unavailable:
    return Unavailable("The online store went back in time while rows were brought there; they are brought again.")
