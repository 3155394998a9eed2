"""Training, a kept dataset and a backfill on Spark, as commands of a shell."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurehub.environment import PROJECT
from tests import spark
from tests.journeys.conftest import Run

DEFINITIONS = """
entities:
  - {name: rider, join_keys: [{name: rider_id, dtype: int64}]}
feature_groups:
  - name: rider_days
    entity: rider
    status: active
    version: VERSION
    inputs: [{name: hours, dtype: float64}]
    features:
      - {name: parcels, dtype: int64, validation: {max_value: 30}}
      - {name: pace, dtype: float64, transformation: {expression: "EXPRESSION"}}
    source: {kind: file, path: "riders.csv"}
feature_services:
  - {name: pay, version: 1, status: active, features: [rider_days:parcels, rider_days:pace]}
"""
ROWS = """rider_id,event_timestamp,parcels,hours
7,2026-01-05T18:00:00Z,30,7.5
7,2026-01-06T18:00:00Z,,8
8,2026-01-05T18:00:00Z,20,5
"""
SPINE = """rider_id,event_timestamp,label
7,2026-01-05T19:00:00Z,a
8,2026-01-05T18:00:00Z,b
7,2026-01-07T00:00:00Z,c
9,2026-01-07T00:00:00Z,d
"""


def define(folder: Path, version: int, expression: str) -> Path:
    path = folder / "definitions.yaml"
    path.write_text(DEFINITIONS.replace("VERSION", str(version)).replace("EXPRESSION", expression))
    return path


Variables = dict[str, str]


@pytest.fixture(scope="module")
def here(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Variables:
    """What a command has to know of a hub with three rows; the spine lies beside its source."""
    if reason := spark.missing():
        pytest.skip(reason)
    tmp_path = tmp_path_factory.mktemp("sources")
    (tmp_path / "riders.csv").write_text(ROWS)
    (tmp_path / "spine.csv").write_text(SPINE)
    here = {"FEATUREHUB_SOURCE_ROOTS": str(tmp_path)}
    run("manage.py", "apply", define(tmp_path, 1, "parcels / hours"), **here)
    assert "read 3, accepted 3" in run("manage.py", "ingest", "rider_days", **here)
    return here


@pytest.fixture
def there(here: Variables, tmp_path: Path) -> Variables:
    """The same, and how Spark works."""
    return here | spark.of_commands(tmp_path)


def spine_of(here: Variables) -> list[object]:
    return ["--spine", Path(here["FEATUREHUB_SOURCE_ROOTS"]) / "spine.csv"]


@pytest.mark.soak
def test_a_user_trains_on_spark(run: Run, home: Path, here: Variables, there: Variables, tmp_path: Path) -> None:
    spine = spine_of(here)
    run("manage.py", "train", "pay", *spine, "--out", tmp_path / "here.parquet", **here)
    shown = on_a_terminal(
        ["train", "pay", *spine, "--out", tmp_path / "there.parquet", "--engine", "spark"],
        there | {"FEATUREHUB_HOME": str(home)},
    )
    assert f"4 rows written to {tmp_path}/there.parquet" in shown
    assert "\rpay: joining, " in shown
    assert "\rpay: 4 rows" in shown
    trained = pq.read_table(tmp_path / "there.parquet")
    assert trained.equals(pq.read_table(tmp_path / "here.parquet"))
    assert trained["pace"].to_pylist() == [4.0, 4.0, None, None]


@pytest.mark.soak
def test_a_user_keeps_a_dataset_and_backfills_on_spark(
    run: Run, here: Variables, there: Variables, tmp_path: Path
) -> None:
    spine = spine_of(here)
    run("manage.py", "datasets", "make", "pay_2026", "--service", "pay", *spine, "--engine", "spark", **there)
    assert '"engine": "spark 4' in run("manage.py", "datasets", "show", "pay_2026", **here)
    again = run("manage.py", "datasets", "rebuild", "pay_2026", "--out", tmp_path / "again.parquet", **here)
    assert "the same as before" in again

    run("manage.py", "apply", define(tmp_path, 2, "parcels * 2 / hours"), **here)
    assert "read 3, accepted 3" in run("manage.py", "backfill", "rider_days", "--engine", "spark", **there)
    run("manage.py", "train", "pay", *spine, "--out", tmp_path / "new.parquet", **here)
    assert pq.read_table(tmp_path / "new.parquet")["pace"].to_pylist() == [8.0, 8.0, None, None]


def on_a_terminal(arguments: list[object], variables: dict[str, str]) -> str:
    """What a command prints whose standard error is a terminal, and must end well."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TZ", "JAVA_HOME")}
    ours, its = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, "manage.py", *map(str, arguments)],
        cwd=PROJECT,
        env=kept | {"PYTHONPATH": str(PROJECT)} | variables,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert started.wait(60) == 0, shown.decode()
    return shown.decode()
