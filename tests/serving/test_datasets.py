"""Training datasets that the hub keeps: made by a run, listed, made again from their manifest, dropped."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from catalog import runs, stores
from catalog.models import FeatureGroup, FeatureService, Run, RunState, TrainingDataset
from engine.errors import Conflict, CorruptData, InvalidInput, InvalidSpine, LeaseLost, RunFailed, UnknownName
from engine.offline.compaction import FILES_AT_LEAST
from engine.offline.vacuum import RETENTION, vacuum
from engine.schema import Dtype, Field
from ingestion import drain, upkeep
from ingestion.push import push
from ingestion.tasks import upkeep_all
from serving import datasets, training
from serving.splits import Split
from serving.training import Asked, Engine
from tests import spark
from tests.factories import make_customer_group, purchase
from tests.ingestion import contents, processes

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
TOTAL = Asked(features=("total_purchases", "customer_segment"))


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    group = make_customer_group()
    for day in range(3):
        push(group, [purchase(f"C{n}", NOON - timedelta(days=day), total_purchases=10 * n + day) for n in range(4)])
    drain.drain(group)
    return group


def spine(*customers: str, at: datetime = NOON) -> pa.Table:
    times = pa.array([at] * len(customers), pa.timestamp("us", "UTC"))
    return pa.table({"customer_id": list(customers), "event_timestamp": times, "label": list(range(len(customers)))})


def made(name: str = "churn", customers: str = "C1 C2 C9", **how: Any) -> TrainingDataset:
    dataset = datasets.register(name, TOTAL, spine(*customers.split()), **how)
    assert datasets.execute(dataset.run).state == RunState.SUCCEEDED
    return datasets.find(name)


def test_a_dataset_is_made_by_its_run_and_says_what_it_was_made_of(group: FeatureGroup) -> None:
    dataset = made(statuses=True)
    table = pq.read_table(datasets.data_file(dataset))
    assert table["total_purchases"].to_pylist() == [10, 20, None]
    assert table["label"].to_pylist() == [0, 1, 2]
    manifest = dataset.manifest or {}
    assert manifest["features"] == ["customer_purchases:total_purchases", "customer_purchases:customer_segment"]
    (part,) = manifest["groups"]
    assert (part["group"], part["version"], part["delta_version"]) == ("customer_purchases", 1, 1)
    assert [file["name"] for file in part["files"]] == contents.data_files(group)
    assert (dataset.rows, dataset.null_rates()["total_purchases"]) == (3, pytest.approx(1 / 3))
    assert dataset.size_bytes == datasets.data_file(dataset).stat().st_size


def test_it_is_made_again_with_the_same_hash_after_more_rows_a_compaction_and_a_vacuum(
    group: FeatureGroup, tmp_path: Path
) -> None:
    dataset = made()
    for n in range(FILES_AT_LEAST):
        push(group, [purchase("C1", NOON, total_purchases=500 + n)])
        drain.drain(group)
    upkeep.upkeep(group)
    table = stores.offline(group.name, 1)
    kept = TrainingDataset.kept_files()[(group.name, 1)]
    later = datetime.now(UTC) + 2 * RETENTION
    vacuum(table, now=later, followed_to=table.version, keep_files=kept)
    again = datasets.rebuild(dataset, tmp_path / "again.parquet")
    assert again.made.sha256 == (dataset.manifest or {})["result"]["sha256"]
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(datasets.data_file(dataset)))
    assert made("newer").manifest["result"]["sha256"] != again.made.sha256  # type: ignore[index]


def test_without_its_files_it_is_not_made_again_and_says_which_is_missing(group: FeatureGroup, tmp_path: Path) -> None:
    dataset = made()
    (path,) = contents.data_files(group)
    (contents.folder(group) / path).unlink()
    with pytest.raises(CorruptData, match=path):
        datasets.rebuild(dataset, tmp_path / "again.parquet")
    assert not (tmp_path / "again.parquet").exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("first", "second"), [("duckdb", "spark"), ("spark", "duckdb")])
def test_made_on_one_engine_it_is_made_again_on_the_other_with_the_same_hash(
    group: FeatureGroup, first: Engine, second: Engine, spark_session: Any, tmp_path: Path
) -> None:
    dataset = made(statuses=True, engine=first)
    push(group, [purchase("C1", NOON, total_purchases=500)])
    drain.drain(group)
    again = datasets.rebuild(dataset, tmp_path / "again.parquet", engine=second).as_json()
    manifest = dataset.manifest or {}
    assert [said["engine"].split()[0] for said in (manifest, again)] == [first, second]
    assert again["result"] == manifest["result"]
    assert set(manifest["result"]["nulls"].values()) == {0, 1}
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(datasets.data_file(dataset)))


def test_without_spark_nothing_is_kept_or_made(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spark.hide_java(monkeypatch, tmp_path)
    with pytest.raises(InvalidInput, match="Spark"):
        datasets.register("churn", TOTAL, spine("C1"), engine="spark")
    assert not TrainingDataset.objects.exists()
    assert not stores.dataset_folder("").exists()
    with pytest.raises(InvalidInput, match="Spark"):
        datasets.rebuild(made(), tmp_path / "again.parquet", engine="spark")
    assert list(tmp_path.glob("again*")) == []


def test_a_spine_that_changed_since_is_said(group: FeatureGroup, tmp_path: Path) -> None:
    dataset = made()
    pq.write_table(spine("C2"), datasets.data_file(dataset).with_name("spine.parquet"))
    with pytest.raises(RunFailed, match="the spine's rows"):
        datasets.rebuild(dataset, tmp_path / "again.parquet")


@pytest.mark.parametrize(
    ("name", "asked", "rows", "error"),
    [
        ("Churn", TOTAL, spine("C1"), InvalidInput),
        ("churn", Asked(features=("totl_purchases",)), spine("C1"), UnknownName),
        ("churn", TOTAL, spine("C1").drop(["customer_id"]), InvalidSpine),
        ("churn", TOTAL, spine("C1").rename_columns(["customer_id", "event_timestamp", "total_purchases"]), None),
        ("churn", Asked(service="nothing"), spine("C1"), UnknownName),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_kept(
    group: FeatureGroup, name: str, asked: Asked, rows: pa.Table, error: type[Exception] | None
) -> None:
    if error is None:  # the feature is named by its group beside a column of its name
        assert datasets.register(name, asked, rows).pk
        return
    with pytest.raises(error):
        datasets.register(name, asked, rows)
    assert not TrainingDataset.objects.exists()
    assert not Run.objects.filter(kind="train").exists()
    assert not stores.dataset_folder("").exists() or not list(stores.dataset_folder("").iterdir())


def test_a_name_is_taken_once(group: FeatureGroup) -> None:
    made()
    with pytest.raises(Conflict, match="drop it first"):
        datasets.register("churn", TOTAL, spine("C1"))
    assert len(list(stores.dataset_folder("").iterdir())) == 1


def test_a_cancelled_one_leaves_no_file(group: FeatureGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets.register("churn", TOTAL, spine("C1"))

    def cancel_meanwhile(run: Run) -> None:
        runs.cancel(Run.objects.get(pk=run.pk), by="ada")

    with pytest.raises(LeaseLost, match="Cancelled by ada"):
        datasets.execute(dataset.run, progress=_once(cancel_meanwhile))
    assert datasets.find("churn").run.state == RunState.CANCELLED
    assert [path.name for path in stores.dataset_folder(str(dataset.run_id)).iterdir()] == ["spine.parquet"]
    with pytest.raises(Conflict, match="is cancelled"):
        datasets.data_file(datasets.find("churn"))


def _once(work: Any) -> Any:
    done: list[bool] = []
    return lambda run: None if done else (done.append(True), work(run))


def test_what_a_killed_worker_left_is_taken_up_and_its_file_removed(group: FeatureGroup) -> None:
    dataset = datasets.register("churn", TOTAL, spine("C1"))
    lease = runs.take(dataset.run)
    assert lease is not None
    folder = stores.dataset_folder(str(dataset.run_id))
    (folder / "data-1.parquet").write_bytes(b"half")
    Run.objects.filter(pk=dataset.run_id).update(lease_until=datetime.now(UTC) - timedelta(seconds=1))
    assert datasets.execute(Run.objects.get(pk=dataset.run_id)).state == RunState.SUCCEEDED
    assert sorted(path.name for path in folder.iterdir()) == ["data-3.parquet", "spine.parquet"]


def test_a_failing_one_says_why_and_is_retried(group: FeatureGroup) -> None:
    dataset = datasets.register("churn", TOTAL, spine("C1"))
    (path,) = contents.data_files(group)
    hidden = (contents.folder(group) / path).rename(contents.folder(group) / "hidden")
    with pytest.raises(CorruptData):
        datasets.execute(dataset.run)
    assert datasets.find("churn").run.state == RunState.FAILED
    hidden.rename(contents.folder(group) / path)
    runs.retry(dataset.run, by="ada")
    assert datasets.execute(dataset.run).state == RunState.SUCCEEDED


def test_a_commit_whose_answer_is_lost_does_not_cost_the_file(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may have committed: then the dataset names the file."""
    dataset = datasets.register("churn", TOTAL, spine("C1"))
    with monkeypatch.context() as patched:
        patched.setattr(runs.Lease, "succeed", lambda *_, **__: raise_lost())
        with pytest.raises(OperationalError):
            datasets.execute(dataset.run)
    folder = stores.dataset_folder(str(dataset.run_id))
    assert [path.name for path in folder.glob("data-*")] == ["data-1.parquet"]
    assert datasets.execute(Run.objects.get(pk=dataset.run_id)).state == RunState.SUCCEEDED
    assert [path.name for path in folder.glob("data-*")] == [datasets.find("churn").file]


