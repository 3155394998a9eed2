"""What a point-in-time join must answer, as loops that can be checked by eye; the engines are compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

Row = dict[str, Any]


def expected(
    spine: list[Row],
    history: list[Row],
    *,
    keys: Sequence[str],
    ttl: timedelta | None,
    known_at: bool,
    time: str = "event_timestamp",
) -> list[tuple[Row | None, str]]:
    """For each spine row, in order: the row that counts (None if there is none, or a tombstone), and what it means.

    The word is PRESENT (its values are served, null or not), OUTSIDE_MAX_AGE (they are withheld) or NOT_FOUND.
    One feature's value and status are made of such an answer by `feature_status`.
    """
    answers: list[tuple[Row | None, str]] = []
    for wanted in spine:
        best = None
        for row in history:
            if any(row[key] != wanted[key] for key in keys):
                continue
            if row["event_timestamp"] > wanted[time]:
                continue
            if known_at and row["created_timestamp"] > wanted[time]:
                continue
            if best is None or version(row) > version(best):
                best = row
        if best is None or best["_deleted"]:
            answers.append((None, "NOT_FOUND"))
        elif ttl is not None and wanted[time] - best["event_timestamp"] > ttl:
            answers.append((best, "OUTSIDE_MAX_AGE"))
        else:
            answers.append((best, "PRESENT"))
    return answers


def version(row: Row) -> tuple[Any, ...]:
    return row["event_timestamp"], row["created_timestamp"], row["_accepted"], row["_ordinal"]


def feature_status(
    answer: tuple[Row | None, str], feature: str, schema_ids: frozenset[int] | None = None
) -> tuple[Any, str]:
    """One feature's value and status, from one answer of `expected`."""
    row, status = answer
    if row is None:
        return None, status
    if schema_ids is not None and row["_schema"] not in schema_ids:
        return None, "NOT_FOUND"
    if status == "OUTSIDE_MAX_AGE":
        return None, status
    value = row.get(feature)
    return value, "NULL_VALUE" if value is None else "PRESENT"
