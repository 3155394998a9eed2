"""Computing a group's new version over the history of an older one, from the inputs that are kept offline.

A backfill is a run like any: the rows of the older version go through the pipeline of the new one, each with its own
event time and the place of its first coming, so that what is pushed meanwhile stays newer. The older version's table
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
from django.db import transaction

from catalog import stores
from catalog.models import FeatureGroup, Run, RunKind, RunState
from engine.errors import Conflict, InvalidInput
from engine.offline.log import LoggedFile
from engine.offline.table import read_file
from engine.schema import ACCEPTED, CREATED_TIMESTAMP, DELETED, EVENT_TIMESTAMP, ORDINAL, GroupSchema
from ingestion import drain
from ingestion.models import SourceFile
from ingestion.pipeline import ORIGIN
from ingestion.push import require_writable
from ingestion.raw_rows import RawBatch


def queue_backfill(group: FeatureGroup, *, from_version: int | None = None, by: str = "") -> Run:
    """A queued run that computes the group's version over an older one's rows; the one before it by default.

    Raises Conflict when that was done already or is under way, or for an archived group, and InvalidInput for a version
    without rows, naming those that have some, or that is not older.
    """
    require_writable(group)
    with transaction.atomic():
        # Until it is queued nobody drops the older version (ingestion/versions.py), and then for its sake.
        FeatureGroup.objects.select_for_update(no_key=True).get(pk=group.pk)
        return _queue(group, from_version, by)


def _queue(group: FeatureGroup, from_version: int | None, by: str) -> Run:
    versions = [version for version in _versions(group) if version < group.version]
    source = max(versions, default=0) if from_version is None else from_version
    if source not in versions:
        have = ", ".join(map(str, versions)) or "none"
        raise InvalidInput(
            f"{group.name} is at version {group.version}, and version {source} has no rows to compute it from; older "
            f"versions with rows: {have}."
        )
    done = group.runs.filter(kind=RunKind.BACKFILL, group_version=group.version, from_version=source)
    if before := done.exclude(state__in=[RunState.FAILED, RunState.DEAD, RunState.CANCELLED]).first():
        raise Conflict(f"Version {group.version} of {group.name} is computed from version {source} by run {before.pk}.")
    return Run.queue(group, kind=RunKind.BACKFILL, requested_by=by, from_version=source)


def _versions(group: FeatureGroup) -> list[int]:
    """The group versions that have rows, offline or in the push log."""
    known = set(group.schemas.values_list("version", flat=True))
    pushed = set(group.push_batches.filter(drain=None).values_list("group_version", flat=True))
    return sorted(known & ({v for v in known if stores.offline(group.name, v).version >= 0} | pushed))


@dataclass
class OlderVersion:
    """The supply (supply.py) of a backfill: every row of the older version, tombstones too."""

    run: Run
    nothing: str = "The older version has no rows."
    size: int = 0
    failure_rate_limit: float = 1.0  # they were accepted once; which of them the new version refuses is told by rule
    files: list[LoggedFile] = field(default_factory=list)

    def claim(self) -> bool:
        """What of it is still in the push log lands first. The files that it was read from count as read."""
        drain.drain(self.run.group)
        self.table = stores.offline(self.run.group.name, self.run.from_version or 0)
        if self.table.version < 0:
            raise Conflict(f"Version {self.run.from_version} of {self.run.group} has been dropped, so it has no rows.")
        self.files = self.table.entries()
        self.size = sum(file.size for file in self.files)
        self._enter_files()
        return bool(self.files)

    def _enter_files(self) -> None:
        run = self.run
        of_older = SourceFile.objects.filter(group=run.group, group_version=run.from_version or 0)
        entries = [
            SourceFile(
                group=run.group,
                group_version=run.group_version,
                path=known.path,
                size=known.size,
                sha256=known.sha256,
                run=run,
            )
            for known in of_older.filter(run__state=RunState.SUCCEEDED)
        ]
        SourceFile.objects.bulk_create(entries, ignore_conflicts=True)

    def batches(self, schema: GroupSchema, read: Callable[[int], None]) -> Iterator[RawBatch]:
        before, given = 0, [column.name for column in schema.given]
        wanted = [*schema.key_names, EVENT_TIMESTAMP, CREATED_TIMESTAMP, ACCEPTED, ORDINAL, DELETED, *given]
        for file in self.files:
            for batch in read_file(self.table.whole(file), wanted):
                yield from _raw(batch, schema)
            before += file.size
            read(before)

    def require_claim(self) -> None:
        """Nobody else computes this version from that one: the run says so by itself."""

    def give_back(self) -> None:
        self.run.source_files.all().delete()


def _raw(batch: pa.RecordBatch, schema: GroupSchema) -> Iterator[RawBatch]:
    """The stored rows as raw ones of the new schema: first those that are there, then the tombstones."""
    frame = pl.DataFrame(batch)
    for deleted in (False, True):
        rows = frame.filter(pl.col(DELETED) == deleted)
        if rows.is_empty():
            continue
        stamps = [pl.col(ACCEPTED), pl.col(ORDINAL), pl.col(CREATED_TIMESTAMP)]
        origins = rows.select([stamp.alias(name) for stamp, name in zip(stamps, ORIGIN, strict=True)]).cast(ORIGIN)  # type: ignore[arg-type]
        renamed = rows.rename({EVENT_TIMESTAMP: schema.event_timestamp})
        if schema.created_timestamp:
            renamed = renamed.rename({CREATED_TIMESTAMP: schema.created_timestamp})
        raw = RawBatch(renamed.to_arrow(), "typed", origins, is_deleted=deleted)
        yield raw.fitted(schema.raw_names)
