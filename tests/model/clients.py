"""Clients of the hub: writers, readers and one that drops files; each records what it sends and what it is told."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.push_bodies import ARROW
from tests.factories import write_csv
from tests.model import world
from tests.model.history import FEATURES, Attempt, Fault, History, Operation, Row
from tests.model.shown import Answer, sight_of

#: How often an operation without a known outcome is sent again, and how long a client waits before.
REPEATS = 40
SECONDS_BEFORE_REPEAT = 0.25

Answered = tuple[int, HTTPMessage, Any]


class Asks(Protocol):
    """What sends one request and gives its answer (tests/ingestion/web.py)."""

    def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> Answered: ...


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    content_type: str = "application/json"


@dataclass
class Client:
    """One client and what it has to itself; `over` ends its work."""

    name: str
    rng: random.Random
    history: History
    web: Asks
    over: threading.Event

    # Writing.

    def carry_out(self, operation: Operation, request: Request) -> None:
        """Send an operation; again where its outcome is unknown, mostly until it is known, and now and then for fun."""
        self.history.add(operation)
        self._send(operation, request)
        repeats = REPEATS if operation.idempotency_key else self.rng.choice([0, 0, 1])
        while operation.outcome == "unknown" and repeats > 0:
            repeats -= 1
            time.sleep(SECONDS_BEFORE_REPEAT)
            self._send(operation, request)
        if operation.outcome == "ok" and self.rng.random() < 0.1:
            self._send(operation, request)

    def _send(self, operation: Operation, request: Request) -> None:
        headers = {"Content-Type": request.content_type}
        if operation.idempotency_key:
            headers["Idempotency-Key"] = operation.idempotency_key
        attempt = operation.begin()
        try:
            answer = self.web.ask(request.method, request.path, request.body, **headers)
        except ConnectionRefusedError:
            attempt.end("fail")
            time.sleep(SECONDS_BEFORE_REPEAT)
        except (OSError, HTTPException):
            attempt.end("unknown")
        else:
            self._note_write(operation, attempt, answer)

    def _note_write(self, operation: Operation, attempt: Attempt, answer: Answered) -> None:
        status, headers, document = answer
        self.history.answers.append(f"{operation.kind} {status}")
        if status in (200, 201, 202):
            attempt.end("ok", is_applied=document["online"] == "applied")
            accepted = document.get("accepted", len(operation.rows))
            if (status == 202) == attempt.is_applied or accepted != len(operation.rows):
                self._fault("wrong answer", operation.kind, status, document)
        elif 400 <= status < 500:
            attempt.end("fail")
            if all(row.is_valid for row in operation.rows):
                self._fault("refused for nothing", operation.kind, status, document)
        else:
            attempt.end("unknown")
            self._note_failure(operation.kind, status, headers, document)

    def _note_failure(self, what: str, status: int, headers: HTTPMessage, document: Any) -> None:
        """The one failure that a client may see is 503, with a hint when to come back."""
        if status != 503 or "Retry-After" not in headers:
            self._fault("wrong failure", what, status, document)

    def _fault(self, name: str, what: str, status: int, document: Any) -> None:
        self.history.faults.append(Fault(name, f"{self.name}: {what} was answered {status} {document}"))

    def ask_for_run(self, group: str) -> None:
        """A run of the group's source, beside those of its schedule."""
        try:
            status, headers, document = self.web.ask("POST", f"/api/v1/groups/{group}/runs")
        except (OSError, HTTPException):
            return
        self.history.answers.append(f"run {status}")
        if status != 202:
            self._note_failure("run", status, headers, document)

    # Reading.

    def read_one(self, key: str) -> None:
        """GET of one customer: all features of both groups, with their statuses."""
        begun = time.time()
        answer = self._read("GET", f"/features/customer/{key}?include=meta")
        if answer is None:
            return
        status, _, document = answer
        names = [(group, name) for group in world.GROUPS for name in FEATURES]
        if status == 404:
            found = {f"{group}:{name}": (None, "NOT_FOUND", None) for group, name in names}
        else:
            meta, values = document["meta"], document["features"]
            found = {at: (values[at], meta[at]["status"], meta[at]["event_timestamp"]) for at in values}
        self._note_reading(key, found, begun)

    def read_many(self, keys: Sequence[str]) -> None:
        """POST for several customers."""
        begun = time.time()
        body = {
            "features": [f"{group}:{name}" for group in world.GROUPS for name in FEATURES],
            "entities": {"customer_id": list(keys)},
            "include": ["statuses", "event_timestamps"],
        }
        answer = self._read("POST", "/api/v1/vectors", json.dumps(body).encode())
        if answer is None:
            return
        document = answer[2]
        for place, key in enumerate(keys):
            parts = (document[part][place] for part in ("values", "statuses", "event_timestamps"))
            self._note_reading(key, dict(zip(document["feature_names"], zip(*parts, strict=True), strict=True)), begun)

    def _read(self, method: str, path: str, body: bytes = b"") -> Answered | None:
        """The answer, when it is one of values (for a GET also 404); None when nobody or only a 503 answered."""
        try:
            answer = self.web.ask(method, path, body)
        except (OSError, HTTPException):
            self.history.answers.append("read unanswered")
            time.sleep(SECONDS_BEFORE_REPEAT)
            return None
        status, headers, document = answer
        code = (document or {}).get("code", "") if status != 200 else ""
        self.history.answers.append(f"read {status} {code}".strip())
        if status == 200 or (method, status, code) == ("GET", 404, "entity_not_found"):
            return answer
        self._note_failure("read", status, headers, document)
        time.sleep(0.02)
        return None

    def _note_reading(self, key: str, found: dict[str, tuple[Any, str, Any]], begun: float) -> None:
        ended = time.time()
        for group in world.GROUPS:
            of_group = {name: found[f"{group}:{name}"] for name in FEATURES}
            events = {event for _, _, event in of_group.values()}
            answer = Answer(
                group,
                key,
                {name: value for name, (value, _, _) in of_group.items()},
                {name: status for name, (_, status, _) in of_group.items()},
                world.parsed(events.pop()) if len(events) == 1 else None,
            )
            seen = sight_of(answer, self.history, begun=begun, ended=ended)
            if isinstance(seen, Fault):
                self.history.faults.append(seen)
            else:
                self.history.readings.append(seen)


