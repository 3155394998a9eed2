"""Joins as large as people's: more history than memory, and more features than columns that anybody looks at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ingestion.processes import PROJECT

pytestmark = pytest.mark.soak

DAYS = 90
DAY_US = 86_400_000_000
KEYS = pa.field("n", pa.int64())
TIMES = pa.field("event_timestamp", pa.timestamp("us", "UTC"))
GIB = 1 << 30

JOIN = """
import json, resource, sys
from pathlib import Path
from engine.pointintime.duckdb import join
from engine.pointintime.rule import GroupHistory, HistoryFeature
from engine.schema import Dtype, Field

folder, memory_limit, groups = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
number, spent = Dtype.parse("int64"), Dtype.parse("float64")
histories = [
    GroupHistory(
        f"g{place}",
        tuple(sorted(map(str, folder.glob(f"g{place}-*.parquet")))),
        (Field("n", number),),
        None,
        tuple(HistoryFeature(name, f"g{place}_{name}", spent) for name in names),
    )
    for place, names in enumerate(groups)
]
rows = join(
    folder / "spine.parquet", histories, temp_directory=folder / "spill", memory_limit=memory_limit,
    output=folder / "joined.parquet",
)
print(json.dumps([rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def joined(folder: Path, groups: list[list[str]], *, memory_limit: str) -> tuple[int, int]:
    """The rows of the join in a process of its own, and the most memory in bytes that it had."""
    command = [sys.executable, "-c", JOIN, str(folder), memory_limit, json.dumps(groups)]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=1800)
    assert said.returncode == 0, said.stderr
    rows, peak = json.loads(said.stdout)
    return rows, peak


def write_history(path: Path, rows: int, entities: int, features: list[str], *, seed: int) -> None:
    """Random events of 90 days; a feature's value is the event's microsecond, so that each answer can be checked."""
    random = np.random.default_rng(seed)
    times = random.integers(0, DAYS * DAY_US, rows)
    moments = pa.array(times).cast(TIMES.type)
    columns = {
        "n": pa.array(random.integers(0, entities, rows)),
        "event_timestamp": moments,
        "created_timestamp": moments,
        "_accepted": pa.array(np.ones(rows, np.int64)),
        "_ordinal": pa.array(np.arange(rows)),
        "_schema": pa.array(np.ones(rows, np.int64)),
        "_deleted": pa.array(np.zeros(rows, bool)),
    }
    values = pa.array(times.astype(np.float64))
    pq.write_table(pa.table(columns | dict.fromkeys(features, values)), path, use_dictionary=False)


def write_spine(path: Path, rows: int, entities: int) -> None:
    random = np.random.default_rng(0)
    times = pa.array(random.integers(0, DAYS * DAY_US, rows)).cast(TIMES.type)
    pq.write_table(
        pa.table([pa.array(random.integers(0, entities, rows)), times], schema=pa.schema([KEYS, TIMES])), path
    )


def test_twenty_million_rows_and_two_million_of_a_spine_within_one_gigabyte(tmp_path: Path) -> None:
    entities, per_file = 1_000_000, 2_000_000
    for place in range(10):
        write_history(tmp_path / f"g0-{place}.parquet", per_file, entities, ["a", "b", "c"], seed=place + 1)
    write_spine(tmp_path / "spine.parquet", 2_000_000, entities)
    rows, peak = joined(tmp_path, [["a", "b", "c"]], memory_limit="1GB")
    assert rows == 2_000_000
    print(f"peak memory {peak / GIB:.2f} GiB")
    result = pq.read_table(tmp_path / "joined.parquet")
    moments = result["event_timestamp"].cast(pa.int64()).to_numpy()
    answers = result["g0_a"].to_numpy()
    found = ~np.isnan(answers)
    assert (answers[found] <= moments[found]).all()
    for row in range(0, 2_000_000, 400_000):  # each against the whole history
        key, moment = result["n"][row].as_py(), moments[row]
        of_key = [
            table["a"].to_numpy()[(table["n"].to_numpy() == key) & (table["a"].to_numpy() <= moment)]
            for table in (pq.read_table(path, columns=["n", "a"]) for path in tmp_path.glob("g0-*.parquet"))
        ]
        newest = np.concatenate(of_key)
        assert answers[row] == newest.max() if len(newest) else np.isnan(answers[row])


def test_a_thousand_features_of_ten_groups_take_less_than_two_gigabytes(tmp_path: Path) -> None:
    groups = [[f"f{n}" for n in range(100)] for _ in range(10)]
    for place, names in enumerate(groups):
        write_history(tmp_path / f"g{place}-0.parquet", 50_000, 17_000, names, seed=place)
    write_spine(tmp_path / "spine.parquet", 17_000, 17_000)
    rows, peak = joined(tmp_path, groups, memory_limit="1GB")
    assert rows == 17_000
    assert pq.read_schema(tmp_path / "joined.parquet").names[-1] == "g9_f99"
    print(f"peak memory {peak / GIB:.2f} GiB")
    assert peak < 2 * GIB
