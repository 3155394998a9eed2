"""Whether the online store holds what was accepted: for each key the newest row in version order, byte by byte.

What should be online are the rows of the offline table and of the push log, tombstones too. No row leaves the online
store because of its age (a TTL is minded by readers), so every key that was ever accepted has to be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from django.conf import settings

from catalog import stores
from catalog.models import FeatureGroup, RunState
from catalog.snapshot import is_current
from catalog.writable import Layouts, layouts_of
from engine import instants
from engine.entity_key import decode_key, to_id
from engine.errors import CorruptData, OnlineStoreCold, Unavailable
from engine.online.codec import decode_row
from engine.online.comparison import Comparison, Difference, Kind, Version, comparing
from engine.online.store import NOTHING
from ingestion import materialize
from ingestion.tables import known_version, require_kept

#: Differences that are told in full, of each kind.
LIMIT = 20
#: For how long what is on its way online may still come: a drain and a materialization are due every five seconds.
PATIENCE_SECONDS = 15.0
#: The same while a run of the group is at it, which may bring millions of rows.
RUN_PATIENCE_SECONDS = 600.0
#: Between two looks: longer than a push takes from its commit to its upsert.
FIRST_PAUSE_SECONDS = 0.5
PAUSE_SECONDS = 2.0

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of the comparison of one group version.

    rows:        the online rows that were compared.
    counts:      the differences of each kind; no kind without any.
    differences: the first few of each kind, by Redis key.
    followed_to: the version of the offline table that the online store claims to hold; `table_version` is the newest.
    """

    group: str
    group_version: int
    rows: int
    counts: dict[Kind, int]
    differences: list[Difference]
    followed_to: int
    table_version: int

    @property
    def total(self) -> int:
        """How many keys differ."""
        return sum(self.counts.values())

    @property
    def is_behind(self) -> bool:
        """Whether offline rows were yet to be brought online at the end."""
        return self.followed_to < self.table_version

    def id_of(self, difference: Difference) -> str | None:
        """The entity's id as it stands in a path; None for a key that is of no entity."""
        prefix = stores.online().row_prefix(self.group, self.group_version)
        values = decode_key(difference.key.removeprefix(prefix).removesuffix(b"}"))
        return None if values is None or not difference.key.endswith(b"}") else to_id(values)

    def summary(self) -> dict[str, Any]:
        """What programs read of it."""
        return {
            "group": self.group,
            "group_version": self.group_version,
            "rows": self.rows,
            "different": self.total,
            "counts": self.counts,
            "followed_to": self.followed_to,
            "table_version": self.table_version,
            "differences": [
                {
                    "kind": each.kind,
                    "id": self.id_of(each),
                    "redis_key": redis_key(each),
                    "expected": _summary(each.expected),
                    "actual": _summary(each.actual),
                }
                for each in self.differences
            ],
        }


def redis_key(difference: Difference) -> str:
    """The Redis key as text; bytes that are none are written as `\\xff`."""
    return difference.key.decode(errors="backslashreplace")


