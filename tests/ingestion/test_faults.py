"""A process that is killed, fails or pauses at any step that commits: afterwards every row is in both stores once."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from catalog import runs, stores
from catalog.models import FeatureGroup, Run, RunState
from engine import faults
from engine.errors import InvalidSource
from engine.offline.compaction import FILES_AT_LEAST
from ingestion import drain, materialize, upkeep
from ingestion.ingest import execute, ingest
from ingestion.models import Drain
from ingestion.push import find_group, push
from ingestion.settle import Selection, discard, queue_replay, rules_of
from ingestion.tasks import catch_up, ingest_scheduled
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import contents, processes, workers

INGESTION = processes.PROJECT / "ingestion"
COMPACTION = processes.PROJECT / "engine" / "offline" / "compaction.py"

#: The points that a row comes by; the others are in test_versions.py and test_erasure.py.
OF_ROWS = [point for point in faults.POINTS if not point.startswith(("drop.", "erase."))]

pytestmark = pytest.mark.database


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    """A group with a source of two customers, and one pushed row that has not been drained beside two rejected ones."""
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    every, _ = IntervalSchedule.objects.get_or_create(every=60, period=IntervalSchedule.SECONDS)
    schedule = PeriodicTask.objects.create(name="ingest purchases", task=ingest_scheduled.name, interval=every)
    group = make_customer_group(source="*.csv", schedule=schedule)
    bad = [purchase("C5", customer_segment="golden"), purchase("C6", total_purchases=-1)]
    push(group, [purchase("C3"), *bad], on_error="quarantine")
    return group


def replay_of_one_that_was_mended() -> Run:
    """A replay of both rejected rows, after the rule of the first was mended."""
    group = find_group("customer_purchases")
    group.features.filter(name="customer_segment").update(validation={})
    return execute(queue_replay(group, Selection()))


def ingest_and_compact() -> None:
    """Ten files of one row each, put together."""
    group = find_group("customer_purchases")
    ingest(group)
    for number in range(FILES_AT_LEAST):
        push(group, [purchase(f"D{number}")])
        drain.drain(group)
    upkeep.upkeep(group)


def forget() -> None:
    """What landed two days ago leaves the log."""
    drain.drain(find_group("customer_purchases"))
    Drain.objects.update(landed_at=timezone.now() - timedelta(days=2))
    drain.forget_landed()


def accept_the_loss() -> None:
    """A file whose only row is an older one of C3 is damaged, and given up."""
    group = find_group("customer_purchases")
    drain.drain(group)
    push(group, [purchase("C3", "1997-01-01T00:00:00Z")])
    before = set(contents.data_files(group))
    drain.drain(group)
    (new,) = set(contents.data_files(group)) - before
    (contents.folder(group) / new).write_bytes(b"damaged")
    upkeep.accept_loss(group, by="ada")


def work(point: str) -> Callable[[], object]:
    """Something that comes by the point."""
    if point == "run.before_fail":
        return lambda: ingest(find_group("customer_purchases"), paths=[Path("/nowhere.csv")])
    by_kind: dict[str, Callable[[], object]] = {
        "push": lambda: push(find_group("customer_purchases"), [purchase("C4")]),
        "drain": lambda: drain.drain(find_group("customer_purchases")),
        "run": lambda: ingest(find_group("customer_purchases")),
        "schedule": lambda: ingest_scheduled("customer_purchases"),
        "replay": replay_of_one_that_was_mended,
        "discard": lambda: discard(find_group("customer_purchases"), Selection(), reason="a test", by="ada"),
        "rebuild": materialize.rebuild,
        "compact": ingest_and_compact,
        "forget": forget,
        "scrub": lambda: upkeep.scrub(find_group("customer_purchases")),
        "accept": accept_the_loss,
        "materialize": lambda: ingest(find_group("customer_purchases")),
    }
    return by_kind[point.partition(".")[0]]


WORK_IN_A_CHILD = """
import django, sys
django.setup()
from tests.ingestion.test_faults import work

