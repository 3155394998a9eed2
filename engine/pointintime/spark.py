"""The point-in-time rule (rule.py) on a Spark cluster, for histories that one machine cannot join.

History and spine rows are put into one table, and a window per entity walks through them in the order of their times:
a spine row is answered by the newest row, in version order, of all that stand before it. That is one shuffle of both
sides, whatever their sizes, and no row of either is repeated. With `known_at` the walk is in the order in which the
rows became available, `greatest(event_timestamp, created_timestamp)`, and the rest is the same.

Driver and executors meet in files: the history's, the spine's times and keys, and each group's answers, which the
driver reads in order with bounded memory. No row passes through Python on the way.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from engine.errors import RunFailed
from engine.parquet import open_parquet
from engine.pointintime.result import (
    MICROSECOND,
    Follow,
    absent,
    composed,
    prepared,
    refuse_never_received,
)
from engine.pointintime.rule import GroupHistory, HistoryFeature, OnRequest, output_names
from engine.pointintime.spine import BATCH_ROWS, EARLIEST, LATEST, Spine, key_columns, narrow
from engine.schema import ACCEPTED, CREATED_TIMESTAMP, DELETED, EVENT_TIMESTAMP, ORDINAL, SCHEMA, Dtype, Field
from engine.spark.session import named_failures, watched
from engine.status import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT

#: What a dataset that was made here says of its engine.
ENGINE = f"spark {pyspark.__version__}"

#: What failures are called by.
_WHAT = "The point-in-time join on Spark"

#: Up to so many spine rows every executor gets their keys, and only the history's rows of these are shuffled.
SMALL_SPINE_ROWS = 500_000
#: Rows of the spine whose answers one task sorts and writes.
_ROWS_PER_PART = 2 * BATCH_ROWS

_TYPES: dict[str, T.DataType] = {
    "int64": T.LongType(),
    "float64": T.DoubleType(),
    "bool": T.BooleanType(),
    "string": T.StringType(),
    "timestamp": T.TimestampType(),
}
_OURS: dict[str, T.DataType] = {
    EVENT_TIMESTAMP: T.TimestampType(),
    CREATED_TIMESTAMP: T.TimestampType(),
    ACCEPTED: T.LongType(),
    ORDINAL: T.LongType(),
    DELETED: T.BooleanType(),
    SCHEMA: T.LongType(),
}
#: Whatever the session is set to: no file is left out because it is missing or damaged, and times before 1900 are read
#: as they were written.
_READING = {
    "ignoreCorruptFiles": "false",
    "ignoreMissingFiles": "false",
    "datetimeRebaseMode": "CORRECTED",
    "parquet.page.verify-checksum.enabled": "true",
}


def join(
    spine: pa.Table | str | Path,
    groups: Sequence[GroupHistory],
    *,
    session: SparkSession,
    temp_directory: Path,
    event_timestamp: str = EVENT_TIMESTAMP,
    known_at: bool = False,
    statuses: bool = False,
    order: Sequence[str] | None = None,
    on_request: Sequence[OnRequest] = (),
    output: Path | None = None,
    follow: Follow = lambda _: None,
) -> pa.Table | int:
    """The spine's rows in their order, its columns unchanged, then one column per feature by the rule of rule.py.

    The arguments and the answer are those of engine.pointintime.duckdb.join, but for these:

    session:        whose cluster does the work; it stays as it is. Its `spark.sql.shuffle.partitions` says in how many
                    parts.
    temp_directory: a folder that this process and every executor see by the same path and may write to, as they see
                    the history's files; what the join puts there is gone when it returns.

    `follow` is called with None each second while Spark is at work, too; when it raises, Spark's jobs are cancelled.

    Raises InvalidSpine as DuckDB's join does, and RunFailed when Spark cannot finish: a history file that cannot be
    read, a cluster that is gone.
    """
    opened, shape = prepared(
        spine, groups, event_timestamp=event_timestamp, statuses=statuses, order=order, on_request=on_request
    )
    temp_directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spark-", dir=temp_directory.absolute()) as folder:
        asked = [group for group in groups if group.features]
        streams = _group_streams(
            session, Path(folder), opened, asked, known_at=known_at, statuses=statuses, follow=follow
        )
        return composed([opened.batches(), *streams], shape, output=output, follow=follow)


def _group_streams(
    session: SparkSession,
    folder: Path,
    spine: Spine,
    groups: Sequence[GroupHistory],
    *,
    known_at: bool,
    statuses: bool,
    follow: Follow,
) -> list[Iterator[pa.RecordBatch]]:
    """One stream of feature columns per group, each in the order of the spine; the joins are done when this returns."""
    if not spine.rows:
        return [iter(()) for _ in groups]
    keys = tuple(dict.fromkeys(key for group in groups for key in group.keys))
    oldest, newest = _write_narrow(spine, keys, folder / "spine.parquet")
    asked = _Asked(session, folder, keys, spine.rows, oldest, newest, known_at, statuses)
    joins = [_GroupJoin(asked, folder / f"answers-{place}", group) for place, group in enumerate(groups)]
    if known_at:
        with named_failures(_WHAT):
            refuse_never_received([(part.group.group, part.first_created()) for part in joins], newest)
    streams = []
    for part in joins:
        if part.group.files:
            with named_failures(_WHAT):
                watched(session, part.write, lambda *_: follow(None))
        streams.append(part.stream() if part.group.files else absent(part.group, statuses, spine.rows))
        follow(None)
    return streams


def _write_narrow(spine: Spine, keys: tuple[Field, ...], path: Path) -> tuple[int, int]:
    """Write what Spark has to see of the spine; its oldest and newest time in microseconds."""
    oldest, newest = LATEST, EARLIEST
    reader = narrow(spine, keys)
    with pq.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            times = batch["t"].to_numpy()
            oldest, newest = min(oldest, int(times.min(initial=LATEST))), max(newest, int(times.max(initial=EARLIEST)))
    return oldest, newest


@dataclass(frozen=True)
class _Asked:
    """What the groups of one join share; `oldest` and `newest` are the spine's times in microseconds."""

    session: SparkSession
    folder: Path
    keys: tuple[Field, ...]
    rows: int
    oldest: int
    newest: int
    known_at: bool
    statuses: bool

    def spine(self) -> DataFrame:
        """i (row number), t (microseconds), k0... (keys)."""
        kinds: dict[str, T.DataType] = {"i": T.LongType(), "t": T.LongType()}
        columns = key_columns(self.keys)
        kinds |= {columns[key.name]: _spark_type(key.dtype) for key in self.keys}
        return _read(self.session, [str(self.folder / "spine.parquet")], kinds)


