"""Any sequence of pushes, deletions, files, drains, kills, losses and rebuilds, against a model of a few lines.

The model is a list of what was accepted, in order. Whatever happens, the offline table and the undrained log hold each
of it once, the online store the newest of each customer, and a point-in-time join at now answers as the online store.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, Phase
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from pytest_django import Settings

from catalog import access, runs, snapshot
from catalog.models import Run, RunState
from engine import faults
from engine.errors import OnlineStoreCold
from engine.offline import compaction
from ingestion import drain, materialize, upkeep
from ingestion.ingest import execute, ingest
from ingestion.models import Drain, PushBatch
from ingestion.push_rows import rows_of
from ingestion.tasks import catch_up
from serving import training, vectors
from tests.factories import make_customer_group, write_csv
from tests.ingestion import contents
from tests.ingestion.workers import failing_at

GROUP = "purchases"
CUSTOMERS = ["A", "B", "C"]
#: Read, never written.
NOBODY = "D"
FEATURES = [f"{GROUP}:total", f"{GROUP}:word"]
TTL = timedelta(days=90)
NOW = datetime.now(UTC)
#: Event times: one beyond the TTL, and two a microsecond apart.
TIMES = [
    NOW - ago for ago in (timedelta(days=100), timedelta(days=9), timedelta(days=9, microseconds=-1), timedelta(1))
]
#: Created times; a row without one has the time of its acceptance, which is later than these.
CREATED = [None, NOW - timedelta(days=8), NOW - timedelta(days=7)]

OF_DRAINS = [point for point in faults.POINTS if point.startswith("drain.")]
OF_REBUILDS = [point for point in faults.POINTS if point.startswith("rebuild.")]
OF_PUSHES = ["push.after_log_commit", "push.before_upsert", "push.after_upsert"]
OF_RUNS = [
    point for point in faults.POINTS if point.startswith(("run.", "materialize.")) and point != "run.before_fail"
]
OF_COMPACTIONS = [point for point in faults.POINTS if point.startswith("compact.")]


@dataclass(frozen=True)
class Fact:
    """One accepted row; `total` is None of a deletion, else a number that no other row has."""

    customer: str
    at: datetime
    created: datetime | None
    total: int | None
    word: str | None

    @property
    def content(self) -> tuple[object, ...]:
        """What both stores keep of it and the test knows."""
        return self.customer, self.at, self.total, self.word

    def as_row(self) -> dict[str, Any]:
        row = {"customer_id": self.customer, "purchased_at": self.at.isoformat(), "total": self.total}
        return row | {"loaded_at": self.created and self.created.isoformat(), "word": self.word}


@dataclass(frozen=True)
class Request:
    """A push or a deletion as it was sent, to be sent again."""

    method: str
    path: str
    body: str
    key: str
    accepted: int


Answer = tuple[object, object, str]  # total, word and status

some_rows = st.lists(
    st.tuples(
        st.sampled_from(CUSTOMERS), st.sampled_from(TIMES), st.sampled_from(CREATED), st.sampled_from([None, "", "x"])
    ),
    min_size=1,
    max_size=4,
)


class Hub(RuleBasedStateMachine):
    """A hub with one group, and what it must hold.

    owed:     something accepted may not be online yet.
    restored: Redis went back in time and nobody has looked since. A state of before then counts for those who know it,
              also when the database has begun a new epoch meanwhile.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__()
        self.redis = redis.Redis.from_url(settings.ONLINE_REDIS_URL)
        self.redis.flushdb()
        self.folder = folder / f"example{len(list(folder.iterdir()))}"
        self.folder.mkdir()
        settings.FEATUREHUB_OFFLINE_PATH = self.folder / "offline"
        snapshot.forget()
        materialize.ensure_warm()
        features = {"total": "int64", "word": "string"}
        self.group = make_customer_group(GROUP, features=features, ttl=TTL, created_timestamp="loaded_at")
        _, key = access.create_key(name="writer", scopes=["read", "write"])
        self.client = Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)
        self.facts: list[Fact] = []
        self.requests: list[Request] = []
        self.saved: list[tuple[bytes, bytes, int]] | None = None
        self.numbers = 0
        self.owed = self.restored = False

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # no step has failed
                self.settle()
        finally:
            call_command("flush", interactive=False, verbosity=0)
            self.redis.close()

    # What comes in.

    @rule(rows=some_rows)
    def push(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._note_answer(self._send(self._push_of(rows)))

    @rule(rows=some_rows, point=st.sampled_from(OF_PUSHES))
    def push_that_is_cut_off(self, rows: Sequence[tuple[Any, ...]], point: str) -> None:
        request = self._push_of(rows)
        with failing_at(point):
            assert self._send(request).status_code == 500
        self.owed = True

    @rule(customer=st.sampled_from(CUSTOMERS), at=st.sampled_from(TIMES))
    def delete(self, customer: str, at: datetime) -> None:
        path = f"/api/v1/groups/{GROUP}/rows/{customer}?timestamp={at:%Y-%m-%dT%H:%M:%S.%fZ}"
        self.facts.append(Fact(customer, at, None, None, None))
        self._note_answer(self._send(self._request("DELETE", path, "", 1)))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def repeat_a_request(self, data: st.DataObject) -> None:
        repeated = data.draw(st.sampled_from(self.requests))
        answer = self._send(repeated)
        assert (answer.status_code in (200, 202), answer.json()["accepted"]) == (True, repeated.accepted)

    @rule(rows=some_rows)
    def run_a_file(self, rows: Sequence[tuple[Any, ...]]) -> None:
        facts = self._facts_of(rows)
        assert ingest(self.group, paths=[self._file(facts)]).rows_accepted == len(facts)

    @rule(rows=some_rows, point=st.sampled_from(OF_RUNS))
    def run_a_file_that_is_cut_off(self, rows: Sequence[tuple[Any, ...]], point: str) -> None:
        """The run is taken up by another worker, and the file is read once more if it failed."""
        path = self._file(self._facts_of(rows))
        with failing_at(point), pytest.raises(faults.Fault):
            ingest(self.group, paths=[path])
        Run.objects.filter(state=RunState.RUNNING).update(lease_until=timezone.now() - timedelta(seconds=1))
        runs.settle_all()
        for run in Run.objects.filter(state=RunState.QUEUED):
            execute(run)
        ingest(self.group, paths=[path])
        self.owed = True  # what had been committed comes online with the next materialization

    # What moves it.

    @rule()
    def drain(self) -> None:
        drain.drain(self.group)
        self._assert_offline_is_whole()

    @precondition(lambda self: PushBatch.objects.filter(drain=None).exists())
    @rule(point=st.sampled_from(OF_DRAINS))
    def drain_that_is_cut_off(self, point: str) -> None:
        with failing_at(point), pytest.raises(faults.Fault):
            drain.drain(self.group)

    @rule()
    def drain_and_materialize(self) -> None:
        drain.drain(self.group)
        materialize.materialize(self.group)
        self.owed = False

    @rule()
    def catch_up(self) -> None:
        catch_up()
        self.owed = self.restored = False
        assert not materialize.is_cold()

    @rule()
    def compact(self) -> None:
        upkeep.upkeep(self.group)

    @precondition(lambda self: len(contents.data_files(self.group)) > 4)
    @rule(point=st.sampled_from(OF_COMPACTIONS))
    def compact_that_is_cut_off(self, point: str) -> None:
        drain.drain(self.group)
        with failing_at(point):
            try:
                upkeep.upkeep(self.group)
            except faults.Fault:
                return

    # What is lost.

    @rule()
    def wipe_redis(self) -> None:
        self.redis.flushdb()
        self.owed, self.restored = True, False

    @rule()
    def save_redis(self) -> None:
        names = self.redis.keys()
        self.saved = [(name, self.redis.dump(name), max(self.redis.pttl(name), 0)) for name in names]

    @precondition(lambda self: self.saved is not None)
    @rule()
    def restore_redis(self) -> None:
        self.redis.flushdb()
        for name, value, milliseconds in self.saved or ():
            self.redis.restore(name, milliseconds, value)
        self.owed = self.restored = True

    @rule()
    def rebuild(self) -> None:
        assert materialize.rebuild()
        self.owed = self.restored = False

    @rule(point=st.sampled_from(OF_REBUILDS))
    def rebuild_that_is_cut_off(self, point: str) -> None:
        with failing_at(point), pytest.raises(faults.Fault):
            materialize.rebuild()
        self.restored = False  # it begins with closing the store
        assert materialize.is_cold()

    @rule()
    def materialize_everything_by_command(self) -> None:
        call_command("materialize", GROUP, "--full", "--json", stdout=io.StringIO())
        self.owed = self.restored = False

    # What holds.

    @invariant()
    def every_row_is_kept(self) -> None:
        """A batch whose drain was cut off between its commit and its end is in both the table and the log."""
        accepted, offline, log = self._accepted(), self._offline(), self._log()
        assert offline <= accepted
        assert accepted <= offline + log

    @invariant()
    def the_newest_is_online(self) -> None:
        if materialize.is_cold():
            with suppress(OnlineStoreCold) if self.restored else pytest.raises(OnlineStoreCold):
                self._online()
        elif self.owed:
            known = {customer: self._possible(customer) for customer in [*CUSTOMERS, NOBODY]}
            assert all(answer in known[customer] for customer, answer in self._online().items())
        else:
            assert self._online() == self._expected()

    @rule()
    def join_at_now(self) -> None:
        assert self._joined() == self._expected()
        self._assert_offline_is_whole()

    def settle(self) -> None:
        """Everything as it is in the end, and the same from nothing."""
        for _ in range(2):
            catch_up()
            assert self._online() == self._joined() == self._expected()
            self._assert_offline_is_whole()
            assert not Drain.objects.filter(landed_at=None).exists()
            assert {run.state for run in Run.objects.all()} <= {RunState.SUCCEEDED, RunState.FAILED}
            self.redis.flushdb()

    # The model.

    def _expected(self) -> dict[str, Answer]:
        return {customer: self._answer(self._newest(customer)) for customer in [*CUSTOMERS, NOBODY]}

    def _newest(self, customer: str) -> Fact | None:
        own = [(number, fact) for number, fact in enumerate(self.facts) if fact.customer == customer]
        return max(own, key=lambda known: version(*known))[1] if own else None

    def _possible(self, customer: str) -> list[Answer]:
        """What a reader may be told of a customer while something is on its way."""
        return [self._answer(None), *(self._answer(fact) for fact in self.facts if fact.customer == customer)]

    def _answer(self, fact: Fact | None) -> Answer:
        if fact is None or fact.total is None:
            return None, None, "NOT_FOUND NOT_FOUND"
        if NOW - fact.at > TTL:
            return None, None, "OUTSIDE_MAX_AGE OUTSIDE_MAX_AGE"
        return fact.total, fact.word, "PRESENT " + ("NULL_VALUE" if fact.word is None else "PRESENT")

    # What is there.

    def _online(self) -> dict[str, Answer]:
        read = vectors.read(vectors.of_features(FEATURES), {"customer_id": [*CUSTOMERS, NOBODY]})
        rows = zip([*CUSTOMERS, NOBODY], read.values, read.statuses, strict=True)
        return {customer: (*values, " ".join(statuses)) for customer, values, statuses in rows}  # type: ignore[misc]

    def _joined(self) -> dict[str, Answer]:
        times = pa.array([datetime.now(UTC)] * 4, pa.timestamp("us", "UTC"))
        spine = pa.table({"customer_id": [*CUSTOMERS, NOBODY], "event_timestamp": times})
        joined = training.build(training.Asked(features=tuple(FEATURES)), spine, statuses=True)
        assert isinstance(joined, pa.Table)
        return {
            row["customer_id"]: (row["total"], row["word"], f"{row['total__status']} {row['word__status']}")
            for row in joined.to_pylist()
        }

    def _accepted(self) -> Counter[object]:
        return Counter(fact.content for fact in self.facts)

    def _offline(self) -> Counter[object]:
        return Counter(map(content, contents.offline(self.group)))

    def _log(self) -> Counter[object]:
        batches = PushBatch.objects.filter(drain__landed_at=None)
        return Counter(content(row) for batch in batches for row in rows_of(batch).to_dicts())

    def _assert_offline_is_whole(self) -> None:
        assert self._offline() == self._accepted()

    # How it is sent.

    def _facts_of(self, rows: Sequence[tuple[Any, ...]]) -> list[Fact]:
        """The rows with a number of their own each, as accepted from now on."""
        facts = []
        for customer, at, created, word in rows:
            self.numbers += 1
            facts.append(Fact(customer, at, created, self.numbers, word))
        self.facts += facts
        return facts

    def _push_of(self, rows: Sequence[tuple[Any, ...]]) -> Request:
        facts = self._facts_of(rows)
        body = json.dumps({"rows": [fact.as_row() for fact in facts]})
        return self._request("POST", f"/api/v1/groups/{GROUP}/rows", body, len(facts))

    def _request(self, method: str, path: str, body: str, accepted: int) -> Request:
        made = Request(method, path, body, f"k{len(self.requests)}", accepted)
        self.requests.append(made)
        return made

    def _send(self, request: Request) -> Any:
        headers = {"Idempotency-Key": request.key}
        return self.client.generic(
            request.method, request.path, request.body, content_type="application/json", headers=headers
        )

    def _note_answer(self, answer: Any) -> None:
        wanted = (202, "pending") if materialize.is_cold() else (200, "applied")
        assert (answer.status_code, answer.json()["online"]) == wanted

    def _file(self, facts: Sequence[Fact]) -> Path:
        path = self.folder / f"{facts[0].total}.csv"
        return write_csv(
            path, [fact.as_row() | {"word": "" if fact.word is None else f'"{fact.word}"'} for fact in facts]
        )


def version(number: int, fact: Fact) -> tuple[object, ...]:
    """The order of two rows of a customer: the event, when it was created, when it was accepted."""
    return fact.at, fact.created is None, fact.created or NOW, number


def content(row: dict[str, Any]) -> tuple[object, ...]:
    """An offline row as `Fact.content` has it."""
    return row["customer_id"], row["event_timestamp"], None if row["_deleted"] else row["total"], row["word"]


def extent(examples: int, steps: int, phases: Sequence[Phase]) -> how:
    return how(
        max_examples=examples,
        stateful_step_count=steps,
        phases=phases,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


#: Shrinking would take longer than a test of the normal suite may.
SHORT = extent(15, 25, [Phase.reuse, Phase.generate])
LONG = extent(300, 60, list(Phase))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("extent", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["short", "long"])
def test_whatever_happens_both_stores_hold_what_was_accepted(
    sources: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, extent: how
) -> None:
    monkeypatch.setattr(compaction, "FILES_AT_LEAST", 3)
    folder = sources.parent / "examples"
    folder.mkdir()
    run_state_machine_as_test(lambda: Hub(folder, settings), settings=extent)
