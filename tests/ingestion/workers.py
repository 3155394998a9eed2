"""Celery processes of the project's app on the private Redis and on the database of the test that starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import faults
from tests.ingestion import processes

QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]


@contextmanager
def worker(log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of two threads that takes up the runs of lost workers after one second."""
    with _celery(log, ["worker", "--pool", "threads", "-c", "2", "-l", "INFO", *QUIET], variables) as process:
        yield process


@contextmanager
def beat(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A beat that looks at its schedules every second."""
    with _celery(log, ["beat", "--max-interval", "1", "--pidfile", ""], {}) as process:
        yield process


@contextmanager
def _celery(log: Path, arguments: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "featurehub.celery", *arguments],
            cwd=processes.PROJECT,
            env=processes.environment() | {"FEATUREHUB_LEASE_SECONDS": "1"} | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()  # also one that is stopped
            process.wait()


def fault(plan: str) -> dict[str, str]:
    """The variables that arm a fault (engine/faults.py) in a process."""
    return {"FH_FAULT": plan, "FH_FAULTS_ARMED": "1"}


@contextmanager
def failing_at(point: str) -> Iterator[None]:
    """Whoever comes by the point first in this process fails there; disarmed at the end."""
    armed = fault(f"{point}:1:raise")
    faults._passed.clear()
    os.environ.update(armed)
    try:
        yield
    finally:
        for name in armed:
            del os.environ[name]


def until(what: Callable[[], object], log: Path | None = None, *, seconds: float = 40) -> None:
    """Wait for something to become true; fails with the process's log."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text() if log else "it did not come true"
        time.sleep(0.05)


def wait_stopped(process: subprocess.Popen[bytes]) -> None:
    """Until a SIGSTOP has stopped the process."""
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def wake(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGCONT)
