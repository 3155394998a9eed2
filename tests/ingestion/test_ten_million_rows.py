"""Ten million rows of one file through one run: the memory stays flat, and every row is there once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog import stores
from catalog.models import FeatureGroup
from engine import instants
from engine.entity_key import encode_key
from engine.online.codec import decode_row
from engine.online.store import row_key
from tests.factories import make_customer_group
from tests.ingestion import contents, processes

pytestmark = [pytest.mark.soak, pytest.mark.django_db(transaction=True)]

ROWS = 10_000_000
CUSTOMERS = 1_000_000
ROWS_PER_GROUP = 100_000
START = datetime(2024, 1, 1, tzinfo=UTC)
MIB = 1 << 20
GREATEST_MIB = 1024
GREATEST_GROWTH = 1.10
SECONDS_BETWEEN_SAMPLES = 0.1


def seconds_of(numbers: np.ndarray) -> np.ndarray:
    """When the row of each number happened: each at a second of its own, in no order (the factor has no 2 or 5)."""
    return numbers * 7_654_321 % ROWS


def write(path: Path) -> None:
    """Row `n` is of customer `n % CUSTOMERS`; a hundred groups of rows, of which one at a time is in memory."""
    schema = pa.schema(
        [
            ("customer_id", pa.string()),
            ("purchased_at", pa.timestamp("us", "UTC")),
            ("total_spent", pa.float64()),
            ("total_purchases", pa.int64()),
            ("customer_segment", pa.string()),
        ]
    )
    first = instants.microseconds(START)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, ROWS, ROWS_PER_GROUP):
            numbers = np.arange(start, start + ROWS_PER_GROUP)
            columns = [
                pa.array([f"C{number}" for number in numbers % CUSTOMERS]),
                pa.array(first + seconds_of(numbers) * 1_000_000).cast(schema.field(1).type),
                pa.array(numbers * 2.0),
                pa.array(numbers),
                pa.array(["gold"] * ROWS_PER_GROUP),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def newest_of(customer: int) -> int:
    """The number of the row of this customer that happened last."""
    numbers = np.arange(customer, ROWS, CUSTOMERS)
    return int(numbers[seconds_of(numbers).argmax()])


@dataclass
class Watched:
    """A process that is run to its end: what it said, and its resident memory in MiB, before and after the commit."""

    output: str = ""
    seconds: float = 0.0
    writing: list[float] = field(default_factory=list)
    bringing_online: list[float] = field(default_factory=list)


def growth(memory: list[float]) -> float:
    """By how much the second half of the last three quarters lies above the first, in their medians."""
    late = memory[len(memory) // 4 :]
    middle = len(late) // 2
    return float(np.median(late[middle:]) / np.median(late[:middle]))


def tenths(memory: list[float]) -> list[int]:
    return [round(float(np.median(part))) for part in np.array_split(memory, 10)]


def watch(command: list[str], output: Path, commit: Path) -> Watched:
    watched, began = Watched(), time.monotonic()
    with (
        output.open("w+") as said,
        subprocess.Popen(command, cwd=processes.PROJECT, env=processes.environment(), stdout=said) as process,
    ):
        try:
            seen = psutil.Process(process.pid)
            while process.poll() is None:
                phase = watched.bringing_online if commit.exists() else watched.writing
                phase.append(seen.memory_info().rss / MIB)
                time.sleep(SECONDS_BETWEEN_SAMPLES)
        finally:
            process.kill()  # only when the watching failed; it has ended by then
    watched.seconds = time.monotonic() - began
    watched.output = output.read_text()
    assert process.returncode == 0, watched.output
    return watched


def assert_every_row_once(group: FeatureGroup) -> None:
    files = [contents.folder(group) / name for name in contents.data_files(group)]
    assert stores.offline(group.name, 1).version == 1  # 0 made the table
    scanned = pl.scan_parquet(files)
    found = scanned.select(
        pl.len().alias("rows"),
        pl.col("total_purchases").sum().alias("sum"),
        pl.col("event_timestamp").n_unique().alias("times"),
    ).collect()
    assert found.row(0) == (ROWS, ROWS * (ROWS - 1) // 2, ROWS)


def assert_newest_online(group: FeatureGroup) -> None:
    store, chance = stores.online(), Random(7)
    sample = [0, CUSTOMERS - 1, *chance.sample(range(CUSTOMERS), 1_000)]
    prefix = store.row_prefix(group.name, group.version)
    _, values = store.read([row_key(prefix, encode_key([f"C{customer}"])) for customer in sample])
    for customer, value in zip(sample, values, strict=True):
        assert value is not None
        number, row = newest_of(customer), decode_row(value)
        happened = START + timedelta(seconds=int(seconds_of(np.int64(number))))
        assert (row.event_us, row.values[0], row.values[1]) == (instants.microseconds(happened), number, 2.0)


def test_ten_million_rows_take_no_more_memory_than_a_few(sources: Path, tmp_path: Path) -> None:
    group = make_customer_group()
    path = sources / "rows.parquet"
    write(path)
    command = [sys.executable, "manage.py", "ingest", group.name, "--from", str(path), "--json"]
    commit = contents.folder(group) / "_delta_log" / f"{1:020}.json"  # 0 makes the table
    watched = watch(command, tmp_path / "output", commit)
    told = json.loads(watched.output)
    phases = {"writing": watched.writing, "bringing online": watched.bringing_online}
    print(f"\n{ROWS:,} rows in {watched.seconds:.0f} s, {ROWS / watched.seconds:,.0f} rows/s")
    for name, memory in phases.items():
        seconds = len(memory) * SECONDS_BETWEEN_SAMPLES
        print(f"{name}: {seconds:.0f} s, peak {max(memory):.0f} MiB, {growth(memory):.3f}, by tenths {tenths(memory)}")
    assert (told["read"], told["accepted"], told["quarantined"]) == (ROWS, ROWS, 0)
    assert_every_row_once(group)
    assert_newest_online(group)
    for memory in phases.values():
        assert max(memory) < GREATEST_MIB
        assert growth(memory) < GREATEST_GROWTH