# What each kind of client does, until it is over.


def write(client: Client, maker: world.Maker) -> None:
    """Push, delete and read back at random."""
    kinds: list[Callable[[Client, world.Maker], Operation]] = [push_one, push_many, push_arrow, delete, push_bad]
    while not client.over.is_set():
        kind = client.rng.choices(kinds, weights=[5, 5, 3, 2, 1])[0]
        operation = kind(client, maker)
        if client.rng.random() < 0.5:
            client.read_one(operation.rows[0].key)
        time.sleep(client.rng.uniform(0, 0.05))


def read(client: Client, _: world.Maker) -> None:
    while not client.over.is_set():
        if client.rng.random() < 0.7:
            client.read_one(client.rng.choice(world.KEYS))
        else:
            client.read_many(client.rng.sample(world.KEYS, client.rng.randint(1, 10)))
        time.sleep(client.rng.uniform(0, 0.05))


def push_one(client: Client, maker: world.Maker) -> Operation:
    number = maker.operation()
    row = maker.row(client.rng.choice(world.GROUPS), number, 0)
    operation = Operation(number, "push", (row,), _key(client, number))
    body = json.dumps(world.raw_json([row])[0]).encode()
    client.carry_out(operation, Request("POST", f"/ingest/{row.group}/{row.key}", body))
    return operation


def push_many(client: Client, maker: world.Maker) -> Operation:
    operation = _many(client, maker, "push many")
    client.carry_out(operation, Request("POST", _rows_path(operation), _json(operation.rows)))
    return operation


def push_arrow(client: Client, maker: world.Maker) -> Operation:
    operation = _many(client, maker, "push Arrow")
    client.carry_out(operation, Request("POST", _rows_path(operation), _arrow(operation.rows), ARROW))
    return operation


def push_bad(client: Client, maker: world.Maker) -> Operation:
    """Good rows with a bad one among them: all are refused."""
    number, group = maker.operation(), client.rng.choice(world.GROUPS)
    rows = (*maker.rows(group, number, 2), maker.row(group, number, 2, is_valid=False))
    operation = Operation(number, "push bad", rows, _key(client, number))
    client.carry_out(operation, Request("POST", _rows_path(operation), _json(rows)))
    if operation.outcome == "ok":
        client.history.faults.append(Fault("accepted", f"the bad rows of operation {number}"))
    return operation


