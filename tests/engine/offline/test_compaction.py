"""Compaction and vacuum on real tables: every row stays once, sorted and checked, whoever works beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.errors import CorruptData
from engine.offline.compaction import FILES_AT_LEAST, ROWS_AT_MOST, batches, compact
from engine.offline.log import LoggedFile
from engine.offline.table import OfflineTable
from engine.offline.vacuum import RETENTION, vacuum
from engine.schema import VERSION_ORDER
from tests.engine.offline.test_table import PROJECT, PURCHASES, WIDER, customers_of, land, read, table, write

__all__ = ["table"]
KEYS = ["customer_id"]
ORDER = [*KEYS, *VERSION_ORDER]


def fill(table: OfflineTable, files: int = FILES_AT_LEAST) -> list[str]:
    """So many commits of one file of two rows; the customers of all."""
    for number in range(files):
        land(table, f"drain:{number}", f"C{number}", f"D{number}")
    return customers_of(table)


def later(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def logged(*rows: int, size: int = 4_000) -> list[LoggedFile]:
    return [LoggedFile(f"f{place:03}", size, count, None) for place, count in enumerate(rows)]


# What is put together.


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1] * 9, []),
        ([1] * 10, [[1] * 10]),
        ([5] * 9 + [50] * 9, []),
        ([7] * 12 + [70] * 3, [[7] * 12]),
        ([400_000] * 10, [[400_000] * 2] * 5),
        ([900_000] * 10, []),
        ([ROWS_AT_MOST] * 20, []),
    ],
    ids=["too few", "ten", "too few of each size", "of one size only", "up to the bound", "full", "beyond the bound"],
)
def test_files_of_one_power_of_ten_go_together(rows: list[int], expected: list[list[int]]) -> None:
    assert [[file.rows for file in batch] for batch in batches(logged(*rows))] == expected


def test_large_files_of_few_rows_are_bounded_by_their_bytes() -> None:
    """32 MB at most: of ten files of 12 MB two go together each time."""
    assert [len(batch) for batch in batches(logged(*[50] * 10, size=12 << 20))] == [2] * 5


def test_a_row_is_written_again_once_for_each_power_of_ten(table: OfflineTable) -> None:
    """A hundred files of one row: ten of ten, then one of a hundred."""
    for number in range(10):
        files = [write(table, f"C{number}{digit}") for digit in range(10)]
        table.commit(files, PURCHASES.offline, transaction=f"run:{number}")
        compact(table, sort_by=KEYS)
    compact(table, sort_by=KEYS)
    assert [file.rows for file in table.entries()] == [100]
    assert customers_of(table) == [f"C{number:02}" for number in range(100)]
    assert len(list(table.folder.glob("compact-*.parquet"))) == 11


# What becomes of the rows.


def test_small_files_become_one_that_is_sorted_and_has_page_checksums(table: OfflineTable) -> None:
    before = fill(table)
    assert compact(table, sort_by=KEYS) == FILES_AT_LEAST
    (path,) = table.files()
    assert Path(path).name.startswith("compact-")
    frame = pl.DataFrame(read(path))
    assert frame.equals(frame.sort(ORDER))
    assert customers_of(table) == before
    assert compact(table, sort_by=KEYS) == 0
    raw = Path(path).read_bytes()
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    Path(path).write_bytes(raw[: start + 40] + bytes([raw[start + 40] ^ 1]) + raw[start + 41 :])
    with pytest.raises(CorruptData):
        read(path)


def test_rows_of_several_schemas_keep_their_columns_and_their_schema(table: OfflineTable) -> None:
    for number in range(FILES_AT_LEAST):
        land(table, f"drain:{number}", f"C{number}", schema=WIDER if number % 2 else PURCHASES)
    compact(table, sort_by=KEYS)
    (path,) = table.files()
    found = read(path, ["_schema", "segment", "total_purchases"]).to_pylist()
    assert [row["_schema"] for row in found] == [1, 2] * 5
    assert [row["segment"] for row in found] == [None, "gold"] * 5
    assert {row["total_purchases"] for row in found} == {0}


def test_who_follows_the_table_sees_no_new_rows_in_a_compaction(table: OfflineTable) -> None:
    fill(table)
    before = table.version
    compact(table, sort_by=KEYS)
    assert table.version == before + 1
    assert table.files_added(before, before + 1) == []
    assert len(table.files_added(0, before + 1) or []) == FILES_AT_LEAST


def test_transaction_ids_are_remembered_past_a_compaction(table: OfflineTable) -> None:
    before = fill(table)
    compact(table, sort_by=KEYS)
    assert table.has_landed("drain:3")
    land(table, "drain:3", "C3", "D3")
    assert customers_of(table) == before


def test_a_damaged_file_is_named_and_stays_out_of_a_compaction(table: OfflineTable) -> None:
    """Also damage that no page checksum covers: it must not get a checksum of its own."""
    fill(table)
    path = Path(table.files()[4])
    raw = path.read_bytes()
    path.write_bytes(raw[:-30] + bytes([raw[-30] ^ 1]) + raw[-29:])
    with pytest.raises(CorruptData, match=path.name):
        compact(table, sort_by=KEYS)
    assert len(table.entries()) == FILES_AT_LEAST
    assert not list(table.folder.glob("compact-*"))


def test_of_two_compactions_of_the_same_files_one_counts(table: OfflineTable) -> None:
    """Both have read the files; between their commits a push arrives, which neither loses."""
    before = fill(table)
    old = [file.name for file in table.entries()]
    first, second = write(table, *before), write(table, *before)
    assert table.replace_files(old, [first]) is not None
    land(table, "drain:x", "X")
    assert table.replace_files(old, [second]) is None
    assert customers_of(table) == sorted([*before, "X"])


def test_of_two_compactions_on_one_snapshot_the_second_conflicts_and_looks_again(
    table: OfflineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an id that both carry deltalake takes the second too, and its rows are doubled."""
    before = fill(table)
    old = [file.name for file in table.entries()]
    handles = [table.open()]
    assert table.replace_files(old, [write(table, *before)]) is not None
    with monkeypatch.context() as patched:
        patched.setattr(table, "open", lambda: handles.pop() if handles else OfflineTable.open(table))
        assert table.replace_files(old, [write(table, *before)]) is None
    assert handles == []
    assert customers_of(table) == before


