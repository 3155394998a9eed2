"""The offline table on real files: once per transaction id, nothing lost at a compaction, damage noticed by name."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from engine.errors import CorruptData
from engine.offline.files import ROWS_PER_GROUP, DataFile
from engine.offline.scrub import scrub
from engine.offline.table import OfflineTable, read_file
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema

PROJECT = Path(__file__).parents[3]
PAGE = (PROJECT / "docs" / "formats" / "offline.md").read_text()
TEN = datetime(2026, 11, 1, 10, tzinfo=UTC)


def group(*features: tuple[str, str], schema_id: int = 1, key: str = "string") -> GroupSchema:
    return GroupSchema(
        group="customer_purchases",
        version=1,
        schema_id=schema_id,
        join_keys=(Field("customer_id", Dtype.parse(key)),),
        features=tuple(FeatureColumn(name, Dtype.parse(dtype)) for name, dtype in features),
        inputs=(Field("total_spent", Dtype.parse("float64")),),
    )


PURCHASES = group(("total_purchases", "int64"))
WIDER = group(("total_purchases", "int64"), ("segment", "string"), schema_id=2)


def rows(*customers: str, schema: GroupSchema = PURCHASES, **columns: list[Any]) -> pl.DataFrame:
    """One offline row per customer, an hour apart, in the order given; `columns` replaces some of theirs."""
    height = len(customers)
    values: dict[str, list[Any]] = {
        "customer_id": list(customers),
        "event_timestamp": [TEN + timedelta(hours=n) for n in range(height)],
        "created_timestamp": [TEN + timedelta(days=1)] * height,
        "total_spent": [0.5 * n for n in range(height)],
        "total_purchases": list(range(height)),
        "segment": ["gold"] * height,
        "_accepted": [7] * height,
        "_ordinal": list(range(height)),
        "_schema": [schema.schema_id] * height,
        "_deleted": [False] * height,
        "_run": ["3f0e"] * height,
    }
    table = pa.table(
        {name: pa.array((values | columns)[name], schema.offline.field(name).type) for name in names(schema)}
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def names(schema: GroupSchema) -> list[str]:
    return list(schema.offline.names)


@pytest.fixture
def table(tmp_path: Path) -> OfflineTable:
    return OfflineTable(tmp_path / "customer_purchases" / "v1")


def write(table: OfflineTable, *customers: str, schema: GroupSchema = PURCHASES) -> DataFile:
    """A file of one row per customer, under a name that no other process takes."""
    name = f"run-{uuid.uuid4().hex}"
    return table.write_file(rows(*customers, schema=schema), schema.offline, name=name, sort_by=schema.key_names)


def land(table: OfflineTable, transaction: str, *customers: str, schema: GroupSchema = PURCHASES) -> int:
    return table.commit([write(table, *customers, schema=schema)], schema.offline, transaction=transaction).version


def customers_of(table: OfflineTable) -> list[str]:
    """The customers of every row, sorted; read by deltalake, as any other tool would."""
    opened = table.open()
    return [] if opened is None else sorted(opened.to_pyarrow_table()["customer_id"].to_pylist())


def read(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    return pa.Table.from_batches(list(read_file(str(path), columns)))


# Files.


def test_a_file_holds_the_rows_by_customer_and_version(table: OfflineTable) -> None:
    frame = rows("C2", "C1", "C2", "C1", _accepted=[2, 1, 1, 1], _ordinal=[0, 1, 5, 0], event_timestamp=[TEN] * 4)
    written = table.write_file(frame, PURCHASES.offline, name="run-1", sort_by=["customer_id"])
    found = read(table.folder / "run-1.parquet").select(["customer_id", "_accepted", "_ordinal"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [("C1", 1, 0), ("C1", 1, 1), ("C2", 1, 5), ("C2", 2, 0)]
    raw = (table.folder / "run-1.parquet").read_bytes()
    assert written == DataFile("run-1.parquet", 4, len(raw), hashlib.sha256(raw).hexdigest(), (TEN, TEN))


def test_a_file_has_exactly_the_types_of_the_schema(table: OfflineTable) -> None:
    frame = rows("C1").select(pl.all().reverse()).select(reversed(names(PURCHASES)))
    table.write_file(frame, PURCHASES.offline, name="run-1", sort_by=["customer_id"])
    assert pq.read_schema(table.folder / "run-1.parquet").equals(PURCHASES.offline)
    assert read(table.folder / "run-1.parquet").schema.equals(PURCHASES.offline)


def test_a_name_is_used_once(table: OfflineTable) -> None:
    table.write_file(rows("C1"), PURCHASES.offline, name="run-1", sort_by=["customer_id"])
    before = (table.folder / "run-1.parquet").read_bytes()
    with pytest.raises(FileExistsError):
        table.write_file(rows("C2"), PURCHASES.offline, name="run-1", sort_by=["customer_id"])
    assert (table.folder / "run-1.parquet").read_bytes() == before


def test_asked_columns_that_a_file_lacks_are_left_out(table: OfflineTable) -> None:
    path = table.folder / write(table, "C1", "C2").name
    assert read(path, ["segment", "customer_id"]).to_pydict() == {"customer_id": ["C1", "C2"]}


def test_a_file_that_nobody_committed_is_in_no_table(table: OfflineTable) -> None:
    write(table, "C1")
    assert (table.open(), table.version, table.files(), customers_of(table)) == (None, -1, [], [])
    land(table, "run:1", "C2")
    assert customers_of(table) == ["C2"]


# Once per transaction id.


def test_a_commit_makes_its_files_part_of_the_table(table: OfflineTable) -> None:
    files = [write(table, "C1"), write(table, "C2", "C3")]
    assert table.commit(files, PURCHASES.offline, transaction="run:1").version == 1
    assert customers_of(table) == ["C1", "C2", "C3"]
    assert table.files() == sorted(str(table.folder / file.name) for file in files)


@pytest.mark.parametrize("fresh", [False, True], ids=["the same object", "a fresh one"])
def test_a_transaction_id_lands_once(table: OfflineTable, fresh: bool) -> None:
    first = land(table, "run:1", "C1")
    again = OfflineTable(table.folder) if fresh else table
    assert land(again, "run:1", "C1") == first
    assert customers_of(table) == ["C1"]
    assert land(again, "run:2", "C1") == first + 1
    assert customers_of(table) == ["C1", "C1"]


def test_has_landed_tells_the_transactions_of_the_table(table: OfflineTable) -> None:
    assert not table.has_landed("run:1")
    for number in range(3):
        land(table, f"run:{number}", "C1")
    assert [table.has_landed(f"run:{number}") for number in range(4)] == [True, True, True, False]


def test_a_transaction_id_is_remembered_past_checkpoint_and_compaction(table: OfflineTable) -> None:
    land(table, "run:1", "C1")
    land(table, "run:2", "C2")
    opened = table.open()
    assert opened is not None
    opened.optimize.compact()
    opened.create_checkpoint()
    for log in (table.folder / "_delta_log").glob("0000000000000000000[01].json"):
        log.unlink()
    assert table.has_landed("run:1")
    land(table, "run:1", "C1")
    assert customers_of(table) == ["C1", "C2"]


# Two processes: for each id both say that they are ready and wait for a line, then commit.

COMMITTER = """
import sys
from tests.engine.offline.test_table import OfflineTable, land
table = OfflineTable(sys.argv[1])
for transaction in sys.argv[2].split(","):
    print("ready", flush=True)
    sys.stdin.readline()
    land(table, transaction, transaction)
