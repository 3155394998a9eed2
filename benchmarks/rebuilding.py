"""Filling the online store from nothing, and what reads take while the whole table is brought there again.

python -m benchmarks.rebuilding HOME ENTITIES [ROWS_PER_SECOND]
(a home into which benchmarks.ingestion has ingested; reads are of one vector, in a process of their own)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import redis

from benchmarks import hub
from benchmarks.data import FEATURES, GROUP, KEY

PACE = 20_000
IDLE_SECONDS = 5.0
SECONDS_BETWEEN_READS = 0.005


def main(home: Path, entities: int, rows_per_second: int) -> None:
    with hub.opened(home) as url:
        from ingestion import materialize
        from serving import vectors

        with redis.Redis.from_url(url) as client:
            client.flushdb(asynchronous=True)
        seconds = hub.seconds(materialize.rebuild)
        with redis.Redis.from_url(url) as client:
            keys = client.dbsize()
        plan, random = vectors.of_features([f"{GROUP}:{name}" for name in FEATURES]), Random(3)

        def read() -> None:
            found = vectors.read(plan, {KEY: [random.randrange(entities)]})
            assert set(found.statuses[0]) == {"PRESENT"}

        began = time.monotonic()
        idle = _reads(read, lambda: time.monotonic() - began < IDLE_SECONDS)
        hub.report(
            keys=keys,
            seconds=seconds,
            rows_per_second=rows_per_second,
            idle=idle,
            unpaced=_reads_beside_materialize(read, 0),
            paced=_reads_beside_materialize(read, rows_per_second),
        )


def _reads_beside_materialize(read: Callable[[], None], rows_per_second: int) -> dict[str, float]:
    """What reads take while another process brings the whole table online, and how long that takes."""
    environment = os.environ | {"FEATUREHUB_BULK_ROWS_PER_SECOND": str(rows_per_second)}
    command = [sys.executable, "manage.py", "materialize", GROUP, "--full", "--json"]
    began = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        figures = _reads(read, lambda: process.poll() is None)
    assert process.returncode == 0
    return figures | {"seconds": time.monotonic() - began}


def _reads(read: Callable[[], None], goes_on: Callable[[], bool]) -> dict[str, float]:
    """Milliseconds of reads at even distances: the median and the 99th percentile."""
    took = []
    while goes_on():
        took.append(1000 * hub.seconds(read))
        time.sleep(SECONDS_BETWEEN_READS)
    took.sort()
    return {"reads": len(took), "p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else PACE)
