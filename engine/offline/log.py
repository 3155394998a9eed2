"""A table's Delta log as it stands: which files are part of a version, with the size and SHA-256 of each.

deltalake decides what a version is; this reads the same log a second time, since deltalake gives no statistics as they
were written, and takes a version that was emptied for one without changes (measured, as all that `files` refuses).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import CorruptData
from engine.parquet import open_parquet
from engine.schema import EVENT_TIMESTAMP

#: The key of a file's SHA-256 among its statistics. Readers skip what they do not know there (deltalake, Spark, DuckDB
#: by the Delta kernel), and checkpoints keep it, which commit metadata does not survive.
SHA256 = "sha256"

Action = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """A data file as its commit describes it; no `sha256` where another writer made it.

    newest_event: of its rows, as the log writes times; None where that is not said. Two descriptions of one file that
    differ in it alone are the same.
    """

    name: str
    size: int
    rows: int
    sha256: str | None
    newest_event: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, add: Action) -> LoggedFile:
        statistics = json.loads(add["stats"] or "{}")
        newest = (statistics.get("maxValues") or {}).get(EVENT_TIMESTAMP)
        return cls(add["path"], add["size"], statistics.get("numRecords", 0), statistics.get(SHA256), newest)


def newest_event(files: Iterable[LoggedFile]) -> datetime | None:
    """The newest event time of the rows of some files; None where no file says one."""
    return max((_instant(file.newest_event) for file in files if file.newest_event), default=None)


def _instant(text: str) -> datetime:
    """A time of the log; of a year before 1000 it may have fewer digits than ISO 8601 wants."""
    year, _, rest = text.partition("-")
    return datetime.fromisoformat(f"{year:0>4}-{rest}")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a version holds, by file name, and when (epoch ms) the files that it does not hold any more were removed."""

    files: dict[str, LoggedFile]
    removed: dict[str, int]

    def take(self, actions: Iterable[Action]) -> None:
        """Follow the actions of the next version."""
        for action in actions:
            if add := action.get("add"):
                self.files[add["path"]] = LoggedFile.of(add)
                self.removed.pop(add["path"], None)
            if remove := action.get("remove"):
                self.files.pop(remove["path"], None)
                self.removed[remove["path"]] = remove["deletionTimestamp"] or 0


class DeltaLog:
    """The log of the table in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "_delta_log"

    def path(self, version: int) -> Path:
        return self.folder / f"{version:020}.json"

    def actions(self, version: int) -> list[Action] | None:
        """The actions of one version; None when its log is not kept. Raises CorruptData naming its file."""
        path = self.path(version)
        try:
            actions: list[Action] = [json.loads(line) for line in path.read_text().splitlines()]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CorruptData(f"The log file {path} cannot be read: {error}") from error
        if not all(isinstance(action, dict) for action in actions) or not actions:
            raise CorruptData(f"The log file {path} holds no actions; each version has some.")
        return actions

    def versions(self) -> list[int]:
        """The versions whose log is kept, in order."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())

    def checkpoints(self) -> list[Path]:
        """The checkpoints that are kept, oldest first."""
        return sorted(path for path in self.folder.glob("*.checkpoint.parquet") if path.name[:20].isdigit())

    def contents(self, version: int) -> Contents:
        """What `version` holds. Raises CorruptData naming the log file or checkpoint that is missing or damaged."""
        before = [path for path in self.checkpoints() if version_of(path) <= version]
        return self.followed(before[-1] if before else None, version)

    def followed(self, checkpoint: Path | None, version: int) -> Contents:
        """The same, by the versions after a checkpoint (or by all of them)."""
        contents = Contents({}, {})
        if checkpoint is not None:
            contents.take(_checkpointed(checkpoint))
        for each in range(version_of(checkpoint) + 1 if checkpoint else 0, version + 1):
            actions = self.actions(each)
            if actions is None:
                raise CorruptData(f"The log file {self.path(each)} is missing.")
            contents.take(actions)
        return contents


def version_of(path: Path) -> int:
    """The version that a log file or a checkpoint is of."""
    return int(path.name[:20])


def _checkpointed(path: Path) -> Iterator[Action]:
    wanted = ["add.path", "add.size", "add.stats", "remove.path", "remove.deletionTimestamp"]
    try:
        with open_parquet(path) as file:
            for batch in file.iter_batches(columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise CorruptData(f"The checkpoint {path} cannot be read: {error}") from error