def test_a_commit_that_began_before_a_compaction_is_kept(table: OfflineTable) -> None:
    before = fill(table)
    opened = table.open()
    assert opened is not None
    compact(table, sort_by=KEYS)
    file = write(table, "X")
    table.commit([file], PURCHASES.offline, transaction="drain:x")
    assert customers_of(table) == sorted([*before, "X"])


# Vacuum.


def names(table: OfflineTable) -> set[str]:
    return {path.name for path in table.folder.glob("*.parquet")}


def test_replaced_files_are_removed_when_nobody_can_be_reading_them(table: OfflineTable) -> None:
    before = fill(table)
    compact(table, sort_by=KEYS)
    followed = table.version
    assert vacuum(table, now=later(23), followed_to=followed) == []
    assert len(vacuum(table, now=later(25), followed_to=followed)) == FILES_AT_LEAST
    assert customers_of(table) == before
    assert names(table) == {Path(path).name for path in table.files()}
    assert vacuum(table, now=later(25), followed_to=followed) == []


def test_the_age_of_a_replaced_file_counts_from_its_replacement(table: OfflineTable) -> None:
    fill(table)
    long_ago = time.time() - 10 * RETENTION.total_seconds()
    for path in table.files():
        os.utime(path, (long_ago, long_ago))
    compact(table, sort_by=KEYS)
    assert vacuum(table, now=later(1), followed_to=table.version) == []


