"""Upkeep and scrub of a whole hub: few files, damage named, reads honest about it, and a way back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client

from catalog import access, stores
from catalog.models import FeatureGroup, OfflineDamage, Run, RunState
from engine.errors import CorruptData, OnlineStoreCold
from engine.offline.compaction import FILES_AT_LEAST
from engine.offline.vacuum import RETENTION
from ingestion import drain, materialize, upkeep
from ingestion.ingest import ingest
from ingestion.models import Drain
from ingestion.push import push
from ingestion.tasks import catch_up, scrub_all, upkeep_all
from serving import history, training
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import contents
from tests.ingestion.test_materialize import assert_both_stores_agree, served

NOON = datetime(2024, 11, 1, 12, tzinfo=UTC)
Down = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    """Twelve customers, each pushed and drained by itself: twelve files of one row."""
    group = make_customer_group()
    for number in range(FILES_AT_LEAST + 2):
        push(group, [purchase(f"C{number:02}", total_purchases=number)])
        drain.drain(group)
    materialize.materialize(group)
    return group


def customers(group: FeatureGroup) -> list[str]:
    return sorted(row["customer_id"] for row in contents.offline(group))


def some_file(group: FeatureGroup) -> Path:
    return Path(stores.offline(group.name, group.version).files()[0])


def flip(path: Path) -> bytes:
    """Damage a file by one bit; its bytes before that."""
    raw = path.read_bytes()
    path.write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])
    return raw


def age(group: FeatureGroup, name: str) -> None:
    """Make a file as old as one that nobody will commit any more."""
    past = time.time() - 2 * RETENTION.total_seconds()
    os.utime(contents.folder(group) / name, (past, past))


# Upkeep.


def test_upkeep_makes_one_file_of_many_and_both_stores_stay_as_they_are(group: FeatureGroup) -> None:
    before, online = customers(group), contents.online_rows(group)
    assert upkeep.upkeep(group) == upkeep.Kept(FILES_AT_LEAST + 2, [])
    assert len(stores.offline(group.name, 1).files()) == 1
    assert customers(group) == before
    assert materialize.materialize(group) == 0
    assert materialize.materialize(group, full=True) == len(before)
    assert contents.online_rows(group) == online
    assert upkeep.upkeep(group) == upkeep.Kept(0, [])
    assert upkeep.scrub(group) == []


def test_history_and_rebuild_read_a_compacted_table(group: FeatureGroup, redis_clean: redis.Redis) -> None:
    upkeep.upkeep(group)
    push(group, [purchase("D1")])
    rows = history.rows_of_group(group.name)
    assert rows is not None
    assert len(rows) == FILES_AT_LEAST + 3
    redis_clean.flushall()
    materialize.ensure_warm()
    assert_both_stores_agree(group, ["customer_id"])


def test_a_file_that_redis_missed_while_it_was_down_is_kept_until_it_is_followed(
    sources: Path, redis_down: Down
) -> None:
    group = make_customer_group()
    with redis_down():
        for number in range(FILES_AT_LEAST):
            push(group, [purchase(f"C{number}")])
            drain.drain(group)
        assert upkeep.upkeep(group).compacted == FILES_AT_LEAST
    assert len(contents.data_files(group)) == FILES_AT_LEAST + 1
    assert materialize.materialize(group) == FILES_AT_LEAST  # each of the small ones
    assert_both_stores_agree(group, ["customer_id"])


def test_a_file_of_an_unfinished_run_or_drain_is_kept_however_old(group: FeatureGroup) -> None:
    run, waiting = Run.queue(group), Drain.objects.create(group=group, group_version=1)
    ours = [f"run-{run.pk}-1-00000.parquet", f"drain-{waiting.pk}-ab-1.parquet"]
    nobodys = ["run-3f0e-1-00000.parquet", "compact-3f0e.parquet"]
    for name in [*ours, *nobodys]:
        (contents.folder(group) / name).write_bytes(b"half a file")
        age(group, name)
    assert sorted(upkeep.upkeep(group).removed) == sorted(nobodys)
    Run.objects.filter(pk=run.pk).update(state=RunState.SUCCEEDED)
    Drain.objects.filter(pk=waiting.pk).delete()
    assert sorted(upkeep.upkeep(group).removed) == sorted(ours)


def test_one_damaged_table_does_not_keep_the_others_behind(
    group: FeatureGroup, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_customer_group("other")
    for number in range(FILES_AT_LEAST):
        push(other, [purchase(f"C{number}")])
        drain.drain(other)
    path = some_file(group)
    flip(path)
    upkeep_all()
    assert f"upkeep of {group.name} failed: Offline file {path} is damaged" in caplog.text
    assert len(stores.offline(other.name, 1).files()) == 1
    caplog.clear()
    scrub_all()
    assert [damage.path for damage in OfflineDamage.objects.all()] == [str(path)]
    assert path.name in caplog.text


# Scrub.


def scrub_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of `manage.py scrub` and what it printed."""
    capsys.readouterr()
    try:
        call_command("scrub", *arguments)
    except SystemExit as ended:
        return int(ended.code or 0), capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_the_command_names_damaged_files_and_exits_1(group: FeatureGroup, capsys: pytest.CaptureFixture[str]) -> None:
    assert scrub_command(capsys) == (0, "customer_purchases: whole\n")
    path = some_file(group)
    flip(path)
    said = f"Offline file {path} is damaged: its SHA-256 is not the one that was committed."
    assert scrub_command(capsys, group.name) == (1, f"customer_purchases: 1 files damaged\n  {path}: {said}\n")
    code, printed = scrub_command(capsys, group.name, "--json")
    damaged = [{"group": group.name, "path": str(path), "detail": said}]
    assert (code, json.loads(printed)) == (1, {"groups": [group.name], "damaged": damaged})
    with pytest.raises(SystemExit):
        call_command("scrub", "nowhere")
    with pytest.raises(CommandError, match="needs the GROUP"):
        call_command("scrub", "--accept-loss")