def _summary(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {
        "event_timestamp": moment(version.event_us),
        "created_timestamp": moment(version.created_us),
        "accepted": version.accepted,
        "ordinal": version.ordinal,
        "deleted": version.deleted,
    }


def moment(microseconds: int) -> str:
    """The time as RFC 3339; a number of microseconds that no calendar has, as such."""
    if instants.FIRST <= microseconds <= instants.LAST:
        return instants.rfc3339(microseconds)
    return f"{microseconds} us"


def verify(
    group: FeatureGroup,
    *,
    limit: int = LIMIT,
    patience: float = PATIENCE_SECONDS,
    progress: Progress = lambda what, rows: None,
) -> Verification:
    """Compare every online row of the group's version with the newest accepted one of its key. Changes nothing.

    Under traffic it is as right as at rest: the log is read before the table, both before the online store, and what
    does not fit then is looked at again, beside what was accepted meanwhile. An accepted row may still be on its way,
    so what is missing or old is waited for: `patience` seconds while the log or the table hold rows that may not have
    been brought online yet, RUN_PATIENCE_SECONDS while a run of the group is bringing them. What is left is reported.

    It reads and encodes the offline table once (the newest of neighbouring rows), goes over all keys of the Redis
    database once and reads the group's values once, at the pace of bulk work. Memory is bounded whatever the size; what
    does not fit is spilled. A changed row goes unseen where its 64-bit hash is that of an accepted row of its key.

    progress: told what is read, and how many rows of it so far.

    Raises OnlineStoreCold when the store, or this group, may lack rows and says so to readers; Unavailable when Redis
    does not answer or was filled anew meanwhile; CorruptData for a damaged table; StorageFull without room to spill.
    """
    epoch = _require_open(group)
    accepted = _Accepted(group)
    with comparing(Path(settings.FEATUREHUB_HOME) / "tmp") as comparison:
        _expect(comparison, accepted, partial(progress, "accepted"))
        _find_all(comparison, group, partial(progress, "online"))
        rows = comparison.found_keys()
        _settle(comparison, accepted, _Patience(group, patience))
        counts, differences = comparison.differences(limit)
    if _require_open(group) != epoch:
        raise Unavailable("The online store was filled anew while it was verified; verify it again.")
    return Verification(group.name, group.version, rows, counts, differences, *_reached(group))


def _require_open(group: FeatureGroup) -> str:
    """The epoch of the store; raises OnlineStoreCold when it may lack rows of the group and says so to readers."""
    state = stores.online().state()
    if state is None or not is_current(state):
        raise OnlineStoreCold("The online store is not filled: it is being rebuilt from the offline store.")
    damage = group.offline_damages.filter(group_version=group.version, is_missing_online=True).first()
    if damage is not None:
        raise OnlineStoreCold(
            f"Rows of {group.name} may be missing online: its offline table is damaged ({Path(damage.path).name}). "
            f"Reads of it are refused until manage.py scrub {group.name} finds it whole."
        )
    return state.epoch


class _Accepted:
    """The accepted rows of a group: at first all of them, then what was accepted since the last time."""

    def __init__(self, group: FeatureGroup) -> None:
        self.group = group
        self._reached = NOTHING

    def frames(self) -> Iterator[pl.DataFrame]:
        """A batch at a time; a row may come again. Raises CorruptData as `require_kept` does."""
        yield from materialize.frames_of_log(self.group)
        # After the log: what it no longer held is in the table.
        until = require_kept(
            stores.offline(self.group.name, self.group.version), known_version(self.group, self.group.version)
        )
        yield from materialize.frames_of(materialize.files_after(self.group, self._reached, until))
        self._reached = until


def _expect(comparison: Comparison, accepted: _Accepted, progress: Callable[[int], None]) -> None:
    """All that is accepted by now has to be online. Of neighbours the newest is enough."""
    group, rows = accepted.group, 0
    keys = [key.name for key in group.entity.join_keys.all()]
    for frame in accepted.frames():
        newest = materialize.newest_of_neighbours(frame, keys)
        comparison.expect(materialize.encoded_rows(stores.online(), group, newest, layouts_of(group)))
        rows += frame.height
        progress(rows)


def _find_all(comparison: Comparison, group: FeatureGroup, progress: Callable[[int], None]) -> None:
    store, rows = stores.online(), 0
    for keys in store.scan(group.name, group.version):
        values = zip(keys, store.read_bulk(keys), strict=True)
        comparison.find([(key, value) for key, value in values if value is not None])
        rows += len(keys)
        progress(rows)


def _settle(comparison: Comparison, accepted: _Accepted, patience: _Patience) -> None:
    """Leave only the doubts that do not go away. At least one more look is taken at each of them."""
    looks = 0
    while comparison.doubts():
        _explain(comparison, accepted)
        if not comparison.doubts() or (looks and not patience.lasts()):
            return
        time.sleep(PAUSE_SECONDS if looks else FIRST_PAUSE_SECONDS)
        _look_again(comparison, accepted.group)
        looks += 1


def _explain(comparison: Comparison, accepted: _Accepted) -> None:
    """What has been found may have been accepted meanwhile: each such row, since any of them may have been found."""
    for frame in accepted.frames():
        group = accepted.group
        comparison.explain(materialize.encoded_rows(stores.online(), group, frame, layouts_of(group)))


def _look_again(comparison: Comparison, group: FeatureGroup) -> None:
    comparison.look_again()
    layouts = layouts_of(group)
    for keys in comparison.doubtful_keys():
        values = zip(keys, stores.online().read_bulk(keys), strict=True)
        found = [(key, value) for key, value in values if value is not None]
        comparison.find(found, [_is_readable(value, layouts) for _, value in found])


def _is_readable(value: bytes, layouts: Layouts) -> bool:
    """Whether a reader would take it for a row."""
    try:
        row = decode_row(value)
    except CorruptData:
        return False
    layout = layouts.get(row.schema_id)
    has_values = layout is not None and (row.deleted or len(row.values) == len(layout))
    return has_values and instants.FIRST <= row.event_us <= instants.LAST


class _Patience:
    """How long rows that are on their way online are waited for, from now on."""

    def __init__(self, group: FeatureGroup, seconds: float) -> None:
        self._group = group
        self._seconds = seconds
        self._began = time.monotonic()

    def lasts(self) -> bool:
        """Whether rows are on their way, and there is still time for them."""
        waited = time.monotonic() - self._began
        if self._is_behind():
            is_carried_out = self._group.runs.filter(state=RunState.RUNNING).exists()
            return waited < (RUN_PATIENCE_SECONDS if is_carried_out else self._seconds)
        return waited < self._seconds and materialize.undrained(self._group).exists()

    def _is_behind(self) -> bool:
        followed_to, newest = _reached(self._group)
        return followed_to < newest


def _reached(group: FeatureGroup) -> tuple[int, int]:
    """The table's version that the online store claims to hold, and its newest one."""
    (followed_to,) = stores.online().positions([(group.name, group.version)])
    return followed_to, stores.offline(group.name, group.version).version
