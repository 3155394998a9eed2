"""Erasing one customer: afterwards nothing of her is in any store or file, and nothing of anybody else is missing."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from django.conf import settings as hub_settings
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from catalog import runs, stores, suppression
from catalog.models import Entity, Erasure, FeatureGroup, FeatureStatistics, Run, RunState, TrainingDataset
from engine import faults
from engine.errors import Conflict, CorruptData, InvalidInput, UnknownName
from engine.offline.compaction import FILES_AT_LEAST
from engine.schema import Dtype, Field
from engine.suppression import Limit
from ingestion import drain, materialize, upkeep
from ingestion.backfill import queue_backfill
from ingestion.erasure import run as erasing
from ingestion.erasure.target import Target
from ingestion.idempotency import Repeatable
from ingestion.ingest import execute, ingest
from ingestion.models import Drain, OnlineCursor, PushBatch, QuarantinedRow, QuarantinedRule
from ingestion.push import Pushed, delete, push
from ingestion.settle import Selection, discard, queue_replay
from ingestion.tasks import catch_up, erase_entity
from ingestion.verify import verify
from serving import datasets, training
from serving.training import Asked
from tests.factories import add_feature, make_customer_group, make_entity, purchase, write_csv
from tests.ingestion import contents, processes, workers
from tests.ingestion.test_backfill import raised

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

#: The customer who is erased, and a value of hers; both occur nowhere else.
HER = "Zq7MARKERid"
NOTE = "Zq7MARKERnote"
MARKER = "Zq7MARKER"
NOON = datetime(2024, 11, 1, 12, tzinfo=UTC)
AT = {"at": "2024-11-01T10:00:00Z"}
#: A rejected row of hers, and one of somebody else.
BAD = [purchase(HER, total_purchases=-1, note=NOTE), purchase("C2", total_purchases=-2, note="hers not")]
WANTED = Asked(features=("total_purchases", "note"))
POINTS = [point for point in faults.POINTS if point.startswith("erase.")]


@pytest.fixture
def group(sources: Path, settings: Settings) -> FeatureGroup:
    """Customers C1 to C3 and her: in the file of a run, in one of a drain, pushed and not drained, rejected both ways,
    and in one of two datasets."""
    settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS = 0
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 0.9
    rows = [purchase("C1", note="a"), purchase(HER, note=NOTE), purchase("C2", note="b"), *BAD]
    write_csv(sources / "a.csv", rows)
    group = make_customer_group(source="*.csv")
    add_feature(group, "note", "string")
    ingest(group)
    push(group, [purchase(HER, NOON, note=NOTE), purchase("C3", NOON, note="c")])
    drain.drain(group)
    forget_one(group)
    made("hers", HER, "C1", HER, "C3")
    made("theirs", "C1", "C3")
    repeatable = Repeatable("a key", "rows", f"push-of-{HER}", "0" * 64)
    push(
        group, [purchase(HER, NOON + timedelta(days=1), note=NOTE), *BAD], on_error="quarantine", repeatable=repeatable
    )
    push(group, [purchase("C1", NOON + timedelta(days=1), note="d")])
    return FeatureGroup.objects.select_related("entity").get(pk=group.pk)


def forget_one(group: FeatureGroup) -> None:
    """Another push of hers, which has left the log; what SQLite deletes lies in its file until it is written over."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA secure_delete = OFF")
    push(group, [purchase(HER, NOON + timedelta(hours=30), note=NOTE)])
    drain.drain(group)
    newest = PushBatch.objects.latest("pk")
    Drain.objects.filter(pk=newest.drain_id).update(landed_at=timezone.now() - timedelta(days=2))
    assert drain.forget_landed() == 1


@pytest.fixture
def much(group: FeatureGroup) -> FeatureGroup:
    """The same in two versions, of which the newer has a large file in the place of small ones that are still there."""
    group = raised(group)
    execute(queue_backfill(group))
    for hour in range(FILES_AT_LEAST):
        push(group, [purchase(HER, NOON + timedelta(hours=hour), note=NOTE), purchase("C3", NOON, note="c")])
        drain.drain(group)
    upkeep.upkeep(group)
    return FeatureGroup.objects.select_related("entity").get(pk=group.pk)


