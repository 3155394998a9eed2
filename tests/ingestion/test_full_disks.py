"""An offline store without room, or not to be written: nothing is lost, and it goes on when there is room again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from catalog.models import FeatureGroup, RunState
from engine.errors import StorageFailed, StorageFull
from ingestion import drain, materialize
from ingestion.ingest import execute, ingest
from ingestion.push import push
from ingestion.tasks import catch_up
from tests.factories import make_customer_group, purchase, write_csv
from tests.full_disks import AS_ROOT, fill, mount, mounted
from tests.ingestion import contents, processes


@pytest.fixture
def disk(sources: Path, settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """An offline store on a file system of its own, of one megabyte."""
    with mounted(tmp_path / "disk", "1m") as folder:
        settings.FEATUREHUB_OFFLINE_PATH = folder / "offline"
        yield folder


def customers(group: FeatureGroup) -> list[str]:
    return sorted(row["customer_id"] for row in contents.offline(group))


@AS_ROOT
def test_a_full_disk_fails_a_run_for_now_and_keeps_what_was_there(disk: Path, sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1")])
    ingest(group)
    filling, before = fill(disk), contents.data_files(group)
    write_csv(sources / "b.csv", [purchase(f"D{number}") for number in range(50)])
    with pytest.raises(StorageFull, match="no room for"):
        ingest(group)
    run = group.runs.first()
    assert run is not None
    assert (run.state, run.error_code, run.delta_version) == (RunState.QUEUED, "storage_full", None)
    assert contents.data_files(group) == before
    assert customers(group) == ["C1"]
    assert materialize.materialize(group, full=True) == 1
    filling.unlink()
    execute(run)
    assert len(customers(group)) == 51


@AS_ROOT
def test_a_disk_that_fills_up_during_a_run_leaves_no_file_of_it(disk: Path, sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    rows = [purchase(f"customer {number:09}", total_spent=number / 7) for number in range(60_000)]
    write_csv(sources / "a.csv", rows)
    with pytest.raises(StorageFull):
        ingest(group)
    assert contents.data_files(group) == []
    assert customers(group) == []


@AS_ROOT
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_pushes_go_on_while_the_offline_store_does_not_and_are_drained_later(disk: Path, fault: str) -> None:
    group = make_customer_group()
    push(group, [purchase("C1")])
    drain.drain(group)
    filling = fill(disk)
    if fault == "read-only":
        mount("-o", "remount,ro", str(disk))
    assert push(group, [purchase("C2")]).online == "applied"
    with pytest.raises(StorageFull if fault == "full" else StorageFailed) as error:
        drain.drain(group)
    assert error.value.retryable
    assert error.value.status == (507 if fault == "full" else 503)
    catch_up()  # says so in the log, and does everything else
    assert customers(group) == ["C1"]
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2"]
    mount("-o", "remount,rw", str(disk))
    filling.unlink()
    catch_up()
    assert customers(group) == ["C1", "C2"]
    assert not drain.waiting_groups().exists()


@AS_ROOT
def test_a_run_on_a_read_only_store_is_tried_again_later(disk: Path, sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1")])
    (disk / "offline").mkdir()
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(StorageFailed, match=r"cannot be written \(Read-only file system\)"):
        ingest(group)
    run = group.runs.get()
    assert (run.state, run.error_code) == (RunState.QUEUED, "storage_failed")
    mount("-o", "remount,rw", str(disk))
    execute(run)
    assert customers(group) == ["C1"]


IN_A_CHILD = """
import resource, sys
from engine.errors import StorageFull
from tests.engine.offline.test_table import OfflineTable, PURCHASES, land, rows
table = OfflineTable(sys.argv[1])
land(table, "run:1", "C1")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
frame = rows(*(f"customer {number * 7919 % 10007:09}" for number in range(10_000)))
try:
    table.write_file(frame, PURCHASES.offline, name="run-2", sort_by=["customer_id"])
except StorageFull as error:
    print(error)
print(len(table.files()), sorted(path.name for path in table.folder.glob("run-2*")))
"""


def test_a_file_that_may_not_grow_is_taken_back_and_the_table_is_as_it_was(tmp_path: Path) -> None:
    """A limit of the process, which anybody can set; as root the tests above fill a disk."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, str(tmp_path / "v1")],
        cwd=processes.PROJECT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said, kept = done.stdout.splitlines()
    assert said == f"There is no room for {tmp_path / 'v1'} (File too large); nothing was added."
    assert kept == "1 []"
