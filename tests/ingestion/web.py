"""A web server in a process of its own, on the database and the stores of the test that starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from typing import IO, Any

import psutil

from catalog import access
from tests.factories import purchase
from tests.ingestion.processes import PROJECT, environment

ROWS = "/api/v1/groups/customer_purchases/rows"
BODY = json.dumps({"rows": [purchase("C1")]}).encode()


@dataclass
class Web:
    """A web server in a process of its own, and a key that writes."""

    process: subprocess.Popen[str]
    port: int
    key: str
    output: IO[str] | None = None

    def log(self) -> str:
        """What the server has written so far."""
        assert self.output is not None, "its output is elsewhere"
        return written(self.output)

    def post(self, body: Any, *, key: str = "", path: str = ROWS, **headers: str) -> tuple[int, Any]:
        """Send a body (an iterable goes in chunks); the status and the document of the answer."""
        status, _, document = self.ask("POST", path, body, **headers, **({"Idempotency-Key": key} if key else {}))
        return status, document

    def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, HTTPMessage, Any]:
        """The status, the headers and the document of any answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Host": "localhost", "Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        sent |= headers
        try:
            connection.request(method, path, body, sent, encode_chunked=not isinstance(body, bytes))
            answer = connection.getresponse()
            text = answer.read()
            # What the server itself refuses has no body.
            return answer.status, answer.headers, json.loads(text) if text else None
        finally:
            connection.close()

    def send_raw(self, headers: str, *parts: bytes) -> socket.socket:
        """A connection on which a push has begun."""
        started = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        head = f"POST {ROWS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
        started.sendall(f"{head}Content-Type: application/json\r\n{headers}\r\n\r\n".encode())
        with suppress(OSError):  # the server may have answered and hung up by then
            for part in parts:
                started.sendall(part)
        return started

    def memory(self) -> int:
        """Bytes of memory that the server's processes hold."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(process.memory_info().rss for process in family)


Start = Callable[..., Web]


@contextmanager
def running_webs() -> Iterator[Start]:
    """Starts servers, with variables beside those of the test's stores; all are killed at the end."""
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    at_end = ExitStack()

    def start(*, application: str = "featurehub.rsgi:application", **extra: str) -> Web:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        options = ["--interface", "rsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
        command = [sys.executable, "-m", "granian", *options, application]
        env = environment() | extra
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed below; a pipe would fill up and block the server
        at_end.push(log)
        process = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)
        at_end.callback(end, process)
        wait_for(process, port, log)
        return Web(process, port, key, log)

    with at_end:
        yield start


def wait_for(process: subprocess.Popen[str], port: int, log: IO[str]) -> None:
    """Until the server takes connections; what comes then it holds until the application is there."""
    for _ in range(1_200):
        assert process.poll() is None, written(log)
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError("the web server does not listen")


def written(log: IO[str]) -> str:
    """All that is in the file; its place is shared with the process that writes to it, and stays where it is."""
    return os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode()


def end(process: subprocess.Popen[str]) -> None:
    """kill -9 of a server and all of its processes."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
