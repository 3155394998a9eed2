"""A version's rows computed from the history of an older one by the executors of a Spark cluster.

Each task takes one file of the older version's table through the same functions, in the same batches, as one machine
would (engine/recomputation.py, engine/pipeline.py). It writes the accepted rows beside the table that they are for, and
hands back what one machine would have noted on the way: the names of the files, the rows that broke a rule, the rules
that rows broke and were kept. Of the attempts of a task Spark lets one answer; files that no answer names are nobody's.

Driver and executors meet in files: the tables', and the answers, which the driver reads in the order of the rows. What
is sent to an executor is `Recomputation`, plain values.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

import engine
from engine.errors import FeaturehubError, error_of
from engine.offline.files import DataFile
from engine.offline.log import LoggedFile
from engine.offline.table import OfflineTable
from engine.parquet import open_parquet
from engine.pipeline import Pipeline, Place, RejectedRows, compute, rejected_rows
from engine.raw_batch import RawBatch
from engine.recomputation import read_older
from engine.schema import GroupSchema
from engine.spark.session import Watch, named_failures, watched
from engine.statistics import Collected
from engine.suppression import Kept, Suppression
from engine.transformations import compile_group

#: RejectedRows rows of one answer.
ROWS_PER_ANSWER = 4_096
#: An answer: what it says as JSON, rejected rows and their origins as Arrow streams, statistics as `Collected` writes
#: them.
_ANSWERS = pa.schema(
    [("said", pa.string()), ("rows", pa.binary()), ("origins", pa.binary()), ("statistics", pa.binary())]
)
_ANSWERS_OF_SPARK = "said string, rows binary, origins binary, statistics binary"


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one batch, after its rejected rows: rows read, the file of the accepted ones if there are any.

    noted:      how many rows broke a rule that keeps them, by (column, rule, detail).
    suppressed: how many were of erased entities, by the hash of their key.
    statistics: what the accepted values were like, as `Collected.merge_bytes` reads it.
    """

    rows: int
    file: DataFile | None
    noted: dict[tuple[str, str, str], int]
    suppressed: dict[bytes, int]
    statistics: bytes


