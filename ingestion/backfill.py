"""Computing a group's new version over the history of an older one, from the inputs that are kept offline.

A backfill is a run like any: the rows of the older version go through the pipeline of the new one, each with its own
event time and the place of its first coming, so that what is pushed meanwhile stays newer. The older version's table
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from catalog import stores, suppression
from catalog.models import FeatureGroup, Run, RunKind, RunState
from catalog.schemas import schema_of
from engine.errors import Conflict, InvalidInput
from engine.offline.log import LoggedFile
from engine.raw_batch import RawBatch
from engine.recomputation import read_older
from engine.schema import GroupSchema
from engine.spark.installed import require_spark
from ingestion import drain
from ingestion.clock import max_clock_skew
from ingestion.models import SourceFile
from ingestion.push import require_writable

if TYPE_CHECKING:
    from engine.offline.table import OfflineTable
    from engine.pipeline import RejectedRows
    from engine.spark.recomputation import Written


def queue_backfill(
    group: FeatureGroup, *, from_version: int | None = None, on_spark: bool = False, by: str = ""
) -> Run:
    """A queued run that computes the group's version over an older one's rows; the one before it by default.

    Raises Conflict when that was done already or is under way, or for an archived group, and InvalidInput for a version
    without rows, naming those that have some, or that is not older; and for what Spark cannot do, or where it is not.
    """
    require_writable(group)
    if on_spark:
        require_spark()
        refuse_unique(schema_of(group))
    with transaction.atomic():
        # Until it is queued nobody drops the older version (ingestion/versions.py), and then for its sake.
        FeatureGroup.objects.select_for_update(no_key=True).get(pk=group.pk)
        return _queue(group, from_version, on_spark, by)


def _queue(group: FeatureGroup, from_version: int | None, on_spark: bool, by: str) -> Run:
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
    return Run.queue(group, kind=RunKind.BACKFILL, requested_by=by, from_version=source, on_spark=on_spark)


def refuse_unique(schema: GroupSchema) -> None:
    """Raises InvalidInput naming the features whose values are unique within one run: no executor sees all of it."""
    unique = [feature.name for feature in schema.features if feature.validation.unique]
    if unique:
        raise InvalidInput(
            f"{', '.join(unique)} of {schema.group} must be unique within one run, and Spark computes each file by "
            "itself; leave --engine spark out, or take the rule away for the backfill."
        )


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
        before = 0
        for file in self.files:
            yield from read_older(self.table, file, schema)
            before += file.size
            read(before)

    def on_spark(
        self,
        schema: GroupSchema,
        target: OfflineTable,
        *,
        names: str,
        untold: frozenset[str],
        watch: Callable[[int, int], None],
    ) -> Iterator[RejectedRows | Written]:
        """What became of the same rows on Spark, batch by batch; their files, called `names...`, are beside `target`.

        untold: the features whose values statistics may not tell of.
        watch: told each second how many of the tasks that are known of are done; what it raises ends the work.
        Raises as computing them here does, and RunFailed when Spark cannot finish.
        """
        require_spark()
        refuse_unique(schema)
        # Here, since a hub that computes on one machine has no pyspark (requirements-spark.txt).
        from engine.spark.recomputation import Recomputation, recomputed
        from engine.spark.session import opened

        wanted = Recomputation(
            older=str(self.table.folder.absolute()),
            files=tuple(self.files),
            target=str(target.folder.absolute()),
            names=names,
            schema=schema,
            modules=tuple(settings.FEATUREHUB_FUNCTION_MODULES),
            run=str(self.run.id),
            now=timezone.now(),
            max_skew=max_clock_skew(),
            suppression=suppression.of_entity(self.run.group.entity),
            untold=untold,
        )
        exchange = Path(settings.FEATUREHUB_HOME) / "tmp"
        yield from recomputed(wanted, session=opened(), temp_directory=exchange, watch=watch)

    def require_claim(self) -> None:
        """Nobody else computes this version from that one: the run says so by itself."""

    def give_back(self) -> None:
        self.run.source_files.all().delete()
