"""The newest rows are found without reading the table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.errors import CorruptData
from engine.offline import newest
from engine.offline.newest import newest_rows
from engine.offline.table import OfflineTable
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema

SCHEMA = GroupSchema("g", 1, 1, (Field("id", Dtype.parse("int64")),), (FeatureColumn("amount", Dtype.parse("int64")),))
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def add(table: OfflineTable, days: list[int], *, accepted: int, deleted: list[int] | None = None) -> None:
    """Commit one file: a row for each day after DAY, whose id and amount are the day's number."""
    rows = pl.DataFrame(
        {
            "id": days,
            "event_timestamp": [DAY + timedelta(days=day) for day in days],
            "created_timestamp": [DAY] * len(days),
            "amount": days,
            "_accepted": [accepted] * len(days),
            "_ordinal": list(range(len(days))),
            "_schema": [1] * len(days),
            "_deleted": [day in (deleted or []) for day in days],
            "_run": ["r"] * len(days),
        }
    )
    file = table.write_file(rows, SCHEMA.offline, name=f"f{accepted}", sort_by=["id"])
    table.commit([file], SCHEMA.offline, transaction=f"t{accepted}")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened."""
    names: list[str] = []
    real = newest.open_parquet

    def note(path: str | Path) -> object:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(newest, "open_parquet", note)
    return names


def ids(found: newest.Newest) -> list[int]:
    assert found.rows is not None
    return found.rows["id"].to_list()


def test_a_table_without_a_commit_has_none(tmp_path: Path) -> None:
    assert newest_rows(OfflineTable(tmp_path / "none"), ["id"], at_most=5) == newest.Newest(None, None)


def test_the_latest_events_come_first_and_older_files_are_not_opened(tmp_path: Path, opened: list[str]) -> None:
    table = OfflineTable(tmp_path)
    for number in range(20):  # the newest file arrived in the middle
        first = 1_000 if number == 7 else 10 * number
        add(table, list(range(first, first + 10)), accepted=number + 1)
    found = newest_rows(table, ["id", "amount"], at_most=4)
    assert ids(found) == [1009, 1008, 1007, 1006]
    assert opened == ["f8.parquet"]
    assert (found.is_exact, found.looked_at, found.files) == (True, 10, 1)
    assert found.as_of is not None
    assert datetime.now(UTC) - found.as_of < timedelta(minutes=5)


def test_files_go_on_being_opened_until_no_other_can_hold_a_later_row(tmp_path: Path, opened: list[str]) -> None:
    table = OfflineTable(tmp_path)
    add(table, [1, 100], accepted=1)
    add(table, [2, 99], accepted=2)
    add(table, [3, 4], accepted=3)
    assert ids(newest_rows(table, ["id"], at_most=2)) == [100, 99]
    assert opened == ["f1.parquet", "f2.parquet"]
    assert ids(newest_rows(table, ["id"], at_most=4)) == [100, 99, 4, 3]


def test_of_equal_event_times_the_later_acceptance_comes_first(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path)
    add(table, [5], accepted=2)
    add(table, [5], accepted=1)
    found = newest_rows(table, ["id"], at_most=2)
    assert found.rows is not None
    assert found.rows["_accepted"].to_list() == [2, 1]


def test_tombstones_are_left_out(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path)
    add(table, [1, 2, 3], accepted=1, deleted=[3])
    assert ids(newest_rows(table, ["id"], at_most=5)) == [2, 1]


def test_a_look_ends_with_its_bytes_and_says_that_others_may_be_newer(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path)
    add(table, list(range(300_000)), accepted=1)
    found = newest_rows(table, ["id"], at_most=5, bytes_at_most=1 << 20)
    assert not found.is_exact
    assert 0 < found.looked_at < 100_000
    whole = newest_rows(table, ["id"], at_most=5)
    assert (ids(whole), whole.is_exact) == ([299_999, 299_998, 299_997, 299_996, 299_995], True)
    assert whole.looked_at < 300_000  # row groups whose rows are all older are not read


def test_a_look_opens_a_bounded_number_of_files(tmp_path: Path, opened: list[str]) -> None:
    table = OfflineTable(tmp_path)
    for number in range(newest.FILES_AT_MOST + 3):
        add(table, [5], accepted=number + 1)  # each may hold the newest
    found = newest_rows(table, ["id"], at_most=100)
    assert len(opened) == newest.FILES_AT_MOST
    assert not found.is_exact


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path)
    add(table, list(range(100)), accepted=1)
    path = tmp_path / "f1.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptData, match=r"f1\.parquet"):
        newest_rows(table, ["id"], at_most=5)
