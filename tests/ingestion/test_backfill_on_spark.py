"""A new version computed on Spark beside the same one computed on one machine, and what only a cluster can meet."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from django.conf import settings as django_settings
from polars.testing import assert_frame_equal
from pytest_django import Settings

from catalog import runs, stores
from catalog.models import FeatureGroup, Run, RunState
from catalog.schemas import current_schema
from engine.errors import Conflict, CorruptData, InvalidInput, LeaseLost
from engine.offline.compaction import compact
from engine.offline.table import READ_ROWS
from ingestion import drain, ingest
from ingestion.backfill import queue_backfill
from ingestion.ingest import execute
from ingestion.push import delete, find_group
from ingestion.quarantine import payloads_of, raw_file
from ingestion.raw_rows import read_records
from tests import spark
from tests.factories import add_feature, make_customer_group, write_parquet
from tests.ingestion import contents

#: A lease is renewed by a thread of its own, which a test's transaction would hold up.
pytestmark = pytest.mark.django_db(transaction=True)

SINCE = datetime(2024, 11, 1, tzinfo=UTC)
#: What two versions of one group have each by itself.
OWN = ["_run", "_schema"]
COUNTS = ("rows_read", "rows_accepted", "rows_quarantined")


def rows_of(random: np.random.Generator, rows: int, *, scored: bool) -> pa.Table:
    """Purchases of a few customers with equal times among them and a tenth of all values null."""
    hours = SINCE + timedelta(hours=1) * random.integers(0, 200, rows)
    nulls = [random.random(rows) < 0.1 for _ in range(6)]
    columns = {
        "customer_id": pa.array([f"C{number}" for number in random.integers(0, rows // 8, rows)]),
        "purchased_at": pa.array(list(hours), pa.timestamp("us", "UTC")),
        "total_spent": pa.array(random.choice([0.0, -0.0, 0.1, 1e300, 7.5], rows), mask=nulls[0]),
        "bought": pa.array(random.integers(1, 10, rows), mask=nulls[1]),
        "tier": pa.array(random.choice(["gold", "", "é", "tin"], rows), mask=nulls[2]),
        "seen_at": pa.array(list(hours), pa.timestamp("us", "UTC"), mask=nulls[3]),
        "taste": pa.array(
            [None if null else [n, 0.1, -1.0] for n, null in enumerate(nulls[4])], pa.list_(pa.float32())
        ),
        "tags": pa.array([None if null else ["a"] * (n % 3) for n, null in enumerate(nulls[5])], pa.list_(pa.string())),
    }
    if scored:
        columns["score"] = pa.array(random.integers(0, 10, rows))
    return pa.table(columns)


def make_history(sources: Path, rows: int, *, seed: int) -> FeatureGroup:
    """Version 1 with rows of two schemas in several files and in the log, tombstones among them."""
    random = np.random.default_rng(seed)
    features = {"bought": "int64", "tier": "string", "seen_at": "timestamp", "taste": "embedding(3)"}
    group = make_customer_group(
        inputs={"total_spent": "float64"}, features=features | {"tags": "list<string>"}, source="*.parquet"
    )
    add_feature(group, "average", "float64", expression="total_spent / bought")
    for part, scored in enumerate([False, False, True, True]):
        if part == 2:
            add_feature(group, "score", "int64")
        write_parquet(sources / f"{part}.parquet", rows_of(random, rows // 4, scored=scored))
        ingest.ingest(find_group(group.name))
        for number in random.integers(0, rows // 32, 8):
            delete(find_group(group.name), {"customer_id": f"C{number}"}, at=SINCE + timedelta(hours=int(number) % 200))
        if part < 3:
            drain.drain(group)
    return group


def redefine(group: FeatureGroup) -> FeatureGroup:
    """Version 2: another average, which not every row has, two functions, and rules that rows break in all ways."""
    group.version += 1
    group.save()
    group.features.filter(name="average").update(expression="total_spent * 1e10 / (bought - 3)")
    group.features.filter(name="bought").update(validation={"max_value": 8})
    group.features.filter(name="tier").update(
        validation={"allowed_values": ["gold", "", "é"], "on_violation": "set_null"}
    )
    group.features.filter(name="score").update(validation={"min_value": 5, "on_violation": "warn"})
    derived = {"initial": ("string", "tier", True), "thrice": ("int64", "bought", False)}
    for name, (dtype, read, rowwise) in derived.items():
        add_function(group, name, dtype, read, rowwise=rowwise)
    return find_group(group.name)


def add_function(group: FeatureGroup, name: str, dtype: str, read: str, *, rowwise: bool) -> None:
    feature = add_feature(group, name, dtype)
    feature.function, feature.arguments, feature.rowwise = f"tests.ingestion.spelled.{name}", [read], rowwise
    feature.save()


@pytest.fixture
def group(sources: Path, settings: Settings) -> FeatureGroup:
    settings.FEATUREHUB_FUNCTION_MODULES = ("tests.ingestion.spelled",)
    return redefine(make_history(sources, 400, seed=1))


def raise_version(group: FeatureGroup) -> FeatureGroup:
    group.version += 1
    group.save()
    return find_group(group.name)


def table_of(group: FeatureGroup) -> pl.DataFrame:
    rows = pl.DataFrame(contents.offline(group), infer_schema_length=None)
    return rows.drop(OWN).sort("_accepted", "_ordinal", "_deleted")


def quarantine_of(run: Run) -> dict[str, Any]:
    """All that is kept of a run's rejected rows: for people, to come again, and in the database."""
    rules = {(rule.column, rule.rule): (rule.detail, rule.row_count, rule.samples) for rule in run.quarantined.all()}
    raw = []
    for record, _ in read_records(raw_file(run), rules):
        assert record is not None
        origins = record.batch.origins
        assert origins is not None
        assert isinstance(record.batch.rows, pa.Table)
        kept = zip(record.numbers, record.batch.rows.to_pylist(), origins.rows(), strict=True)
        raw += [(record.column, record.rule, *row) for row in kept]
    return {"rules": rules, "payloads": list(payloads_of(run)), "raw": raw, "kinds": record.batch.rows.schema}