"""


@contextmanager
def committers(folder: Path, *transactions: str) -> Iterator[list[subprocess.Popen[str]]]:
    environment = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(folder), ids],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for ids in transactions
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def race(folder: Path, *transactions: str) -> None:
    """Let one process per argument commit its comma-separated transaction ids, the first of each at the same time,
    then the second, and so on."""
    with committers(folder, *transactions) as processes:
        for _ in transactions[0].split(","):
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
        assert [process.wait(timeout=60) for process in processes] == [0] * len(processes)


SHARED = [f"run:{number}" for number in range(12)]
OWN = [[f"drain:{writer}{number}" for number in range(12)] for writer in "ab"]


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The customers of a table, named by the ids they came by, after two processes raced from the first commit on:
    twelve times for one id, twelve times each with its own."""
    table = OfflineTable(tmp_path_factory.mktemp("raced") / "v1")
    race(table.folder, *(",".join(SHARED + own) for own in OWN))
    return customers_of(table)


def test_two_processes_with_one_transaction_id_add_its_rows_once(raced: list[str]) -> None:
    assert [customer for customer in raced if customer in SHARED] == sorted(SHARED)


def test_two_processes_with_different_ids_add_the_rows_of_both(raced: list[str]) -> None:
    assert [customer for customer in raced if customer not in SHARED] == sorted(OWN[0] + OWN[1])