work(sys.argv[1])()
"""


def start(point: str, plan: str) -> subprocess.Popen[bytes]:
    """A process that comes by the point, armed with the plan."""
    environment = processes.environment() | workers.fault(plan) | {"FEATUREHUB_LEASE_SECONDS": "1"}
    command = [sys.executable, "-c", WORK_IN_A_CHILD, point]
    return subprocess.Popen(command, cwd=processes.PROJECT, env=environment, stderr=subprocess.PIPE)


def carry_on(group: FeatureGroup) -> None:
    """What workers do within a minute of the death of one: here the minute is over."""
    with redis.Redis.from_url(settings.ONLINE_REDIS_URL) as client:
        client.delete(f"{settings.FEATUREHUB_KEY_PREFIX}:lock:rebuild")
    for _ in range(3):  # PostgreSQL may still carry out the last heartbeat of a process that is dead
        Run.objects.filter(state=RunState.RUNNING).update(lease_until=timezone.now() - timedelta(seconds=1))
        catch_up()
        if not Run.objects.filter(state=RunState.RUNNING).exists():
            break
    for run in Run.objects.filter(state=RunState.QUEUED):
        with suppress(InvalidSource):  # the one that came by the point of a failing run
            execute(run)
    if not group.runs.filter(state=RunState.SUCCEEDED, kind="ingest").exists():
        ingest(group)
    catch_up()


def assert_once(group: FeatureGroup, *customers: str) -> None:
    offline = Counter(row["customer_id"] for row in contents.offline(group))
    assert offline == Counter(customers)
    assert sorted(contents.online(group)) == [f"s2:{customer}" for customer in customers]
    assert not materialize.is_cold()
    assert not Drain.objects.filter(landed_at=None).exists()
    assert {run.state for run in group.runs.all()} <= {RunState.SUCCEEDED, RunState.FAILED}


def customers_of(point: str) -> tuple[str, ...]:
    more = {
        "push": ["C4"],
        "replay": ["C5"],
        "compact": [f"D{number}" for number in range(FILES_AT_LEAST)],
    }
    return ("C1", "C2", "C3", *more.get(point.partition(".")[0], []))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", OF_ROWS)
def test_a_process_killed_at_any_point_loses_and_doubles_nothing(group: FeatureGroup, point: str) -> None:
    with start(point, f"{point}:1:kill") as child:
        _, said = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, said.decode()
    carry_on(group)
    assert_once(group, *customers_of(point))


@pytest.mark.parametrize("point", OF_ROWS)
def test_an_error_at_any_point_loses_and_doubles_nothing(
    group: FeatureGroup, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_passed", Counter())
    for name, value in workers.fault(f"{point}:1:raise").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(faults.Fault):
        work(point)()
    monkeypatch.delenv("FH_FAULTS_ARMED")
    carry_on(group)
    assert_once(group, *customers_of(point))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", ["run.after_file", "run.before_delta_commit", "run.after_delta_commit"])
def test_of_a_paused_worker_that_wakes_and_its_successor_one_lands(group: FeatureGroup, point: str) -> None:
    with start(point, f"{point}:1:stop") as child:
        try:
            workers.wait_stopped(child)
            workers.until(lambda: runs.lost_runs().exists())
            run = runs.lost_runs().get()
            assert execute(run).state == RunState.SUCCEEDED
            workers.wake(child)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, said.decode()
    carry_on(group)
    assert_once(group, "C1", "C2", "C3")
    assert len(contents.data_files(group)) == 2  # the run's and the drain's: the loser has removed its own
    assert (run.rows_accepted, run.error) == (2, "")


#: The steps of a run that a replay comes by.
OF_REPLAYS = [point for point in faults.POINTS if point.startswith(("run.", "materialize."))]
OF_REPLAYS = [point for point in OF_REPLAYS if point not in ("run.after_entry", "run.before_fail")]


def assert_replayed_once(group: FeatureGroup) -> None:
    """The mended row has landed, and the other waits, as often as it was ever sent."""
    assert_once(group, "C1", "C2", "C3", "C5")
    waiting = [rule for rule in rules_of(group, Selection()) if rule.pending_rows]
    assert [(rule.column, rule.pending_rows, rule.run.kind) for rule in waiting] == [("total_purchases", 1, "replay")]
    (first,) = Run.objects.filter(kind="push")
    (row,) = [row for row in contents.offline(group) if row["customer_id"] == "C5"]
    assert (row["_accepted"], row["_ordinal"]) == (first.acceptance_id, 1)
    assert {path.suffix for path in stores.quarantine_folder(group.name).iterdir()} == {".parquet"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", OF_REPLAYS)
def test_a_replay_that_is_killed_at_any_point_lands_its_rows_once(group: FeatureGroup, point: str) -> None:
    with start("replay.", f"{point}:1:kill") as child:
        _, said = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, said.decode()
    carry_on(group)
    assert_replayed_once(group)


@pytest.mark.parametrize("point", OF_REPLAYS)
def test_a_replay_that_fails_at_any_point_lands_its_rows_once(
    group: FeatureGroup, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_passed", Counter())
    for name, value in workers.fault(f"{point}:1:raise").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(faults.Fault):
        replay_of_one_that_was_mended()
    monkeypatch.delenv("FH_FAULTS_ARMED")
    if Run.objects.get(kind="replay").state == RunState.FAILED:
        execute(queue_replay(group, Selection()))
    carry_on(group)
    assert_replayed_once(group)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", ["run.after_claim", "run.after_file", "run.before_delta_commit"])
def test_of_a_paused_replay_that_wakes_and_its_successor_one_lands(group: FeatureGroup, point: str) -> None:
    with start("replay.", f"{point}:1:stop") as child:
        try:
            workers.wait_stopped(child)
            workers.until(lambda: runs.lost_runs().exists())
            assert execute(runs.lost_runs().get()).state == RunState.SUCCEEDED
            workers.wake(child)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, said.decode()
    carry_on(group)
    assert_replayed_once(group)


@pytest.mark.django_db(transaction=True)
def test_a_paused_drain_that_wakes_lands_nothing_twice(group: FeatureGroup) -> None:
    with start("drain.", "drain.before_delta_commit:1:stop") as child:
        try:
            workers.wait_stopped(child)
            assert drain.drain(group) == 1
            workers.wake(child)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, said.decode()
    assert [row["customer_id"] for row in contents.offline(group)] == ["C3"]
    assert len(contents.data_files(group)) == 1


# The points themselves.


def test_a_fault_that_is_not_armed_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FH_FAULT", "push.after_upsert:1:raise")
    faults.hit("push.after_upsert")
    monkeypatch.setenv("FH_FAULTS_ARMED", "true")
    faults.hit("push.after_upsert")


def test_a_fault_acts_at_the_nth_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_passed", Counter())
    for name, value in workers.fault("push.after_upsert:2:raise").items():
        monkeypatch.setenv(name, value)
    faults.hit("push.after_upsert")
    faults.hit("push.before_upsert")
    with pytest.raises(faults.Fault, match=r"push\.after_upsert"):
        faults.hit("push.after_upsert")
    faults.hit("push.after_upsert")


@pytest.mark.parametrize("plan", ["push.nowhere:1:kill", "push.after_upsert:1:explode"])
def test_a_plan_that_names_no_point_or_action_is_refused(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in workers.fault(plan).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="the points are"):
        faults.hit("push.after_upsert")


# Every step that commits has a point around it.

MODULES = ("push", "drain", "ingest", "materialize", "schedules", "settle", "upkeep", "damage", "versions")
COMMITS = {
    "commit",
    "atomic",
    "upsert",
    "upsert_frame",
    "about_to_commit",
    "reach",
    "close_for_reading",
    "replace_files",
}


def functions(source: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


def names_in(function: ast.FunctionDef) -> set[str]:
    """Every attribute and name that a function mentions."""
    nodes = list(ast.walk(function))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


def commits_without_a_point(sources: dict[str, str]) -> list[str]:
    """Functions that commit, where neither they nor one that calls them comes by a point."""
    mentioned = {
        f"{module}.{name}": names_in(function)
        for module, source in sources.items()
        for name, function in functions(source).items()
    }
    having_points = {name for name, mentions in mentioned.items() if {"faults", "hit"} <= mentions}

    def has_point(function: str) -> bool:
        short = function.partition(".")[2]
        return function in having_points or any(short in mentioned[caller] for caller in having_points)

    return sorted(name for name, mentions in mentioned.items() if mentions & COMMITS and not has_point(name))


def test_every_function_that_commits_has_a_point_around_it() -> None:
    sources = {name: (INGESTION / f"{name}.py").read_text() for name in MODULES}
    sources["compaction"] = COMPACTION.read_text()
    assert commits_without_a_point(sources) == []


def test_a_commit_without_a_point_is_seen() -> None:
    bare = "def land(table):\n    table.commit([])\n"
    assert commits_without_a_point({"m": bare}) == ["m.land"]
    assert commits_without_a_point({"m": bare + "def call():\n    faults.hit('x')\n    land(1)\n"}) == []


def test_every_point_is_come_by_somewhere_and_none_is_unknown() -> None:
    hit = [
        node.args[0].value
        for path in [*INGESTION.rglob("*.py"), COMPACTION]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "hit"
        if isinstance(node.args[0], ast.Constant)
    ]
    assert set(hit) == set(faults.POINTS)


def test_no_test_leaves_a_fault_armed() -> None:
    assert "FH_FAULTS_ARMED" not in os.environ
