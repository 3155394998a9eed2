"""The hub's web, worker and beat, as `make run` starts them, over a home that `hub.opened` has opened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from benchmarks import data, processes
from benchmarks.load import Endpoint, ask

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Served:
    """A hub that takes pushes; `background` are its worker and its beat."""

    endpoint: Endpoint
    background: Sequence[psutil.Popen]


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """While the context lasts the hub answers; raises DidNotStart, and AssertionError when another process does."""
    from featurehub.embedded import commands
    from featurehub.environment import read_environment

    port = processes.free_port()
    variables = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), "FEATUREHUB_WEB_WORKERS": "2"}
    with ExitStack() as stack:
        started = {}
        for name, command in commands(read_environment(variables)).items():
            running = processes.running(command, log=home / f"{name}.log", variables=variables, folder=PROJECT)
            started[name] = stack.enter_context(running)
        web = started.pop("web")
        processes.wait_until(lambda: _is_healthy(port), web, home / "web.log")
        assert processes.listens(web, port), f"another process answers on {port}"
        yield Served(_endpoint(port), tuple(started.values()))
        assert processes.listens(web, port), f"another process answers on {port}"


def _is_healthy(port: int) -> bool:
    try:
        return ask(port, "GET", "/health")[0] == 200
    except OSError:
        return False


def _endpoint(port: int) -> Endpoint:
    from catalog import access

    key = access.create_key(name="benchmarks", scopes=access.SCOPES)[1]
    return Endpoint(port, f"/api/v1/groups/{data.GROUP}/rows", _is_taken, {"Authorization": f"Bearer {key}"})


def _is_taken(status: int, body: bytes) -> bool:
    """All of the rows, and readable online now."""
    return status == 200 and (answer := json.loads(body))["online"] == "applied" and answer["quarantined"] == 0


def body_of(rows: Sequence[dict[str, object]]) -> bytes:
    """A push as the hub takes it."""
    return orjson.dumps({"rows": list(rows)})


def values_of(endpoint: Endpoint, entity: int) -> dict[str, object]:
    """What is served of one entity."""
    asked = {"features": [f"{data.GROUP}:{name}" for name in data.FEATURES], "entities": {data.KEY: [entity]}}
    status, text = ask(endpoint.port, "POST", "/api/v1/vectors", json.dumps(asked).encode(), endpoint.headers)
    assert status == 200, text
    return dict(zip(data.FEATURES, json.loads(text)["values"][0], strict=True))


def rows_offline() -> int:
    """How many rows of the group its offline table holds."""
    import pyarrow.parquet as pq

    from catalog import stores

    return sum(pq.read_metadata(file).num_rows for file in stores.offline(data.GROUP, 1).files())


def is_drained() -> bool:
    """Whether all that was pushed is in the offline table."""
    from ingestion.models import PushBatch

    return not PushBatch.objects.filter(drain__landed_at=None).exists()