# Columns that came later.


def test_a_later_column_is_kept_by_a_compaction(table: OfflineTable) -> None:
    land(table, "run:1", "C1")
    land(table, "run:2", "C2", schema=WIDER)
    opened = table.open()
    assert opened is not None
    assert opened.optimize.compact()["numFilesRemoved"] == 2
    after = DeltaTable(table.folder).to_pyarrow_table().sort_by("customer_id")
    assert after["segment"].to_pylist() == [None, "gold"]
    assert after["total_purchases"].to_pylist() == [0, 0]


def test_a_file_of_the_older_schema_is_taken_after_the_newer(table: OfflineTable) -> None:
    land(table, "run:1", "C1", schema=WIDER)
    land(table, "run:2", "C2")
    after = DeltaTable(table.folder).to_pyarrow_table().sort_by("customer_id")
    assert after["segment"].to_pylist() == ["gold", None]


# Following the versions.


def added(table: OfflineTable, after: int, until: int) -> list[str] | None:
    found = table.files_added(after, until)
    return None if found is None else [Path(path).name for path in found]


def test_files_are_given_in_the_order_of_their_commits(table: OfflineTable) -> None:
    files = [write(table, customer) for customer in ("C1", "C2", "C3")]
    one, two, three = (file.name for file in files)
    for number in (2, 0, 1):
        table.commit([files[number]], PURCHASES.offline, transaction=f"run:{number}")
    assert table.version == 3
    assert added(table, -1, 3) == [three, one, two]
    assert added(table, 1, 3) == [one, two]
    assert added(table, 1, 2) == [one]
    assert added(table, 3, 3) == []


def test_a_compaction_adds_no_files(table: OfflineTable) -> None:
    for number in range(2):
        land(table, f"run:{number}", "C1")
    before = table.version
    opened = table.open()
    assert opened is not None
    opened.optimize.compact()
    assert table.version == before + 1
    assert added(table, before, before + 1) == []
    assert len(added(table, -1, before + 1) or []) == 2
    assert len(table.files()) == 1


def test_a_version_whose_log_is_gone_cannot_be_followed(table: OfflineTable) -> None:
    for number in range(3):
        land(table, f"run:{number}", "C1")
    (table.folder / "_delta_log" / f"{2:020}.json").unlink()
    assert added(table, 1, 3) is None
    assert added(table, 2, 3) is not None
    assert added(table, 0, 1) is not None


def test_a_version_whose_files_were_removed_cannot_be_followed(table: OfflineTable) -> None:
    land(table, "run:0", "C1")
    land(table, "run:1", "C2")
    os.unlink((table.files_added(0, 1) or [])[0])
    assert added(table, 0, 2) is None
    assert added(table, 1, 2) is not None


def test_an_older_version_still_has_its_files(table: OfflineTable) -> None:
    first = write(table, "C1")
    table.commit([first], PURCHASES.offline, transaction="run:0")
    land(table, "run:1", "C2")
    assert table.files(1) == [str(table.folder / first.name)]
    assert len(table.files()) == 2


# Damage.


def pages(path: Path) -> Iterator[tuple[int, int]]:
    """Where the pages of each column of each row group lie in the file: (first byte, byte after the last)."""
    metadata = pq.ParquetFile(path).metadata
    for row_group, column in itertools.product(range(metadata.num_row_groups), range(metadata.num_columns)):
        chunk = metadata.row_group(row_group).column(column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        yield start, start + chunk.total_compressed_size


def read_unless_damaged(path: Path) -> pa.Table | None:
    try:
        return read(path)
    except CorruptData:
        return None


def test_a_flipped_bit_in_a_page_never_changes_what_is_read(table: OfflineTable) -> None:
    """Most flips are refused; those in the statistics of a page header, which nobody reads, change nothing."""
    path = table.folder / write(table, *(f"C{number}" for number in range(12))).name
    whole, rows_of_file = path.read_bytes(), read(path)
    refused = 0
    places = [at for start, end in pages(path) for at in range(start, end)]
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = read_unless_damaged(path)
        assert found is None or found.equals(rows_of_file), f"bit {at % 8} of byte {at}"
        refused += found is None
    assert refused > len(places) / 2


def test_a_flipped_bit_in_the_values_of_a_page_is_refused(table: OfflineTable) -> None:
    path = table.folder / write(table, *(f"C{number}" for number in range(30))).name
    whole = path.read_bytes()
    for start, end in pages(path):
        at = end - 1 - (end - start) // 8  # towards the end: behind the header of the last page
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptData, match=re.escape(str(path))):
            read(path)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: b"", lambda raw: raw[:100], lambda raw: raw[:-1], lambda raw: raw[8:], lambda raw: b"no Parquet" * 9],
    ids=["empty", "head only", "cut short", "beginning lost", "another format"],
)
def test_what_is_no_whole_parquet_file_is_refused_by_name(
    table: OfflineTable, damage: Callable[[bytes], bytes]
) -> None:
    path = table.folder / write(table, "C1").name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptData, match=re.escape(str(path))):
        read(path)


