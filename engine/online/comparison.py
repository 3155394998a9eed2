"""What a store should hold beside what it holds, row by row in bounded memory: DuckDB joins both, and spills.

Of each row only the key, the version and a 64-bit hash of its bytes are kept. An online row is right when some accepted
row has its key and its hash, and no accepted row that was known before it was read is newer in version order. So nobody
has to find the newest row of each key first, and rows may come in any order and more than once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import duckdb
import polars as pl

from engine.online.codec import BIAS, HEADER, TOMBSTONE
from engine.online.store import VERSION_BYTES
from engine.spilling import connected

Kind = Literal["missing", "stale", "ahead", "values", "extra", "unreadable"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: DuckDB's own limit. 10 million keys spill some 1.5 GB beyond it.
MEMORY_LIMIT = "256MB"
#: Keys of doubtful rows that are handed out at a time.
KEYS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Version:
    """The place of a row in the version order; times in microseconds since 1970. `deleted` for a tombstone."""

    event_us: int
    created_us: int
    accepted: int
    ordinal: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """One Redis key that does not hold what it should.

    missing:    nothing is there.
    stale:      an older row is there.
    ahead:      a row is there that is newer than every accepted one.
    values:     the row of the right version is there, with other values.
    extra:      a row is there, and no row of its key was ever accepted.
    unreadable: what is there is no row.

    `expected` is None of an extra one; `actual` is None where there is no row that can be read.
    """

    kind: Kind
    key: bytes
    expected: Version | None
    actual: Version | None


class Comparison:
    """Accepted rows and online rows, given as (Redis key, encoded row), and the keys about which there is doubt.

    First `expect` all that is known, then `find` what is online, then ask for `doubts`. Whatever was accepted since
    `expect` explains rows, by `explain`, but is not missed yet. To look again at what is left: `look_again`, and
    `find` what is online of `doubtful_keys` now.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        for table in ("expected", "explained", "found"):
            connection.execute(f"CREATE TABLE {table} ({_COLUMNS})")

    def expect(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """These rows should be online, or newer ones of their keys."""
        self._insert("expected", _columns(rows))

    def explain(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """These rows may be online by now."""
        self._insert("explained", _columns(rows), among="SEMI JOIN doubtful ON rows.key = doubtful.key")

    def find(self, rows: Sequence[tuple[bytes, bytes]], readable: Sequence[bool] | None = None) -> None:
        """These are online; `readable` says of each whether it can be decoded, and is needed before `differences`."""
        self._insert("found", _columns(rows, readable))

    def _insert(self, table: str, rows: pl.DataFrame, *, among: str = "") -> None:
        if rows.is_empty():
            return
        self._connection.register("rows", rows.to_arrow())
        self._connection.execute(f"INSERT INTO {table} SELECT rows.* FROM rows {among}")
        self._connection.unregister("rows")

    def found_keys(self) -> int:
        """How many keys were found online (since `look_again`)."""
        return self._number("SELECT count(DISTINCT key) FROM found")

    def doubts(self) -> int:
        """How many keys are not as they should be, as far as is known; all others are forgotten."""
        self._connection.execute(f"CREATE OR REPLACE TABLE doubtful AS {_DOUBTFUL}")
        for table in ("expected", "explained", "found"):
            kept = f"SELECT * FROM {table} SEMI JOIN doubtful ON {table}.key = doubtful.key"
            self._connection.execute(f"CREATE OR REPLACE TABLE {table} AS {kept}")
        return self._number("SELECT count(*) FROM doubtful")

    def look_again(self) -> None:
        """From now on what was explained is expected too, and nothing has been found."""
        self._connection.execute("INSERT INTO expected FROM explained")
        for table in ("explained", "found"):
            self._connection.execute(f"TRUNCATE {table}")

    def doubtful_keys(self) -> Iterator[list[bytes]]:
        """The keys of the doubts, some at a time; `find` may be called between."""
        for batch in self._connection.cursor().sql("FROM doubtful").to_arrow_reader(KEYS_AT_ONCE):
            yield batch.column(0).to_pylist()

    def differences(self, limit: int) -> tuple[dict[Kind, int], list[Difference]]:
        """How many doubts are of each kind, those with any; and the first `limit` of each by key."""
        self._connection.execute(f"CREATE OR REPLACE TABLE difference AS {_DIFFERENCES}")
        counted = dict(self._connection.sql("SELECT kind, count(*) FROM difference GROUP BY kind").fetchall())
        counts = {kind: int(counted[kind]) for kind in KINDS if kind in counted}
        return counts, [difference for kind in counts for difference in self._first(kind, limit)]

    def _first(self, kind: Kind, limit: int) -> Iterator[Difference]:
        asked = "SELECT * EXCLUDE (kind) FROM difference WHERE kind = ? ORDER BY key LIMIT ?"
        for key, *expected_and_actual in self._connection.execute(asked, [kind, limit]).fetchall():
            expected, deleted, actual, actual_deleted = expected_and_actual
            yield Difference(kind, key, _version(expected, deleted), _version(actual, actual_deleted))

    def _number(self, sql: str) -> int:
        return int(self._connection.sql(sql).fetchall()[0][0])


@contextmanager
def comparing(temp_directory: Path, *, memory_limit: str = MEMORY_LIMIT) -> Iterator[Comparison]:
    """An empty comparison that may spill into `temp_directory`. Raises RunFailed when there is no room there."""
    with connected(temp_directory, what="The comparison", memory_limit=memory_limit, keeps_order=False) as connection:
        yield Comparison(connection)


_COLUMNS = "key BLOB, version BLOB, hash UBIGINT, deleted BOOLEAN, readable BOOLEAN"

#: Blobs compare as bytes, and the bytes of a version compare in version order.
_DOUBTFUL = """
    SELECT DISTINCT key FROM (
        SELECT expected.key FROM expected LEFT JOIN found ON expected.key = found.key
        WHERE found.key IS NULL OR expected.version > found.version
        UNION ALL
        SELECT found.key FROM found
        ANTI JOIN (SELECT key, hash FROM expected UNION ALL SELECT key, hash FROM explained) AS accepted
        ON found.key = accepted.key AND found.hash = accepted.hash
    )
"""

_DIFFERENCES = """
    WITH newest AS (
        FROM (FROM expected UNION ALL FROM explained)
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY version DESC) = 1
    )
    SELECT
        CASE
            WHEN found.key IS NULL THEN 'missing'
            WHEN newest.key IS NULL THEN 'extra'
            WHEN NOT found.readable THEN 'unreadable'
            WHEN found.version < newest.version THEN 'stale'
            WHEN found.version > newest.version THEN 'ahead'
            ELSE 'values'
        END AS kind,
        doubtful.key,
        newest.version AS expected,
        newest.deleted AS expected_deleted,
        CASE WHEN found.readable THEN found.version END AS actual,
        found.deleted AS actual_deleted
    FROM doubtful
    LEFT JOIN found ON doubtful.key = found.key
    LEFT JOIN newest ON doubtful.key = newest.key
"""


def _columns(rows: Sequence[tuple[bytes, bytes]], readable: Sequence[bool] | None = None) -> pl.DataFrame:
    known = [None] * len(rows) if readable is None else readable
    frame = pl.DataFrame(
        {
            "key": pl.Series([key for key, _ in rows], dtype=pl.Binary),
            "value": pl.Series([value for _, value in rows], dtype=pl.Binary),
            "readable": pl.Series(known, dtype=pl.Boolean),
        }
    )
    value = pl.col("value")
    return frame.select(
        "key",
        value.bin.slice(VERSION_BYTES.start, VERSION_BYTES.stop - VERSION_BYTES.start).alias("version"),
        value.hash().alias("hash"),
        (value.bin.slice(1, 1) == pl.lit(bytes([TOMBSTONE]))).alias("deleted"),
        "readable",
    )


def _version(raw: bytes | None, deleted: bool) -> Version | None:
    if raw is None:
        return None
    _, _, event, created, accepted, ordinal, _ = HEADER.unpack(bytes(2) + raw + bytes(4))
    return Version(event - BIAS, created - BIAS, accepted - BIAS, ordinal - BIAS, deleted)
