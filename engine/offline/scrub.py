"""Looking whether a table is as it was committed: every data file by size and SHA-256, and its log as a whole.

Bits rot without an error, and most readers notice nothing (docs/formats/offline.md). Whoever scrubs a table once a day
knows of every damaged file a day later at the latest, while the backup that has it whole is still kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.errors import CorruptData
from engine.offline.files import require_whole
from engine.offline.log import DeltaLog, LoggedFile, version_of
from engine.offline.table import OfflineTable, read_file


@dataclass(frozen=True, slots=True)
class Damage:
    """One file (or folder) that is not what it was, and in what way."""

    path: str
    detail: str


def scrub(table: OfflineTable, *, committed_to: int = -1, progress: Callable[[], None] = lambda: None) -> list[Damage]:
    """What is damaged of the newest version, nothing remembered from an earlier look.

    committed_to: a version that is known to have been committed, so that a log that ends before it is seen to.
    progress:     called before each data file.
    """
    return [*_log_damage(table, committed_to), *_data_damage(table, progress)]


def _log_damage(table: OfflineTable, committed_to: int) -> Iterator[Damage]:
    newest = _newest(table.log)
    if newest < committed_to:
        detail = f"The log ends at version {newest}; version {committed_to} had been committed."
        yield Damage(str(table.log.path(newest + 1)), detail)
    versions = table.log.versions()
    yield from (
        damage for v in range(min(versions, default=newest + 1), newest + 1) if (damage := _version(table.log, v))
    )
    yield from _checkpoint_damage(table.log)
    if damage := _found(table.folder, table.open):
        yield damage


def _newest(log: DeltaLog) -> int:
    return max([*log.versions(), *map(version_of, log.checkpoints())], default=-1)


def _version(log: DeltaLog, version: int) -> Damage | None:
    """The damage of one version; the oldest may be cleaned away, but none between others."""

    if (path := log.path(version)).exists():
        return _found(path, partial(log.actions, version))
    if version < min(log.versions(), default=version + 1):
        return None  # cleaned away since
    return Damage(str(path), f"The log file {path} is missing.")


def _checkpoint_damage(log: DeltaLog) -> Iterator[Damage]:
    """Checkpoints that cannot be read, or say another thing than the versions before them."""
    checkpoints = log.checkpoints()
    before: Path | None = None
    for path in checkpoints:
        if damage := _found(path, partial(_require_same, log, before, path)):
            yield damage
        before = path
    hint = log.folder / "_last_checkpoint"
    if hint.exists() and (damage := _found(hint, partial(_require_checkpoint, hint, checkpoints))):
        yield damage


def _require_same(log: DeltaLog, before: Path | None, path: Path) -> None:
    """Raises CorruptData when a checkpoint holds other files than the versions since the one before add up to."""
    held = log.followed(path, version_of(path)).files
    try:
        told = log.followed(before, version_of(path)).files
    except CorruptData:
        return  # cleaned away, or damage of its own
    if held != told:
        raise CorruptData(f"The checkpoint {path} does not hold the files that the versions up to it add up to.")


def _require_checkpoint(hint: Path, checkpoints: list[Path]) -> None:
    try:
        named = json.loads(hint.read_bytes())["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptData(f"{hint} cannot be read: {error!r}") from error
    if named not in [version_of(path) for path in checkpoints]:
        raise CorruptData(f"{hint} names version {named}, of which there is no checkpoint.")


def _data_damage(table: OfflineTable, progress: Callable[[], None]) -> Iterator[Damage]:
    try:
        files = table.log.contents(_newest(table.log)).files
    except CorruptData:
        return  # the log's damage says so
    for name in sorted(files):
        progress()
        path = table.folder / name
        if damage := _found(path, partial(_require_whole, path, files[name])):
            yield damage


def _require_whole(path: Path, file: LoggedFile) -> None:
    require_whole(str(path), file)
    if file.sha256 is None:  # another writer's: its pages may have checksums
        for _ in read_file(str(path)):
            pass


def _found(path: Path, look: Callable[[], object]) -> Damage | None:
    try:
        look()
    except CorruptData as error:
        return Damage(str(path), error.detail)
    return None
