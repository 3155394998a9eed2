"""Clients push, delete, drop files and read while a monkey kills every process of the hub at random; at the end the
offline store holds what the clients were told, and online, rebuilt online and training sets are its newest rows.

`pytest tests/model --model-seed 7 --model-kills 40` repeats the choices of one run; docs/model-checker.md tells more.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from pytest_django import Settings

from catalog import access, snapshot, stores
from catalog.models import FeatureGroup
from featurehub import private_redis
from featurehub.environment import PROJECT
from ingestion import materialize
from tests.ingestion import contents
from tests.ingestion.web import Web
from tests.ingestion.workers import until
from tests.model import settling, shown, stored, world
from tests.model.clients import Client, Crew
from tests.model.history import Fault, History, Reading
from tests.model.monkey import Monkey
from tests.model.report import Report
from tests.model.stack import Redis, Stack
from tests.model.stored import Tables

KILLS = 20
KILLS_OF_SOAK = 200
REPORT_OF_SOAK = PROJECT / "docs" / "model-checker-report.txt"
#: Seeds whose choices once led to something that was mended.
#: 21: a rebuild whose worker was killed kept the store cold for a minute.
SEEDS = (21,)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stack(tmp_path: Path, settings: Settings, redis_clean: redis.Redis) -> Iterator[Stack]:
    """A hub of this test's own: stores, Redis, web, workers and beat."""
    (tmp_path / "sources" / "drops").mkdir(parents=True)
    settings.FEATUREHUB_SOURCE_ROOTS = (tmp_path / "sources",)
    settings.FEATUREHUB_OFFLINE_PATH = tmp_path / "offline"
    with private_redis.running(tmp_path / "home"):
        own = Redis(tmp_path / "home")
        settings.ONLINE_REDIS_URL = own.url
        forget()
        made = Stack(tmp_path, own, FEATUREHUB_LEASE_SECONDS="2")
        try:
            yield made
        finally:
            made.end()
            if not own.is_up:
                own.start()  # for its user, who stops it
            forget()


def forget() -> None:
    """Know nothing of another Redis."""
    if stores.online.cache_info().currsize:
        stores.online().close()
    stores.online.cache_clear()
    snapshot.forget()


def check(stack: Stack, folder: Path, *, seed: int, kills: int) -> tuple[Report, History]:
    """One whole run of the model checker."""
    begun, started, history, report = time.monotonic(), time.time(), History(), Report(seed)
    groups = world.make_groups()
    materialize.ensure_warm()
    stack.start()
    stack.wait_for_web()
    _, key = access.create_key(name="clients", scopes=["read", "write"])
    assert stack.web.process is not None
    web = Web(stack.web.process, stack.port, key)  # type: ignore[arg-type]
    monkey = Monkey(stack, random.Random(f"{seed}/monkey"))
    crew = Crew(history, web, seed, folder / "sources" / "drops")
    try:
        monkey.work(kills)
        stack.start()
        stack.wait_for_web()
    finally:
        crew.end()
    monkey.look()
    report.faults += monkey.faults
    report.kills, report.pauses = monkey.kills, monkey.pauses
    report.deeds = [f"  {at - started:.1f} s {deed}" for at, deed in monkey.deeds]
    report.figures["seconds of kills"] = f"{time.monotonic() - begun:.0f}"
    judge(report, history, monkey, groups, stack=stack, web=web)
    report.figures["seconds in all"] = f"{time.monotonic() - begun:.0f}"
    return report, history


def judge(
    report: Report, history: History, monkey: Monkey, groups: list[FeatureGroup], *, stack: Stack, web: Web
) -> None:
    """Wait until the hub has settled, and compare everything with everything."""
    seconds, retried = settling.settle(groups)
    report.figures["settled after"] = f"{seconds:.1f} s, {retried} dead runs retried"
    tables = stored.tables_of(settling.offline(groups))
    report.figures["offline rows"] = _counted(tables)
    older, excused = shown.out_of_order(history, tables, monkey.rewinds)
    report.figures["reads that showed less for a moment, of a Redis that had lost its last writes"] = str(excused)
    report.faults += [*history.faults, *stored.faults_of(history, tables), *older]
    report.faults += _quarantine_faults(history, groups[0])
    report.faults += _faults_now(history, tables, web, where="online")
    report.faults += _training_faults(history, tables)
    before = {group.name: contents.online_rows(group) for group in groups}
    report.figures["rebuilt after"] = f"{_rebuild(stack, web):.1f} s"
    report.faults += _faults_now(history, tables, web, where="rebuilt online")
    for group in groups:
        if contents.online_rows(group) != before[group.name]:
            report.faults.append(Fault("rebuilt otherwise", f"the online rows of {group.name} are other ones now"))
    report.figures["keys compared in each store"] = str(len(world.KEYS) * len(world.GROUPS))