def test_a_file_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorruptData, match=r"run-1\.parquet cannot be read"):
        read(tmp_path / "run-1.parquet")


# What the log tells.


def test_the_log_holds_no_key_and_no_value(table: OfflineTable) -> None:
    frame = rows("ada@example.com", "zoe@example.com", total_purchases=[123454321, 678909876])
    written = table.write_file(frame, PURCHASES.offline, name="run-1", sort_by=["customer_id"])
    table.commit([written], PURCHASES.offline, transaction="run:1")
    log = "".join(path.read_text() for path in (table.folder / "_delta_log").glob("*.json"))
    assert '\\"numRecords\\": 2' in log
    assert "2026-11-01T10:00:00.000000Z" in log
    assert not [text for text in ("ada@", "zoe@", "example", "123454321", "678909876") if text in log]


def test_statistics_let_a_reader_skip_by_event_time_and_only_where_it_may(table: OfflineTable) -> None:
    land(table, "run:1", "C1", "C2", "C3")
    dataset = DeltaTable(table.folder).to_pyarrow_dataset()
    eleven = pa.scalar(TEN + timedelta(hours=1), pa.timestamp("us", "UTC"))
    event = pa.compute.field("event_timestamp")
    assert dataset.to_table(filter=event >= eleven)["customer_id"].to_pylist() == ["C2", "C3"]
    assert dataset.to_table(filter=event < eleven)["customer_id"].to_pylist() == ["C1"]


# Power loss.


@dataclass(frozen=True)
class Synced:
    """One call of os.fsync: the path, relative to the offline store, and the versions that the table had by then."""

    path: str
    versions: int