def delete(client: Client, maker: world.Maker) -> Operation:
    number = maker.operation()
    row = maker.row(client.rng.choice(world.GROUPS), number, 0, deleted=True)
    operation = Operation(number, "delete", (row,), _key(client, number))
    path = f"/api/v1/groups/{row.group}/rows/{row.key}?timestamp={world.as_text(row.event)}"
    client.carry_out(operation, Request("DELETE", path))
    return operation


def drop_files(client: Client, maker: world.Maker, folder: Path) -> None:
    """Put files where the group's source looks for them, some of them twice, and now and then ask for a run."""
    while not client.over.is_set():
        number = maker.operation()
        rows = list(maker.rows(world.PURCHASES, number, client.rng.randint(15, 40)))
        if client.rng.random() < 0.3:
            rows.append(maker.row(world.PURCHASES, number, len(rows) + 1, is_valid=False))
        client.history.add(operation := Operation(number, "file", tuple(rows)))
        _drop(folder, operation, twice=client.rng.random() < 0.2, as_csv=client.rng.random() < 0.5)
        if client.rng.random() < 0.4:
            client.ask_for_run(world.PURCHASES)
        client.over.wait(client.rng.uniform(0.2, 1.5))


def _drop(folder: Path, operation: Operation, *, twice: bool, as_csv: bool) -> None:
    """The file under its name at once: from elsewhere in the folder's file system, whole."""
    attempt = operation.begin()
    raw = world.raw_json(operation.rows)
    being_written = folder.parent / f"{operation.number}.part"
    if as_csv:
        write_csv(being_written, raw)
    else:
        table = pa.Table.from_pylist([world.raw(row) for row in operation.rows], schema=_schema(world.PURCHASES))
        pq.write_table(table, being_written)
    suffix = "csv" if as_csv else "parquet"
    if twice:
        copy = folder.parent / f"{operation.number}.copy"
        copy.write_bytes(being_written.read_bytes())
        copy.rename(folder / f"{operation.number}-again.{suffix}")
    being_written.rename(folder / f"{operation.number}.{suffix}")
    attempt.end("ok")


def _many(client: Client, maker: world.Maker, kind: str) -> Operation:
    number = maker.operation()
    rows = maker.rows(client.rng.choice(world.GROUPS), number, client.rng.randint(2, 15))
    return Operation(number, kind, rows, _key(client, number))


def _key(client: Client, number: int) -> str:
    """An Idempotency-Key for two of three operations."""
    return f"operation-{number}" if client.rng.random() < 0.67 else ""


def _rows_path(operation: Operation) -> str:
    return f"/api/v1/groups/{operation.rows[0].group}/rows"


def _json(rows: Sequence[Row]) -> bytes:
    return json.dumps({"rows": world.raw_json(rows)}).encode()


def _arrow(rows: Sequence[Row]) -> bytes:
    table = pa.Table.from_pylist([world.raw(row) for row in rows], schema=_schema(rows[0].group))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _schema(group: str) -> pa.Schema:
    moment = pa.timestamp("us", "UTC")
    columns = {"operation": pa.int64(), "number": pa.int64(), "written_for": pa.string(), "amount": pa.float64()}
    columns |= {"label": pa.string(), "customer_id": pa.string(), "purchased_at": moment}
    return pa.schema(columns | ({"recorded_at": moment} if group == world.LIMITS else {}))


@dataclass
class Crew:
    """The clients at work, each in a thread."""

    history: History
    web: Asks
    seed: int
    folder: Path

    def __post_init__(self) -> None:
        self.over = threading.Event()
        works = [*[("writer", write)] * 4, *[("reader", read)] * 2]
        works.append(("dropper", lambda client, maker: drop_files(client, maker, self.folder)))
        self._pool = ThreadPoolExecutor(max_workers=len(works))
        self._done = [self._pool.submit(work, *self._client(name, at)) for at, (name, work) in enumerate(works)]

    @staticmethod
    def never() -> threading.Event:
        """What ends the work of a client that is asked for each read by itself."""
        return threading.Event()

    def _client(self, name: str, number: int) -> tuple[Client, world.Maker]:
        rng = random.Random(f"{self.seed}/{number}")
        client = Client(f"{name} {number}", rng, self.history, self.web, self.over)
        return client, world.Maker(rng, first_operation=(number + 1) * 1_000_000)

    def end(self) -> None:
        """Let everybody finish; raises what went wrong with a client itself."""
        self.over.set()
        self._pool.shutdown(wait=True)
        for done in self._done:
            done.result()