def made(name: str, *customers: str) -> TrainingDataset:
    times = pa.array([NOON + timedelta(days=3)] * len(customers), pa.timestamp("us", "UTC"))
    said = [NOTE if customer == HER else "nothing" for customer in customers]
    spine = pa.table({"customer_id": list(customers), "event_timestamp": times, "said": said})
    datasets.execute(datasets.register(name, WANTED, spine).run)
    return datasets.find(name)


def erase(group: FeatureGroup, id: str = HER) -> Erasure:
    erasure = erasing.queue(group.entity, id, reason="asked for by letter", by="ada")
    erasing.execute(erasure.run)
    return Erasure.objects.select_related("run").get(pk=erasure.pk)


# Where the marker is, read past the code under test.


def traces() -> list[str]:
    """Every place that holds the marker."""
    return [*_in_files(Path(hub_settings.FEATUREHUB_OFFLINE_PATH)), *_in_redis(), *_in_database()]


def _in_files(root: Path) -> Iterator[str]:
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if MARKER.encode() in path.read_bytes():
            yield f"{path} (bytes)"
        if (
            path.suffix == ".parquet"
            and "_delta_log" not in path.parts
            and MARKER in str(pq.read_table(path).to_pylist())
        ):
            yield f"{path} (decoded)"


def _in_redis() -> Iterator[str]:
    with redis.Redis.from_url(hub_settings.ONLINE_REDIS_URL) as client:
        for key in client.scan_iter(count=10_000):
            if MARKER.encode() in key or (client.type(key) == b"string" and MARKER.encode() in client.get(key)):
                yield f"redis {key!r}"
        folder = Path(client.config_get("dir")["dir"])
    yield from _in_files(folder)


def _in_database() -> Iterator[str]:
    if connection.vendor == "sqlite":
        name = Path(connection.settings_dict["NAME"])
        yield from (path for path in _bytes_of(name.parent, name.name))
        return
    needles = (MARKER, MARKER.encode().hex())
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            yield from (
                f"{table}: {row[0][:200]}" for row in cursor.fetchall() if any(one in row[0] for one in needles)
            )


def _bytes_of(folder: Path, beginning: str) -> list[str]:
    paths = [path for path in folder.glob(f"{beginning}*") if path.is_file()]
    assert paths, f"there is no database in {folder}"
    return [str(path) for path in paths if MARKER.encode() in path.read_bytes()]


def others(group: FeatureGroup) -> list[dict[str, Any]]:
    """The offline rows of the others."""
    drain.drain(group)
    return [row for row in contents.offline(group) if row["customer_id"] != HER]


def joined() -> pa.Table:
    """A training set of the others at a past moment."""
    times = pa.array([NOON + timedelta(days=2)] * 3, pa.timestamp("us", "UTC"))
    return training.build(WANTED, pa.table({"customer_id": ["C1", "C2", "C3"], "event_timestamp": times}))


def assert_gone(group: FeatureGroup) -> None:
    assert traces() == []
    assert Erasure.objects.get().gone_at
    assert verify(group).differences == []
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2", "s2:C3"]


def test_nothing_of_her_is_left_in_any_store_or_file(much: FeatureGroup) -> None:
    before = "\n".join(traces())
    for place in (
        "/_datasets/",
        "/quarantine/",
        "/v1/",
        "/v2/",
        "redis b'",
        "appendonly",
        "sqlite3",
        "ingestion_pushbatch",
    ):
        other = "ingestion_pushbatch" if connection.vendor == "sqlite" else "sqlite3"
        assert (place in before) != (place == other), place
    kept, trained = others(much), joined()
    erasure = erase(much)
    assert (erasure.run.state, erasure.run.message) == (RunState.SUCCEEDED, "Nothing of it is left.")
    assert_gone(much)
    assert others(much) == kept
    assert joined().equals(trained)
    assert stores.online().positions([(much.name, 2)])[0] == contents.offline_version(much)


