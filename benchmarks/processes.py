"""Servers of one measurement: started on free ports of this machine, known by their process ids, stopped by them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

SECONDS_TO_START = 120.0
SECONDS_TO_STOP = 30.0
SECONDS_BETWEEN_LOOKS = 0.1


class DidNotStart(RuntimeError):
    """A server ended or did not come up; the message has the end of its log."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on now; whoever takes it has to be looked at (`listens`)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], *, log: Path, variables: Mapping[str, str], folder: Path) -> Iterator[psutil.Popen]:
    """While the context lasts the process runs; at its end it and its children are gone."""
    with log.open("ab") as output:
        process = psutil.Popen(
            list(command), env=dict(variables), cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: psutil.Popen) -> None:
    family = [process, *(process.children(recursive=True) if process.is_running() else [])]
    if process.poll() is None:
        process.terminate()
    for left in psutil.wait_procs(family, timeout=SECONDS_TO_STOP)[1]:
        left.kill()
    process.wait()


def wait_until(is_up: Callable[[], bool], process: psutil.Popen, log: Path) -> None:
    """Return when `is_up`; raises DidNotStart when the process ends or that takes too long."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            raise DidNotStart(f"{' '.join(process.args)} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def listens(process: psutil.Popen, port: int) -> bool:
    """Whether it is this process, or one of its children, that listens on a port."""
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for member in [process, *process.children(recursive=True)]
        for connection in member.net_connections(kind="tcp")
    )


@contextmanager
def suspended(processes: Sequence[psutil.Popen]) -> Iterator[None]:
    """While the context lasts the processes get no time of the processor."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()
