"""Feast's Python feature server over a Redis of its own, from the virtual environment that `make bench` makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import redis

from benchmarks import data, processes
from benchmarks.load import Endpoint, ask

PROJECT = Path(__file__).parents[1]
ENVIRONMENT = PROJECT / ".venv-feast"
COMMAND = ENVIRONMENT / "bin" / "feast"
REPOSITORY = Path(__file__).parent / "feast_repo"
#: As many processes as the hub has, no log of requests, no worker that is replaced after a thousand of them.
SETTINGS = ("--workers", "2", "--no-access-log", "--max-requests", "0")


def is_installed() -> bool:
    """Whether all of requirements-feast.txt is installed."""
    return (ENVIRONMENT / ".requirements.stamp").is_file()


@contextmanager
def served(folder: Path) -> Iterator[Endpoint]:
    """While the context lasts `feast serve` takes pushes; raises DidNotStart, AssertionError if another answers."""
    shutil.copytree(REPOSITORY, folder)
    data.write_rows(folder / "rows.parquet", rows=100, entities=100)
    variables = {**os.environ, "FEAST_USAGE": "False", "FEAST_TELEMETRY": "False"}
    port = processes.free_port()
    command = [str(COMMAND), "serve", "--port", str(port), *SETTINGS]
    with _redis(folder):
        subprocess.run([COMMAND, "apply"], cwd=folder, env=variables, check=True, capture_output=True)
        log = folder / "serve.log"
        with processes.running(command, log=log, variables=variables, folder=folder) as server:
            processes.wait_until(lambda: _is_healthy(port), server, log)
            assert processes.listens(server, port), f"another process answers on {port}"
            yield Endpoint(port, "/push", _is_taken)
            assert processes.listens(server, port), f"another process answers on {port}"


@contextmanager
def _redis(folder: Path) -> Iterator[None]:
    """A redis-server as Feast's users have it: nothing is written to the disk."""
    from featurehub import private_redis

    path, log = folder / "redis.sock", folder / "redis.log"
    command = [str(private_redis.server_binary()), "--port", "0", "--unixsocket", path.name, "--save", ""]
    with (
        processes.running(command, log=log, variables=os.environ, folder=folder) as server,
        redis.Redis(unix_socket_path=str(path)) as client,
    ):
        processes.wait_until(lambda: path.exists() and client.ping(), server, log)
        assert client.info("server")["process_id"] == server.pid
        yield


def _is_healthy(port: int) -> bool:
    try:
        return ask(port, "GET", "/health")[0] == 200
    except OSError:
        return False


def _is_taken(status: int, body: bytes) -> bool:
    return status == 200 and body == b""


def body_of(rows: Sequence[dict[str, object]]) -> bytes:
    """A push as Feast takes it: into the online store alone, since its file store rewrites the whole file each time."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return orjson.dumps({"push_source_name": "customer_pushes", "df": columns, "to": "online"})


def values_of(endpoint: Endpoint, entity: int) -> dict[str, object]:
    """What is served of one entity."""
    asked = {"features": [f"{data.GROUP}:{name}" for name in data.FEATURES], "entities": {data.KEY: [entity]}}
    status, text = ask(endpoint.port, "POST", "/get-online-features", json.dumps(asked).encode())
    assert status == 200, text
    answer = json.loads(text)
    names = answer["metadata"]["feature_names"]
    return {name: result["values"][0] for name, result in zip(names, answer["results"], strict=True)}