def test_the_receipt_says_what_went_when_and_why_and_names_nobody(much: FeatureGroup) -> None:
    summary = erase(much).summary()
    assert MARKER not in str(summary)
    assert (summary["requested_by"], summary["reason"]) == ("ada", "asked for by letter")
    removed = summary["removed"]
    # Version 1 has a file of two rows of hers less one rejected, and ten pushed ones; version 2 the same, and two more.
    assert sum(note["rows"] for note in removed["quarantine"].values()) == 2
    assert removed["online"] == {f"{much.name}/v2": {"rows": 1}, f"{much.name}/v1": {"rows": 1}}
    assert removed["push_log"] == {much.name: {"rows": FILES_AT_LEAST + 2}}
    assert removed["datasets"]["hers"]["rows"] == 2
    assert all(note["removed_at"] for note in removed["files"].values())
    assert removed["idempotency_keys"] == {"all": {"rows": 1}}
    assert removed["redis"] == "append-only file written anew"
    assert list((contents.folder(much) / "_delta_log").glob("*.checkpoint.parquet"))


def test_statistics_that_may_quote_her_keep_their_counts_alone_and_the_others_all(
    group: FeatureGroup, sources: Path
) -> None:
    drain.drain(group)
    write_csv(sources / "z.csv", [purchase("C1", "2024-11-03T10:00:00Z", note="z")])
    unconcerned = ingest(group)

    def note(**which: Any) -> FeatureStatistics:
        return FeatureStatistics.objects.get(feature__name="note", **which)

    of_run, of_day = note(run__kind="ingest", accepted_to__lt=unconcerned.acceptance_id), note(run=None)
    assert NOTE in json.dumps(of_run.told)
    assert NOTE in json.dumps(of_day.told)
    assert NOTE.encode() in bytes(of_day.state or b"")
    erasure = erase(group)
    for row in (of_run, of_day):
        counts = (row.row_count, row.null_count)
        row.refresh_from_db()
        assert (row.told, row.state, (row.row_count, row.null_count)) == (None, None, counts)
    assert (note(run=unconcerned).told or {})["top"] == [["z", 1]]
    assert erasure.receipt["statistics"] == {group.name: {"rows": 8}}  # four features of a run, and of a day
    # What is pushed on this day from now on is described again.
    push(group, [purchase("C2", NOON + timedelta(days=4), note="later")])
    drain.drain(group)
    of_day.refresh_from_db()
    assert of_day.described == 1
    assert (of_day.told or {})["top"] == [["later", 1]]
    assert traces() == []


def test_statistics_of_a_run_that_never_landed_go(group: FeatureGroup, sources: Path) -> None:
    """It wrote them before a commit that did not come; none of its rows is in a file that could tell whose they are."""
    write_csv(sources / "b.csv", [purchase(HER, "2024-11-02T10:00:00Z", note=NOTE)])
    with workers.failing_at("run.before_delta_commit"), pytest.raises(faults.Fault):
        ingest(group)
    lost = Run.objects.filter(kind="ingest").latest("created_at")
    assert (lost.state, lost.statistics.count()) == (RunState.FAILED, 4)
    assert erase(group).gone_at
    assert lost.statistics.count() == 0
    assert traces() == []


def test_rows_of_others_stay_in_quarantine_and_can_be_replayed(group: FeatureGroup) -> None:
    erase(group)
    kept = {(rule.column, rule.rule): (rule.row_count, len(rule.samples)) for rule in QuarantinedRule.objects.all()}
    assert kept == {("total_purchases", "min_value"): (1, 1)}
    group.features.filter(name="total_purchases").update(validation={})
    replay = execute(queue_replay(group, Selection(run=Run.objects.get(kind="push").pk)))
    assert (replay.rows_read, replay.rows_accepted) == (1, 1)
    assert traces() == []