@dataclass(frozen=True, slots=True)
class Recomputation:
    """All that an executor has to know; called with the places of `files` that are to be computed.

    older, target: the folders of the two tables, by paths that every executor sees.
    modules:       those that Python functions may come from.
    names:         what the names of the files that are written begin with.
    suppression:   the erased entities, whose rows are left out.
    untold:        the features whose values statistics may not tell of.
    """

    older: str
    files: tuple[LoggedFile, ...]
    target: str
    names: str
    schema: GroupSchema
    modules: tuple[str, ...]
    run: str
    now: datetime
    max_skew: timedelta
    suppression: Suppression | None = None
    untold: frozenset[str] = frozenset()

    def __call__(self, places: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in places:
            for place in batch.column(0).to_pylist():
                try:
                    yield from self._answers(place)
                except FeaturehubError as error:  # the same in every attempt: the driver raises it
                    yield _answer({"error": error.code, "detail": str(error)})

    def _answers(self, place: int) -> Iterator[pa.RecordBatch]:
        pipeline = Pipeline(self.schema, compile_group(self.schema, modules=self.modules))
        task = TaskContext.get()
        names = f"{self.names}{place:05}-{task.taskAttemptId() if task else 0}-"
        for number, batch in enumerate(read_older(OfflineTable(self.older), self.files[place], self.schema)):
            yield from self._answers_of(batch, pipeline, f"{names}{number:05}")

    def _answers_of(self, batch: RawBatch, pipeline: Pipeline, name: str) -> Iterator[pa.RecordBatch]:
        if batch.origins is None:
            raise ValueError("The rows of an older version have their places.")
        place = Place.of_origins(batch.origins)
        computed = compute(batch, pipeline, place, run=self.run, now=self.now, max_skew=self.max_skew)
        for rejected in rejected_rows(batch, computed.rejected, first_row=0):
            yield from _rejected_answers(rejected)
        kept = self.suppression.kept(computed.offline) if self.suppression else Kept(computed.offline)
        file = None
        collected = Collected({f.name: f.dtype for f in self.schema.features}, counts_only=self.untold)
        if len(kept.rows):
            collected.add(kept.rows)
            schema, sort_by = self.schema.offline, self.schema.key_names
            file = OfflineTable(self.target).write_file(kept.rows, schema, name=name, sort_by=sort_by)
        noted = [
            [violation.column, violation.rule, violation.detail, len(violation.rows)] for violation in computed.noted
        ]
        suppressed = {hashed.hex(): rows for hashed, rows in kept.suppressed.items()}
        said = {"rows": len(batch), "file": file and _told(file), "noted": noted, "suppressed": suppressed}
        yield _answer(said, statistics=collected.to_bytes())


def recomputed(
    wanted: Recomputation, *, session: SparkSession, temp_directory: Path, watch: Watch
) -> Iterator[RejectedRows | Written]:
    """Every batch of `wanted.files` in order, computed on the cluster: its rejected rows, then what became of it.

    The numbers of rejected rows count those of their batch. temp_directory is a folder that this process and every
    executor see by the same path and may write to, as is the target's; what is put there is gone at the end. The
    session stays as it is.

    Raises what computing them here would raise, and RunFailed when Spark cannot finish.
    """
    temp_directory.mkdir(parents=True, exist_ok=True)
    Path(wanted.target).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spark-", dir=temp_directory.absolute()) as folder:
        answers = Path(folder) / "answers"
        with named_failures("The computation on Spark"):
            tasks = session.range(0, len(wanted.files), 1, len(wanted.files))
            with executors_find_us(session):
                frame = tasks.mapInArrow(wanted, _ANSWERS_OF_SPARK)
            watched(session, lambda: frame.write.parquet(f"file://{answers}"), watch)
        for path in sorted(answers.glob("part-*.parquet")):
            with open_parquet(path) as file:
                for number in range(file.num_row_groups):
                    for batch in file.iter_batches(1, row_groups=[number]):
                        yield _read(batch)


@contextmanager
def executors_find_us(session: SparkSession) -> Iterator[None]:
    """Functions that are handed to Spark meanwhile find this package in the executors, at the path that it has here."""
    environment = session.sparkContext.environment
    before = environment.get("PYTHONPATH")
    known = [str(Path(engine.__path__[0]).parent), before, os.environ.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in known if path)
    try:
        yield
    finally:
        environment.pop("PYTHONPATH")
        if before is not None:
            environment["PYTHONPATH"] = before


# What an executor says, and how the driver reads it.


def _answer(
    said: dict[str, Any], rows: bytes | None = None, origins: bytes | None = None, statistics: bytes | None = None
) -> pa.RecordBatch:
    return pa.record_batch([[json.dumps(said)], [rows], [origins], [statistics]], schema=_ANSWERS)


def _rejected_answers(rejected: RejectedRows) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rejected.numbers), ROWS_PER_ANSWER):
        numbers = rejected.numbers[start : start + ROWS_PER_ANSWER]
        part = rejected.batch.take(range(start, start + len(numbers)))
        said: dict[str, Any] = {"column": rejected.column, "rule": rejected.rule, "detail": rejected.detail}
        said |= {"numbers": numbers, "deleted": part.is_deleted}
        origins = None if part.origins is None else _to_bytes(part.origins.to_arrow())
        yield _answer(said, _to_bytes(part.rows), origins)


def _told(file: DataFile) -> dict[str, Any]:
    events = [event.isoformat() for event in file.event_range or ()]
    return {"name": file.name, "rows": file.rows, "size": file.size, "sha256": file.sha256, "events": events}


def _read(answer: pa.RecordBatch) -> RejectedRows | Written:
    said = json.loads(answer["said"][0].as_py())
    if "error" in said:
        raise error_of(said["error"], said["detail"])
    if "numbers" in said:
        rows, origins = (_from_bytes(answer[name][0].as_py()) for name in ("rows", "origins"))
        batch = RawBatch(rows, "typed", pl.DataFrame(origins), is_deleted=said["deleted"])
        return RejectedRows(said["column"], said["rule"], said["detail"], said["numbers"], batch)
    noted = {(column, rule, detail): rows for column, rule, detail, rows in said["noted"]}
    suppressed = {bytes.fromhex(hashed): rows for hashed, rows in said["suppressed"].items()}
    statistics = answer["statistics"][0].as_py()
    return Written(said["rows"], said["file"] and _file(said["file"]), noted, suppressed, statistics)


def _file(told: dict[str, Any]) -> DataFile:
    events = [datetime.fromisoformat(event) for event in told["events"]]
    event_range = (events[0], events[1]) if events else None
    return DataFile(told["name"], told["rows"], told["size"], told["sha256"], event_range)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(written: bytes) -> pa.Table:
    return pa.ipc.open_stream(written).read_all()
