"""Two redis-servers of one test, of which the second follows the first until it is promoted, under one address."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis

from featurehub import private_redis
from tests.ingestion.workers import until

#: Between two looks for a free port somebody else may take it.
TRIES = 5


class Pair:
    """`url` is a link to the socket of whoever is master: it stays the same, as a service's name does."""

    def __init__(self, folder: Path, master: subprocess.Popen[bytes], replica: subprocess.Popen[bytes]) -> None:
        self._address = folder / "redis.sock"
        self._sockets = {name: folder / f"{name}.sock" for name in ("master", "replica")}
        self._processes = {"master": master, "replica": replica}
        self.url = f"unix://{self._address}?db=0"
        self.lead_to("master")

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Pair]:
        """Both, empty and in step; they are ended with the context."""
        with ExitStack() as processes:
            master, port = _started_on_a_port(processes, folder)
            # Nothing but the loopback, and only as long as the test.
            replica = _start(processes, folder / "replica.sock", "--port", "0", "--replicaof", f"127.0.0.1 {port}")
            pair = cls(folder, master, replica)
            pair.wait_until_in_step()
            yield pair

    def client(self, name: str) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self._sockets[name]))

    def lead_to(self, name: str) -> None:
        """Whoever connects from now on comes to this one."""
        link = self._address.with_suffix(".new")
        link.symlink_to(self._sockets[name])
        os.replace(link, self._address)

    def wait_until_in_step(self) -> None:
        with self.client("master") as master, self.client("replica") as replica:
            until(lambda: replica.info("replication")["master_link_status"] == "up", seconds=20)
            assert master.wait(1, 10_000) == 1

    def cut(self) -> None:
        """The replica hears nothing of its master any more, and stays a replica."""
        with self.client("replica") as replica:
            replica.replicaof("127.0.0.1", "1")
            assert replica.role()[0] == b"slave"

    def kill_master(self) -> None:
        self._processes["master"].kill()
        self._processes["master"].wait()

    def promote(self) -> None:
        with self.client("replica") as replica:
            replica.replicaof("NO", "ONE")
            assert replica.role()[0] == b"master"


def _started_on_a_port(processes: ExitStack, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with suppress(AssertionError):  # somebody else was quicker
            return _start(processes, folder / "master.sock", "--port", str(port), "--bind", "127.0.0.1"), port
    raise AssertionError(f"no port was free in {TRIES} tries")


def _start(processes: ExitStack, path: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [str(private_redis.server_binary()), "--unixsocket", str(path), "--save", "", *options]
    command += ["--repl-diskless-sync-delay", "0", "--dir", str(path.parent), "--logfile", f"{path.stem}.log"]
    process = processes.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    processes.callback(process.kill)

    def answers() -> bool:
        with suppress(redis.ConnectionError), redis.Redis(unix_socket_path=str(path)) as client:
            return bool(client.info("server")["process_id"] == process.pid)
        assert process.poll() is None
        return False

    until(answers, seconds=20)
    return process
