"""The offline tables' part of an erasure: files without the entity's rows in the places of those that have them.

Every data file in a table's folder is looked at, whether the table still has it or not: replaced ones and ones that
training datasets were made of hold the same rows. A file that has some is written anew without them; all those that the
table reads are replaced in one commit, which brings no new rows (ADR 9). The old files stay for readers that began
before, as after a compaction, and then go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from catalog import stores
from catalog.models import FeatureGroup, TrainingDataset
from engine import faults
from engine.errors import CorruptData, Unavailable
from engine.offline.files import DataFile
from engine.offline.rewriting import count_rows, write_without
from engine.offline.table import OfflineTable, fsync_folder
from engine.offline.vacuum import unused_since
from ingestion.erasure.receipt import Receipt
from ingestion.erasure.target import Target
from ingestion.upkeep import unfinished

#: How often files are written anew because a compaction replaced one of them meanwhile.
ATTEMPTS = 10
#: How long work of others is waited for before it is looked at again.
SECONDS_TO_OTHERS = 60.0

Step = Callable[[int], None]
#: Told the files from which rows are about to go.
BeforeRemoval = Callable[[list[Path]], None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an erasure cannot end before, and in how many seconds to look again."""

    what: str
    seconds: float = SECONDS_TO_OTHERS


@dataclass(frozen=True, slots=True)
class Found:
    """A file that has rows of the entity; `rows` is None for one that cannot be read, which no table has."""

    path: Path
    rows: int | None
    is_read: bool


def tables(group: FeatureGroup) -> Iterator[tuple[str, OfflineTable]]:
    """The table of each version that the group has a folder of, and what it is called in a receipt."""
    for version in range(1, group.version + 1):
        table = stores.offline(group.name, version)
        if table.folder.is_dir():
            yield f"{group.name}/v{version}", table


def files_of(group: FeatureGroup) -> list[Path]:
    """Every data file of the group's tables, and of versions whose drop was cut off."""
    return [*stores.offline(group.name, 1).folder.parent.glob("*v[0-9]*/*.parquet")]


def found_in(table: OfflineTable, target: Target, step: Step = lambda _: None) -> list[Found]:
    """The files in the table's folder that have rows of the entity. Raises CorruptData for a damaged table."""
    read = {entry.name: entry for entry in table.entries()}
    found = []
    for path in sorted(table.folder.glob("*.parquet")):
        try:
            size = path.stat().st_size
            rows: int | None = count_rows(str(path), target.is_stored(), target.columns)
        except FileNotFoundError:  # removed by upkeep meanwhile
            continue
        except CorruptData:
            if not path.exists():
                continue
            if path.name in read:
                raise
            rows = None
        step(size)
        if rows != 0:
            found.append(Found(path, rows, path.name in read))
    return found


def replace(
    name: str, table: OfflineTable, target: Target, receipt: Receipt, step: Step, *, before: BeforeRemoval
) -> int:
    """Put files without the entity's rows in the places of those that have some; how many rows went from the table.

    Raises Unavailable when compactions were quicker each time.
    """
    kept_files = TrainingDataset.kept_files()
    for _ in range(ATTEMPTS):
        found = found_in(table, target, step)
        if found:
            before([file.path for file in found])
        of_datasets = kept_files.get(_group_version(name), set())
        for file in found:
            if (
                not file.is_read
                and file.rows
                and file.path.name in of_datasets
                and not _has_successor(name, file, receipt)
            ):
                _write_anew(name, table, file, target, receipt)
        read = [file for file in found if file.is_read]
        if not read:
            return 0
        written = [_write_anew(name, table, file, target, receipt) for file in read]
        fsync_folder(table.folder)
        faults.hit("erase.before_delta_commit")
        version = table.replace_files([file.path.name for file in read], [file for file in written if file])
        if version is not None:
            faults.hit("erase.after_delta_commit")
            return sum(file.rows or 0 for file in read)
        table.discard([file for file in written if file])
    raise Unavailable(f"{table.folder}: other writers replaced its files {ATTEMPTS} times meanwhile; try again.")


def _group_version(name: str) -> tuple[str, int]:
    group, _, version = name.partition("/v")
    return group, int(version)