def test_a_row_settled_by_itself_goes_with_what_was_said_of_it(group: FeatureGroup) -> None:
    run = Run.objects.get(kind="push")
    discard(group, Selection(run=run.pk, row=1), reason="not hers", by="ada")
    assert QuarantinedRow.objects.count() == 1
    erase(group)
    assert QuarantinedRow.objects.count() == 0
    assert_gone(group)


def test_a_dataset_loses_her_rows_and_says_so_and_can_be_made_again(group: FeatureGroup, tmp_path: Path) -> None:
    hashes = {name: datasets.find(name).manifest["result"]["sha256"] for name in ("hers", "theirs")}  # type: ignore[index]
    assert erase(group).gone_at
    hers, theirs = datasets.find("hers"), datasets.find("theirs")
    assert pq.read_table(datasets.data_file(hers))["customer_id"].to_pylist() == ["C1", "C3"]
    manifest: dict[str, Any] = hers.manifest or {}
    assert (manifest["result"]["rows"], manifest["spine"]["rows"], hers.rows) == (2, 2, 2)
    (said,) = manifest["erased"]
    assert (said["rows"], said["sha256_before"]) == (2, hashes["hers"])
    assert theirs.manifest
    assert theirs.manifest["result"]["sha256"] == hashes["theirs"]
    for dataset in (hers, theirs):
        again = datasets.rebuild(dataset, tmp_path / "again.parquet")
        assert again.made.sha256 == (dataset.manifest or {})["result"]["sha256"]


def test_files_are_kept_for_their_readers_and_go_when_their_time_is_over(
    group: FeatureGroup, settings: Settings
) -> None:
    settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS = 3600
    erasure = erase(group)
    run = erasure.run
    assert (run.state, erasure.gone_at) == (RunState.QUEUED, None)
    assert "kept for their readers until" in run.message
    assert run.hint_due_at > timezone.now() + timedelta(seconds=3000)
    assert HER not in contents.online(group)
    assert not [row for row in contents.offline(group) if row["customer_id"] == HER]
    settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS = 0
    erase_entity(str(run.pk))
    assert_gone(group)
    assert Erasure.objects.get().key == ""


# Coming back.


def test_her_old_rows_are_kept_out_on_every_way_in_and_counted(group: FeatureGroup, sources: Path) -> None:
    erase(group)
    again = purchase(HER, "2024-11-01T10:00:00Z", note=NOTE)
    assert push(group, [again, purchase("C1", NOON + timedelta(days=2))]) == Pushed(1, "applied", suppressed=1)
    assert delete(group, {"customer_id": HER}, at=NOON) == Pushed(0, "applied", suppressed=1)
    write_csv(sources / "b.csv", [again, purchase("C2", NOON, note="e")])
    run = ingest(group)
    assert (run.rows_read, run.rows_accepted, run.rows_suppressed) == (2, 1, 1)
    assert Erasure.objects.get().rows_suppressed == 3
    assert traces() == []


def test_a_repeated_request_is_told_the_same(group: FeatureGroup) -> None:
    erase(group)
    repeatable = Repeatable("a key", "rows", "once", "1" * 64)
    first = push(group, [purchase(HER, NOON)], repeatable=repeatable)
    assert push(group, [purchase(HER, NOON)], repeatable=repeatable) == first == Pushed(0, "applied", suppressed=1)


def test_a_replay_of_an_old_copy_of_the_quarantine_keeps_her_out(group: FeatureGroup) -> None:
    copies = {path: path.read_bytes() for path in stores.quarantine_folder(group.name).iterdir()}
    rules = {rule.pk: (rule.row_count, rule.samples) for rule in QuarantinedRule.objects.all()}
    erase(group)
    for path, content in copies.items():
        path.write_bytes(content)
    for pk, (count, samples) in rules.items():
        QuarantinedRule.objects.filter(pk=pk).update(row_count=count, samples=samples)
    group.features.filter(name="total_purchases").update(validation={})
    run = execute(queue_replay(group, Selection(run=Run.objects.get(kind="push").pk)))
    assert (run.rows_accepted, run.rows_suppressed) == (1, 1)
    assert [row for row in contents.offline(group) if row["customer_id"] == HER] == []