@dataclass(frozen=True)
class _GroupJoin:
    """One group's join with the spine, from its files to a folder of answers.

    No name of a user's column gets further than `_renamed`: from there on the history has k0... (keys), event and
    created (microseconds), accepted, ordinal, deleted, schema and f0... (features), so that no such name can clash.
    """

    asked: _Asked
    answers: Path
    group: GroupHistory

    def write(self) -> None:
        """Write each spine row's answers as a0..., beside its number i; the files' names are in the order of i."""
        keys = self._keys()
        # At equal times the history's rows come first (their i is null): an event at t counts. Which of them is newer
        # is not for the window's order to say but for the version.
        before = Window.partitionBy(*keys).orderBy("t", "i").rowsBetween(Window.unboundedPreceding, Window.currentRow)
        spine = self.asked.spine().select("i", "t", *keys)
        both = self._history().unionByName(spine, allowMissingColumns=True)
        seen = both.select("i", "t", F.max_by("row", "version").over(before).alias("h")).where("i IS NOT NULL")
        answers = seen.select("i", *(answer.alias(f"a{place}") for place, answer in enumerate(self._answers())))
        parts = -(-self.asked.rows // _ROWS_PER_PART)
        place = F.floor(F.col("i") / _ROWS_PER_PART).cast("int")
        answers.repartitionById(parts, place).sortWithinPartitions("i").write.parquet(f"file://{self.answers}")

    def stream(self) -> Iterator[pa.RecordBatch]:
        """The group's output columns, one row per spine row, in order."""
        names, row = output_names(self.group.features, self.asked.statuses), 0
        for path in sorted(self.answers.glob("part-*.parquet")):
            with open_parquet(path) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    numbers = batch["i"].to_numpy()
                    if not np.array_equal(numbers, np.arange(row, row + batch.num_rows)):
                        raise RunFailed(f"Spark's answers are not those of the spine's rows from row {row} on.")
                    row += batch.num_rows
                    yield batch.drop_columns(["i"]).rename_columns(names)

    def first_created(self) -> int | None:
        """The earliest created_timestamp of the group in microseconds; None when it has no rows."""
        if not self.group.files:
            return None
        files = _read(self.asked.session, self.group.files, {CREATED_TIMESTAMP: T.TimestampType()})
        first: int | None = files.agg(F.unix_micros(F.min(CREATED_TIMESTAMP))).collect()[0][0]
        return first

    def _keys(self) -> list[str]:
        columns = key_columns(self.asked.keys)
        return [columns[key.name] for key in self.group.keys]

    def _history(self) -> DataFrame:
        """The rows that may be an answer: k0..., t (when it may be seen first), version, and what it says as `row`."""
        asked, history = self.asked, self._renamed()
        if asked.rows <= SMALL_SPINE_ROWS:
            wanted = F.broadcast(asked.spine().select(*self._keys()).distinct())
            history = history.join(wanted, self._keys(), "left_semi")
        said = [f"f{place}" for place in range(len(self.group.features))]
        return history.select(
            *self._keys(),
            (F.greatest("event", "created") if asked.known_at else F.col("event")).alias("t"),
            F.struct("event", "created", "accepted", "ordinal").alias("version"),
            F.struct("event", "deleted", "schema", *said).alias("row"),
        )

    def _renamed(self) -> DataFrame:
        """The files' rows under our names, but for those that no row of the spine can see."""
        stored = {key.name: _spark_type(key.dtype) for key in self.group.keys} | _OURS
        stored |= {feature.name: _spark_type(feature.dtype) for feature in self.group.features}
        files = _read(self.asked.session, self.group.files, stored)
        for bound in self._bounds():
            files = files.where(bound)
        return files.select(
            *(_column(key.name).alias(ours) for key, ours in zip(self.group.keys, self._keys(), strict=True)),
            F.unix_micros(EVENT_TIMESTAMP).alias("event"),
            F.unix_micros(CREATED_TIMESTAMP).alias("created"),
            *(F.col(name).alias(name.removeprefix("_")) for name in (ACCEPTED, ORDINAL, DELETED, SCHEMA)),
            *(_as_written(feature).alias(f"f{place}") for place, feature in enumerate(self.group.features)),
        )

    def _bounds(self) -> Iterator[Column]:
        """Times beyond which no row of the spine can see; one that is too old matters only as a status."""
        asked, ttl = self.asked, self.group.ttl
        yield F.col(EVENT_TIMESTAMP) <= _moment(asked.newest)
        if asked.known_at:
            yield F.col(CREATED_TIMESTAMP) <= _moment(asked.newest)
        if ttl is not None and not asked.statuses:
            yield F.col(EVENT_TIMESTAMP) >= _moment(max(asked.oldest - ttl // MICROSECOND, EARLIEST))

    def _answers(self) -> list[Column]:
        """Steps 3 to 6 of the rule: each feature's value, then each one's status if asked for."""
        fresh, features = self._fresh(), list(enumerate(self.group.features))
        values = [F.when(_found(feature) & fresh, F.col(f"h.f{place}")) for place, feature in features]
        if not self.asked.statuses:
            return values
        return values + [
            F.when(~_found(feature), NOT_FOUND)
            .when(~fresh, OUTSIDE_MAX_AGE)
            .when(F.col(f"h.f{place}").isNull(), NULL_VALUE)
            .otherwise(PRESENT)
            for place, feature in features
        ]

    def _fresh(self) -> Column:
        ttl = self.group.ttl
        return F.lit(True) if ttl is None else F.col("t") - F.col("h.event") <= ttl // MICROSECOND


def _found(feature: HistoryFeature) -> Column:
    """There is a row, it is no tombstone, and its schema has the feature; never null."""
    found = ~F.col("h.deleted")
    if feature.schema_ids is not None:
        found = found & F.col("h.schema").isin(sorted(feature.schema_ids))
    return F.coalesce(found, F.lit(False))


def _read(session: SparkSession, files: Sequence[str], columns: dict[str, T.DataType]) -> DataFrame:
    """These columns of the files by name, null where a file lacks one; RunFailed if Spark would read other files."""
    schema = T.StructType([T.StructField(name, kind) for name, kind in columns.items()])
    frame = session.read.options(**_READING).schema(schema).parquet(*map(_literal, files))
    if (found := len(frame.inputFiles())) != len(set(files)):
        hidden = [path for path in files if Path(path).name.startswith(("_", "."))]
        raise RunFailed(
            f"Spark reads {found} of {len(set(files))} files; it passes over names with `_` or `.` in front: {hidden}."
        )
    return frame


def _literal(path: str | Path) -> str:
    """A local path as Spark takes it, none of its letters a pattern."""
    return "file://" + re.sub(r"([\\*?\[\]{}])", r"\\\1", str(path))


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")


def _as_written(feature: HistoryFeature) -> Column:
    """The feature's column; a timestamp as microseconds, since Spark writes INT96, which reaches the year 2262 only."""
    column = _column(feature.name)
    return F.unix_micros(column) if feature.dtype.kind == "timestamp" else column


def _moment(microseconds: int) -> Column:
    return F.timestamp_micros(F.lit(microseconds))


def _spark_type(dtype: Dtype) -> T.DataType:
    if dtype.kind == "embedding":
        return T.ArrayType(T.FloatType())
    return T.ArrayType(_TYPES[dtype.item]) if dtype.kind == "list" else _TYPES[dtype.kind]