def by_both(group: FeatureGroup) -> None:
    """Compute version 2 here and version 3, which is defined as 2 is, on Spark; all that came of it is equal."""
    here = execute(queue_backfill(group, from_version=1))
    expected = table_of(group)
    group = raise_version(group)
    assert contents.offline_version(group) == -1
    there = execute(queue_backfill(group, from_version=1, on_spark=True))
    for on_spark in (False, True):
        with pytest.raises(Conflict, match=str(there.pk)):
            queue_backfill(group, from_version=1, on_spark=on_spark)
    assert (there.state, there.message) == (RunState.SUCCEEDED, "")
    assert [getattr(there, count) for count in COUNTS] == [getattr(here, count) for count in COUNTS]
    assert sorted(map(str, there.warnings)) == sorted(map(str, here.warnings))
    assert {warning["column"] for warning in here.warnings} == {"tier", "score"}
    assert_frame_equal(table_of(group), expected)
    assert set(expected["_deleted"]) == {True, False}
    kept = quarantine_of(there)
    assert kept == quarantine_of(here)
    assert set(kept["rules"]) == {
        ("bought", "max_value"),
        ("average", "transformation"),
        ("initial", "transformation"),
    }
    assert contents.data_files(group) == sorted(file.name for file in stores.offline(group.name, 3).entries())
    assert len(contents.data_files(group)) > 2
    assert not list((django_settings.FEATUREHUB_HOME / "tmp").glob("spark-*"))
    assert there.bytes_read == there.bytes_total > 0


def test_spark_computes_what_one_machine_computes(group: FeatureGroup, spark_session: Any) -> None:
    by_both(group)


@pytest.mark.soak
def test_the_same_of_files_of_several_batches(sources: Path, settings: Settings, spark_session: Any) -> None:
    settings.FEATUREHUB_FUNCTION_MODULES = ("tests.ingestion.spelled",)
    group = make_history(sources, 600_000, seed=2)
    drain.drain(group)
    compact(stores.offline(group.name, 1), sort_by=["customer_id"])
    assert max(file.rows for file in stores.offline(group.name, 1).entries()) > 3 * READ_ROWS
    by_both(redefine(group))


def first_time(work: Callable[[Run], object]) -> Callable[[Run], None]:
    """Does the work when the run is looked after first, which is while Spark computes."""
    done: list[Run] = []

    def look(run: Run) -> None:
        if not done:
            done.append(run)
            work(run)

    return look