def test_the_upkeep_command_says_what_it_did(group: FeatureGroup, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("upkeep", "--json")
    done = [{"group": group.name, "compacted": FILES_AT_LEAST + 2, "removed": 0}]
    assert json.loads(capsys.readouterr().out) == {"groups": done, "failed": 0, "datasets_removed": 0}
    flip(some_file(group))
    stores.offline(group.name, 1).log.path(3).write_text("")
    with pytest.raises(SystemExit):
        call_command("upkeep", group.name)
    assert "00003.json" in capsys.readouterr().err


def test_health_says_that_the_offline_store_is_damaged_and_goes_on(group: FeatureGroup) -> None:
    client, path = Client(), some_file(group)
    assert client.get("/health").json()["status"] == "healthy"
    whole = flip(path)
    scrub_all()
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["damaged"] == ["offline_store"]
    assert served(group, {"customer_id": ["C01"]})[0]["total_purchases"] == 1  # Redis has every row
    path.write_bytes(whole)
    scrub_all()
    assert client.get("/health").json()["status"] == "healthy"


# A rebuild over damage.


@pytest.fixture
def wiped(group: FeatureGroup, redis_clean: redis.Redis) -> Path:
    """A damaged file of the group beside another group, and a Redis that has lost everything."""
    push(make_customer_group("other"), [purchase("C1")])
    path = some_file(group)
    path.with_suffix(".backup").write_bytes(flip(path))
    redis_clean.flushall()
    catch_up()
    return path


def test_a_damaged_group_is_cold_alone_and_says_why(group: FeatureGroup, wiped: Path) -> None:
    """Its row may be the only one of its customer: that one must not be answered as unknown."""
    assert not materialize.is_cold()
    assert served(FeatureGroup.objects.get(name="other"), {"customer_id": ["C1"]})[0]["total_purchases"] == 4
    with pytest.raises(OnlineStoreCold, match=f"customer_purchases may be missing online.*{wiped.name}"):
        served(group, {"customer_id": ["C01"]})
    _, key = access.create_key(name="reader", scopes=["read"])
    client = Client(headers={"Authorization": f"Bearer {key}"})
    answer = client.get("/features/customer/C01?features=customer_purchases:total_purchases")
    assert (answer.status_code, answer.json()["code"]) == (503, "online_store_cold")
    assert str(wiped.parent) not in answer.content.decode()
    assert client.get("/features/customer/C1?features=other:total_purchases").json() == {"other:total_purchases": 4}
    assert Client().get("/health").json()["damaged"] == ["offline_store"]


@pytest.mark.django_db(transaction=True)
def test_a_group_whose_file_is_put_back_is_whole_online_after_a_scrub(group: FeatureGroup, wiped: Path) -> None:
    scrub_all()
    with pytest.raises(OnlineStoreCold):
        served(group, {"customer_id": ["C01"]})
    wiped.with_suffix(".backup").rename(wiped)
    scrub_all()
    assert_both_stores_agree(group, ["customer_id"])
    assert not OfflineDamage.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_loss_that_is_accepted_takes_the_damaged_file_out_and_opens_the_group(
    group: FeatureGroup, wiped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = scrub_command(capsys, group.name, "--accept-loss")
    assert (code, printed.splitlines()[0]) == (0, "customer_purchases: 1 files given up")
    assert len(customers(group)) == FILES_AT_LEAST + 1
    assert_both_stores_agree(group, ["customer_id"])
    assert scrub_command(capsys, group.name) == (0, "customer_purchases: whole\n")


# A log that ends too early, and a folder that is gone.


@pytest.fixture
def lost(group: FeatureGroup) -> Path:
    """The end of the group's log is lost, and a push waits in the push log."""
    table = stores.offline(group.name, 1)
    path = table.log.path(table.version)
    path.unlink()
    push(group, [purchase("D1")])
    return path


def test_nothing_is_committed_over_versions_that_are_lost(
    group: FeatureGroup, lost: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A commit would take the number of the lost version, and nobody could tell any more."""
    with pytest.raises(CorruptData, match="ends at version 11, and version 12 had been committed"):
        drain.drain(group)
    with pytest.raises(CorruptData):
        history.rows_of_group(group.name)
    with pytest.raises(CorruptData):
        ingest(group, paths=[write_csv(sources / "a.csv", [purchase("E1")])])
    assert group.runs.get().error_code == "corrupt_data"
    with pytest.raises(CorruptData):
        materialize.materialize(group, full=True)
    assert scrub_command(capsys, group.name)[0] == 1
    assert [damage.path for damage in OfflineDamage.objects.all()] == [str(lost)]
    assert drain.waiting_groups().exists()


def test_a_lost_end_of_the_log_can_be_accepted(
    group: FeatureGroup, lost: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scrub_command(capsys, group.name, "--accept-loss")[0] == 0
    catch_up()
    assert customers(group) == [*(f"C{number:02}" for number in range(FILES_AT_LEAST + 1)), "D1"]
    assert not OfflineDamage.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_offline_folder_that_is_gone_is_not_begun_anew(
    group: FeatureGroup, redis_clean: redis.Redis, sources: Path
) -> None:
    """As on a disk that was not mounted: what is pushed waits, and nobody is told that an entity is unknown."""
    folder = contents.folder(group)
    folder.rename(folder.with_name("elsewhere"))
    push(group, [purchase("D1")])
    catch_up()
    assert not folder.exists()
    redis_clean.flushall()
    catch_up()
    with pytest.raises(OnlineStoreCold):
        served(group, {"customer_id": ["C01"]})
    folder.with_name("elsewhere").rename(folder)
    scrub_all()
    catch_up()
    assert len(customers(group)) == FILES_AT_LEAST + 3
    assert_both_stores_agree(group, ["customer_id"])


# Readers of history.


def test_no_training_set_and_no_history_is_made_of_a_damaged_file(group: FeatureGroup) -> None:
    """DuckDB would read it without an error: the bit lies in the values of a feature, and it checks no page."""
    spine = pa.table({"customer_id": ["C01"], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})
    asked = training.Asked(features=(f"{group.name}:total_purchases",))
    built = training.build(asked, spine)
    assert isinstance(built, pa.Table)
    assert built["total_purchases"].to_pylist() == [1]
    path = some_file(group)
    flip(path)
    for read in (lambda: training.build(asked, spine), lambda: history.rows_of_group(group.name)):
        with pytest.raises(CorruptData, match=path.name):
            read()
