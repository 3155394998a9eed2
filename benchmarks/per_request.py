"""What one read costs the processor: the hub's WSGI application and the bare one, called in one thread, in turn.

python -m benchmarks.per_request HOME        (an empty home)

Unlike requests a second this is not what a machine can do, but it tells two versions of the code apart also while
others use the machine: the time is the thread's own, and the least of many calls.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from time import thread_time_ns
from typing import Any

from benchmarks import data, hub
from benchmarks.data import ENTITY, FEATURES, GROUP, KEY, SERVICE

ENTITIES = 10_000
ROWS_PER_PUSH = 500
#: Rounds, and calls of each application in a round, of which the mean is taken; then the least of the rounds.
ROUNDS, CALLS = 60, 50

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., object]], Iterable[bytes]]


def main(home: Path) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # with its Redis on one core, wherever that would run else
    with hub.opened(home) as url:
        from django.core.handlers.wsgi import WSGIHandler

        from catalog import access, stores
        from ingestion.push import find_group, push
        from serving.hot_path import HotPath

        for first in range(0, ENTITIES, ROWS_PER_PUSH):
            push(find_group(GROUP), data.pushed_rows(first, ROWS_PER_PUSH))
        key = access.create_key(name="benchmarks", scopes=access.SCOPES)[1]
        os.environ |= {"BARE_REDIS": url, "BARE_PREFIX": stores.online().row_prefix(GROUP, 1).decode()}
        from benchmarks import bare_serving  # it reads these when it is loaded

        ours: Application = HotPath(WSGIHandler())
        asked = {
            "list": {"features": [f"{GROUP}:{name}" for name in FEATURES]},
            "service": {"feature_service": SERVICE},
        }
        figures = {}
        for count in (1, 100):
            ids = [Random(3).randrange(ENTITIES) for _ in range(count)]
            entities = {"entities": {KEY: ids}}
            works = {
                work: (ours, _environ("/api/v1/vectors", what | entities | {"include": ["statuses"]}, key))
                for work, what in asked.items()
            }
            if count == 1:
                works["path"] = (ours, _environ(f"/features/{ENTITY}/{ids[0]}", None, key))
            figures[count] = _least(works | {"bare": (bare_serving.bare, _environ("/bare", entities, ""))})
        hub.report(microseconds=figures)


def _environ(path: str, document: object, key: str) -> Environ:
    """What granian makes of a request of wrk's."""
    body = b"" if document is None else json.dumps(document, separators=(",", ":")).encode()
    environ: Environ = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "Granian",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multiprocess": True,
        "wsgi.multithread": True,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "http",
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "REQUEST_METHOD": "GET" if document is None else "POST",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "HTTP_HOST": "127.0.0.1:8000",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": body,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    if key:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return environ


def _least(works: dict[str, tuple[Application, Environ]]) -> dict[str, float]:
    """Microseconds of each, the works taking turns."""
    least = dict.fromkeys(works, float("inf"))
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS):
        for work, (application, environ) in works.items():
            least[work] = min(least[work], _mean(application, environ) / 1000)
    return least


def _mean(application: Application, environ: Environ) -> float:
    """Nanoseconds of this thread for a call, the mean of CALLS; raises AssertionError for an answer that is no 200."""
    environs = [environ | {"wsgi.input": io.BytesIO(environ["wsgi.input"])} for _ in range(CALLS)]
    statuses: list[str] = []

    def start_response(status: str, _: list[tuple[str, str]]) -> None:
        statuses.append(status)

    began = thread_time_ns()
    for each in environs:
        application(each, start_response)
    taken = thread_time_ns() - began
    assert statuses == ["200 OK"] * CALLS
    return taken / CALLS


if __name__ == "__main__":
    main(Path(sys.argv[1]))
