"""Every kind of damage to a table is found and named, and readers refuse it rather than give wrong rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from engine.errors import CorruptData
from engine.offline.compaction import compact
from engine.offline.scrub import Damage, scrub
from engine.offline.table import OfflineTable
from tests.engine.offline.test_table import PURCHASES, customers_of, land, read, table, write

__all__ = ["table"]
VERSIONS = 8
#: The version up to which a checkpoint tells everything.
CHECKPOINT = 5


@pytest.fixture
def eight(table: OfflineTable) -> OfflineTable:
    """A table of eight commits of one file, C1 to C8, with a checkpoint at version 5."""
    for number in range(1, VERSIONS + 1):
        land(table, f"run:{number}", f"C{number}")
        if number == CHECKPOINT:
            DeltaTable(table.folder).create_checkpoint()
    return table


def checkpoint_of(table: OfflineTable) -> Path:
    (path,) = table.log.checkpoints()
    return path


def flip(path: Path, at: int, bit: int = 0) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])


def damaged(table: OfflineTable) -> list[str]:
    return sorted({Path(damage.path).name for damage in scrub(table, committed_to=VERSIONS)})


def test_a_whole_table_has_no_damage(eight: OfflineTable) -> None:
    assert scrub(eight, committed_to=VERSIONS) == []
    for number in range(9, 20):
        land(eight, f"run:{number}", f"C{number}")
    compact(eight, sort_by=["customer_id"])
    DeltaTable(eight.folder).create_checkpoint()
    land(eight, "run:20", "C20")
    assert scrub(eight, committed_to=eight.version) == []


def test_a_table_without_a_commit_has_no_damage_and_one_that_had_some_has(table: OfflineTable) -> None:
    assert scrub(table) == []
    assert [Path(damage.path).name for damage in scrub(table, committed_to=3)] == [f"{0:020}.json"]


def test_each_file_is_looked_at_with_progress(eight: OfflineTable) -> None:
    looked: list[int] = []
    scrub(eight, progress=lambda: looked.append(1))
    assert len(looked) == VERSIONS


# Data files.


def test_one_flipped_bit_anywhere_in_a_file_is_found_and_read_by_nobody(table: OfflineTable) -> None:
    """Pages, page headers, the footer, its length and the magic: each byte in turn, in the newest and an older file."""
    older, newer = (table.folder / write_and_land(table, number) for number in (1, 2))
    for path in (older, newer):
        raw = path.read_bytes()
        for at in range(0, len(raw), 7):
            flip(path, at, at % 8)
            (damage,) = scrub(table)
            assert damage.path == str(path), at
            path.write_bytes(raw)
    assert scrub(table) == []


def write_and_land(table: OfflineTable, number: int) -> str:
    file = write(table, *(f"C{customer}" for customer in range(10)))
    table.commit([file], PURCHASES.offline, transaction=f"run:{number}")
    return file.name


@pytest.mark.parametrize("part", ["values", "page header", "footer"])
def test_a_reader_of_a_damaged_file_gets_an_error_that_names_it(table: OfflineTable, part: str) -> None:
    path = table.folder / write_and_land(table, 1)
    flip(path, {"values": path.stat().st_size // 3, "page header": 8, "footer": path.stat().st_size - 60}[part])
    for find in (table.files, lambda: table.files_added(0, 1)):
        with pytest.raises(CorruptData, match=re.escape(path.name)):
            find()


def test_a_file_damaged_after_it_was_read_once_is_noticed(eight: OfflineTable) -> None:
    path = Path(eight.files()[3])
    flip(path, 100)
    with pytest.raises(CorruptData, match=path.name):
        eight.files()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "missing|cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "were committed"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "were committed"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
    ],
    ids=["missing", "cut short", "longer", "empty"],
)
def test_a_file_of_another_size_is_named_and_the_rest_is_readable(
    eight: OfflineTable, spoil: Callable[[Path], object], said: str
) -> None:
    path = Path(eight.files()[3])
    spoil(path)
    (damage,) = scrub(eight, committed_to=VERSIONS)
    assert damage.path == str(path)
    assert re.search(said, damage.detail)
    with pytest.raises(CorruptData, match=path.name):
        eight.files()
    others = [entry for entry in eight.entries() if entry.name != path.name]
    assert sum(read(path).num_rows for path in eight.whole(others)) == VERSIONS - 1


def test_two_files_in_each_others_place_are_both_named(eight: OfflineTable) -> None:
    """Of one size and with whole pages: only the hash tells."""
    one, two = (Path(path) for path in eight.files()[:2])
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert damaged(eight) == sorted([one.name, two.name])


def test_files_of_a_checkpoint_keep_their_hashes(eight: OfflineTable) -> None:
    for version in range(CHECKPOINT + 1):
        eight.log.path(version).unlink()
    assert None not in [entry.sha256 for entry in eight.entries()]
    assert scrub(eight, committed_to=VERSIONS) == []
    assert customers_of(eight) == [f"C{number}" for number in range(1, VERSIONS + 1)]


def test_a_file_of_another_writer_is_read_whole(table: OfflineTable) -> None:
    land(table, "run:1", "C1")
    opened = DeltaTable(table.folder)
    write_deltalake(opened, pa.table(opened.to_pyarrow_table()), mode="append")
    (foreign,) = [entry for entry in table.entries() if entry.sha256 is None]
    assert scrub(table) == []
    path = table.folder / foreign.name
    path.write_bytes(b"PAR1" + b"x" * (foreign.size - 8) + b"PAR1")
    assert [Path(damage.path).name for damage in scrub(table)] == [foreign.name]


# The log.


def test_versions_before_a_checkpoint_may_be_cleaned_away(eight: OfflineTable) -> None:
    DeltaTable(eight.folder).create_checkpoint()
    for version in eight.log.versions()[:-1]:
        eight.log.path(version).unlink()
    assert scrub(eight, committed_to=VERSIONS) == []
    land(eight, "run:9", "C9")
    assert scrub(eight, committed_to=VERSIONS + 1) == []


@pytest.mark.parametrize("version", [1, 3, CHECKPOINT, 6, 7])
def test_a_version_that_is_missing_between_others_is_named(eight: OfflineTable, version: int) -> None:
    eight.log.path(version).unlink()
    assert f"{version:020}.json" in damaged(eight)


def test_a_log_that_ends_before_what_was_committed_is_noticed(eight: OfflineTable) -> None:
    """A reader alone cannot tell: the table is whole, as it was one version ago."""
    eight.log.path(VERSIONS).unlink()
    assert damaged(eight) == [f"{VERSIONS:020}.json"]


@pytest.mark.parametrize("content", ["", "{", '{"add": {"path": "x"', "[]"], ids=["empty", "cut", "cut later", "list"])
def test_a_version_that_cannot_be_read_is_named_by_scrub_and_readers(eight: OfflineTable, content: str) -> None:
    """deltalake takes an empty one for a version without changes: the rows of its file would be gone, unsaid."""
    path = eight.log.path(7)
    path.write_text(content)
    assert path.name in damaged(eight)
    with pytest.raises(CorruptData):
        eight.files()


def test_a_log_that_names_another_hash_makes_its_file_suspect(eight: OfflineTable) -> None:
    path = eight.log.path(7)
    (entry,) = [json.loads(line)["add"] for line in path.read_text().splitlines() if '"add"' in line]
    sha256 = json.loads(entry["stats"])["sha256"]
    path.write_text(path.read_text().replace(sha256, sha256[::-1]))
    assert damaged(eight) == [entry["path"]]


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(path.read_bytes()[:200]), lambda path: flip(path, 4), lambda path: path.unlink()],
    ids=["cut short", "flipped", "missing"],
)
def test_a_damaged_checkpoint_is_named(eight: OfflineTable, spoil: Callable[[Path], object]) -> None:
    path = checkpoint_of(eight)
    spoil(path)
    found = {Path(damage.path).name for damage in scrub(eight, committed_to=VERSIONS)}
    assert found & {path.name, "_last_checkpoint"}


def test_a_checkpoint_that_says_another_thing_than_its_versions_is_named(eight: OfflineTable) -> None:
    other = OfflineTable(eight.folder.parent / "v2")
    for number in range(1, CHECKPOINT + 1):
        land(other, f"run:{number}", f"D{number}")
    DeltaTable(other.folder).create_checkpoint()
    checkpoint_of(eight).write_bytes(checkpoint_of(other).read_bytes())
    assert checkpoint_of(eight).name in damaged(eight)


def test_a_pointer_to_no_checkpoint_is_named(eight: OfflineTable) -> None:
    (eight.log.folder / "_last_checkpoint").write_text("garbage")
    assert damaged(eight) == ["_last_checkpoint"]


def test_a_damage_says_which_file_and_in_what_way(eight: OfflineTable) -> None:
    path = Path(eight.files()[0])
    flip(path, 40)
    said = f"Offline file {path} is damaged: its SHA-256 is not the one that was committed."
    assert scrub(eight) == [Damage(str(path), said)]