@pytest.mark.parametrize("on_spark", [False, True])
def test_a_backfill_from_an_old_copy_of_a_table_and_bringing_it_online_keep_her_out(
    group: FeatureGroup, on_spark: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if on_spark:
        request.getfixturevalue("spark_session")
    drain.drain(group)
    shutil.copytree(contents.folder(group), tmp_path / "copy")
    erase(group)
    shutil.rmtree(contents.folder(group))
    shutil.copytree(tmp_path / "copy", contents.folder(group))
    OnlineCursor.objects.all().delete()  # by it the copy would be refused
    materialize.materialize(group, full=True)
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2", "s2:C3"]
    group = raised(group)
    run = execute(queue_backfill(group, on_spark=on_spark))
    assert (run.rows_accepted, run.rows_suppressed) == (4, 4)
    assert Erasure.objects.get().rows_suppressed == 4
    assert HER not in {row["customer_id"] for row in contents.offline(group)}


def test_she_may_come_back_with_rows_of_later_events(group: FeatureGroup, settings: Settings) -> None:
    settings.FEATUREHUB_MAX_CLOCK_SKEW_SECONDS = 0
    erasure = erase(group)
    later = purchase(HER, timezone.now(), note="back again")
    assert later["purchased_at"] > erasure.until
    assert push(group, [later]) == Pushed(1, "applied")
    assert contents.online(group)[f"s{len(HER)}:{HER}"]["note"] == "back again"
    materialize.rebuild()
    assert f"s{len(HER)}:{HER}" in contents.online(group)
    # Asked for again, what came since goes too.
    assert erase(group).gone_at
    assert traces() == []


def test_a_redis_that_went_back_in_time_does_not_bring_her_back(group: FeatureGroup) -> None:
    with redis.Redis.from_url(hub_settings.ONLINE_REDIS_URL) as client:
        (key,) = [key for key in client.scan_iter() if MARKER.encode() in key]
        value = client.get(key)
        position = stores.online().position_key(group.name, 1)
        before = client.get(position)
        erase(group)
        client.set(key, value)
        client.set(position, before)
    assert f"s{len(HER)}:{HER}" in contents.online(group)
    materialize.ensure_warm()
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2", "s2:C3"]


def test_without_an_erasure_a_batch_costs_no_query_more(group: FeatureGroup, django_assert_num_queries: Any) -> None:
    frame = PushBatch.objects.first()
    assert frame is not None
    with django_assert_num_queries(1):
        assert suppression.of_entity(group.entity) is None
    with django_assert_num_queries(0):
        assert suppression.of_entity(group.entity, "") is None


# Killed, damaged, refused.


ERASE_IN_A_CHILD = """
import django
django.setup()
from tests.ingestion.test_erasure import in_a_child
in_a_child()
"""


def in_a_child() -> None:
    group = FeatureGroup.objects.select_related("entity").get(name="customer_purchases")
    hub_settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS = 0
    erase(group)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_it_is_finished_by_the_next_attempt(group: FeatureGroup, point: str) -> None:
    kept = others(group)
    environment = processes.environment() | workers.fault(f"{point}:1:kill") | {"FEATUREHUB_LEASE_SECONDS": "1"}
    command = [sys.executable, "-c", ERASE_IN_A_CHILD]
    child = subprocess.run(
        command, cwd=processes.PROJECT, env=environment, capture_output=True, check=False, timeout=60
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    Run.objects.filter(state=RunState.RUNNING).update(lease_until=timezone.now() - timedelta(seconds=1))
    catch_up()
    run = Run.objects.get(kind="erase")
    assert run.state == RunState.QUEUED
    erasing.execute(run)
    assert_gone(group)
    assert others(group) == kept
    removed = Erasure.objects.get().receipt
    assert removed["datasets"]["hers"]["rows"] == 2
    assert sum(note["rows"] for note in removed["quarantine"].values()) == 2
    assert datasets.find("hers").rows == 2


def test_a_damaged_table_is_said_and_nothing_claims_that_she_is_gone(group: FeatureGroup) -> None:
    drain.drain(group)
    path = Path(stores.offline(group.name, 1).files()[0])
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(CorruptData, match=path.name):
        erase(group)
    erasure = Erasure.objects.get()
    assert (erasure.run.state, erasure.gone_at) == (RunState.FAILED, None)
    path.write_bytes(content)
    runs.retry(erasure.run, by="ada")
    erasing.execute(erasure.run)
    assert_gone(group)


def test_who_is_being_erased_or_is_none_is_refused(group: FeatureGroup) -> None:
    erasing.queue(group.entity, HER)
    with pytest.raises(Conflict, match="being erased"):
        erasing.queue(group.entity, HER)
    with pytest.raises(InvalidInput, match="2 parts"):
        erasing.queue(group.entity, f"{HER},1")
    with pytest.raises(UnknownName):
        erasing.find_entity("custumer")


def test_somebody_who_was_never_there_is_erased_too(group: FeatureGroup) -> None:
    drain.drain(group)
    before, files = contents.offline(group), contents.data_files(group)
    erasure = erase(group, "C999")
    assert (erasure.run.state, set(erasure.receipt)) == (RunState.SUCCEEDED, {"database", "redis"})
    assert (contents.offline(group), contents.data_files(group)) == (before, files)


def test_somebody_of_whom_nothing_is_there_is_looked_for_again_after_the_pushes_that_were_under_way(
    group: FeatureGroup, settings: Settings
) -> None:
    settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS = 3600
    erasure = erase(group, "C999")
    assert (erasure.run.state, erasure.gone_at) == (RunState.QUEUED, None)
    assert "pushes that began before it" in erasure.run.message
    Erasure.objects.update(created_at=timezone.now() - timedelta(seconds=61))
    assert erasing.execute(erasure.run).state == RunState.SUCCEEDED


def test_of_a_key_of_several_parts_all_have_to_fit(group: FeatureGroup) -> None:
    make_entity("shop", {"country": "string", "shop_number": "int64"})
    shops = FeatureGroup.objects.create(
        name="shop_ratings", entity=Entity.objects.get(name="shop"), status="active", event_timestamp="purchased_at"
    )
    add_feature(shops, "rating", "float64", min_value=0)
    others = [("fr", 77), ("de", 7)]
    for country, number in [("fr", 7), *others]:
        row = {"country": country, "shop_number": number, "purchased_at": NOON}
        push(shops, [row | {"rating": 1.0}, row | {"rating": -1.0}], on_error="quarantine")
    (receipt,) = [erase(shops, "fr,7").receipt]
    assert sum(note["rows"] for note in receipt["quarantine"].values()) == 1
    assert receipt["online"] == {"shop_ratings/v1": {"rows": 1}}
    drain.drain(shops)
    assert [(row["country"], row["shop_number"]) for row in contents.offline(shops)] == others
    assert sorted(contents.online(shops)) == ["s2:dei1:7", "s2:fri2:77"]
    left = [json.loads(sample["payload"]) for rule in QuarantinedRule.objects.all() for sample in rule.samples]
    assert sorted((row["country"], row["shop_number"]) for row in left if "country" in row) == sorted(others)


@pytest.mark.parametrize("spelled", [7, "7", " 7", 7.0, "007"])
def test_a_rejected_row_names_her_in_any_spelling_of_her_key(spelled: object) -> None:
    key = Field("shop_number", Dtype("int64"))
    target = Target(Entity(name="shop"), (key,), (7,), Limit(NOON, 1))
    assert target.is_in_payload(json.dumps({"shop_number": spelled}))
    for other in (77, "7a", None, True, 7.5):
        assert not target.is_in_payload(json.dumps({"shop_number": other}))


def test_beside_pushes_of_others_nothing_else_is_lost(group: FeatureGroup) -> None:
    """Four senders push and a fifth drains, before, while and after she is erased; she is sent all the while, too."""
    stop = threading.Event()

    def send(sender: int) -> list[str]:
        answered = []
        try:
            while not stop.is_set():
                customer = f"P{sender}-{len(answered)}"
                pushed = push(group, [purchase(customer, NOON), purchase(HER, NOON)])
                assert pushed.accepted + pushed.suppressed == 2
                answered.append(customer)
        finally:
            connection.close()
        return answered

    def move() -> None:
        try:
            while not stop.is_set():
                drain.drain(group)
                upkeep.upkeep(group)
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as threads:
        sent = [threads.submit(send, sender) for sender in range(4)]
        moving = threads.submit(move)
        try:
            time.sleep(0.5)
            erasure = erasing.queue(group.entity, HER)
            time.sleep(0.2)  # longer than what a push that began before it may take
            while erasing.execute(erasure.run).state == RunState.QUEUED:
                time.sleep(0.5)
            time.sleep(0.2)
        finally:
            stop.set()
        answered = [customer for done in sent for customer in done.result()]
        moving.result()
    drain.drain(group)
    materialize.materialize(group)
    stored = Counter(row["customer_id"] for row in contents.offline(group))
    assert len(answered) > 20
    assert {customer: stored[customer] for customer in answered} == dict.fromkeys(answered, 1)
    assert HER not in stored
    assert f"s{len(HER)}:{HER}" not in contents.online(group)
    assert verify(group).differences == []
    assert Erasure.objects.get().rows_suppressed > 0


# The command.


def printed(*arguments: str) -> str:
    out = io.StringIO()
    call_command("erase", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_says_what_would_go_then_what_went(group: FeatureGroup) -> None:
    before = len(contents.offline(group))
    planned = printed("customer", HER, "--dry-run")
    assert "would remove quarantine: 2 rejected rows" in planned
    assert f"would remove online: 1 rows ({group.name})" in planned
    assert (len(contents.offline(group)), Erasure.objects.count()) == (before, 0)
    said = printed("customer", HER, "--reason", "a letter")
    assert ": gone " in said
    assert ": a letter" in said
    assert "removed offline:" in said
    assert MARKER not in said
    assert printed("customer", HER, "--receipt") == printed("customer") == said
    assert json.loads(printed("customer", HER, "--receipt", "--json"))[0]["reason"] == "a letter"
    assert printed("customer", "C1", "--receipt") == ""


# The admin.


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada", password="a password"))
    return client


def test_the_admin_shows_what_would_go_asks_again_and_shows_the_receipt(group: FeatureGroup, browser: Client) -> None:
    page = reverse("admin:catalog_erasure_erase")
    assert page in browser.get(reverse("admin:catalog_erasure_changelist")).content.decode()
    assert "Show what would go" in browser.get(page).content.decode()
    asked = {"entity": group.entity.pk, "id": HER, "reason": "a letter", "confirmed": "yes"}
    assert "is no escape in an id" in browser.post(page, asked | {"id": "a~z"}).content.decode()
    shown = browser.post(page, asked).content.decode()
    assert "2 rejected rows" in shown
    assert Erasure.objects.count() == 0
    assert browser.post(page, asked | {"sure": "yes"}).status_code == 302
    erasure = Erasure.objects.get()
    assert (erasure.reason, erasure.run.requested_by, erasure.run.state) == ("a letter", "ada", RunState.QUEUED)
    erasing.execute(erasure.run)
    receipt = browser.get(reverse("admin:catalog_erasure_change", args=[erasure.pk])).content.decode()
    assert "2 rejected rows" in receipt
    assert MARKER not in receipt
    assert_gone(group)


def test_who_may_not_add_an_erasure_cannot_ask_for_one(group: FeatureGroup, client: Client) -> None:
    somebody = User.objects.create_user("bob", password="a password", is_staff=True)
    somebody.user_permissions.add(Permission.objects.get(codename="view_erasure"))
    client.force_login(somebody)
    sent = {"entity": group.entity.pk, "id": HER, "reason": "none", "confirmed": "yes", "sure": "yes"}
    assert client.post(reverse("admin:catalog_erasure_erase"), sent).status_code == 403
    assert Erasure.objects.count() == 0
