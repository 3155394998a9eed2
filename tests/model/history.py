"""What the clients of the model checker sent, what they were told of it, and what they read.

An operation is recorded before it is sent and again with each answer. An attempt has one of three outcomes:

    ok       it was answered 2xx: its rows are there
    fail     it was refused (4xx), or no connection came about: its rows are not there
    unknown  it was sent and not answered, or answered 503: its rows may be there, all of them or none
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Outcome = Literal["ok", "fail", "unknown"]
#: What a read showed of a key: a row's values, nothing (never written, or deleted), or a row that is past its TTL.
Sight = Literal["row", "nothing", "too old"]

FEATURES = ("operation", "number", "written_for", "amount", "label", "proof")


@dataclass(frozen=True, slots=True)
class Row:
    """One row as a client sends it; `number` tells it from the others of its operation.

    created:  the created timestamp that it brings along; None leaves it to the hub.
    is_valid: False for a row that breaks a rule of its group.
    """

    group: str
    key: str
    event: datetime
    operation: int
    number: int
    amount: float | None = None
    created: datetime | None = None
    deleted: bool = False
    is_valid: bool = True

    @property
    def values(self) -> dict[str, Any]:
        """Its features, the computed one too: each shows which row it belongs to."""
        return {
            "operation": self.operation,
            "number": self.number,
            "written_for": self.key,
            "amount": self.amount,
            "label": f"{self.key}/{self.operation}/{self.number};" * (1 + self.operation % 7),
            "proof": self.operation * 1000 + self.number,
        }


@dataclass(slots=True)
class Attempt:
    """One sending of an operation, in seconds since 1970; one that was not answered never ended."""

    begun: float
    ended: float = float("inf")
    outcome: Outcome = "unknown"
    is_applied: bool = False

    def end(self, outcome: Outcome, *, is_applied: bool = False) -> None:
        self.ended, self.outcome, self.is_applied = time.time(), outcome, is_applied


@dataclass(slots=True)
class Operation:
    """What a client wants done: rows in the order in which they are sent, and each attempt at it.

    Under an `idempotency_key` all attempts together are done at most once.
    """

    number: int
    kind: str
    rows: tuple[Row, ...]
    idempotency_key: str = ""
    attempts: list[Attempt] = field(default_factory=list)

    def begin(self) -> Attempt:
        self.attempts.append(Attempt(time.time()))
        return self.attempts[-1]

    @property
    def outcome(self) -> Outcome:
        """What is known of it after all attempts."""
        known = {attempt.outcome for attempt in self.attempts}
        return "ok" if "ok" in known else "unknown" if "unknown" in known else "fail"

    @property
    def copies(self) -> tuple[int, int]:
        """How often its rows are stored, at least and at most."""
        done = sum(attempt.outcome == "ok" for attempt in self.attempts)
        perhaps = sum(attempt.outcome == "unknown" for attempt in self.attempts)
        if self.idempotency_key:
            return min(done, 1), min(done + perhaps, 1)
        return done, done + perhaps


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read showed of one key: begun and ended in seconds since 1970; `row` where there was one."""

    group: str
    key: str
    begun: float
    ended: float
    sight: Sight
    row: Row | None = None
    event: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be; `name` says what in two words, for whoever counts them."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass
class History:
    """Everything that was recorded; many threads add to it, each with operation numbers of its own."""

    operations: dict[int, Operation] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    #: Faults that a client sees at once.
    faults: list[Fault] = field(default_factory=list)
    #: Reads and pushes by what they were answered, such as "read 503 online_store_cold".
    answers: list[str] = field(default_factory=list)

    def add(self, operation: Operation) -> Operation:
        self.operations[operation.number] = operation
        return operation

    def row(self, group: str, operation: object, number: object) -> Row | None:
        """The row of this name, whatever became of it; None when nobody sent such a one."""
        sent = self.operations.get(operation) if isinstance(operation, int) else None
        for row in sent.rows if sent else ():
            if (row.group, row.number, row.deleted) == (group, number, False):
                return row
        return None

    def rows(self) -> Iterator[tuple[Operation, Row]]:
        for operation in list(self.operations.values()):
            for row in operation.rows:
                yield operation, row
