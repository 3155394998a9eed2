"""The point-in-time join on Spark beside DuckDB's, and what only a cluster can meet. All else is in test_engines.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.content_hash import ContentHash
from engine.errors import RunFailed
from engine.pointintime import duckdb
from engine.pointintime.rule import GroupHistory, HistoryFeature
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema
from tests.engine.pointintime.histories import CUSTOMER, INT64, MICROSECOND, STRING, Histories, day, row
from tests.spark import executors

SPARK_ONLY = pytest.mark.parametrize("joined", ["spark"], indirect=True)
DAY_US = 86_400_000_000
STORE = (Field("store_id", INT64),)
FEATURES = [
    ("amount", Dtype.parse("float64")),
    ("tier", STRING),
    ("seen_at", Dtype.parse("timestamp")),
    ("taste", Dtype.parse("embedding(3)")),
]


def times(random: np.random.Generator, rows: int, since: int) -> pa.Array:
    """Hours of twenty days, so that many are equal."""
    return pa.array(since + random.integers(0, 20 * 24, rows) * (DAY_US // 24)).cast(pa.timestamp("us", "UTC"))


def write_history(
    folder: Path, name: str, keys: tuple[Field, ...], rows: int, *, seed: int, since: int
) -> GroupHistory:
    """Rows with ties on every level of the version order, tombstones, nulls, NaN and two schemas, in two files.

    The first file is of the older schema, which lacks `tier`; every entity has some twenty rows.
    """
    random = np.random.default_rng(seed)
    schema = GroupSchema(name, 1, 1, keys, tuple(FeatureColumn(feature, dtype) for feature, dtype in FEATURES)).offline
    numbers = random.integers(0, rows // 20, rows)
    event = times(random, rows, since)
    late = pa.array(random.integers(0, 3, rows) * DAY_US).cast(pa.duration("us"))
    amounts = random.choice([np.nan, -0.0, 0.1, 7.5], rows)
    nulls = random.random(rows) < 0.1
    columns = {
        "customer_id": pa.array([f"C{number}" for number in numbers]),
        "store_id": pa.array(numbers % 7),
        "event_timestamp": event,
        "created_timestamp": pc.add(event, late),
        "amount": pa.array(amounts, mask=nulls),
        "tier": pa.array(random.choice(["gold", "", "é"], rows), mask=nulls),
        "seen_at": event,
        "taste": pa.array([None if null else [number, 0.5, -1.0] for number, null in zip(numbers, nulls, strict=True)]),
        "_accepted": pa.array(random.integers(0, 3, rows)),
        "_ordinal": pa.array(random.permutation(rows)),
        "_schema": pa.array((np.arange(rows) >= rows // 2) + 1),
        "_deleted": pa.array(random.random(rows) < 0.05),
        "_run": pa.array(["run-1"] * rows),
    }
    table = pa.table({field.name: columns[field.name].cast(field.type) for field in schema})
    paths = [folder / f"{name}-{part}.parquet" for part in ("old", "new")]
    pq.write_table(table.slice(0, rows // 2).drop_columns(["tier"]), paths[0])
    pq.write_table(table.slice(rows // 2), paths[1])
    features = tuple(
        HistoryFeature(feature, f"{name}_{feature}", dtype, frozenset({2}) if feature == "tier" else None)
        for feature, dtype in FEATURES
    )
    return GroupHistory(name, tuple(map(str, paths)), keys, timedelta(days=2), features)


def hash_of(table: pa.Table) -> str:
    """Equal for equal rows, where `equals` finds no NaN equal to itself."""
    content = ContentHash(table.schema)
    for batch in table.to_batches():
        content.update(batch)
    return content.hexdigest()


@pytest.fixture
def on_spark(spark_session: Any, tmp_path: Path) -> Callable[..., Any]:
    """Spark's join with all options of its own."""
    from engine.pointintime.spark import join  # only where pyspark is installed

    return partial(join, session=spark_session, temp_directory=tmp_path / "exchange")