def test_a_file_that_the_online_store_has_not_followed_yet_is_kept(table: OfflineTable) -> None:
    fill(table)
    compact(table, sort_by=KEYS)
    removed = vacuum(table, now=later(25), followed_to=FILES_AT_LEAST - 2)
    assert len(removed) == FILES_AT_LEAST - 2
    assert len(table.files_added(FILES_AT_LEAST - 2, table.version) or []) == 2


def test_files_that_are_still_read_as_they_were_stay(table: OfflineTable) -> None:
    before = fill(table)
    version, kept = table.version, [file.name for file in table.entries()]
    compact(table, sort_by=KEYS)
    assert vacuum(table, now=later(25), followed_to=table.version, keep_files=kept) == []
    assert len(table.files(version)) == FILES_AT_LEAST
    assert customers_of(table) == before


def test_what_a_killed_writer_left_is_removed_unless_it_may_still_be_committed(table: OfflineTable) -> None:
    land(table, "run:1", "C1")
    orphan, unfinished = write(table, "X"), write(table, "Y")
    now = later(25)
    assert vacuum(table, now=later(23), followed_to=1) == []
    assert vacuum(table, now=now, followed_to=1, unfinished=[unfinished.name[:20]]) == [orphan.name]
    assert vacuum(table, now=now, followed_to=1) == [unfinished.name]
    assert customers_of(table) == ["C1"]


def test_a_table_whose_log_is_damaged_loses_no_file(table: OfflineTable) -> None:
    fill(table)
    compact(table, sort_by=KEYS)
    table.log.path(4).write_text("")
    with pytest.raises(CorruptData, match=r"00004\.json"):
        vacuum(table, now=later(25), followed_to=table.version)
    assert len(names(table)) == FILES_AT_LEAST + 1


def test_a_table_without_a_commit_has_nothing_to_keep(table: OfflineTable) -> None:
    assert compact(table, sort_by=KEYS) == 0
    assert vacuum(table, now=later(25), followed_to=-1) == []


# Beside each other.

WRITER = """
import sys
from tests.engine.offline.test_table import OfflineTable, land
table = OfflineTable(sys.argv[1])
for number in range(20):
    land(table, f"drain:{sys.argv[2]}-{number}", f"{sys.argv[2]}-{number:02}")
"""
COMPACTOR = """
import sys
from datetime import UTC, datetime, timedelta
from engine.offline.compaction import compact
from engine.offline.vacuum import vacuum
from tests.engine.offline.test_table import OfflineTable
table = OfflineTable(sys.argv[1])
for _ in range(12):
    compact(table, sort_by=["customer_id"])
    vacuum(table, now=datetime.now(UTC) + timedelta(hours=23, minutes=59, seconds=58), followed_to=table.version)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE)


def finish(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        try:
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0, said.decode()


def test_three_processes_that_commit_twenty_times_each_lose_and_double_nothing(table: OfflineTable) -> None:
    finish([start(WRITER, str(table.folder), writer) for writer in "abc"])
    assert customers_of(table) == sorted(f"{writer}-{number:02}" for writer in "abc" for number in range(20))


def test_compactions_and_vacuums_beside_writers_and_readers_lose_and_double_nothing(table: OfflineTable) -> None:
    """Two writers, two compactors of the same files, and a reader that never meets a missing file.

    A replaced file lives two seconds here instead of a day: longer than one read, and shorter than the test.
    """
    land(table, "drain:first", "first")
    processes = [start(WRITER, str(table.folder), writer) for writer in "ab"]
    processes += [start(COMPACTOR, str(table.folder)) for _ in range(2)]
    seen = 0
    while any(process.poll() is None for process in processes):
        paths = table.files()
        found = sum(pq.ParquetFile(path).metadata.num_rows for path in paths)
        assert found >= seen
        seen = found
    finish(processes)
    compact(table, sort_by=KEYS)
    expected = sorted(["first", *(f"{writer}-{number:02}" for writer in "ab" for number in range(20))])
    assert customers_of(table) == expected
    assert len(table.files()) < 20