def raise_lost() -> None:
    raise OperationalError("the connection was lost")


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_a_spine_is_written(group: FeatureGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite every other writer would wait for it."""
    open_then: list[bool] = []
    written = datasets.write_file

    def watched(*arguments: Any) -> int:
        open_then.append(connection.in_atomic_block)
        return written(*arguments)

    monkeypatch.setattr(datasets, "write_file", watched)
    datasets.register("churn", TOTAL, spine("C1"))
    assert open_then == [False]


def test_a_dropped_one_leaves_nothing_and_frees_its_name(group: FeatureGroup) -> None:
    dataset = made()
    datasets.drop(dataset)
    assert list(stores.dataset_folder("").iterdir()) == []
    assert TrainingDataset.kept_files() == {}
    assert made().rows == 3


KILLED_IN_A_CHILD = """
import django, os, signal, sys
django.setup()
from catalog.models import TrainingDataset
from serving import datasets
from tests.serving.test_datasets import TOTAL, spine

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "registering":
    datasets.Run.queue = die
    datasets.register("other", TOTAL, spine("C1"))
else:
    datasets.shutil.rmtree = die
    datasets.drop(datasets.find("churn"))
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("while_at", ["registering", "dropping"])
def test_what_a_killed_registration_or_drop_left_is_removed_a_day_later(group: FeatureGroup, while_at: str) -> None:
    kept = made()
    if while_at == "dropping":
        made("kept")
    before = folders()
    command = [sys.executable, "-c", KILLED_IN_A_CHILD, while_at]
    child = subprocess.run(command, cwd=processes.PROJECT, env=processes.environment(), check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL
    left = {str(kept.run_id)} if while_at == "dropping" else folders() - before
    assert len(left) == 1
    assert folders() == before | left
    upkeep_all()
    assert folders() == before | left  # its writer may be at it
    unknown = stores.dataset_folder("3f0e1c52-7a1c-4b37-9f6e-0a4d2f0b6c11")
    unknown.mkdir()
    for folder in stores.dataset_folder("").iterdir():
        aged(folder, by=RETENTION + timedelta(minutes=1))
    (name,) = left
    if while_at == "registering":  # a spine of many rows is still being written
        (stores.dataset_folder(name) / "spine.parquet").touch()
        upkeep_all()
        assert name in folders()
        aged(stores.dataset_folder(name), by=RETENTION + timedelta(minutes=1))
    upkeep_all()
    assert folders() == (before - left) | {unknown.name}


def folders() -> set[str]:
    return {path.name for path in stores.dataset_folder("").iterdir()}


def aged(folder: Path, *, by: timedelta) -> None:
    past = (datetime.now(UTC) - by).timestamp()
    for path in (*folder.iterdir(), folder):
        os.utime(path, (past, past))


def test_upkeep_reads_every_manifest_once_for_all_groups(group: FeatureGroup) -> None:
    made()
    for number in range(3):
        make_customer_group(f"group_{number}")
    with CaptureQueriesContext(connection) as asked:
        upkeep_all()
    assert len([query for query in asked if '"manifest"' in query["sql"]]) == 1


def test_the_command_makes_lists_rebuilds_and_drops(group: FeatureGroup, tmp_path: Path) -> None:
    service = FeatureService.objects.create(name="churn_v1")
    service.chosen.create(feature=group.features.get(name="total_purchases"), position=0)
    pq.write_table(spine("C1", "C2"), tmp_path / "spine.parquet")
    said = run("make", "churn", "--service", "churn_v1", "--spine", tmp_path / "spine.parquet")
    assert said.startswith("churn: 2 rows in ")
    assert run("list").startswith("churn  succeeded  churn_v1  2 rows")
    assert '"feature_service": "churn_v1@1"' in run("show", "churn")
    assert "the same as before" in run("rebuild", "churn", "--out", tmp_path / "again.parquet")
    assert run("drop", "churn") == "churn is forgotten.\n"
    assert run("list") == ""


def run(*arguments: object) -> str:
    out = io.StringIO()
    call_command("datasets", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_a_table_of_the_same_rows_is_built_in_memory(group: FeatureGroup) -> None:
    built = training.build(TOTAL, spine("C1", "C2", "C9"))
    assert built.equals(pq.read_table(datasets.data_file(made())))


# Splits.


def test_split_by_time_no_row_for_testing_lies_before_one_for_training(group: FeatureGroup) -> None:
    days = [NOON + timedelta(days=day) for day in (0, 3, 1, 2, 1)]
    rows = pa.table({"customer_id": ["C1"] * 5, "event_timestamp": pa.array(days, pa.timestamp("us", "UTC"))})
    split = Split.from_json({"at": ["2026-01-06T12:00:00Z", "2026-01-07T12:00:00+00:00"]})
    dataset = datasets.register("churn", TOTAL, rows, split=split)
    datasets.execute(dataset.run)
    table = pq.read_table(datasets.data_file(datasets.find("churn")))
    assert table.column_names[:3] == ["customer_id", "event_timestamp", "split"]
    assert table["split"].to_pylist() == ["train", "test", "validation", "test", "validation"]


def test_split_by_entity_each_stays_on_its_side_in_every_dataset(group: FeatureGroup) -> None:
    split = Split.from_json({"fractions": [0.7, 0.3], "seed": "churn"})
    customers = [f"C{n}" for n in range(1000)] * 2
    sides = parts_of(split, customers)
    assert sides[:1000] == sides[1000:]
    assert 650 < sides[:1000].count("train") < 750
    assert parts_of(split, customers[500:]) == sides[500:]
    assert parts_of(Split(fractions=(0.7, 0.3), seed="other"), customers) != sides
    assert sides[:6] == ["test", "train", "test", "train", "test", "train"]  # for ever: datasets are made again


def parts_of(split: Split, customers: list[str]) -> list[str]:
    keys = [Field("customer_id", Dtype("string"))]
    (batch,) = spine(*customers).to_batches()
    return list(split.parts(batch, "event_timestamp", keys).to_pylist())


@pytest.mark.parametrize(
    "said",
    [
        7,
        {},
        {"at": []},
        {"at": ["2026-01-01"]},
        {"at": [None]},
        {"at": ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"]},
        {"at": ["2026-01-01T00:00:00Z"], "fractions": [0.5, 0.5]},
        {"fractions": [1.0]},
        {"fractions": [0.5, 0.6]},
        {"fractions": [1.5, -0.5]},
        {"fractions": [0.5, "x"]},
        {"fractions": [0.5, 0.5], "seed": 1},
    ],
)
def test_a_split_that_is_none_is_refused_saying_what_is_right(said: Any) -> None:
    with pytest.raises(InvalidInput, match="split is"):
        Split.from_json(said)


def test_a_spine_with_a_column_of_that_name_is_refused(group: FeatureGroup) -> None:
    rows = spine("C1").rename_columns(["customer_id", "event_timestamp", "split"])
    with pytest.raises(InvalidInput, match="has a column split already"):
        datasets.register("churn", TOTAL, rows, split=Split(fractions=(0.5, 0.5)))
