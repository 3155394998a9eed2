"""A feature computed by a function of an allow-listed module, ingested by a schedule of a running stack."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurehub.environment import PROJECT
from tests.journeys.conftest import Run

MODULE = """
import polars as pl

def pace(frame: pl.DataFrame) -> pl.Series:
    return frame["parcels"] / frame["hours"]

def shout(row: dict) -> str:
    return row["vehicle"].upper() + "!"
"""

DEFINITIONS = """
entities:
  - {name: rider, join_keys: [{name: rider_id, dtype: int64}]}
feature_groups:
  - name: rider_days
    entity: rider
    status: active
    inputs: [{name: hours, dtype: float64}, {name: vehicle, dtype: string}]
    features:
      - {name: parcels, dtype: int64}
      - {name: pace, dtype: float64, transformation: {function: riding.pace, arguments: [parcels, hours]}}
      - {name: shout, dtype: string, transformation: {function: riding.shout, arguments: [vehicle], rowwise: true}}
    source: {kind: file, path: "riders/*.csv"}
    schedule: {every: 1s}
"""

ROWS = "rider_id,event_timestamp,parcels,hours,vehicle\n7,2026-01-05T18:00:00Z,30,7.5,bike\n"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_schedule_ingests_what_functions_compute(run: Run, home: Path, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "riding.py").write_text(MODULE)
    (tmp_path / "riders").mkdir()
    (tmp_path / "definitions.yaml").write_text(DEFINITIONS)
    allowed = {
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}",
        "FEATUREHUB_FUNCTION_MODULES": "riding",
        "FEATUREHUB_SOURCE_ROOTS": str(tmp_path),
    }
    refused = run("manage.py", "apply", tmp_path / "definitions.yaml", "--json", code=1)
    assert "FEATUREHUB_FUNCTION_MODULES" in refused or "riding" in refused
    run("manage.py", "apply", tmp_path / "definitions.yaml", **allowed)
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")} | allowed
    stack = subprocess.Popen(
        [sys.executable, "-m", "featurehub.embedded"],
        cwd=PROJECT,
        env=environment | {"FEATUREHUB_HOME": str(home), "PORT": str(free_port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        (tmp_path / "riders" / "monday.csv").write_text(ROWS)
        answer = wait_for_vector(run, stack, allowed)
    finally:
        stack.send_signal(signal.SIGTERM)
        stack.wait(30)
    assert answer == {"parcels": 30, "pace": 4.0, "shout": "BIKE!"}


def wait_for_vector(run: Run, stack: subprocess.Popen[bytes], allowed: dict[str, str]) -> object:
    """What the hub answers once the schedule has brought the row in: within a minute, with nobody asking it to."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return json.loads(run("manage.py", "vector", "rider", "7", "--json", **allowed))
        except AssertionError:
            assert stack.poll() is None
            assert time.monotonic() < deadline
            time.sleep(1)
