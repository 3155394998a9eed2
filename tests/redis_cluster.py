"""A Redis Cluster of this test session: three masters on free loopback ports, which a test may kill, hang or wipe."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from featurehub import private_redis

SLOTS = 16_384
#: How long each of these waits for what it started.
SECONDS = 20.0
ATTEMPTS = 5
#: How long a silent node is only suspected: long, since these tests are about a node that is silent.
NODE_TIMEOUT_MS = 15_000


class Node:
    """A redis-server in cluster mode with an append-only file in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for _ in range(ATTEMPTS):
            self.port, self.bus_port = free_ports(2)
            self.process = self._started()
            until(lambda: self._answers() or self._has_ended(), f"the server on port {self.port}")
            if not self._has_ended():  # else somebody else has taken one of its ports meanwhile
                break
        self.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        options = {
            "port": self.port,
            "cluster-port": self.bus_port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "logfile": self.folder / "redis.log",
            "cluster-enabled": "yes",
            "cluster-config-file": self.folder / "nodes.conf",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": 0,
            "appendonly": "yes",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen([str(private_redis.server_binary()), *words], stdin=subprocess.DEVNULL)

    def wait(self) -> None:
        """Until this very server answers, and not another one on its port."""
        until(lambda: self._answers() or self._has_ended(), f"the server on port {self.port}")
        assert not self._has_ended(), self._log()
        with self.client() as client:
            assert client.info("server")["process_id"] == self.process.pid

    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def _log(self) -> str:
        return (self.folder / "redis.log").read_text()

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self, *, wiped: bool = False) -> None:
        """Again, as the node that it was; `wiped` is without its rows."""
        if wiped:
            shutil.rmtree(self.folder / "appendonlydir")
        self.process = self._started()
        self.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    @property
    def id(self) -> str:
        with self.client() as client:
            return str(client.execute_command("CLUSTER MYID").decode())


class RedisCluster:
    """The nodes, the slots in equal parts on the first three."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="featurehub-cluster-"))
        self._moved: dict[int, Node] = {}
        self.nodes = [Node(self.folder / str(number)) for number in range(3)]
        self._meet()

    def _meet(self) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                bounds = [part * SLOTS // 3 for part in (number, number + 1)]
                client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[0], bounds[1] - 1)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.bus_port)
        self.wait()

    def with_replica(self, master: Node) -> Node:
        """A node more, that holds what the master holds."""
        replica = Node(self.folder / "replica")
        self.nodes.append(replica)
        with replica.client() as client:
            client.execute_command("CLUSTER MEET", "127.0.0.1", master.port, master.bus_port)
            until(lambda: master.id in str(client.execute_command("CLUSTER NODES")), "the master")
            client.execute_command("CLUSTER REPLICATE", master.id)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        until(lambda: all(self._knows(node, replica) for node in self.nodes), "what every node knows of the replica")
        return replica

    def _knows(self, node: Node, other: Node) -> bool:
        with node.client() as client:
            return other.id in str(client.execute_command("CLUSTER NODES"))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def wait(self) -> None:
        """Until every node says that the cluster is whole."""
        until(lambda: all(map(self._is_whole, self.nodes)), "the cluster")

    def _is_whole(self, node: Node) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS))

    def owner(self, key: bytes | int, *, asked: Node | None = None) -> Node:
        """The node that holds the slot of the key, or the slot, as the one that is asked knows."""
        slot = key if isinstance(key, int) else key_slot(key)
        with (asked or self.nodes[0]).client() as client:
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody holds slot {slot}")

    def begin_move(self, slot: int, target: Node) -> Node:
        """Open the slot for moving, as redis-cli does; who has held it."""
        source = self.owner(slot)
        self._moved.setdefault(slot, source)
        with source.client() as one, target.client() as other:
            other.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
            one.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        return source

    def move_keys(self, slot: int, source: Node, target: Node, *, at_most: int = SLOTS) -> int:
        """Move keys of an open slot; how many."""
        with source.client() as client:
            keys = client.execute_command("CLUSTER GETKEYSINSLOT", slot, at_most)
            if keys:
                client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, target: Node) -> None:
        self._say_of(slot, target, "NODE", target.id)
        until(lambda: all(self.owner(slot, asked=node) is target for node in self.nodes), "who has the slot")

    def _say_of(self, slot: int, first: Node, *what: str) -> None:
        """Tell every node something of a slot, one of them first."""
        for node in (first, *(node for node in self.nodes if node is not first)):
            with node.client() as client:
                client.execute_command("CLUSTER SETSLOT", slot, *what)

    def move(self, slot: int, target: Node) -> None:
        source = self.begin_move(slot, target)
        while self.move_keys(slot, source, target):
            pass
        self.end_move(slot, target)

    def reset(self) -> None:
        """As it was made: every node runs, holds its own third, and nothing is in it."""
        for node in self.nodes:
            if node.process.poll() is not None:
                node.start()
            with node.client() as client:
                client.flushall()
        for slot, source in self._moved.items():
            self._say_of(slot, source, "STABLE")
            if self.owner(slot) is not source:
                self.move(slot, source)
        self._moved.clear()
        self.wait()

    def calls(self) -> list[dict[str, int]]:
        """How often each node carried out each command."""
        return [_calls(node) for node in self.nodes]

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder)


def _calls(node: Node) -> dict[str, int]:
    with node.client() as client:
        return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"{what} is not there after {SECONDS} s"
        time.sleep(0.02)