def _counted(tables: Tables) -> str:
    rows, tombstones = sum(map(len, tables.rows.values())), sum(map(len, tables.tombstones.values()))
    return f"{rows} and {tombstones} deletions"


def _quarantine_faults(history: History, group: FeatureGroup) -> list[Fault]:
    kept, sent = settling.quarantined(group), stored.quarantined(history)
    return [] if kept == sent else [Fault("miscounted quarantine", f"{kept} rows are kept apart instead of {sent}")]


def _faults_now(history: History, tables: Tables, web: Web, *, where: str) -> list[Fault]:
    """What every key shows now over HTTP, compared with the newest row offline."""
    reader_history = History(history.operations)
    reader = Client("the end", random.Random(0), reader_history, web, Crew.never())
    for keys in world.chunks(world.KEYS, 10):
        reader.read_many(keys)
    found = list(reader_history.faults)
    if len(reader_history.readings) + len(found) != len(world.KEYS) * len(world.GROUPS):
        found.append(Fault("unread", f"{where}: {reader_history.answers}"))
    return found + _differences(reader_history.readings, tables, where=where)


def _training_faults(history: History, tables: Tables) -> list[Fault]:
    """What a training set at now holds, compared in the same way; it does not tell event times."""
    found: list[Fault] = []
    readings: list[Reading] = []
    for answer in settling.trained():
        wanted = _expected(answer.group, answer.key, tables)
        seen = shown.sight_of(replace(answer, event=wanted.event), history, begun=0, ended=0)
        (found if isinstance(seen, Fault) else readings).append(seen)  # type: ignore[arg-type]
    return found + _differences(readings, tables, where="training set")


def _differences(readings: list[Reading], tables: Tables, *, where: str) -> list[Fault]:
    pairs = [(reading, _expected(reading.group, reading.key, tables)) for reading in readings]
    return [fault for reading, wanted in pairs if (fault := shown.difference(reading, wanted, where=where))]


def _expected(group: str, key: str, tables: Tables) -> Reading:
    return shown.expected(group, key, tables, ttl=world.TTL[group], now=world.now())


def _rebuild(stack: Stack, web: Web) -> float:
    """Take everything out of Redis; the seconds until the hub has filled it by itself and serves again."""
    begun = time.monotonic()
    stack.redis.kill()
    stack.redis.start("wiped")
    until(lambda: web.ask("GET", f"/features/customer/{world.KEYS[0]}")[0] in (200, 404), stack.workers[0].log)
    return time.monotonic() - begun


def run_and_tell(stack: Stack, folder: Path, *, seed: int, kills: int, test: str = "-k monkey") -> str:
    """One run; its report, printed too. Fails with the faults and the command that repeats it."""
    command = f"pytest tests/model {test} --model-seed {seed} --model-kills {kills}"
    print(f"model checker: {command}")
    report, history = check(stack, folder, seed=seed, kills=kills)
    text = report.text(history)
    print(text)
    assert report.faults == [], f"{len(report.faults)} faults; repeat: {command}\n{text}"
    return text


@pytest.mark.timeout(400)  # the machine may be busy; on two cores of its own it takes a minute
def test_whatever_the_monkey_kills_both_stores_end_as_the_clients_were_told(
    stack: Stack, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seed, kills = pytestconfig.getoption("model_seed"), pytestconfig.getoption("model_kills")
    run_and_tell(stack, tmp_path, seed=secrets.randbelow(1_000_000) if seed is None else seed, kills=kills or KILLS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_kills_change_nothing_either(stack: Stack, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("model_seed")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    kills = pytestconfig.getoption("model_kills") or KILLS_OF_SOAK
    text = run_and_tell(stack, tmp_path, seed=seed, kills=kills, test="-m soak -k two_hundred")
    REPORT_OF_SOAK.write_text(text)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_that_found_something_find_nothing_any_more(stack: Stack, tmp_path: Path, seed: int) -> None:
    run_and_tell(stack, tmp_path, seed=seed, kills=KILLS)