def test_an_executor_that_is_killed_takes_no_row_along(group: FeatureGroup, spark_session: Any) -> None:
    add_function(group, "slowly", "int64", "bought", rowwise=True)
    killed: list[int] = []

    def kill_one(_: Run) -> None:
        (one, *others) = spark.executors()
        assert others
        one.send_signal(signal.SIGKILL)
        killed.append(one.pid)

    run = execute(queue_backfill(group, on_spark=True), progress=first_time(kill_one))
    assert killed
    assert run.rows_accepted == contents_count(group) > 200
    assert contents.data_files(group) == sorted(file.name for file in stores.offline(group.name, 2).entries())
    spark_rows = table_of(group)
    group = raise_version(group)
    execute(queue_backfill(group, from_version=1))
    assert_frame_equal(spark_rows, table_of(group))


def contents_count(group: FeatureGroup) -> int:
    return len(contents.offline(group))


@pytest.mark.soak
def test_two_attempts_of_a_task_never_write_one_file(group: FeatureGroup, spark_session: Any, tmp_path: Path) -> None:
    from engine.spark.recomputation import Recomputation, executors_find_us

    older = stores.offline(group.name, 1)
    wanted = Recomputation(
        older=str(older.folder),
        files=tuple(older.entries()),
        target=str(tmp_path / "v2"),
        names="run-",
        schema=current_schema(group),
        modules=tuple(django_settings.FEATUREHUB_FUNCTION_MODULES),
        run="",
        now=datetime.now(UTC),
        max_skew=timedelta(0),
    )
    with executors_find_us(spark_session):
        twice = spark_session.range(0, 2, 1, 2).selectExpr("id - id AS place")
        answers = twice.mapInArrow(wanted, "said string, rows binary, origins binary").collect()
    names = [said["file"]["name"] for answer in answers if (said := json.loads(answer.said)).get("file")]
    assert len(set(names)) == len(names) == 2 * len({name.split("-")[-1] for name in names}) > 0
    assert sorted(names) == sorted(path.name for path in (tmp_path / "v2").iterdir())


def test_one_that_is_cancelled_on_the_way_leaves_nothing(group: FeatureGroup, spark_session: Any) -> None:
    add_function(group, "slowly", "int64", "bought", rowwise=True)
    run = queue_backfill(group, on_spark=True)
    with pytest.raises(LeaseLost, match="Cancelled by ada"):
        execute(run, progress=first_time(lambda run: runs.cancel(Run.objects.get(pk=run.pk), by="ada")))
    assert Run.objects.get(pk=run.pk).state == RunState.CANCELLED
    assert contents.offline_version(group) == -1
    assert contents.data_files(group) == []
    tracker = spark_session.sparkContext.statusTracker()
    jobs = [job for number in range(2_000) if (job := tracker.getJobInfo(number))]
    assert (jobs[-1].status, list(tracker.getActiveJobsIds())) == ("FAILED", [])
    runs.retry(run, by="ada")
    assert execute(Run.objects.get(pk=run.pk)).rows_accepted == contents_count(group) > 200


def test_what_ends_it_on_one_machine_ends_it_on_spark_with_the_same_words(
    group: FeatureGroup, spark_session: Any
) -> None:
    add_function(group, "never", "int64", "bought", rowwise=False)
    said = []
    for on_spark in (False, True):
        with pytest.raises(
            InvalidInput, match="never failed for a batch: it raised ZeroDivisionError on line"
        ) as error:
            execute(queue_backfill(group, on_spark=on_spark))
        said.append(str(error.value))
    assert said[0] == said[1]
    group.features.filter(name="never").delete()
    (file, *_) = stores.offline(group.name, 1).entries()
    path = stores.offline(group.name, 1).folder / file.name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptData, match=file.name):
        execute(queue_backfill(group, on_spark=True))
    assert contents.data_files(group) == []


def test_a_rule_that_only_the_whole_run_can_tell_is_refused_by_name(group: FeatureGroup, spark_session: Any) -> None:
    group.features.filter(name="tier").update(validation={"unique": True})
    with pytest.raises(InvalidInput, match=r"^tier of customer_purchases must be unique .* leave --engine spark out"):
        queue_backfill(group, on_spark=True)
    assert not group.runs.filter(kind="backfill").exists()


def test_without_spark_nothing_is_queued(group: FeatureGroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spark.hide_java(monkeypatch, tmp_path)
    with pytest.raises(InvalidInput, match="Spark"):
        queue_backfill(group, on_spark=True)
    assert not group.runs.filter(kind="backfill").exists()
