"""What a read may show: values of one row that was sent for that very key, never one older than was shown before.

"Older" is by version order, which the offline tables tell at the end; so what was read is kept and judged then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from tests.model.history import FEATURES, Fault, History, Reading, Row
from tests.model.stored import GroupKey, Tables, Version

NOTHING: Version = ()
_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one read said of one key in one group, feature by feature; `event` is the row's event timestamp."""

    group: str
    key: str
    values: Mapping[str, Any]
    statuses: Mapping[str, str]
    event: datetime | None


@dataclass(frozen=True, slots=True)
class Rewind:
    """Redis went back to a file of its own: what was there at `at` may be missing until `until`, seconds since 1970."""

    at: float
    until: float


def sight_of(answer: Answer, history: History, *, begun: float, ended: float) -> Reading | Fault:
    """The answer as one of the three things that a read may show, or what is wrong with it."""
    where = f"{answer.group} {answer.key}"
    statuses = {answer.statuses[name] for name in FEATURES}
    has_values = any(answer.values[name] is not None for name in FEATURES)
    if statuses == {"NOT_FOUND"} and not has_values:
        return Reading(answer.group, answer.key, begun, ended, "nothing")
    if statuses == {"OUTSIDE_MAX_AGE"} and not has_values and answer.event:
        return Reading(answer.group, answer.key, begun, ended, "too old", event=answer.event)
    if not statuses <= {"PRESENT", "NULL_VALUE"}:
        return Fault("wrong status", f"{where}: {dict(answer.statuses)} with {dict(answer.values)}")
    row = history.row(answer.group, answer.values["operation"], answer.values["number"])
    if row is None:
        return Fault("stray value", f"{where}: nobody sent {dict(answer.values)}")
    wrong = _wrong_values(row, answer)
    return wrong or Reading(answer.group, answer.key, begun, ended, "row", row, answer.event)


def _wrong_values(row: Row, answer: Answer) -> Fault | None:
    where = f"{answer.group} {answer.key}"
    if row.key != answer.key:
        return Fault("another key's value", f"{where}: shows row {row.operation}/{row.number} of {row.key}")
    if wrong := _unlike(row, answer):
        return Fault("torn value", f"{where}: row {row.operation}/{row.number} with another {wrong}")
    return None


def _unlike(row: Row, answer: Answer) -> str:
    wanted = {name: (value, "NULL_VALUE" if value is None else "PRESENT") for name, value in row.values.items()}
    wrong = [name for name, pair in wanted.items() if (answer.values[name], answer.statuses[name]) != pair]
    return ", ".join(wrong + ["event timestamp"] * (answer.event != row.event))


def expected(group: str, key: str, tables: Tables, *, ttl: timedelta | None, now: datetime) -> Reading:
    """What a read at `now` has to show, by the newest row in the tables."""
    newest = tables.newest.get((group, key))
    if newest is None or newest["_deleted"]:
        return Reading(group, key, 0, 0, "nothing")
    event = newest["event_timestamp"]
    if ttl is not None and now - event > ttl:
        return Reading(group, key, 0, 0, "too old", event=event)
    values = {name: newest[name] for name in ("operation", "number", "amount")}
    return Reading(group, key, 0, 0, "row", Row(group, key, event, **values), event)


def difference(shown: Reading, wanted: Reading, *, where: str) -> Fault | None:
    """How a read at the end differs from what it has to show."""
    if _seen(shown) == _seen(wanted):
        return None
    return Fault(
        "wrong value at the end", f"{where} {wanted.group} {wanted.key}: {_seen(shown)} is not {_seen(wanted)}"
    )


def _seen(reading: Reading) -> tuple[Any, ...]:
    row = reading.row
    return (reading.sight, reading.event, (row.operation, row.number) if row else None)


# What was shown, in the order in which it was.


def out_of_order(history: History, tables: Tables, rewinds: Sequence[Rewind]) -> tuple[list[Fault], int]:
    """Reads that showed less than what had been acknowledged as applied, or shown, before they begun; and how many did
    so while Redis was known to have gone back to an old file, which the hub notices and mends in a moment.
    """
    found: list[Fault] = []
    excused = 0
    promises = {key: sorted(made, key=_moment) for key, made in _promises(history, tables).items()}
    floors = {key: list(accumulate((each.version for each in made), max)) for key, made in promises.items()}
    for reading in history.readings:
        key = (reading.group, reading.key)
        newest = _newest(reading, tables)
        before = bisect_left(promises.get(key, ()), reading.begun, key=_moment)
        floor = floors[key][before - 1] if before else NOTHING
        if reading.row and not newest:
            found.append(Fault("vanished row", f"{_told(reading)} was shown and is not stored"))
        elif newest < floor:
            if _is_excused(newest, promises[key][:before], reading, rewinds):
                excused += 1
            else:
                promise = next(each for each in promises[key] if each.version == floor)
                found.append(Fault("older value", f"{_told(reading)} was shown after {promise}"))
    return found, excused


@dataclass(frozen=True, slots=True)
class _Promise:
    """From `moment` on `version` or a newer one has to be shown; what says so was `begun` before."""

    begun: float
    moment: float
    version: Version


def _moment(promise: _Promise) -> float:
    return promise.moment


def _promises(history: History, tables: Tables) -> Mapping[GroupKey, list[_Promise]]:
    """What was answered as applied, and what was shown, by group and key."""
    promises: dict[GroupKey, list[_Promise]] = defaultdict(list)
    for operation, row in history.rows():
        stored = tables.versions(row)
        for attempt in operation.attempts if stored else ():
            if attempt.is_applied:
                promises[row.group, row.key].append(_Promise(attempt.begun, attempt.ended, stored[0]))
    for reading in history.readings:
        if oldest := _oldest(reading, tables):
            promises[reading.group, reading.key].append(_Promise(reading.begun, reading.ended, oldest))
    return promises


def _oldest(reading: Reading, tables: Tables) -> Version:
    """The lowest version that what was shown may have."""
    if reading.row:
        return next(iter(tables.versions(reading.row)), NOTHING)
    return (reading.event,) if reading.event else NOTHING


def _newest(reading: Reading, tables: Tables) -> Version:
    """The highest version that what was shown may have; the values of a row that is too old are withheld."""
    if reading.row:
        return next(iter(reversed(tables.versions(reading.row))), NOTHING)
    if reading.event:
        return (reading.event, _LAST_MOMENT)
    return max(tables.deletions.get((reading.group, reading.key), ()), default=NOTHING)


def _is_excused(newest: Version, promises: Sequence[_Promise], reading: Reading, rewinds: Sequence[Rewind]) -> bool:
    """Whether Redis had lost what was promised, and nothing newer has been promised since.

    A promise that began before Redis was killed and was heard afterwards is one that was lost.
    """
    lost = [rewind.at for rewind in rewinds if rewind.at <= reading.ended and reading.begun < rewind.until]
    since = max(lost, default=float("inf"))
    return bool(lost) and all(promise.version <= newest for promise in promises if promise.begun > since)


def _told(reading: Reading) -> str:
    what = f"row {reading.row.operation}/{reading.row.number}" if reading.row else reading.sight
    return f"{reading.group} {reading.key}: {what} at {reading.event}, read from {reading.begun} to {reading.ended},"
