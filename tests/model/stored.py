"""What must be in the offline tables at the end: every acknowledged row once, nothing that was refused, each as sent.

The tables then give what the clients cannot know: which unknown operations were done, and each row's place in the
version order. That place is checked too, as far as the clients' clocks tell it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.model.history import Fault, History, Operation, Row
from tests.oracle import version

Stored = dict[str, Any]
#: (event time, created time, acceptance number, ordinal): design rule 2.
Version = tuple[Any, ...]
GroupKey = tuple[str, str]

#: Seconds by which a time of the database may lie before the client's: SQLite rounds to milliseconds.
ROUNDING = 0.002


@dataclass
class Tables:
    """The stored rows by what they are: rows under (group, operation, number), tombstones under (group, key, event)."""

    rows: dict[tuple[str, int, int], list[Stored]] = field(default_factory=lambda: defaultdict(list))
    tombstones: dict[tuple[str, str, datetime], list[Stored]] = field(default_factory=lambda: defaultdict(list))
    deletions: dict[GroupKey, list[Version]] = field(default_factory=lambda: defaultdict(list))
    newest: dict[GroupKey, Stored] = field(default_factory=dict)

    def versions(self, row: Row) -> list[Version]:
        """Where the copies of a row stand in the version order, oldest first."""
        if row.deleted:
            return sorted(map(version, self.tombstones.get((row.group, row.key, row.event), ())))
        return sorted(map(version, self.rows.get((row.group, row.operation, row.number), ())))


def tables_of(stored: Mapping[str, Iterable[Stored]]) -> Tables:
    """The offline rows of each group, sorted out."""
    tables = Tables()
    for group, rows in stored.items():
        for row in rows:
            key = row["customer_id"]
            if row["_deleted"]:
                tables.tombstones[group, key, row["event_timestamp"]].append(row)
                tables.deletions[group, key].append(version(row))
            else:
                tables.rows[group, row["operation"], row["number"]].append(row)
            best = tables.newest.get((group, key))
            if best is None or version(row) > version(best):
                tables.newest[group, key] = row
    return tables


def faults_of(history: History, tables: Tables) -> list[Fault]:
    """Everything that is wrong with the tables."""
    found = list(_strangers(history, tables))
    for operation in history.operations.values():
        found += _miscounted(operation, tables)
        found += _misplaced(operation, tables)
    found += _miscounted_tombstones(history, tables)
    found += _out_of_order(history, tables)
    return found


def _strangers(history: History, tables: Tables) -> Iterator[Fault]:
    for (group, operation, number), copies in tables.rows.items():
        row = history.row(group, operation, number)
        if row is None:
            yield Fault("stray row", f"{group} holds a row {operation}/{number} that nobody sent")
            continue
        for stored in copies:
            if wrong := _unlike(row, stored):
                yield Fault("torn row", f"{group} {row.key}: row {operation}/{number} is stored with another {wrong}")


def _unlike(row: Row, stored: Stored) -> str:
    """The columns in which a stored row is not what was sent."""
    wanted = row.values | {"customer_id": row.key, "event_timestamp": row.event}
    if row.created is not None:
        wanted["created_timestamp"] = row.created
    return ", ".join(name for name, value in wanted.items() if stored[name] != value)


def _miscounted(operation: Operation, tables: Tables) -> Iterator[Fault]:
    """Rows that are there too often or not often enough; an attempt lands with all of its rows or with none."""
    least, most = operation.copies
    if operation.kind != "file" and not all(row.is_valid for row in operation.rows):
        least = most = 0  # a push with a bad row is refused whole; of a file the good rows are kept
    times: set[float] = set()
    for row, in_request in Counter(row for row in operation.rows if not row.deleted).items():
        found = len(tables.versions(row))
        said = f"{row.group} {row.key}: row {row.operation}/{row.number} of {operation.kind}, {operation.outcome}"
        if not row.is_valid or most == 0:
            if found:
                yield Fault("refused row", f"{said}, is stored {found} times")
            continue
        if found < least * in_request:
            yield Fault("lost row", f"{said}, is stored {found} times instead of {least * in_request}")
        elif found > most * in_request:
            yield Fault("doubled row", f"{said}, is stored {found} times instead of at most {most * in_request}")
        times.add(found / in_request)
    if len(times) > 1 and least < most:
        yield Fault("torn operation", f"{operation.kind} {operation.number}: its rows are stored {sorted(times)} times")


def _miscounted_tombstones(history: History, tables: Tables) -> Iterator[Fault]:
    """Tombstones of one key and one moment are all alike, so they are counted together."""
    least: Counter[tuple[str, str, datetime]] = Counter()
    most: Counter[tuple[str, str, datetime]] = Counter()
    for operation, row in history.rows():
        if row.deleted:
            least[row.group, row.key, row.event] += operation.copies[0]
            most[row.group, row.key, row.event] += operation.copies[1]
    for place in most.keys() | tables.tombstones.keys():
        found = len(tables.tombstones.get(place, ()))
        if not least[place] <= found <= most[place]:
            name = "lost deletion" if found < least[place] else "doubled deletion"
            group, key, event = place
            said = f"{found} times instead of {least[place]} to {most[place]}"
            yield Fault(name, f"{group} {key}: the deletion at {event} is stored {said}")


def _misplaced(operation: Operation, tables: Tables) -> Iterator[Fault]:
    """The hub's own created timestamp is the moment of the acceptance, and the ordinal is the place in the request."""
    if operation.kind == "file" or operation.copies != (1, 1):
        return
    begun = operation.attempts[0].begun
    ended = operation.attempts[-1].ended
    for row in operation.rows:
        for stored in tables.rows.get((row.group, row.operation, row.number), ()):
            created = stored["created_timestamp"].timestamp()
            if row.created is None and not begun - ROUNDING <= created <= ended:
                yield Fault("wrong created timestamp", f"row {row.operation}/{row.number} has {created}")
            if operation.rows[stored["_ordinal"] : stored["_ordinal"] + 1] != (row,):
                yield Fault("wrong ordinal", f"row {row.operation}/{row.number} has {stored['_ordinal']}")


def _out_of_order(history: History, tables: Tables) -> Iterator[Fault]:
    """Of two pushes, the one that was answered before the other was sent has the lower acceptance number."""
    pushes: list[tuple[float, float, int]] = []
    for operation in history.operations.values():
        if operation.kind != "file" and operation.copies == (1, 1) and not operation.rows[0].deleted:
            numbers = {at[2] for row in operation.rows for at in tables.versions(row)}
            ended = min(attempt.ended for attempt in operation.attempts if attempt.outcome == "ok")
            pushes += [(operation.attempts[0].begun, ended, number) for number in numbers]
    yield from _overtaken(pushes)


def _overtaken(pushes: Sequence[tuple[float, float, int]]) -> Iterator[Fault]:
    """Pushes as (begun, ended, acceptance number) with a lower number than one that had ended before they begun."""
    by_end = sorted(pushes, key=lambda push: push[1])
    ended, highest = 0, -1
    for begun, _, number in sorted(pushes):
        while ended < len(by_end) and by_end[ended][1] < begun:
            highest = max(highest, by_end[ended][2])
            ended += 1
        if number < highest:
            yield Fault("wrong order", f"acceptance {number} was begun after {highest} had been answered")


def quarantined(history: History) -> int:
    """How many rows of files break a rule: all of them are kept apart, each once."""
    return sum(not row.is_valid for operation, row in history.rows() if operation.kind == "file")
