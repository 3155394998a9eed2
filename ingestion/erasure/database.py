"""Traces of deleted rows in the files of the database and of Redis: both keep what was deleted until they are told."""

from __future__ import annotations

import time

from django.db import connection

from catalog import stores
from catalog.models import Erasure, FeatureStatistics, Run, TrainingDataset
from engine.errors import Unavailable
from ingestion.models import IdempotencyKey, PushBatch, QuarantinedRow, QuarantinedRule

#: How long readers of SQLite's log are waited for, and Redis while it writes its file anew.
WAIT_SECONDS = 30.0
REDIS_SECONDS = 120.0
_TABLES = (Erasure, FeatureStatistics, PushBatch, IdempotencyKey, QuarantinedRule, QuarantinedRow, Run, TrainingDataset)


def forget_deleted() -> str:
    """Have the database write over what was deleted from it; what was done, in words.

    SQLite is written anew as a whole, and its log cut to nothing: writers wait for it meanwhile. PostgreSQL is told to
    vacuum the tables, after which the places are written over by later rows. Raises Unavailable when SQLite's log is
    read all the while.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("VACUUM")
            _empty_log(cursor)
            return "database file written anew"
        for model in _TABLES:
            cursor.execute(f"VACUUM {connection.ops.quote_name(model._meta.db_table)}")
    return "tables vacuumed"


def delete_securely() -> None:
    """On SQLite, have this connection write zeros over what it deletes."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA secure_delete = ON")


def _empty_log(cursor: object) -> None:
    ends = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < ends:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[attr-defined]
        (busy, _, _) = cursor.fetchone()  # type: ignore[attr-defined]
        if not busy:
            return
        time.sleep(0.05)
    raise Unavailable(f"SQLite's log was read all the while for {WAIT_SECONDS:g} s, so it was not cut; try again.")


def forget_removed() -> str:
    """Have Redis write its file anew; what came of it, in words. Raises Unavailable."""
    return stores.online().forget_removed(seconds=REDIS_SECONDS)
