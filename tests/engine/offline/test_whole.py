"""The ledger of files that were seen to be whole: it spares hashing, and never hides damage."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import CorruptData
from engine.offline import whole
from engine.offline.files import require_whole
from engine.offline.log import LoggedFile
from engine.offline.table import OfflineTable
from tests.engine.offline.test_table import land, table

__all__ = ["table"]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed, as it goes on."""
    names: list[str] = []

    def note(path: str, file: LoggedFile) -> None:
        names.append(file.name)
        require_whole(path, file)

    monkeypatch.setattr(whole, "require_whole", note)
    return names


@pytest.fixture
def three(table: OfflineTable) -> OfflineTable:
    for number in range(3):
        land(table, f"run:{number}", f"C{number}")
    return table


def test_a_file_is_hashed_by_the_first_look_only(three: OfflineTable, hashed: list[str]) -> None:
    paths = three.files()
    assert sorted(hashed) == [Path(path).name for path in paths]
    assert three.files() == OfflineTable(three.folder).files() == paths
    assert len(hashed) == 3
    land(three, "run:9", "C9")
    (new,) = {*three.files()} - {*paths}
    assert hashed[3:] == [Path(new).name]


def test_what_one_process_hashed_another_one_need_not(three: OfflineTable, hashed: list[str]) -> None:
    look = "import sys; from engine.offline.table import OfflineTable; print(len(OfflineTable(sys.argv[1]).files()))"
    done = subprocess.run([sys.executable, "-c", look, three.folder], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(three.files()) == 3
    assert hashed == []


def test_it_is_hashed_again_a_day_later_and_when_the_clock_was_put_back(
    three: OfflineTable, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    three.files()
    now = time.time()
    for later, looks in ((whole.TRUSTED_FOR - 60, 0), (whole.TRUSTED_FOR + 60, 3), (-60, 3)):
        hashed.clear()
        monkeypatch.setattr(whole, "time", SimpleNamespace(time=lambda later=later: now + later))
        three.files()
        assert len(hashed) == looks, later


def test_a_log_that_says_another_hash_is_believed_and_not_the_ledger(three: OfflineTable) -> None:
    three.files()
    (first, *_) = three.entries()
    other = LoggedFile(first.name, first.size, first.rows, "0" * 64)
    with pytest.raises(CorruptData, match=first.name):
        list(three.whole([other]))


def test_what_was_seen_before_a_damaged_file_is_remembered(three: OfflineTable, hashed: list[str]) -> None:
    entries = three.entries()
    path = three.folder / entries[2].name
    path.write_bytes(b"x" * path.stat().st_size)
    for _ in range(2):
        with pytest.raises(CorruptData, match=path.name):
            three.files()
    assert hashed == [entries[0].name, entries[1].name, path.name, path.name]


@pytest.mark.parametrize("held", [b"", b"[]", b'{"a": 1}', b'{"a": [[], "x"]}', b"\xff\x00", None])
def test_a_ledger_that_cannot_be_read_costs_hashing_and_no_more(
    three: OfflineTable, hashed: list[str], held: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = three.folder / whole.LEDGER
    if held is None:
        ledger.mkdir()  # nor written
    else:
        ledger.write_bytes(held)
    assert len(three.files()) == len(hashed) == 3
    assert "hashed again" in caplog.text
    assert [path.name for path in three.folder.iterdir() if path.name.startswith(f".{whole.LEDGER}")] == []
    if held is not None:
        assert len(json.loads(ledger.read_bytes())) == len(three.files()) == len(hashed) == 3
