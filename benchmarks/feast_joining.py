"""Feast's point-in-time join over the same rows: a Parquet spine in, a Parquet file out.

python -m benchmarks.feast_joining duckdb|dask HOME SPINE    (a home that has rows.parquet; with .venv-feast's Python)
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import hub
from benchmarks.data import ENTITY, FEATURES, GROUP, KEY, LOGGED_AT


def main(store: str, home: Path, spine: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    features = _feast(store, home)
    started = time.perf_counter()
    asked = pq.read_table(home / spine).to_pandas()
    names = [f"{GROUP}:{name}" for name in FEATURES]
    joined = features.get_historical_features(entity_df=asked, features=names).to_arrow()
    pq.write_table(joined, home / "feast.parquet")
    taken = time.perf_counter() - started
    hub.report(seconds=taken, megabytes=hub.peak_megabytes(), rows=joined.num_rows)


def _feast(store: str, home: Path) -> Any:
    """A Feast store whose registry and offline store lie in the home."""
    from datetime import timedelta

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Bool, Float64, Int64, String

    types = {"float64": Float64, "int64": Int64, "string": String, "bool": Bool}
    entity = Entity(name=ENTITY, join_keys=[KEY], value_type=ValueType.INT64)
    source = FileSource(
        name="rows",
        path=str(home / "rows.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column=LOGGED_AT,
    )
    schema = [Field(name=name, dtype=types[dtype]) for name, dtype in FEATURES.items()]
    view = FeatureView(name=GROUP, entities=[entity], ttl=timedelta(days=365), source=source, schema=schema)
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(home / f"feast-{store}.db"),
        offline_store={"type": store},
        online_store=None,
        entity_key_serialization_version=3,
    )
    features = FeatureStore(config=config)
    features.apply([entity, source, view])
    return features


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
