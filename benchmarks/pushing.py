"""Pushing rows: over HTTP into the hub and into Feast in turn, in process into the hub and into SQLite and Redis alone.

python -m benchmarks.pushing HOME ROUNDS
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import psutil
import redis

from benchmarks import feast, hub, processes, web
from benchmarks.data import FEATURES, GROUP, KEY, pushed_row, pushed_rows
from benchmarks.load import Endpoint, Load, percentile, send

IN_PROCESS = {1: 200, 500: 40}  # how often a push of so many rows is measured
SECONDS_TO_DRAIN = 120.0


@dataclass(frozen=True, slots=True)
class Work:
    """So many requests of so many rows, over so many connections, in each round."""

    rows: int
    connections: int
    requests: int


WORKS = (Work(1, 1, 150), Work(1, 8, 300), Work(500, 1, 40), Work(500, 8, 120))
WARMING_UP = Work(500, 8, 16)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the servers that are compared, and how it takes rows and gives them back."""

    endpoint: Endpoint
    body_of: Callable[[Sequence[dict[str, object]]], bytes]
    values_of: Callable[[Endpoint, int], dict[str, object]]

    def send(self, work: Work, first: int) -> Load:
        """Push the rows of entities that begin with `first`; raises WrongAnswer."""
        starts = range(first, first + work.rows * work.requests, work.rows)
        bodies = [self.body_of(pushed_rows(start, work.rows)) for start in starts]
        return send(self.endpoint, bodies, connections=work.connections)

    def check(self, entity: int) -> None:
        """Read a pushed entity back; raises AssertionError when it is not there as it was sent."""
        sent = pushed_row(entity)
        got = {name: value for name, value in self.values_of(self.endpoint, entity).items() if name in FEATURES}
        assert got == {name: sent[name] for name in FEATURES}, (entity, got)


class Entities:
    """Entities that nobody has pushed yet, in order from 0: how many were taken is how many rows there have to be."""

    taken = 0

    def take(self, count: int) -> int:
        """The first of the next `count` entities."""
        self.taken += count
        return self.taken - count


def main(home: Path, rounds: int) -> None:
    with hub.opened(home) as url, ExitStack() as stack:
        entities = Entities()
        in_process = {rows: _in_process(home, url, entities, rows) for rows in IN_PROCESS}
        served = stack.enter_context(web.served(home))
        sides = {"ours": Side(served.endpoint, web.body_of, web.values_of)}
        if feast.is_installed():
            endpoint = stack.enter_context(feast.served(home / "feast"))
            sides["feast"] = Side(endpoint, feast.body_of, feast.values_of)
        loads = _over_http(sides, served.background, entities, rounds)
        _require_all_offline(entities)
        over_http = [
            {"rows": work.rows, "connections": work.connections}
            | {name: _figures(work, loads[work, name]) for name in sides}
            for work in WORKS
        ]
        hub.report(in_process=in_process, over_http=over_http)


def _in_process(home: Path, url: str, entities: Entities, rows: int) -> dict[str, float]:
    """The median milliseconds of a push of so many rows: ours, and an insert and an MSET of what was packed before."""
    from ingestion.push import find_group, push

    group, times = find_group(GROUP), IN_PROCESS[rows]
    batches = [pushed_rows(entities.take(rows), rows) for _ in range(times + times // 10)]
    waiting = {"ours": iter(batches), "bare": iter(batches)}
    with closing(_log_of_its_own(home / "bare.sqlite3")) as log, redis.Redis.from_url(url) as client:
        work = {
            "ours": lambda: push(group, next(waiting["ours"])),
            "bare": lambda: _keep(log, client, next(waiting["bare"])),
        }
        return {name: hub.median_milliseconds(one, times=times) for name, one in work.items()}


def _log_of_its_own(path: Path) -> sqlite3.Connection:
    """A database with the settings of the hub's, in which a transaction is on the disk when it is committed."""
    log = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
        log.execute(statement)
    log.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, rows BLOB)")
    return log


def _keep(log: sqlite3.Connection, client: redis.Redis, rows: Sequence[dict[str, object]]) -> None:
    """The rows in a committed transaction, then in Redis; nothing is checked and the newer one may be overwritten."""
    values = {b"bare:%d" % row[KEY]: msgspec.msgpack.encode(list(row.values())) for row in rows}
    log.execute("BEGIN IMMEDIATE")
    log.execute("INSERT INTO log (rows) VALUES (?)", [b"".join(values.values())])
    log.execute("COMMIT")
    client.mset(values)


def _over_http(
    sides: Mapping[str, Side], background: Sequence[psutil.Popen], entities: Entities, rounds: int
) -> dict[tuple[Work, str], list[Load]]:
    """Each work once a round by each side in turn. While Feast is at it the hub's worker and beat stand still, so that
    what they do for the rows that were pushed before falls into the hub's own time."""
    _push_to_all(sides, WARMING_UP, background, entities)
    _wait_until_drained()
    loads = defaultdict(list)
    for _ in range(rounds):
        for work in WORKS:
            for name, load in _push_to_all(sides, work, background, entities).items():
                loads[work, name].append(load)
    return loads


def _push_to_all(
    sides: Mapping[str, Side], work: Work, background: Sequence[psutil.Popen], entities: Entities
) -> dict[str, Load]:
    """The same rows to every side, the first and the last of which are read back."""
    first, loads = entities.take(work.rows * work.requests), {}
    for name, side in sides.items():
        with processes.suspended(() if name == "ours" else background):
            loads[name] = side.send(work, first)
            for entity in (first, entities.taken - 1):
                side.check(entity)
    return loads


def _wait_until_drained() -> None:
    deadline = time.monotonic() + SECONDS_TO_DRAIN
    while not web.is_drained():
        assert time.monotonic() < deadline, "the worker does not bring pushed rows into the offline table"
        time.sleep(0.2)


def _require_all_offline(entities: Entities) -> None:
    """What was pushed is in the offline table, each row once; raises AssertionError."""
    _wait_until_drained()
    found = web.rows_offline()
    assert found == entities.taken, f"{entities.taken} rows were pushed, {found} are in the offline table"


def _figures(work: Work, loads: Sequence[Load]) -> dict[str, float]:
    """Milliseconds of all rounds together, requests and rows a second of the middle one."""
    latencies = [latency for load in loads for latency in load.latencies]
    requests = median(load.requests_per_second for load in loads)
    return {
        "p50_ms": 1000 * percentile(latencies, 0.5),
        "p99_ms": 1000 * percentile(latencies, 0.99),
        "refused": sum(load.refused for load in loads),
        "requests_per_second": requests,
        "rows_per_second": requests * work.rows,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
