"""The point-in-time rule (rule.py) on one machine: DuckDB's ASOF join, which spills to disk beyond its memory limit.

DuckDB sees of the spine a row number, the keys and the time only, and answers each group's features in the spine's
order (result.py puts the spine's own columns beside them), so that no wide row is sorted twice.

Three choices come from measurements. The join compares the whole version order (order.py), since a plain ASOF join
on the event time answers ties at random. A column of ours that has one value in all files, by their footers, is written
into the SQL and not read, as most often the tombstones' and the schemas'. And `known_at` needs no search of its own: a
row is available from `greatest(event_timestamp, created_timestamp)` on, so of a key's rows in the order in which they
became available only those count that are newer, in version order, than all before them; among these the as-of row is
the answer.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from engine.pointintime.order import Digit, packed, packed_time, ranges
from engine.pointintime.result import (
    MICROSECOND,
    Follow,
    absent,
    composed,
    prepared,
    refuse_never_received,
)
from engine.pointintime.rule import GroupHistory, HistoryFeature, OnRequest, output_names
from engine.pointintime.spine import BATCH_ROWS, EARLIEST, Spine, key_columns, narrow
from engine.schema import (
    ACCEPTED,
    CREATED_TIMESTAMP,
    DELETED,
    EVENT_TIMESTAMP,
    ORDINAL,
    SCHEMA,
    Dtype,
)
from engine.spilling import connected
from engine.status import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT

#: What a dataset that was made here says of its engine.
ENGINE = f"duckdb {duckdb.__version__}"

#: The stored columns that the rule reads, and what they are called in the SQL here.
_OURS = {
    EVENT_TIMESTAMP: "event",
    CREATED_TIMESTAMP: "created",
    ACCEPTED: "accepted",
    ORDINAL: "ordinal",
    DELETED: "deleted",
    SCHEMA: "schema",
}
#: How SQL writes a value of these columns that a footer gives as a number.
_AS_SQL = {
    EVENT_TIMESTAMP: "make_timestamptz({})",
    CREATED_TIMESTAMP: "make_timestamptz({})",
    ACCEPTED: "CAST({} AS BIGINT)",
    ORDINAL: "CAST({} AS BIGINT)",
    DELETED: "CAST({} AS BOOLEAN)",
    SCHEMA: "CAST({} AS INTEGER)",
}
_SQL_TYPES = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "timestamp": "TIMESTAMPTZ",
}


def join(
    spine: pa.Table | str | Path,
    groups: Sequence[GroupHistory],
    *,
    temp_directory: Path,
    event_timestamp: str = EVENT_TIMESTAMP,
    known_at: bool = False,
    statuses: bool = False,
    order: Sequence[str] | None = None,
    on_request: Sequence[OnRequest] = (),
    memory_limit: str = "1GB",
    threads: int | None = None,
    output: Path | None = None,
    follow: Follow = lambda _: None,
) -> pa.Table | int:
    """The spine's rows in their order, its columns unchanged, then one column per feature by the rule of rule.py.

    spine:    an Arrow table, or the path of a Parquet file that is read in batches.
    order:    output names in the order of the result's columns; the groups' order by default.
    on_request: features that are computed from what is joined and from columns of the spine.
    statuses: adds `<output>__status` (engine.status) per feature, after all features.
    output:   a Parquet file to write; then the answer is its number of rows, and the memory used is bounded by
              `memory_limit` (DuckDB's: 150 MB suffice with one thread, 500 MB with two; the process stays some 450 MB
              above it). The file appears whole or not at all.
    follow:   called with each batch of the result in order, and with None after each group was joined; what it raises
              ends the join without a trace.
    temp_directory: a folder in which the join may spill; what it puts there is gone when it returns.

    Features have the Arrow type of their dtype. Raises InvalidSpine with every problem before any work, also
    when `known_at` is asked of a group all of whose rows were received after the newest spine row. Raises StorageFull
    where there is no room to spill or to write, RunFailed when DuckDB cannot finish: a history file that cannot be
    read, no memory left.
    """
    opened, shape = prepared(
        spine, groups, event_timestamp=event_timestamp, statuses=statuses, order=order, on_request=on_request
    )
    what = "The point-in-time join"
    with connected(temp_directory, what=what, memory_limit=memory_limit, threads=threads) as connection:
        streams = _group_streams(connection, opened, groups, known_at=known_at, statuses=statuses, follow=follow)
        return composed([opened.batches(), *streams], shape, output=output, follow=follow)


def _group_streams(
    connection: duckdb.DuckDBPyConnection,
    spine: Spine,
    groups: Sequence[GroupHistory],
    *,
    known_at: bool,
    statuses: bool,
    follow: Follow,
) -> list[Iterator[pa.RecordBatch]]:
    """One stream of feature columns per group that has features, each in the order of the spine."""
    asked = [group for group in groups if group.features]
    key_columns = _load_spine(connection, spine, asked)
    newest, oldest = connection.sql("SELECT max(t), min(t) FROM __fh_spine").fetchall()[0]
    if newest is None:
        return [iter(()) for _ in asked]
    joins = [
        _GroupJoin(connection, place, group, key_columns, spine.rows, newest, oldest, known_at, statuses)
        for place, group in enumerate(asked)
    ]
    if known_at:
        refuse_never_received(((part.group.group, part.first_created()) for part in joins), newest)
    streams = []
    for part in joins:
        streams.append(part.stream() if part.group.files else absent(part.group, statuses, spine.rows))
        follow(None)
    return streams


def _load_spine(connection: duckdb.DuckDBPyConnection, spine: Spine, groups: Sequence[GroupHistory]) -> dict[str, str]:
    """Make the table `__fh_spine` (i: row number, t: microseconds, k0...: keys); returns join key -> its column."""
    keys = tuple(dict.fromkeys(key for group in groups for key in group.keys))
    connection.register("__fh_source", narrow(spine, keys))
    connection.execute("CREATE TABLE __fh_spine AS SELECT * FROM __fh_source")
    return key_columns(keys)


@dataclass(frozen=True)
class _GroupJoin:
    """One group's join with `__fh_spine` of `rows` rows, as SQL; `newest` and `oldest` are its times in microseconds.

    No name of a user's column gets further than the innermost SELECT: from there on the history has k0... (keys),
    event, created, accepted, ordinal, deleted, schema and f0... (features), so that no such name can clash.
    """

    connection: duckdb.DuckDBPyConnection
    place: int
    group: GroupHistory
    key_columns: dict[str, str]
    rows: int
    newest: int
    oldest: int
    known_at: bool
    statuses: bool

    def stream(self) -> Iterator[pa.RecordBatch]:
        """The group's output columns, one row per spine row, in order; the join itself is done when this returns.

        Join and sort are two statements: each then has the whole memory limit. As one statement, 400 MB of answers
        failed at a limit of 150 MB that this way suffices. More rows than one batch are sorted into a table, so that
        the unsorted ones can go; fewer are sorted as they are read, which is quicker.
        """
        answers, ordered = f"__fh_answers_{self.place}", f"__fh_ordered_{self.place}"
        self.connection.execute(f"CREATE TABLE {answers} AS {self._sql()}")
        sort = f"SELECT * EXCLUDE (i) FROM {answers} ORDER BY i"
        if self.rows <= BATCH_ROWS:
            return self._read(sort)
        self.connection.execute(f"CREATE TABLE {ordered} AS {sort}")
        self.connection.execute(f"DROP TABLE {answers}")
        return self._read(f"FROM {ordered}")

    def _read(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query, on a cursor, since each streams one result."""
        names = output_names(self.group.features, self.statuses)
        try:
            for batch in self.connection.cursor().sql(sql).to_arrow_reader(BATCH_ROWS):
                yield batch.rename_columns(names)
        except (OSError, pa.ArrowException) as error:  # what DuckDB raises under an open stream, as Arrow shows it
            raise duckdb.OperationalError(str(error)) from error

    def first_created(self) -> int | None:
        """The earliest created_timestamp of the group in microseconds; None when it has no rows."""
        if not self.group.files:
            return None
        sql = f"SELECT epoch_us(min({CREATED_TIMESTAMP})) FROM {self._files()}"
        row: tuple[int | None] = self.connection.sql(sql).fetchall()[0]
        return row[0]

    def _sql(self) -> str:
        at_spine = packed_time("s.t", self._version(available=self.known_at))
        return f"""
            WITH history AS ({self._history()})
            SELECT s.i, {", ".join(f"{answer} AS a{place}" for place, answer in enumerate(self._answers()))}
            FROM (SELECT *, {at_spine} AS version FROM __fh_spine AS s) AS s
            ASOF LEFT JOIN history AS h ON {self._same_key("h")} AND s.version >= h.version
        """

    def _same_key(self, alias: str) -> str:
        return " AND ".join(f"s.{key} = {alias}.{key}" for key in self._keys())

    def _keys(self) -> list[str]:
        return [self.key_columns[key.name] for key in self.group.keys]

    @cached_property
    def _ranges(self) -> dict[str, tuple[int, int]]:
        return ranges(self.group.files, tuple(_OURS))

    def _version(self, *, available: bool = False) -> list[Digit]:
        """What orders the rows: the version order, behind the time of availability if asked for."""
        event, created = self._ranges.get(EVENT_TIMESTAMP), self._ranges.get(CREATED_TIMESTAMP)
        digits = [Digit("epoch_us(event)", event), Digit("epoch_us(created)", created)]
        digits += [Digit(_OURS[name], self._ranges.get(name)) for name in (ACCEPTED, ORDINAL)]
        if not available:
            return digits
        both = None if event is None or created is None else (max(event[0], created[0]), max(event[1], created[1]))
        return [Digit("greatest(epoch_us(event), epoch_us(created))", both), *digits]

    def _history(self) -> str:
        """The rows that may be an answer, with their place in the order as `version`."""
        version = packed(self._version(available=self.known_at))
        rows = f"""
            SELECT *, {version} AS version FROM ({self._renamed()}) AS r
            SEMI JOIN __fh_spine AS s ON {self._same_key("r")} WHERE {" AND ".join(self._bounds())}
        """
        if not self.known_at:
            return rows
        window = f"PARTITION BY {', '.join(self._keys())} ORDER BY version ROWS UNBOUNDED PRECEDING"
        newest = packed(self._version())
        return f"SELECT * FROM ({rows}) QUALIFY {newest} = max({newest}) OVER ({window})"

    def _bounds(self) -> list[str]:
        """Times beyond which no row of the spine can see; one that is too old matters only as a status."""
        bounds = [f"event <= make_timestamptz({self.newest})"]
        if self.known_at:
            bounds.append(f"created <= make_timestamptz({self.newest})")
        if self.group.ttl is not None and not self.statuses:
            oldest = max(self.oldest - self.group.ttl // MICROSECOND, EARLIEST)
            bounds.append(f"event >= make_timestamptz({oldest})")
        return bounds

    def _renamed(self) -> str:
        """The files' rows under our names; a feature that no file has yet is null."""
        stored = {row[0] for row in self.connection.sql(f"DESCRIBE SELECT * FROM {self._files()}").fetchall()}
        keys = zip((key.name for key in self.group.keys), self._keys(), strict=True)
        columns = [f"file.{_quoted(name)} AS {ours}" for name, ours in keys]
        columns += [f"{self._stored(name)} AS {ours}" for name, ours in _OURS.items()]
        for place, feature in enumerate(self.group.features):
            absent = f"NULL::{_sql_type(feature.dtype)}"
            columns.append(f"{f'file.{_quoted(feature.name)}' if feature.name in stored else absent} AS f{place}")
        return f"SELECT {', '.join(columns)} FROM {self._files()} AS file"

    def _stored(self, name: str) -> str:
        """One of our columns, or its value when all rows have the same."""
        low, high = self._ranges.get(name, (0, 1))
        return _AS_SQL[name].format(low) if low == high else f"file.{_quoted(name)}"

    def _files(self) -> str:
        """The group's files as one relation: columns by name, no meaning in the letters of a path."""
        paths = ", ".join(_literal(glob.escape(path)) for path in self.group.files)
        return f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"

    def _answers(self) -> list[str]:
        """Steps 3 to 6 of the rule: each feature's value, then each one's status if asked for."""
        features = list(enumerate(self.group.features))
        values = [self._value(feature, f"h.f{place}") for place, feature in features]
        if not self.statuses:
            return values
        fresh = " AND ".join(self._fresh()) or "true"
        return values + [
            f"CASE WHEN NOT {self._found(feature)} THEN '{NOT_FOUND}' WHEN NOT {fresh} THEN '{OUTSIDE_MAX_AGE}' "
            f"WHEN h.f{place} IS NULL THEN '{NULL_VALUE}' ELSE '{PRESENT}' END"
            for place, feature in features
        ]

    def _value(self, feature: HistoryFeature, stored: str) -> str:
        """A feature's stored value where it counts; without a row that is null as well."""
        conditions = [*self._counts(feature), *self._fresh()]
        return f"CASE WHEN {' AND '.join(conditions)} THEN {stored} END" if conditions else stored

    def _found(self, feature: HistoryFeature) -> str:
        """SQL: there is a row and it counts; never null."""
        return f"coalesce({' AND '.join(['h.event IS NOT NULL', *self._counts(feature)])}, false)"

    def _counts(self, feature: HistoryFeature) -> list[str]:
        """SQL: the row is no tombstone and its schema has the feature; nothing where the footers say so of all."""
        conditions = [] if self._ranges.get(DELETED) == (0, 0) else ["NOT h.deleted"]
        if feature.schema_ids is not None:
            low, high = self._ranges.get(SCHEMA, (0, -1))
            if low != high or low not in feature.schema_ids:
                known = ", ".join(str(schema_id) for schema_id in sorted(feature.schema_ids)) or "NULL"
                conditions.append(f"h.schema IN ({known})")
        return conditions

    def _fresh(self) -> list[str]:
        ttl = self.group.ttl
        return [] if ttl is None else [f"(s.t - epoch_us(h.event) <= {ttl // MICROSECOND})"]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql_type(dtype: Dtype) -> str:
    if dtype.kind == "embedding":
        return "FLOAT[]"
    return f"{_SQL_TYPES[dtype.item]}[]" if dtype.kind == "list" else _SQL_TYPES[dtype.kind]
