"""The data of the benchmarks: deterministic, 10 features (6 float64, 2 int64, a short string, a bool), 90 days."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = {**{f"f{n}": "float64" for n in range(6)}, "i0": "int64", "i1": "int64", "s0": "string", "b0": "bool"}
START_US = 1_780_000_000_000_000
SPAN_US = 90 * 24 * 3600 * 1_000_000
LATE_US = 6 * 3600 * 1_000_000
PUSHED_AT = datetime.fromtimestamp((START_US + SPAN_US) // 1_000_000, UTC).isoformat().replace("+00:00", "Z")
GROUP = "customer_features"
ENTITY = "customer"
KEY = "customer_id"
SERVICE = "churn"
#: When a row was learned, where the rows of a file say so.
LOGGED_AT = "logged_at"


def write_rows(path: Path, *, rows: int, entities: int, logged: bool = False) -> None:
    """A source file of `rows` rows over `entities` entities at random event times.

    logged: with LOGGED_AT, a random time within the six hours after the event.
    """
    random = np.random.default_rng(7)
    times = START_US + random.integers(0, SPAN_US, rows)
    columns: dict[str, object] = {KEY: random.permutation(np.arange(rows) % entities), "event_timestamp": _times(times)}
    if logged:
        columns[LOGGED_AT] = _times(times + random.integers(0, LATE_US, rows))
    columns |= {f"f{n}": random.random(rows) for n in range(6)}
    columns |= {"i0": random.integers(0, 1_000, rows), "i1": random.integers(0, 10**9, rows)}
    columns |= {"s0": np.array(["aa", "bb", "cc", "dddd"])[random.integers(0, 4, rows)]}
    columns |= {"b0": random.random(rows) < 0.5}
    pq.write_table(pa.table(columns), path, row_group_size=131_072)


def write_spine(path: Path, *, rows: int, entities: int) -> None:
    """A spine of `rows` random (entity, time) pairs."""
    random = np.random.default_rng(11)
    times = START_US + random.integers(0, SPAN_US, rows)
    columns = {KEY: random.integers(0, entities, rows), "event_timestamp": _times(times)}
    pq.write_table(pa.table(columns), path)


def _times(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds, pa.timestamp("us", "UTC"))


def pushed_rows(first: int, count: int) -> list[dict[str, object]]:
    """Rows to push: of the `count` entities from `first` on, each once, all at one event time after the span.

    The values follow from the entity, so that who reads a row back knows what it has to be.
    """
    return [pushed_row(entity) for entity in range(first, first + count)]


def pushed_row(entity: int) -> dict[str, object]:
    """What `pushed_rows` has for one entity."""
    random = Random(entity)
    row: dict[str, object] = {KEY: entity, "event_timestamp": PUSHED_AT}
    row |= {f"f{n}": random.random() for n in range(6)}
    row |= {"i0": random.randrange(1_000), "i1": random.randrange(10**9)}
    return row | {"s0": random.choice(("aa", "bb", "cc", "dddd")), "b0": random.random() < 0.5}
