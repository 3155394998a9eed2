"""The versions of a group that rows are stored of, and dropping those that nobody needs any more.

After a backfill the older version's rows still lie in both stores. Dropping them is refused as long as somebody needs
them. It begins with a rename, after which no reader finds the version's table, and each step after that may be killed:
a second call finishes what the first one began.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet, Sum

from catalog import stores
from catalog.models import (
    CatalogState,
    FeatureGroup,
    FeatureStatistics,
    OfflineDamage,
    RunKind,
    RunState,
    TrainingDataset,
)
from engine import faults
from engine.errors import Conflict, CorruptData, NotFound
from engine.offline import removal
from engine.online.store import NOTHING
from ingestion.models import OnlineCursor, SourceFile

#: Runs, datasets and the like that a refusal names of each kind.
NAMED = 5
_FOLDER = re.compile(r"\.?v(\d{1,9})(-dropped-.*)?")


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """What a group version takes up.

    rows:         those of its offline table, older ones and tombstones too; None when its log does not tell.
    bytes:        of the files of its table.
    is_served:    whether it is the version that is written and served.
    computed_into: the versions that a backfill has computed from it.
    """

    group: str
    version: int
    rows: int | None
    bytes: int
    is_served: bool
    computed_into: tuple[int, ...]

    @property
    def size(self) -> str:
        """How much it is, for people."""
        rows = "an unknown number of" if self.rows is None else f"{self.rows:,}"
        return f"{rows} rows, {self.bytes:,} bytes"

    def summary(self) -> dict[str, Any]:
        """What programs read of it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was taken away of a group version, or would be; `online` counts its keys in Redis, tombstones too."""

    version: StoredVersion
    online: int

    def summary(self) -> dict[str, Any]:
        """What programs read of it."""
        return self.version.summary() | {"online": self.online}


def stored_versions(group: FeatureGroup) -> list[StoredVersion]:
    """Every version of the group that something is stored of, oldest first, and the one that is served."""
    return [describe(group, version) for version in sorted(_numbers(group) | {group.version})]


def describe(group: FeatureGroup, version: int) -> StoredVersion:
    """What one version takes up."""
    table = stores.offline(group.name, version)
    try:
        rows: int | None = sum(entry.rows for entry in table.entries())
    except CorruptData:  # a damaged table, too, may be looked at and dropped
        rows = None
    computed = group.runs.filter(kind=RunKind.BACKFILL, state=RunState.SUCCEEDED, from_version=version)
    return StoredVersion(
        group.name,
        version,
        rows,
        sum(_bytes_of(folder) for folder in (table.folder, *removal.aside(table))),
        version == group.version,
        tuple(sorted(set(computed.values_list("group_version", flat=True)))),
    )


def _numbers(group: FeatureGroup) -> set[int]:
    """The versions of which there is a folder, or a record that a drop removes."""
    folder = stores.offline(group.name, group.version).folder.parent
    matches = [_FOLDER.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ())]
    recorded: list[QuerySet[Any]] = [
        group.online_cursors.all(),
        group.source_files.all(),
        group.push_batches.filter(drain__landed_at=None),
    ]
    numbers = [each.values_list("group_version", flat=True).distinct() for each in recorded]
    return {int(match[1]) for match in matches if match}.union(*numbers)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_drop(group: FeatureGroup, version: int) -> StoredVersion:
    """What `drop_version` would take away but for the keys in Redis; changes nothing, and raises as it does."""
    found = _require_stored(group, version)
    _require_unneeded(group, version)
    return found


def plan_drop(group: FeatureGroup, version: int) -> Dropped:
    """The same with its keys in Redis, for which it goes over every key of that database once.

    A key that Redis moves meanwhile may be counted twice.
    """
    found = check_drop(group, version)
    return Dropped(found, sum(len(keys) for keys in stores.online().scan(group.name, version)))


def drop_version(group: FeatureGroup, version: int, *, by: str) -> Dropped:
    """Take a version that nobody needs out of both stores, with its part of the source ledger; what that was.

    Who did it, when and what is in the group's history. Killed at any point it is finished by another call.

    Raises Conflict while somebody needs the version, naming each: it is the served one, a run or the push log is at it,
    a training dataset was made of its files. Raises NotFound for a version of which nothing is stored, Unavailable when
    Redis does not answer and StorageFailed.
    """
    found = _require_stored(group, version)
    table = stores.offline(group.name, version)
    with transaction.atomic():
        held = _held(group)
        _require_unneeded(held, version)
        _record(held, found, by)
        removal.put_aside(table)
    faults.hit("drop.after_aside")
    online = stores.online().remove(group.name, version)
    faults.hit("drop.after_online")
    removal.remove_aside(table)
    faults.hit("drop.after_files")
    with transaction.atomic():
        # The cursor is what a version without a folder is known by, so it goes with the last of the rest.
        FeatureStatistics.objects.filter(feature__group=group, group_version=version).delete()
        for model in (SourceFile, OfflineDamage, OnlineCursor):
            model.objects.filter(group=group, group_version=version).delete()
    return Dropped(found, online)


def _held(group: FeatureGroup) -> FeatureGroup:
    """The group as it stays until the transaction ends, so that neither an apply nor a new backfill comes between."""
    CatalogState.current()
    CatalogState.objects.select_for_update().get(pk=1)  # before all others, as an apply does
    return FeatureGroup.objects.select_for_update(no_key=True).get(pk=group.pk)


def _record(group: FeatureGroup, found: StoredVersion, by: str) -> None:
    what = f"version {found.version}" if found.rows is None or found.rows else f"the rest of version {found.version}"
    group._change_reason = f"{what} dropped by {by}: {found.size}"[:100]  # type: ignore[attr-defined]
    group.save()


def _require_stored(group: FeatureGroup, version: int) -> StoredVersion:
    """What is stored of the version; asks Redis, so that nothing is begun while it does not answer."""
    known = _numbers(group)
    online = stores.online().positions([(group.name, version)])
    if version not in known and online == [NOTHING] and version != group.version:
        have = ", ".join(map(str, sorted(known))) or "none"
        raise NotFound(f"Nothing is stored of version {version} of {group.name}; versions with rows: {have}.")
    return describe(group, version)


def _require_unneeded(group: FeatureGroup, version: int) -> None:
    if reasons := list(_needs(group, version)):
        raise Conflict(f"Version {version} of {group.name} cannot be dropped: {'; '.join(reasons)}.")


def _needs(group: FeatureGroup, version: int) -> Iterator[str]:
    """Who still needs the version, in words."""
    if version >= group.version:
        yield "it is the one that is written and served"
    of_version = Q(group_version=version) | Q(from_version=version)
    for run in group.runs.filter(of_version, state__in=[RunState.QUEUED, RunState.RUNNING])[:NAMED]:
        yield f"run {run.pk} ({run.kind}) is {run.state}"
    waiting = group.push_batches.filter(group_version=version, drain__landed_at=None)
    if rows := waiting.aggregate(rows=Sum("row_count"))["rows"]:
        yield f"{rows:,} rows that were pushed to it are not in its table yet, which a worker sees to within seconds"
    elif group.drains.filter(group_version=version, landed_at=None).exists():
        yield "a drain of rows that were pushed to it has not ended"
    if made := TrainingDataset.made_of(group.name, version):
        yield f"training datasets were made of its files, and could not be made again ({_named(made)}); drop them first"
    if making := TrainingDataset.being_made_of(group):
        yield f"training datasets that read the group are being made ({_named(making)})"


def _named(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
