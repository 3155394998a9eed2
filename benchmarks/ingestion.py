"""Rows into both stores: ours through `ingestion.ingest`, the same without statistics, and bare as Parquet and a Redis
pipeline without any check.

python -m benchmarks.ingestion ours|plain|bare HOME
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import redis

from benchmarks import hub
from benchmarks.data import FEATURES, GROUP, KEY


def ours(home: Path, *, is_plain: bool = False) -> None:
    with hub.opened(home):
        from catalog.models import FeatureStatistics
        from ingestion import statistics
        from ingestion.ingest import ingest
        from ingestion.push import find_group

        group = find_group(GROUP)
        if is_plain:
            begun = statistics.begun
            statistics.begun = lambda group, _: begun(group, ())  # of no feature
        taken = hub.seconds(lambda: ingest(group))
        run = group.runs.get()
        assert (run.state, run.rows_accepted) == ("succeeded", run.rows_read)
        assert FeatureStatistics.objects.count() == (0 if is_plain else len(FEATURES))
        hub.report(rows=run.rows_accepted, seconds=taken, megabytes=hub.peak_megabytes())


def bare(home: Path) -> None:
    with hub.opened(home) as url:
        client = redis.Redis.from_url(url)
        source = pq.ParquetFile(home / "rows.parquet")
        taken = hub.seconds(lambda: _copy(source, client, home / "copy.parquet"))
        hub.report(rows=source.metadata.num_rows, seconds=taken, megabytes=hub.peak_megabytes())


def _copy(source: pq.ParquetFile, client: redis.Redis, target: Path) -> None:
    encode = msgspec.msgpack.Encoder().encode
    with pq.ParquetWriter(target, source.schema_arrow) as writer:
        for batch in source.iter_batches(32_768):
            writer.write_batch(batch)
            keys = batch[KEY].to_pylist()
            rows = zip(*(batch[name].to_pylist() for name in FEATURES), strict=True)
            values = [(b"bare:%d" % key, encode(row)) for key, row in zip(keys, rows, strict=True)]
            for start in range(0, len(values), 500):
                client.mset(dict(values[start : start + 500]))


if __name__ == "__main__":
    {"ours": ours, "plain": partial(ours, is_plain=True), "bare": bare}[sys.argv[1]](Path(sys.argv[2]))
