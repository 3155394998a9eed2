"""Training datasets without room: to spill into, or to be written to. Said by folder and size, and nothing is left."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_django import Settings

from catalog import runs, stores
from catalog.models import FeatureGroup, Run, RunState, TrainingDataset
from engine.errors import Conflict, StorageFull
from engine.pointintime import duckdb
from engine.pointintime.rule import GroupHistory, HistoryFeature
from ingestion import drain
from ingestion.push import push
from serving import datasets, training
from serving.training import Asked
from tests.engine.pointintime.histories import CUSTOMER, DAY_ONE, SPINE, STRING, row
from tests.factories import make_customer_group
from tests.full_disks import AS_ROOT, fill, mounted

#: 500,000 answers of 1,000 bytes through 400 MB of memory.
ROWS, CUSTOMERS, LETTERS = 500_000, 1_000, 990
MEMORY_LIMIT = "400MB"
DISK = 16 << 20

pytestmark = AS_ROOT


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MB."""
    with mounted(tmp_path / "disk", str(DISK)) as folder:
        yield folder


def text_of(customer: int) -> str:
    return f"{customer}:".ljust(LETTERS, "x")


def spine() -> pa.Table:
    times = pa.array([DAY_ONE] * ROWS, SPINE.types[1])
    return pa.table({"customer_id": [f"C{number % CUSTOMERS}" for number in range(ROWS)], "event_timestamp": times})


def assert_right(output: Path) -> None:
    texts = pq.read_table(output)["text"]
    assert texts.slice(0, CUSTOMERS).to_pylist() == [text_of(customer) for customer in range(CUSTOMERS)]
    assert texts.null_count == 0
    assert len(texts) == ROWS


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# The join.