@contextmanager
def watched(table: OfflineTable) -> Iterator[list[Synced]]:
    """Collects what this thread calls os.fsync for; a profiler sees the calls and changes none."""
    root = table.folder.parent.parent
    seen: list[tuple[int, int]] = []
    calls: list[Synced] = []

    def profile(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is os.fsync:
            names = frame.f_locals
            descriptor = names["descriptor"] if "descriptor" in names else names["file"].fileno()
            versions = sum(1 for _ in (table.folder / "_delta_log").glob("*.json"))
            seen.append((os.fstat(descriptor).st_ino, versions))

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        paths = {path.stat().st_ino: str(path.relative_to(root)) for path in [root, *root.rglob("*")]}
        calls += [Synced(paths[inode], versions) for inode, versions in seen]


V1 = "customer_purchases/v1"
LOG = f"{V1}/_delta_log"


def log_of(version: int) -> str:
    return f"{LOG}/{version:020}.json"


def test_a_file_and_its_name_are_synced_before_a_commit_names_them(table: OfflineTable) -> None:
    with watched(table) as calls:
        written = write(table, "C1")
        table.commit([written], PURCHASES.offline, transaction="run:1")
    assert calls[0] == Synced(f"{V1}/{written.name}", versions=0)
    assert calls[1] == Synced(V1, versions=0)


def test_everything_that_a_new_table_is_made_of_is_synced(table: OfflineTable) -> None:
    with watched(table) as calls:
        written = write(table, "C1")
        table.commit([written], PURCHASES.offline, transaction="run:1")
    folders = {".", "customer_purchases", V1, LOG}
    assert {call.path for call in calls} == folders | {log_of(0), log_of(1), f"{V1}/{written.name}"}
    assert calls[-1] == Synced(LOG, versions=2)  # the names in the log, when all of them are there


def test_a_commit_syncs_the_versions_that_it_makes_and_the_one_before(table: OfflineTable) -> None:
    """The one before may be that of a writer that was killed between its commit and its fsync."""
    land(table, "run:1", "C1")
    file = write(table, "C2", schema=WIDER)
    with watched(table) as calls:
        table.commit([file], WIDER.offline, transaction="run:2")
    assert table.version == 3  # 2 added the column
    logs = [call for call in calls if call.path.endswith(".json")]
    assert {call.path for call in logs} == {log_of(1), log_of(2), log_of(3)}
    assert {call.versions for call in logs} == {4}
    assert calls[-1] == Synced(LOG, versions=4)


@pytest.mark.parametrize("ask", ["has_landed", "commit"])
def test_a_transaction_that_another_landed_is_synced_before_it_is_said_to_have_landed(
    table: OfflineTable, ask: str
) -> None:
    for number in (1, 2, 3):
        land(table, f"run:{number}", "C1")
    with watched(table) as calls:
        if ask == "has_landed":
            assert table.has_landed("run:2")
        else:
            table.commit([], PURCHASES.offline, transaction="run:2")
    assert {call.path for call in calls if call.path.endswith(".json")} == {log_of(2), log_of(3)}
    assert calls[-1].path == LOG


def test_a_checkpoint_made_by_a_commit_is_synced(table: OfflineTable) -> None:
    every_fourth = {"delta.checkpointInterval": "4"}  # a hundred by default
    DeltaTable.create(table.folder, schema=PURCHASES.offline, configuration=every_fourth)
    for number in (1, 2):
        land(table, f"run:{number}", "C1")
    with watched(table) as calls:
        assert land(table, "run:3", "C1") == 3
    checkpoints = {call.path for call in calls if "checkpoint" in call.path}
    assert checkpoints == {f"{LOG}/{3:020}.checkpoint.parquet", f"{LOG}/_last_checkpoint"}


# The page.


def test_the_columns_of_the_page_are_those_of_a_file(table: OfflineTable) -> None:
    """The page's example is the group of these tests; its table says name, Parquet type and meaning."""
    lines = PAGE.split("## Columns\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    cells = [
        line.strip("|").split("|") for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    ]
    described = [(name.strip().strip("`"), kind.strip()) for name, kind, *_ in cells[2:]]
    parquet = pq.ParquetFile(table.folder / write(table, "C1").name).schema
    stored = [(c.name, c.physical_type, c.logical_type.to_json()) for c in map(parquet.column, range(len(parquet)))]
    assert described == [(name, parquet_type(physical, json.loads(logical))) for name, physical, logical in stored]


def parquet_type(physical: str, logical: dict[str, Any]) -> str:
    words = {"None": "", "String": " (String)", "Timestamp": " (Timestamp: microseconds, UTC)"}
    if logical["Type"] == "Timestamp":
        assert (logical["isAdjustedToUTC"], logical["timeUnit"]) == (True, "microseconds")
    return physical + words[logical["Type"]]


def test_a_file_is_packed_as_the_page_says(table: OfflineTable) -> None:
    metadata = pq.ParquetFile(table.folder / write(table, "C1").name).metadata
    packed = {metadata.row_group(0).column(number).compression for number in range(metadata.num_columns)}
    assert packed == {"SNAPPY"}
    assert "Snappy" in PAGE
    assert f"{ROWS_PER_GROUP:,} rows" in PAGE


# Shortening the log.


def make_older(table: OfflineTable, by: timedelta) -> None:
    """The log as if it had been written so long ago."""
    for path in table.log.folder.glob("*.json"):
        then = path.stat().st_mtime - by.total_seconds()
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = int(then * 1000)
        path.write_text("\n".join(map(json.dumps, actions)))
        os.utime(path, (then, then))


def test_a_shortened_log_has_what_is_younger_than_a_day_and_loses_nothing(table: OfflineTable) -> None:
    for number in range(4):
        land(table, f"run:{number}", f"C{number}")
    make_older(table, timedelta(days=2))
    newest = land(table, "run:new", "C9")
    before = table.entries()
    table.shorten_log()
    assert table.log.versions() == [newest]
    assert (table.entries(), table.version) == (before, newest)
    assert customers_of(table) == ["C0", "C1", "C2", "C3", "C9"]
    assert table.files_added(0, newest) is None  # who follows it from before reads the table whole
    assert table.has_landed("run:0")
    assert land(table, "run:0", "C0") == newest
    assert scrub(table, committed_to=newest) == []
    assert land(table, "run:after", "C8") == newest + 1


def test_a_young_log_stays_and_without_a_table_there_is_none(table: OfflineTable) -> None:
    table.shorten_log()
    assert not table.folder.exists()
    newest = land(table, "run:1", "C1")
    table.shorten_log()
    assert table.log.versions() == list(range(newest + 1))
