"""The model checker can fail: each fault that is planted in a small history that is right is found, by its name."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_string
from http.client import HTTPMessage
from typing import Any

import pytest

from tests.model import shown, stored
from tests.model.clients import Client, Request
from tests.model.history import Attempt, Fault, History, Operation, Reading, Row
from tests.model.shown import Answer, Rewind
from tests.model.stored import Stored, Tables

GROUP = "customer_purchases"
TEN = datetime(2026, 3, 2, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CREATED = 1_000.0  # seconds since 1970, as all clocks here


def row(operation: int, number: int = 0, *, key: str = "C1", event: datetime = TEN, **values: Any) -> Row:
    return Row(GROUP, key, event, operation, number, amount=2.5, **values)


def ok(begun: float, *, is_applied: bool = True) -> Attempt:
    return Attempt(begun, begun + 1, "ok", is_applied)


def unknown(begun: float) -> Attempt:
    return Attempt(begun, begun + 1)


def refused(begun: float) -> Attempt:
    return Attempt(begun, begun + 1, "fail")


def as_stored(sent: Row, accepted: int, ordinal: int = 0, *, created: float = 0.0) -> Stored:
    """The row as the offline table has it; created by default in the second in which `accepted` is answered here."""
    values = dict.fromkeys(sent.values) if sent.deleted else sent.values
    return values | {
        "customer_id": sent.key,
        "event_timestamp": sent.event,
        "created_timestamp": datetime.fromtimestamp(created or CREATED + 10 * accepted, UTC),
        "_accepted": accepted,
        "_ordinal": ordinal,
        "_deleted": sent.deleted,
    }


OLDER, NEWER = row(1), row(2, event=TEN + MINUTE)
PAIR = (row(3, 0, key="C2"), row(3, 1, key="C3"))
GONE = Row(GROUP, "C4", TEN, 4, 0, deleted=True)
PERHAPS = (row(5, 0, key="C5"), row(5, 1, key="C6"))
BAD = (row(6, 0, key="C7"), row(6, 1, key="C7", is_valid=False))


def history() -> History:
    """Two pushes to C1, one of two rows, a deletion, one that nobody knows of, and one that was refused."""
    made = History()
    made.add(Operation(1, "push", (OLDER,), "", [ok(1_010)]))
    made.add(Operation(2, "push", (NEWER,), "key", [unknown(1_020), ok(1_022)]))
    made.add(Operation(3, "push many", PAIR, "", [ok(1_030)]))
    made.add(Operation(4, "delete", (GONE,), "", [ok(1_040)]))
    made.add(Operation(5, "push many", PERHAPS, "", [unknown(1_050)]))
    made.add(Operation(6, "push bad", BAD, "", [refused(1_060)]))
    return made


def rows() -> list[Stored]:
    """What the table holds of it when all is well: the unknown one was done."""
    found = [as_stored(OLDER, 1), as_stored(NEWER, 2), as_stored(GONE, 4)]
    return found + [as_stored(each, each.operation, each.number) for each in (*PAIR, *PERHAPS)]


def names(found: list[Fault]) -> set[str]:
    return {fault.name for fault in found}


def stored_faults(given: list[Stored], made: History | None = None) -> set[str]:
    return names(stored.faults_of(made or history(), stored.tables_of({GROUP: given})))


# The offline store.


@pytest.mark.parametrize("given", [rows(), [each for each in rows() if each["operation"] != 5]])
def test_a_table_with_or_without_an_unknown_push_is_right(given: list[Stored]) -> None:
    assert stored_faults(given) == set()


def change(of: Row, **values: object) -> Callable[[list[Stored]], list[Stored]]:
    place = (of.key, of.operation)
    return lambda given: [
        each | values if (each["customer_id"], each["operation"]) == place else each for each in given
    ]


def without(of: Row) -> Callable[[list[Stored]], list[Stored]]:
    mark = (of.key, None if of.deleted else of.operation)
    return lambda given: [each for each in given if (each["customer_id"], each["operation"]) != mark]


def twice(of: Row, accepted: int) -> Callable[[list[Stored]], list[Stored]]:
    return lambda given: [*given, as_stored(of, accepted, of.number)]


@pytest.mark.parametrize(
    ("fault", "plant"),
    [
        ("lost row", without(NEWER)),
        ("lost row", without(PAIR[1])),
        ("doubled row", twice(NEWER, 2)),
        ("doubled row", twice(OLDER, 9)),
        ("doubled row", lambda given: [*given, *(as_stored(each, 9, each.number) for each in PERHAPS)]),
        ("torn operation", without(PERHAPS[0])),
        ("lost deletion", without(GONE)),
        ("doubled deletion", twice(GONE, 9)),
        ("doubled deletion", twice(replace(GONE, event=TEN + MINUTE), 9)),
        ("refused row", twice(BAD[0], 6)),
        ("stray row", twice(row(77), 7)),
        ("torn row", change(NEWER, label="of another row")),
        ("torn row", change(NEWER, amount=None)),
        ("torn row", change(NEWER, proof=1)),
        ("torn row", change(NEWER, customer_id="C2")),
        ("torn row", change(NEWER, event_timestamp=TEN)),
        ("wrong created timestamp", change(NEWER, created_timestamp=datetime.fromtimestamp(1_099, UTC))),
        ("wrong ordinal", change(PAIR[1], _ordinal=0)),
        ("wrong order", change(NEWER, _accepted=99)),
    ],
)
def test_a_fault_of_the_table_is_found(fault: str, plant: Callable[[list[Stored]], list[Stored]]) -> None:
    assert fault in stored_faults(plant(rows()))


def test_a_row_sent_twice_without_a_key_is_there_twice_and_under_a_key_once() -> None:
    made = History()
    made.add(Operation(1, "push", (OLDER,), "", [ok(1_010), ok(1_020)]))
    assert stored_faults([as_stored(OLDER, 1), as_stored(OLDER, 2)], made) == set()
    assert stored_faults([as_stored(OLDER, 1)], made) == {"lost row"}
    made.operations[1].idempotency_key = "key"
    assert "doubled row" in stored_faults([as_stored(OLDER, 1), as_stored(OLDER, 2)], made)


def test_of_a_file_the_good_rows_are_kept_and_the_bad_one_is_not() -> None:
    made = History()
    made.add(Operation(1, "file", (OLDER, row(1, 1, is_valid=False)), "", [ok(1_010)]))
    good, bad = (as_stored(each, 1, each.number) for each in made.operations[1].rows)
    assert stored.quarantined(made) == 1
    assert stored_faults([good], made) == set()
    assert stored_faults([good, bad], made) == {"refused row"}


# A single read.


def answer(of: Row, **changed: Any) -> Answer:
    statuses = {name: "NULL_VALUE" if value is None else "PRESENT" for name, value in of.values.items()}
    return replace(Answer(GROUP, of.key, of.values, statuses, of.event), **changed)


def nothing(key: str, status: str = "NOT_FOUND", event: datetime | None = None) -> Answer:
    return Answer(GROUP, key, dict.fromkeys(OLDER.values), dict.fromkeys(OLDER.values, status), event)


def seen(of: Answer, at: float = 1_100.0) -> Reading | Fault:
    return shown.sight_of(of, history(), begun=at, ended=at + 1)


def test_the_three_sights_are_told_apart() -> None:
    assert seen(answer(NEWER)) == Reading(GROUP, "C1", 1_100, 1_101, "row", NEWER, NEWER.event)
    assert seen(nothing("C1")) == Reading(GROUP, "C1", 1_100, 1_101, "nothing")
    assert seen(nothing("C1", "OUTSIDE_MAX_AGE", TEN)) == Reading(GROUP, "C1", 1_100, 1_101, "too old", event=TEN)


@pytest.mark.parametrize(
    ("fault", "given"),
    [
        ("torn value", answer(NEWER, values=NEWER.values | {"proof": OLDER.values["proof"]})),
        ("torn value", answer(NEWER, values=NEWER.values | {"amount": None})),
        ("torn value", answer(NEWER, statuses=dict.fromkeys(NEWER.values, "NULL_VALUE"))),
        ("torn value", answer(NEWER, event=OLDER.event)),
        ("another key's value", answer(NEWER, key="C2")),
        ("stray value", answer(row(77))),
        ("wrong status", answer(NEWER, statuses=dict.fromkeys(NEWER.values, "INVALID"))),
        ("wrong status", answer(NEWER, statuses=dict.fromkeys(NEWER.values, "NOT_FOUND"))),
        ("wrong status", nothing("C1", "OUTSIDE_MAX_AGE")),
    ],
)
def test_a_fault_of_a_read_is_found(fault: str, given: Answer) -> None:
    found = seen(given)
    assert isinstance(found, Fault)
    assert found.name == fault


# Reads one after the other.


def tables() -> Tables:
    return stored.tables_of({GROUP: rows()})


def order_faults(*readings: Reading, rewinds: tuple[Rewind, ...] = ()) -> tuple[set[str], int]:
    made = history()
    made.readings += readings
    found, excused = shown.out_of_order(made, tables(), rewinds)
    return names(found), excused


def reading(of: Row | None, at: float, key: str = "C1") -> Reading:
    return Reading(GROUP, key, at, at + 0.5, "row" if of else "nothing", of, of.event if of else None)


def test_what_was_not_yet_answered_may_be_shown_or_not() -> None:
    """The newer row was sent at 1020 and answered at 1023."""
    assert order_faults(reading(OLDER, 1_012), reading(NEWER, 1_021)) == (set(), 0)
    assert order_faults(reading(OLDER, 1_021), reading(NEWER, 1_024)) == (set(), 0)
    assert order_faults(reading(None, 1_009), reading(None, 1_050, "C4")) == (set(), 0)


@pytest.mark.parametrize(
    "readings",
    [
        [reading(OLDER, 1_024)],  # the newer one was answered as applied
        [reading(None, 1_024)],
        [reading(NEWER, 1_020.5), reading(OLDER, 1_021.5)],  # it was shown before
        [reading(PAIR[0], 1_032, "C2"), reading(None, 1_033, "C2")],
    ],
)
def test_an_older_value_than_before_is_found(readings: list[Reading]) -> None:
    assert order_faults(*readings) == ({"older value"}, 0)


def test_a_row_that_was_shown_and_is_nowhere_is_found() -> None:
    made = history()
    made.readings.append(reading(PERHAPS[0], 1_055, "C5"))
    without_it = stored.tables_of({GROUP: [each for each in rows() if each["operation"] != 5]})
    assert names(shown.out_of_order(made, without_it, [])[0]) == {"vanished row"}


def test_a_redis_that_went_back_excuses_what_it_lost_and_only_for_a_while() -> None:
    older = reading(OLDER, 1_030)
    assert order_faults(older, rewinds=(Rewind(1_025, 1_040),)) == (set(), 1)
    assert order_faults(reading(NEWER, 1_024.8), older, rewinds=(Rewind(1_025, 1_040),)) == (set(), 1)  # heard later
    assert order_faults(reading(NEWER, 1_025.1), older, rewinds=(Rewind(1_025, 1_040),)) == ({"older value"}, 0)
    assert order_faults(older, rewinds=(Rewind(1_025, 1_029),)) == ({"older value"}, 0)
    assert order_faults(older, rewinds=(Rewind(1_019, 1_040),)) == ({"older value"}, 0)  # the newer came after it


# The end.


def expected(key: str, *, ttl: timedelta | None = None, now: datetime = TEN + MINUTE) -> Reading:
    return shown.expected(GROUP, key, tables(), ttl=ttl, now=now)


def test_the_newest_row_of_the_table_has_to_be_shown() -> None:
    assert shown.difference(reading(NEWER, 0), expected("C1"), where="online") is None
    assert shown.difference(reading(None, 0, "C4"), expected("C4"), where="online") is None
    assert shown.difference(reading(None, 0, "C9"), expected("C9"), where="online") is None
    old = Reading(GROUP, "C1", 0, 0, "too old", event=NEWER.event)
    assert shown.difference(old, expected("C1", ttl=MINUTE, now=TEN + 3 * MINUTE), where="online") is None


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (reading(OLDER, 0), "C1"),
        (reading(None, 0), "C1"),
        (Reading(GROUP, "C1", 0, 0, "too old", event=NEWER.event), "C1"),
        (reading(row(4, key="C4"), 0, "C4"), "C4"),
    ],
)
def test_another_value_at_the_end_is_found(given: Reading, key: str) -> None:
    found = shown.difference(given, expected(key), where="online")
    assert found is not None
    assert found.name == "wrong value at the end"


# What clients are told.


class Told:
    """Stands for a hub that answers wrongly, which the real one is not to be brought to."""

    def __init__(self, status: int, document: object, headers: str = "") -> None:
        self.answer = (status, message_from_string(headers, HTTPMessage), document)

    def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, HTTPMessage, Any]:
        return self.answer


def client_of(told: Told) -> Client:
    return Client("a client", random.Random(1), History(), told, threading.Event())


PUSH_OF_TWO = Operation(3, "push many", PAIR)
APPLIED = {"accepted": 2, "quarantined": 0, "online": "applied"}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("wrong failure", Told(500, {})),
        ("wrong failure", Told(507, {}, "Retry-After: 1\n\n")),
        ("wrong failure", Told(503, {})),
        ("wrong answer", Told(202, APPLIED)),
        ("wrong answer", Told(200, APPLIED | {"online": "pending"})),
        ("wrong answer", Told(200, APPLIED | {"accepted": 1})),
        ("refused for nothing", Told(422, {})),
    ],
)
def test_a_wrong_answer_to_a_push_is_found(fault: str, told: Told) -> None:
    client = client_of(told)
    client.carry_out(replace(PUSH_OF_TWO, attempts=[]), Request("POST", "/"))
    assert names(client.history.faults) == {fault}


@pytest.mark.parametrize("told", [Told(200, APPLIED), Told(202, APPLIED | {"online": "pending"})])
def test_a_right_answer_to_a_push_is_none(told: Told) -> None:
    client = client_of(told)
    operation = replace(PUSH_OF_TWO, attempts=[])
    client.carry_out(operation, Request("POST", "/"))
    assert (client.history.faults, operation.outcome) == ([], "ok")


def test_a_503_with_retry_after_is_an_unknown_outcome_and_no_fault() -> None:
    client = client_of(Told(503, {}, "Retry-After: 1\n\n"))
    operation = replace(PUSH_OF_TWO, attempts=[])
    client.carry_out(operation, Request("POST", "/"))
    assert (client.history.faults, operation.outcome) == ([], "unknown")


@pytest.mark.parametrize("told", [Told(500, {}), Told(404, {"code": "not_found"}), Told(409, {}), Told(503, {})])
def test_a_wrong_answer_to_a_read_is_found(told: Told) -> None:
    client = client_of(told)
    client.read_one("C1")
    assert names(client.history.faults) == {"wrong failure"}