@pytest.fixture
def wide(tmp_path: Path) -> GroupHistory:
    """A text of 990 letters for each of 1,000 customers."""
    rows = [row(f"C{customer}", DAY_ONE, None) | {"text": text_of(customer)} for customer in range(CUSTOMERS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "wide.parquet")
    feature = HistoryFeature("text", "text", STRING)
    return GroupHistory("purchases", (str(tmp_path / "wide.parquet"),), CUSTOMER, None, (feature,))


def join(wide: GroupHistory, *, spill: Path, output: Path) -> None:
    duckdb.join(spine(), [wide], temp_directory=spill, memory_limit=MEMORY_LIMIT, output=output)


def no_room(folder: Path, free: str = r"\d\d,\d\d\d,\d\d\d") -> str:
    return (
        f"memory limit {MEMORY_LIMIT}.* no room left to spill into {folder}, where {free} bytes were free when it began"
    )


@pytest.mark.parametrize("room", ["some", "none"])
def test_a_join_without_room_to_spill_says_where_and_how_much_there_was(
    wide: GroupHistory, disk: Path, tmp_path: Path, room: str
) -> None:
    (tmp_path / "out").mkdir()
    output, free = tmp_path / "out" / "training.parquet", r"1\d,\d\d\d,\d\d\d"
    if room == "none":
        fill(disk)
        free = "0"
    before = names(disk)
    with pytest.raises(StorageFull, match=no_room(disk, free)) as error:
        join(wide, spill=disk, output=output)
    assert (error.value.code, error.value.status, error.value.retryable) == ("storage_full", 507, True)
    assert names(disk) == before
    assert names(output.parent) == []
    join(wide, spill=tmp_path / "spill", output=output)
    assert_right(output)


def test_room_that_others_take_while_it_spills_is_said_as_well(wide: GroupHistory, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "600m") as disk:
        filler = threading.Thread(target=fill_once_it_spills, args=[disk])
        filler.start()
        with pytest.raises(StorageFull, match=no_room(disk, r"6\d\d,\d\d\d,\d\d\d")):
            join(wide, spill=disk, output=tmp_path / "training.parquet")
        filler.join()
        assert names(disk) == ["fill"]
    assert not (tmp_path / "training.parquet").exists()


def fill_once_it_spills(disk: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(disk.glob("spill-*/*")):
        time.sleep(0.001)
    fill(disk)


def test_a_full_folder_of_the_result_is_named_and_keeps_the_old_file(
    wide: GroupHistory, disk: Path, tmp_path: Path
) -> None:
    output = disk / "training.parquet"
    output.write_bytes(b"an older one")
    fill(disk)
    with pytest.raises(StorageFull, match=f"There is no room for {disk} "):
        join(wide, spill=tmp_path / "spill", output=output)
    assert names(disk) == ["fill", "training.parquet"]
    assert output.read_bytes() == b"an older one"
    assert names(tmp_path / "spill") == []


# Datasets that the hub keeps.


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    group = make_customer_group("purchases", features={"text": "string"})
    times = DAY_ONE.isoformat()
    rows = [{"customer_id": f"C{c}", "purchased_at": times, "text": text_of(c)} for c in range(CUSTOMERS)]
    push(group, rows)
    drain.drain(group)
    return group


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MEMORY_LIMIT", MEMORY_LIMIT)


def registered() -> TrainingDataset:
    return datasets.register("churn", Asked(features=("text",)), spine())


def failed(dataset: TrainingDataset, said: str) -> Run:
    """The run of a dataset after one attempt, which ended with an error that says so."""
    with pytest.raises(StorageFull, match=said):
        datasets.execute(Run.objects.get(pk=dataset.run_id))
    run = Run.objects.get(pk=dataset.run_id)
    assert run.error_code == "storage_full"
    assert [path.name for path in stores.dataset_folder(str(run.pk)).iterdir()] == ["spine.parquet"]
    with pytest.raises(Conflict, match="is not there"):
        datasets.data_file(datasets.find("churn"))
    return run


def test_a_dataset_without_room_to_spill_waits_dies_and_is_made_once_there_is_room(
    group: FeatureGroup, little_memory: None, disk: Path, settings: Settings
) -> None:
    dataset, home = registered(), settings.FEATUREHUB_HOME
    settings.FEATUREHUB_HOME = disk
    said = no_room(disk / "tmp", r"1\d,\d\d\d,\d\d\d")
    states = [failed(dataset, said).state for _ in range(runs.MAX_ATTEMPTS)]
    assert states == [RunState.QUEUED, RunState.QUEUED, RunState.DEAD]
    run = datasets.find("churn").run
    assert str(disk / "tmp") in run.error
    assert names(disk) == ["tmp"]
    settings.FEATUREHUB_HOME = home
    runs.retry(run, by="ada")
    assert datasets.execute(run).state == RunState.SUCCEEDED
    assert_right(datasets.data_file(datasets.find("churn")))


@pytest.mark.parametrize("filled", ["before", "after"])
def test_a_dataset_without_room_in_the_offline_store_is_made_once_there_is_some(
    group: FeatureGroup, disk: Path, settings: Settings, filled: str
) -> None:
    """Its tables moved to a disk that is filled before the spine is kept, or before the result is."""
    offline = disk / "offline"
    shutil.copytree(settings.FEATUREHUB_OFFLINE_PATH, offline)
    settings.FEATUREHUB_OFFLINE_PATH = offline
    if filled == "before":
        filling = fill(disk)
        with pytest.raises(StorageFull, match=f"There is no room for {offline}"):
            registered()
        assert not TrainingDataset.objects.exists()
        assert not Run.objects.filter(kind="train").exists()
        filling.unlink()
        dataset = registered()
    else:
        dataset = registered()
        filling = fill(disk)
        assert failed(dataset, f"There is no room for {offline}").state == RunState.QUEUED
        filling.unlink()
    assert datasets.execute(Run.objects.get(pk=dataset.run_id)).state == RunState.SUCCEEDED
    assert_right(datasets.data_file(datasets.find("churn")))
    folders = [path.name for path in stores.dataset_folder("").iterdir()]
    assert folders == [str(dataset.run_id)]