def write_spine(path: Path, rows: int, *, since: int) -> Path:
    random = np.random.default_rng(0)
    numbers = random.integers(0, rows // 6, rows)  # some of nobody, many twice
    columns = {
        "label": pa.array(random.integers(0, 2, rows)),
        "store_id": pa.array(numbers % 7).cast(pa.int32()),
        "customer_id": pa.array([f"C{number}" for number in numbers]).dictionary_encode(),
        "event_timestamp": times(random, rows, since),
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("rows", "known_at"),
    [
        pytest.param(20_000, False, id="as of"),
        pytest.param(20_000, True, id="as known", marks=pytest.mark.soak),
        pytest.param(1_000_000, False, id="a million as of", marks=pytest.mark.soak),
        pytest.param(1_000_000, True, id="a million as known", marks=pytest.mark.soak),
    ],
)
def test_duckdb_and_spark_write_datasets_of_one_hash(
    rows: int, known_at: bool, on_spark: Callable[..., Any], tmp_path: Path
) -> None:
    since = (datetime(2026, 11, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    groups = [
        write_history(tmp_path, "purchases", CUSTOMER, 3 * rows, seed=1, since=since),
        write_history(tmp_path, "stores", STORE, rows, seed=2, since=since),  # seven entities of many rows
        write_history(tmp_path, "visits", (*CUSTOMER, *STORE), rows, seed=3, since=since),
    ]
    spine = write_spine(tmp_path / "spine.parquet", rows, since=since)
    hashes = []
    joins = {"duckdb": partial(duckdb.join, temp_directory=tmp_path / "spill"), "spark": on_spark}
    for name, join in joins.items():
        written, started = tmp_path / f"{name}.parquet", time.monotonic()
        assert join(spine, groups, known_at=known_at, statuses=True, output=written) == rows
        print(f"{name}: {rows} rows in {time.monotonic() - started:.1f} s")
        hashes.append(hash_of(pq.read_table(written)))
    assert hashes[0] == hashes[1]
    said = pq.read_table(tmp_path / "spark.parquet", columns=["purchases_tier__status"])
    counts = {count["values"]: count["counts"] for count in pc.value_counts(said.column(0)).to_pylist()}
    assert set(counts) == {"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"}
    assert min(counts.values()) > rows // 100


def test_a_spine_too_large_to_be_handed_to_every_executor_gets_the_same_answers(
    on_spark: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = write_history(tmp_path, "purchases", CUSTOMER, 2_000, seed=1, since=0)
    spine = write_spine(tmp_path / "spine.parquet", 600, since=0)
    small = on_spark(spine, [group], statuses=True)
    monkeypatch.setattr("engine.pointintime.spark.SMALL_SPINE_ROWS", 0)
    monkeypatch.setattr("engine.pointintime.spark._ROWS_PER_PART", 100)  # and in several parts
    assert hash_of(on_spark(spine, [group], statuses=True)) == hash_of(small)


def test_an_executor_that_is_killed_between_and_in_joins_takes_no_row_along(
    on_spark: Callable[..., Any], tmp_path: Path
) -> None:
    groups = [
        write_history(tmp_path, name, CUSTOMER, 20_000, seed=seed, since=0)
        for seed, name in enumerate(("purchases", "visits"))
    ]
    spine = write_spine(tmp_path / "spine.parquet", 5_000, since=0)
    killed: list[int] = []

    def kill_one(batch: pa.RecordBatch | None) -> None:
        if batch is None and not killed:
            running = executors()
            assert len(running) == 2
            running[0].send_signal(signal.SIGKILL)
            killed.append(running[0].pid)

    got = on_spark(spine, groups, statuses=True, follow=kill_one)
    assert killed
    assert hash_of(got) == hash_of(duckdb.join(spine, groups, statuses=True, temp_directory=tmp_path / "spill"))


@SPARK_ONLY
def test_times_of_all_centuries_come_back(histories: Histories, joined: Callable[..., pa.Table]) -> None:
    moments = [datetime(year, 1, 1, 0, 0, 0, 1, tzinfo=UTC) for year in (1, 1582, 1899, 1970, 2262, 2263, 9999)]
    rows = [row(f"C{moment.year}", moment, None, seen_at=moment) for moment in moments]
    group = histories.group(rows, features=[("seen_at", "seen_at", Dtype.parse("timestamp"))], ttl=timedelta(0))
    got = joined([(f"C{moment.year}", moment) for moment in moments], group)
    assert got["seen_at"].to_pylist() == moments


@pytest.mark.soak
@SPARK_ONLY
def test_flipped_bits_in_a_history_file_are_seen(histories: Histories, joined: Callable[..., pa.Table]) -> None:
    group = histories.group([row("C1", day(1), None, tier="a tier to be found")], features=[("tier", "tier", STRING)])
    path = Path(group.files[0])
    table = pq.read_table(path)
    pq.write_table(table, path, write_page_checksum=True, compression="none", write_statistics=False)
    assert joined([("C1", day(1))], group)["tier"].to_pylist() == ["a tier to be found"]
    path.write_bytes(path.read_bytes().replace(b"a tier to be found", b"a tier to be fOund"))
    with pytest.raises(RunFailed, match=r"part-1\.parquet.*CRC"):
        joined([("C1", day(1))], group)


@SPARK_ONLY
def test_a_file_that_spark_would_pass_over_is_an_error(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    group = histories.group([row("C1", day(1), 1)])
    hidden = Path(group.files[0]).rename(tmp_path / "_part-1.parquet")
    with pytest.raises(RunFailed, match=r"_part-1\.parquet"):
        joined([("C1", day(1))], replace(group, files=(str(hidden),)))


@SPARK_ONLY
def test_a_history_file_that_is_gone_is_named(histories: Histories, joined: Callable[..., pa.Table]) -> None:
    group = histories.group([row("C1", day(1), 1)])
    with pytest.raises(RunFailed, match=r"gone\.parquet"):
        joined([("C1", day(1))], replace(group, files=(*group.files, "/nowhere/gone.parquet")))
