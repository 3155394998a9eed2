"""A hub of its own for one measurement: a fresh home, its private Redis, one group over a source file."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.data import ENTITY, FEATURES, GROUP, KEY, LOGGED_AT, SERVICE


@contextmanager
def opened(home: Path) -> Iterator[str]:
    """Django set up on `home`, embedded; gives the URL of the private Redis. The first call makes the catalog."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "featurehub.settings",
        "FEATUREHUB_HOME": str(home),
        "FEATUREHUB_SOURCE_ROOTS": str(home),
        "FEATUREHUB_LOG_LEVEL": "ERROR",
    }
    import django

    django.setup()
    from featurehub import embedded, preparation
    from ingestion.materialize import ensure_warm

    preparation.bring_database_up_to_date()
    with embedded.redis() as url:
        _make_catalog(home)
        ensure_warm()
        yield url


def _make_catalog(home: Path) -> None:
    import pyarrow.parquet as pq
    import yaml

    from catalog.definitions import apply

    group: dict[str, object] = {
        "name": GROUP,
        "entity": ENTITY,
        "status": "active",
        "features": [{"name": name, "dtype": dtype} for name, dtype in FEATURES.items()],
        "source": {"kind": "file", "path": "rows.parquet"},
    }
    rows = home / "rows.parquet"
    if rows.exists() and LOGGED_AT in pq.read_schema(rows).names:
        group["created_timestamp"] = LOGGED_AT
    entity = {"name": ENTITY, "join_keys": [{"name": KEY, "dtype": "int64"}]}
    file = home / "definitions.yaml"
    service = {"name": SERVICE, "version": 1, "status": "active", "features": [f"{GROUP}:{name}" for name in FEATURES]}
    all_of_it = {"entities": [entity], "feature_groups": [group], "feature_services": [service]}
    file.write_text(yaml.safe_dump(all_of_it))
    apply([file])


def peak_megabytes() -> float:
    """The most memory this program has held, in MB; getrusage would count what the process held before it was one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_milliseconds(work: Callable[[], object], *, times: int) -> float:
    """The median of `times` calls, after a tenth as many that are not counted."""
    for _ in range(times // 10):
        work()
    return 1000 * median(seconds(work) for _ in range(times))


def report(**figures: object) -> None:
    """One measurement's figures, for the process that started it."""
    json.dump(figures, sys.stdout)
