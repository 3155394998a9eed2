"""Upkeep of the offline tables: few files, no leftovers, and damage known before it is needed.

Each function is for one group, may be repeated, killed or run beside itself, and leaves every row where it is.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from catalog import freshness, stores
from catalog.models import FeatureGroup, FeatureStatistics, Run, RunKind, RunState, TrainingDataset
from engine import faults
from engine.errors import unknown_name
from engine.offline import scrub as scrubbing
from engine.offline.compaction import compact
from engine.offline.log import newest_event
from engine.offline.scrub import Damage
from engine.offline.storage import storage_errors
from engine.offline.vacuum import RETENTION, vacuum
from ingestion import damage, materialize
from ingestion.models import OnlineCursor
from ingestion.tables import known_version, open_table

log = logging.getLogger(__name__)


def groups(name: str | None = None) -> list[FeatureGroup]:
    """Every group, archived ones too, or the one of that name; raises UnknownName with near names."""
    known = FeatureGroup.objects.select_related("entity").order_by("name")
    chosen = list(known.filter(name=name) if name else known)
    if name and not chosen:
        raise unknown_name("feature group", name, known.values_list("name", flat=True))
    return chosen


@dataclass(frozen=True, slots=True)
class Kept:
    """How many files of a group's table became part of larger ones, and which were removed from its folder."""

    compacted: int
    removed: list[str]


def upkeep(group: FeatureGroup, *, kept_files: Mapping[tuple[str, int], set[str]] | None = None) -> Kept:
    """Put small files of the group's table together, and remove those that nobody needs any more.

    kept_files: as `TrainingDataset.kept_files` gives them, for who sees to many groups: it reads every manifest. What a
    dataset names that was made since then is younger than what is removed.

    Raises CorruptData for a damaged table, which is left as it is, and StorageFailed.
    """
    at = (group.name, group.version)
    table = open_table(group, group.version)
    compacted = compact(table, sort_by=[key.name for key in group.entity.join_keys.all()])
    removed = vacuum(
        table,
        now=timezone.now(),
        followed_to=known_version(group, group.version),
        unfinished=unfinished(group),
        keep_files=(TrainingDataset.kept_files() if kept_files is None else kept_files).get(at, set()),
    )
    observe_stored(group)
    return Kept(compacted, removed)


def observe_stored(group: FeatureGroup) -> None:
    """Note how new the newest event of the group's table is, as its log says without a file being read.

    Whoever commits rows notes it himself, and may be killed before he does. Raises CorruptData for a damaged log.
    """
    if newest := newest_event(stores.offline(group.name, group.version).entries()):
        freshness.observe(group.pk, group.version, newest)


def unobserved_groups() -> QuerySet[FeatureGroup]:
    """The groups with rows offline of which nobody noted how new they are: an older hub kept no such notes."""
    has_rows = OnlineCursor.objects.filter(group=OuterRef("pk"), group_version=OuterRef("version"), delta_version__gt=0)
    return freshness.unobserved(FeatureGroup.objects.filter(Exists(has_rows)))


def unfinished(group: FeatureGroup) -> list[str]:
    """How the names of files begin that a run or a drain may still commit."""
    open_states = Q(state__in=[RunState.QUEUED, RunState.RUNNING]) | Q(committing__isnull=False)
    runs = group.runs.filter(open_states).exclude(state=RunState.SUCCEEDED).values_list("pk", flat=True)
    drains = group.drains.filter(landed_at=None).values_list("pk", flat=True)
    return [*(f"run-{run}-" for run in runs), *(f"drain-{drain}-" for drain in drains)]


def remove_left_datasets() -> list[str]:
    """Remove what is left of training datasets, RETENTION after it was written last; the names of the folders.

    That is spines whose registration was killed, and files of datasets whose dropping was. A folder that the database
    knows nothing of stays: another hub's, or one made after the backup that this database was restored from. Raises
    StorageFailed.
    """
    root, now = stores.dataset_folder(""), timezone.now()
    dropped = Run.objects.filter(kind=RunKind.TRAIN, dataset=None).values_list("pk", flat=True)
    candidates = [*root.glob(".*"), *(stores.dataset_folder(str(run)) for run in dropped)]
    with storage_errors(root):
        left = [path for path in sorted(candidates) if path.is_dir() and now - _changed(path) > RETENTION]
        for folder in left:
            shutil.rmtree(folder)
    return [folder.name for folder in left]


def _changed(folder: Path) -> datetime:
    """When the folder or a file in it was written last: a spine of many rows takes its time."""
    newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return datetime.fromtimestamp(newest, UTC)


def scrub(group: FeatureGroup, *, progress: Callable[[], None] = lambda: None) -> list[Damage]:
    """Compare every file of the group's table with what was committed; what is damaged, recorded and logged.

    A table that is whole again, of which rows were missing online, is brought online anew. Raises Unavailable when that
    is due and Redis does not answer.
    """
    version = group.version
    table = stores.offline(group.name, version)
    found = scrubbing.scrub(table, committed_to=known_version(group, version), progress=progress)
    faults.hit("scrub.before_record")
    damage.record(group, version, found)
    if not found and group.offline_damages.filter(group_version=version).exists():
        materialize.materialize(group, full=True)
    return found


def accept_loss(group: FeatureGroup, *, by: str) -> list[Damage]:
    """Go on without what is damaged: take the damaged files out of the table, and its log as ending where it ends.

    The rows of those files are lost offline. Returns what was given up. Raises CorruptData when the log itself cannot
    be read: then only a copy of it helps.
    """
    version = group.version
    table = stores.offline(group.name, version)
    lost = scrubbing.scrub(table, committed_to=known_version(group, version))
    names = {entry.name for entry in table.entries()} & {Path(each.path).name for each in lost}
    for each in lost:
        log.error("%s: %s accepts the loss of what is damaged: %s", group.name, by, each.detail)
    if lost:
        # What the lost rows were like is told no more: an erasure could not find whose they were.
        FeatureStatistics.objects.filter(feature__group=group, group_version=version).blank()
    if names:
        table.replace_files(names, [])
    faults.hit("accept.after_delta_commit")
    OnlineCursor.objects.filter(group=group, group_version=version, delta_version__gt=table.version).update(
        delta_version=table.version
    )
    damage.record(group, version, [])
    materialize.materialize(group, full=True)
    return lost
