"""Reading vectors over HTTP: the hub, bare WSGI, a plain Django view and Feast's server in turn, driven by wrk.

python -m benchmarks.serving HOME ROUNDS        (an empty home; wrk is Debian's package of that name)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import data, feast, hub, processes, web
from benchmarks.data import FEATURES, GROUP, KEY, SERVICE
from benchmarks.load import Endpoint, ask, send

ENTITIES = 10_000
CONNECTIONS = 16
SECONDS = 3
SECONDS_OF_WARMING_UP = 1
ROWS_PER_PUSH = 500
SCRIPT = Path(__file__).parent / "vectors.lua"


@dataclass(frozen=True, slots=True)
class Target:
    """One way to ask one server: where, and what stands before and behind the ids."""

    port: int
    path: str
    head: str
    tail: str
    authorization: str = ""

    def measure(self, entities: int, seconds: int) -> dict[str, float]:
        """What wrk says; raises AssertionError when an answer was no 200."""
        script = [
            str(entities),
            str(ENTITIES),
            self.head,
            self.tail,
            *([self.authorization] if self.authorization else []),
        ]
        url = f"http://127.0.0.1:{self.port}{self.path}"
        load = [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{seconds}s",
            "--timeout",
            "30s",
            "-s",
            str(SCRIPT),
            url,
            "--",
            *script,
        ]
        said = subprocess.run(load, check=True, capture_output=True, text=True).stdout
        figures = json.loads(said.splitlines()[-1])
        assert not figures["errors"], f"{self.path} had {figures['errors']} requests that failed"
        return figures


def is_installed() -> bool:
    """Whether wrk is."""
    return shutil.which("wrk") is not None


def main(home: Path, rounds: int) -> None:
    with hub.opened(home) as url, ExitStack() as stack:
        served = stack.enter_context(web.served(home))
        bodies = [web.body_of(data.pushed_rows(first, ROWS_PER_PUSH)) for first in range(0, ENTITIES, ROWS_PER_PUSH)]
        send(served.endpoint, bodies, connections=1)
        stack.enter_context(processes.suspended(served.background))
        bare = stack.enter_context(_bare(home, url))
        targets = _ours(served.endpoint) | _bare_targets(bare)
        if feast.is_installed():
            targets |= _feast_targets(stack.enter_context(_loaded_feast(home / "feast")))
        hub.report(works=_in_turn(targets, rounds))


def _in_turn(targets: Mapping[tuple[str, int, str], Target], rounds: int) -> list[dict[str, object]]:
    """Each (work, entities, side) once a round, the order turned round in every other one; the middle figures."""
    for (_, entities, _), target in targets.items():
        target.measure(entities, SECONDS_OF_WARMING_UP)
    measured = defaultdict(list)
    for number in range(rounds):
        for at, target in list(targets.items())[:: -1 if number % 2 else 1]:
            measured[at].append(target.measure(at[1], SECONDS))
    return [
        {"work": work, "entities": entities, "side": side}
        | {name: median(figures[name] for figures in of_rounds) for name in ("requests_per_second", "p50_ms", "p99_ms")}
        for (work, entities, side), of_rounds in measured.items()
    ]


def _ours(endpoint: Endpoint) -> dict[tuple[str, int, str], Target]:
    """With the key, and the statuses in the answer."""
    key = endpoint.headers["Authorization"]
    tail = ']},"include":["statuses"]}'
    asked = {"list": f'"features":{_names()}', "service": f'"feature_service":"{SERVICE}"'}
    posts = {
        (work, entities, "ours"): Target(
            endpoint.port, "/api/v1/vectors", f'{{{what},"entities":{{"{KEY}":[', tail, key
        )
        for work, what in asked.items()
        for entities in (1, 100)
    }
    return posts | {("path", 1, "ours"): Target(endpoint.port, f"/features/{data.ENTITY}/", "", "", key)}


def _names() -> str:
    return json.dumps([f"{GROUP}:{name}" for name in FEATURES], separators=(",", ":"))


def _bare_targets(port: int) -> dict[tuple[str, int, str], Target]:
    head, tail = f'{{"entities":{{"{KEY}":[', "]}}"
    return {
        ("list", entities, side): Target(port, f"/{side}", head, tail)
        for side in ("bare", "django")
        for entities in (1, 100)
    }


def _feast_targets(endpoint: Endpoint) -> dict[tuple[str, int, str], Target]:
    asked = {"list": f'"features":{_names()}', "service": f'"feature_service":"{SERVICE}"'}
    return {
        (work, entities, "feast"): Target(
            endpoint.port, "/get-online-features", f'{{{what},"entities":{{"{KEY}":[', "]}}"
        )
        for work, what in asked.items()
        for entities in (1, 100)
    }


@contextmanager
def _bare(home: Path, url: str) -> Iterator[int]:
    """The port of a server of bare_serving.py, with as many processes as the hub has."""
    from catalog import stores

    port, log = processes.free_port(), home / "bare.log"
    prefix = stores.online().row_prefix(GROUP, 1).decode()
    options = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command = [sys.executable, "-m", "granian", *options, "--no-ws", "--factory", "benchmarks.bare_serving:make"]
    variables = {**os.environ, "BARE_REDIS": url, "BARE_PREFIX": prefix}
    with processes.running(command, log=log, variables=variables, folder=web.PROJECT) as server:
        processes.wait_until(lambda: _reads(port), server, log)
        assert processes.listens(server, port), f"another process answers on {port}"
        yield port


def _reads(port: int) -> bool:
    body = json.dumps({"entities": {KEY: [0]}}).encode()
    try:
        return all(ask(port, "POST", path, body)[0] == 200 for path in ("/bare", "/django"))
    except OSError:
        return False


@contextmanager
def _loaded_feast(folder: Path) -> Iterator[Endpoint]:
    with feast.served(folder) as endpoint:
        bodies = [feast.body_of(data.pushed_rows(first, ROWS_PER_PUSH)) for first in range(0, ENTITIES, ROWS_PER_PUSH)]
        send(endpoint, bodies, connections=1)
        yield endpoint


def works(figures: Sequence[Mapping[str, object]]) -> dict[tuple[str, int], dict[str, Mapping[str, object]]]:
    """The figures by what was asked and of how many entities, then by side."""
    found: dict[tuple[str, int], dict[str, Mapping[str, object]]] = {}
    for figure in figures:
        found.setdefault((str(figure["work"]), int(str(figure["entities"]))), {})[str(figure["side"])] = figure
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