def _write_anew(name: str, table: OfflineTable, file: Found, target: Target, receipt: Receipt) -> DataFile | None:
    written = write_without(table, str(file.path), target.is_stored(), sort_by=target.key_names)
    successor = None
    if written:
        successor = {"name": written.name, "size": written.size, "rows": written.rows, "sha256": written.sha256}
    # Before the commit: a dataset that was made of the old file is told of the new one by this note alone.
    receipt.note("files", f"{name}/{file.path.name}", rows=file.rows, replaced_by=successor)
    faults.hit("erase.after_file")
    return written


def _has_successor(name: str, file: Found, receipt: Receipt) -> bool:
    note = receipt.notes("files").get(f"{name}/{file.path.name}")
    return note is not None and _is_there(file.path.parent, note)


def _is_there(folder: Path, note: Mapping[str, Any]) -> bool:
    """Whether the successor that was noted of a file is there; one that lost to a compaction is not any more."""
    if "replaced_by" not in note:
        return False
    return note["replaced_by"] is None or (folder / note["replaced_by"]["name"]).exists()


def tell_manifests(name: str, receipt: Receipt) -> None:
    """Have the manifests of datasets name the new files in the places of the old ones.

    The rows of others are the same, in the same order: what is made of them again is the same.
    """
    at = _group_version(name)
    folder = stores.offline(*at).folder
    successors = {
        file.rpartition("/")[2]: note["replaced_by"]
        for file, note in receipt.notes("files").items()
        if file.startswith(f"{name}/") and _is_there(folder, note)
    }
    for dataset in TrainingDataset.objects.exclude(manifest=None).order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            held = TrainingDataset.objects.select_for_update().filter(pk=dataset).first()
            if held is not None and held.manifest and _repointed(held.manifest, at, successors):
                held.save(update_fields=["manifest"])
    faults.hit("erase.after_manifests")


def _repointed(
    manifest: dict[str, object], at: tuple[str, int], successors: Mapping[str, dict[str, object] | None]
) -> bool:
    changed = False
    for part in manifest["groups"]:  # type: ignore[attr-defined]
        if (part["group"], part["version"]) != at or not any(file["name"] in successors for file in part["files"]):
            continue
        changed = True
        named = [successors.get(file["name"], file) for file in part["files"]]
        part["files"] = [file for file in named if file is not None]
    return changed


def remove_old(name: str, table: OfflineTable, target: Target, group: FeatureGroup, receipt: Receipt) -> list[Waiting]:
    """Remove the files with rows of the entity that nobody needs any more; what the others wait for."""
    waiting = []
    of_datasets = TrainingDataset.kept_files().get(_group_version(name), set())
    to_come = tuple(unfinished(group))
    version = table.version
    contents = table.log.contents(version) if version >= 0 else None
    kept_for = settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS
    for file in found_in(table, target):
        if file.is_read or file.path.name.startswith(to_come):
            waiting.append(Waiting("a run or a drain that began before may still commit its file"))
            continue
        if file.path.name in of_datasets:
            waiting.append(Waiting("a training dataset was just made of a file with rows of it", 0.0))
            continue
        written = file.path.stat().st_mtime
        since = unused_since(contents, file.path.name, written) if contents else written
        left = since + kept_for - timezone.now().timestamp()
        if left > 0:
            due = datetime.fromtimestamp(since + kept_for, UTC)
            waiting.append(
                Waiting(f"replaced files are kept for their readers until {due:%Y-%m-%d %H:%M:%S} UTC", left)
            )
            continue
        receipt.note("files", f"{name}/{file.path.name}", rows=file.rows or 0, removed_at=timezone.now().isoformat())
        file.path.unlink(missing_ok=True)
        faults.hit("erase.after_removal")
    return waiting


def remove_from_dropped(group: FeatureGroup, target: Target, receipt: Receipt) -> None:
    """Files of versions whose drop was cut off: nobody reads them, and the drop takes their statistics."""
    for path in stores.offline(group.name, 1).folder.parent.glob(".v*-dropped-*/*.parquet"):
        try:
            rows = count_rows(str(path), target.is_stored(), target.columns)
        except CorruptData:
            rows = -1
        if rows:
            receipt.note("files", f"{group.name}/{path.parent.name}/{path.name}", rows=max(rows, 0))
            path.unlink(missing_ok=True)
