"""The receipt of an erasure: what was removed, by store, written down before it goes.

A store and the database cannot change in one step. So each thing is noted, under its own name, before it is removed: a
worker that is killed in between leaves a note, and the next one writes the same note again. Nothing in it names the
entity: files are named by numbers of runs, or at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from django.db import transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catalog.models import Erasure
    from catalog.runs import Lease

Section = Literal[
    "files", "push_log", "quarantine", "datasets", "online", "idempotency_keys", "texts", "left_files", "statistics"
]
Note = dict[str, Any]


class Receipt:
    """The notes of one attempt, saved under its lease."""

    def __init__(self, erasure: Erasure, lease: Lease) -> None:
        self._erasure, self._lease = erasure, lease

    def notes(self, section: Section) -> Mapping[str, Note]:
        """What was noted of a store, by name."""
        return self._erasure.receipt.get(section, {})

    def still(self) -> None:
        """Say that the attempt came further: a store may be large and hold nothing to note."""
        self._lease.step()

    def note(self, section: Section, name: str, **said: Any) -> None:
        """Note what is about to go, or what became of it; over an earlier note of that name. Raises LeaseLost."""
        with self.saving():
            self.add(section, name, **said)

    def add(self, section: Section, name: str, **said: Any) -> None:
        """The same, to be saved by the caller's `saving`."""
        notes = self._erasure.receipt.setdefault(section, {})
        notes[name] = notes.get(name, {}) | said

    @contextmanager
    def saving(self) -> Iterator[None]:
        """A transaction that nobody else's attempt can end, with the receipt as it is at its end. Raises LeaseLost."""
        with transaction.atomic():
            self._lease.hold()
            yield
            self._erasure.save(update_fields=["receipt"])


def lines(receipt: Mapping[str, Mapping[str, Note]]) -> list[str]:
    """A receipt, or a plan of one, for people: one line for each store of which there is something."""
    said = []
    for section, what in _WORDS.items():
        notes = receipt.get(section, {})
        rows = sum(note.get("rows", 0) for note in notes.values())
        if notes:
            said.append(what.format(rows=f"{rows:,}", things=f"{len(notes):,}", names=", ".join(sorted(notes)[:5])))
    return said


_WORDS: dict[str, str] = {
    "files": "offline: {rows} rows in {things} files",
    "push_log": "push log: {rows} rows ({names})",
    "quarantine": "quarantine: {rows} rejected rows",
    "datasets": "training datasets: {rows} rows ({names})",
    "online": "online: {rows} rows ({names})",
    "idempotency_keys": "idempotency keys: {rows}",
    "texts": "errors of runs that named it: {rows}",
    "statistics": "values of {rows} statistics ({names})",
    "left_files": "files that were left behind: {things}",
}
