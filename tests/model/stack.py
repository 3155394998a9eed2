"""The processes of one hub, each of which may be killed or stopped at any moment and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from featurehub import private_redis
from tests.ingestion import processes
from tests.ingestion.workers import until

#: How a killed Redis comes back: from its file, without it, or from a file that was kept at an earlier kill.
ComesBack = Literal["file", "wiped", "old file"]

SECONDS_TO_COME_UP = 60.0


class Member:
    """One process of the hub, with its children."""

    def __init__(self, name: str, command: list[str], log: Path, variables: dict[str, str]) -> None:
        self.name, self.command, self.log, self.variables = name, command, log, variables
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def has_ended(self) -> bool:
        """Whether it ended without having been killed."""
        return self.process is not None and self.process.poll() is not None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=processes.PROJECT,
                env=processes.environment() | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.started_at = time.time()

    def kill(self) -> None:
        """kill -9 of the process and its children; the parent is stopped first, so that it makes no new ones."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)
        for child in self.children():
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.kill()
        self.process.wait()
        self.process = None

    def kill_oldest_child(self) -> bool:
        """kill -9 of one child, which the parent has to replace; False without any.

        The oldest, since granian gives up when a process ends that it has replaced 5.5 seconds before or less.
        """
        children = sorted(self.children(), key=lambda child: child.create_time())
        if not children:
            return False
        with suppress(psutil.NoSuchProcess):
            children[0].kill()
        self.started_at = time.time()
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process and its children."""
        if self.process is not None:
            for process in (psutil.Process(self.process.pid), *self.children()):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def children(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


class Redis:
    """The private server of a home, which its caller keeps in use."""

    name = "redis"

    def __init__(self, home: Path) -> None:
        self.home, self.url = home, private_redis.url(home)
        self.is_up, self.started_at = True, time.time()
        self._kept = home / "kept"

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.is_up = False

    def start(self, how: ComesBack = "file") -> None:
        """Start the killed server; what its file held may be kept, lost, or replaced by what an earlier one held."""
        until(lambda: private_redis._server_is_gone(self.home))
        if how == "wiped":
            _remove(self._files())
        elif how == "old file" and self._kept.exists():
            _remove(self._files())
            _copy(sorted(self._kept.iterdir()), self.home / "redis")
        private_redis.ensure_started(self.home)
        self.is_up, self.started_at = True, time.time()

    def keep(self) -> None:
        """Keep the file of the killed server for a later start."""
        until(lambda: private_redis._server_is_gone(self.home))
        shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir()
        _copy(self._files(), self._kept)

    @property
    def has_kept(self) -> bool:
        return self._kept.exists()

    def signal(self, number: signal.Signals) -> None:
        process_id = private_redis.recorded_process_id(self.home)
        assert process_id is not None
        with suppress(ProcessLookupError):
            os.kill(process_id, number)

    def _files(self) -> list[Path]:
        return [path for path in (self.home / "redis").iterdir() if path.name.startswith("appendonly")]


def _remove(files: list[Path]) -> None:
    for file in files:
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def _copy(files: list[Path], folder: Path) -> None:
    for file in files:
        (shutil.copytree if file.is_dir() else shutil.copy2)(file, folder / file.name)


class Stack:
    """Web, two workers and beat on the database of the test, and a Redis of their own; as the Procfile starts them."""

    def __init__(self, folder: Path, redis: Redis, **variables: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.redis = redis
        #: How long the web server took at last: a measure of how busy the machine is.
        self.seconds_to_come_up = 0.0
        variables = {"REDIS_URL": redis.url, "FEATUREHUB_LOG_LEVEL": "WARNING", **variables}
        celery = [sys.executable, "-m", "celery", "-A", "featurehub.celery"]
        worker = [*celery, "worker", "-c", "2", "--without-gossip", "--without-mingle", "-l", "WARNING"]
        beat = [*celery, "beat", "--max-interval", "1", "--pidfile", "", "-l", "WARNING"]
        self.web = Member("web", _granian(self.port), folder / "web.log", variables)
        #: Two, so that each drain, run and rebuild has somebody who may take it up too soon.
        self.workers = tuple(Member("worker", worker, folder / f"worker{n}.log", variables) for n in (1, 2))
        self.beat = Member("beat", beat, folder / "beat.log", variables)

    @property
    def members(self) -> tuple[Member, ...]:
        return self.web, *self.workers, self.beat

    def start(self) -> None:
        """Start what does not run."""
        if not self.redis.is_up:
            self.redis.start()
        for member in self.members:
            if not member.is_up:
                member.start()

    def end(self) -> None:
        """kill -9 of all but Redis, which its user stops."""
        self.redis.signal(signal.SIGCONT)
        for member in self.members:
            member.kill()

    def wait_for_web(self) -> None:
        """Until the web server takes connections, which its processes do when the application is there."""

        def listens() -> bool:
            assert self.web.process is not None
            assert self.web.process.poll() is None, "the web server ended by itself"
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
            return False

        until(listens, self.web.log, seconds=SECONDS_TO_COME_UP)
        self.seconds_to_come_up = time.time() - self.web.started_at


def _granian(port: int) -> list[str]:
    options = ["--interface", "rsgi", "--loop", "uvloop", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
    options += ["--workers", "2", "--backpressure", "512", "--respawn-failed-workers"]
    return [sys.executable, "-m", "granian", *options, "featurehub.rsgi:application"]
