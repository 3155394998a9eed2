"""Whole hubs for a browser: the demo's, made once for all test processes, copied and served for whoever asks."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from featurehub import embedded, private_redis
from featurehub.environment import PROJECT, read_environment

SECONDS_TO_START = 60.0


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub that is served: where it is, who gets in, and what was planted (tests/browser/planted.py)."""

    home: Path
    origin: str
    login: dict[str, str]
    planted: dict[str, Any]

    def python(self, *arguments: str) -> str:
        """Runs `python <arguments>` in the project, on this hub; gives what it prints."""
        return run(self.home, *arguments)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """While the context lasts a worker takes the hub's runs."""
        with _server(self.home, "worker", {}):
            yield


@contextmanager
def running(home: Path, template: Path) -> Iterator[Hub]:
    """A copy of the template in `home`, served as `make run` does it, without a worker and a beat."""
    copy(template, home)
    with private_redis.running(home), ExitStack() as servers:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        process = servers.enter_context(_server(home, "web", {"PORT": str(port), "FEATUREHUB_WEB_WORKERS": "1"}))
        _wait_for(process, port, home / "web.log")
        made = json.loads((home / "made.json").read_text())
        yield Hub(home, f"http://127.0.0.1:{port}", made["login"], made["planted"])


def template(shared: Path) -> Path:
    """The home of a hub with the demo and what is planted beside it, not served; the first of several processes makes
    it, in a folder that they share."""
    home = shared / "hub"
    with (shared / "hub.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "made.json").exists():
            make(home)
    return home


def make(home: Path) -> None:
    """Prepare a hub in `home` as `make run` does, and plant what the demo does not have."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with private_redis.running(home):
        login = json.loads(run(home, "-m", "featurehub.preparation"))
        planted = json.loads(run(home, "-m", "tests.browser.planted"))
    (home / "made.json").write_text(json.dumps({"login": login, "planted": planted}))


def copy(template: Path, home: Path) -> None:
    """A home like the template; what never changes is linked. Locks and sockets are the template's own."""
    home.mkdir(parents=True, exist_ok=True)
    for name in os.listdir(template):
        if (template / name).is_dir():
            copying = os.link if name == "static" else shutil.copy2
            ignored = shutil.ignore_patterns("*.lock", "*.sock", "*.pid")
            shutil.copytree(template / name, home / name, copy_function=copying, ignore=ignored)
        else:
            shutil.copy2(template / name, home / name)


def variables(home: Path) -> dict[str, str]:
    """The environment of a process of the hub: nothing that this test session has set for itself."""
    kept = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG", "TZ")}
    own = {"FEATUREHUB_HOME": str(home), "DJANGO_SETTINGS_MODULE": "featurehub.settings", "PYTHONPATH": str(PROJECT)}
    # As `make run` has it for callers of this machine; what was counted by readers is written down by a beat.
    return kept | own | {"FEATUREHUB_ANONYMOUS_READS": "true"}


def run(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=variables(home),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _server(home: Path, name: str, extra: dict[str, str]) -> AbstractContextManager[subprocess.Popen[bytes]]:
    environment = variables(home) | extra
    command = embedded.commands(read_environment(environment))[name]
    return _running_process(command, environment, home / f"{name}.log")


@contextmanager
def _running_process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the server to stop, and kills what is left of it and of its children after ten seconds."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not _is_healthy(port):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    assert port in _ports_of(process), "another process answers on this port"


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _ports_of(process: subprocess.Popen[bytes]) -> set[int]:
    """The ports on which the process or a child of it listens."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    found = [connection for one in family for connection in one.net_connections(kind="tcp")]
    return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}
