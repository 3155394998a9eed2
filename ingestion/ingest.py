"""One run: new source files or rejected rows through the pipeline, committed offline once, then brought online.

`manage.py ingest`, the Celery task and the schedule all call `ingest`; a replay is carried out by `execute`, too. The
rows of a run are written as files that no reader sees until the one commit at its end; a run that fails before it
leaves nothing behind in either store.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from catalog import freshness, runs, source_roots, stores, suppression
from catalog.models import FeatureGroup, Run, RunKind, RunState
from catalog.runs import Lease
from catalog.schemas import current_schema, transformer
from engine import faults
from engine.conform import check_columns
from engine.errors import Conflict, InvalidSource, LeaseLost, RunFailed, Unavailable
from engine.offline.files import DataFile
from engine.offline.storage import storage_errors
from engine.pipeline import Pipeline, Place, RejectedRows, compute
from engine.raw_batch import RawBatch
from engine.schema import GroupSchema
from ingestion import materialize, sources, statistics
from ingestion.backfill import OlderVersion
from ingestion.clock import max_clock_skew
from ingestion.models import SourceFile
from ingestion.push import require_writable
from ingestion.quarantine import Quarantine
from ingestion.replay import Rejected
from ingestion.sources import Content
from ingestion.supply import Supply
from ingestion.tables import known_version, require_kept

log = logging.getLogger(__name__)

OnError = Literal["quarantine", "reject"]
Progress = Callable[[Run], None]


def ingest(
    group: FeatureGroup,
    *,
    paths: Sequence[Path] | None = None,
    on_error: OnError = "quarantine",
    by: str = "",
    progress: Progress | None = None,
) -> Run:
    """Ingest what is new in the group's source, or in `paths`; the finished run, with its counts.

    Without new content the run succeeds and says so. Raises the error that ended its attempt, after it was recorded; a
    worker tries again what failed for a while only (catalog/runs.py).
    """
    return execute(Run.queue(group, requested_by=by, paths=paths or (), on_error=on_error), progress=progress)


def execute(run: Run, *, progress: Progress | None = None) -> Run:
    """Carry out a queued run, or one whose worker is gone; see `ingest`. A run that has ended is left as it is.

    Raises Conflict while another worker carries it out, and LeaseLost when it was cancelled or taken from this one.
    """
    _settle(run)
    lease = runs.take(run)
    if lease is None:
        return run
    with lease:
        attempt = _Attempt(run, lease, progress or (lambda _: None))
        try:
            with runs.failures_recorded(attempt.fail), storage_errors(stores.offline_root()):
                attempt.carry_out()
        except LeaseLost:
            if not attempt.has_succeeded_elsewhere():
                raise
    return run


@dataclass
class _Attempt:
    """The state of one run while it is carried out."""

    run: Run
    lease: Lease
    progress: Progress
    files: list[DataFile] = field(default_factory=list)
    commits: bool = False

    def __post_init__(self) -> None:
        self.table = stores.offline(self.run.group.name, self.run.group_version)
        self.supply: Supply = _SUPPLIES.get(self.run.kind, Files)(self.run)
        self.quarantine = Quarantine(self.run)
        self.names = f"run-{self.run.id}-{self.lease.token}-"

    def carry_out(self) -> None:
        faults.hit("run.after_claim")
        require_writable(self.run.group)
        require_kept(self.table, known_version(self.run.group, self.run.group_version))
        self._refuse_another_version()
        self.quarantine.discard()
        if not self.supply.claim():
            self._end_without_rows(self.supply.nothing)
            return
        self.run.bytes_total = self.supply.size
        schema = current_schema(self.run.group)
        self._write(schema)
        self._land(schema)

    def _end_without_rows(self, said: str) -> None:
        with transaction.atomic():
            self.lease.hold()
            self.quarantine.record()
            self.lease.succeed(said)

    def has_succeeded_elsewhere(self) -> bool:
        """Leave the run to whom it belongs now, without a trace of this attempt; whether that one landed it."""
        if not self.commits:
            self._discard_files()
        self.quarantine.discard()
        self.run.refresh_from_db()
        return self.run.state == RunState.SUCCEEDED

    def fail(self, error: str, code: str, *, retryable: bool) -> None:
        """End the attempt without a trace in either store; what has landed is not undone by what came after."""
        if self.commits and runs.has_landed(self.run):
            self.lease.succeed(f"Committed offline; then: {error}", landed=True)
            return
        self._discard_files()
        self.quarantine.discard()
        faults.hit("run.before_fail")
        with transaction.atomic():
            if self.lease.fail(error, code, retryable=retryable) and self.run.committing is None:
                self.supply.give_back()

    def _refuse_another_version(self) -> None:
        run = self.run
        if run.group_version != run.group.version:
            raise RunFailed(
                f"{run.group} moved to version {run.group.version} while rows for version {run.group_version} "
                "were being committed; start a new run."
            )

    def _write(self, schema: GroupSchema) -> None:
        """Every accepted row in files beside the table, every rejected one in quarantine."""
        self.pipeline = Pipeline(schema, transformer(schema))
        self.noted: Counter[tuple[str, str, str]] = Counter()
        self.statistics = statistics.begun(self.run.group, schema.features)
        self.reported_at = timezone.now()
        try:
            if isinstance(self.supply, OlderVersion) and self.run.on_spark:
                self._take_from_spark(self.supply, schema)
            else:
                for batch in self.supply.batches(schema, self._count_bytes):
                    self._write_batch(batch, schema)
        finally:
            self.quarantine.close()

    def _take_from_spark(self, supply: OlderVersion, schema: GroupSchema) -> None:
        """The same, of rows that executors compute and files that they write."""
        run = self.run
        told = supply.on_spark(
            schema, self.table, names=self.names, untold=self.statistics.counts_only, watch=self._watch
        )
        for answer in told:
            self.lease.check()
            if isinstance(answer, RejectedRows):
                self.quarantine.keep(replace(answer, numbers=[run.rows_read + number for number in answer.numbers]))
                continue
            self.noted.update(answer.noted)
            suppression.count(run.group.entity, Counter(answer.suppressed))
            run.rows_suppressed += sum(answer.suppressed.values())
            self.statistics.merge_bytes(answer.statistics)
            if answer.file:
                self.files.append(answer.file)
                faults.hit("run.after_file")
            self._report(answer.rows, answer.file.rows if answer.file else 0)
        self._count_bytes(run.bytes_total)
        # What attempts of tasks wrote that were lost or too late.
        self.table.discard_named(self.names, keep=[file.name for file in self.files])

    def _watch(self, done: int, tasks: int) -> None:
        self.run.bytes_read = self.run.bytes_total * done // max(tasks, 1)
        self.lease.report()
        self.progress(self.run)

    def _discard_files(self) -> None:
        """Take away what this attempt has written; executors have written more than they have answered, maybe."""
        self.table.discard(self.files)
        if self.run.on_spark:
            self.table.discard_named(self.names)

    def _count_bytes(self, read: int) -> None:
        self.run.bytes_read = read

    def _write_batch(self, batch: RawBatch, schema: GroupSchema) -> None:
        run = self.run
        self.lease.check()
        now, max_skew = timezone.now(), max_clock_skew()
        computed = compute(batch, self.pipeline, self._place(batch), run=str(run.id), now=now, max_skew=max_skew)
        self.quarantine.add(batch, computed.rejected, first_row=run.rows_read)
        for violation in computed.noted:
            self.noted[violation.column, violation.rule, violation.detail] += len(violation.rows)
        offline, name = self._without_erased(computed.offline), f"{self.names}{len(self.files):05}"
        if len(offline):
            self.statistics.add(offline)
            self.files.append(self.table.write_file(offline, schema.offline, name=name, sort_by=schema.key_names))
            faults.hit("run.after_file")
        self._report(len(batch), len(offline))

    def _without_erased(self, offline: pl.DataFrame) -> pl.DataFrame:
        kept = suppression.kept(self.run.group.entity, offline)
        self.run.rows_suppressed += kept.suppressed.total()
        return kept.rows

    def _place(self, batch: RawBatch) -> Place:
        if batch.origins is None:
            acceptance = self.run.acceptance
            return Place.of_acceptance(acceptance.pk, acceptance.accepted_at, first_ordinal=self.run.rows_read)
        return Place.of_origins(batch.origins)

    def _report(self, read: int, accepted: int) -> None:
        run = self.run
        run.rows_read += read
        run.rows_accepted += accepted
        run.rows_quarantined = self.quarantine.rows
        if timezone.now() - self.reported_at > timedelta(seconds=1):
            self.lease.report()
            self.reported_at = timezone.now()
        self.progress(run)

    def _land(self, schema: GroupSchema) -> None:
        run = self.run
        self._refuse_too_many_failures()
        run.warnings = [
            {"column": column, "rule": rule, "detail": detail, "rows": rows}
            for (column, rule, detail), rows in self.noted.items()
        ]
        if not self.files:
            self._end_without_rows("No row was accepted.")
            return
        self._commit(schema)
        faults.hit("run.before_materialize")
        said = _bring_online(run.group, step=self.lease.step)
        faults.hit("run.after_materialize")
        self.lease.succeed(said, landed=True)

    def _commit(self, schema: GroupSchema) -> None:
        """The one commit of the run. Another attempt of it may have been quicker: then these files are nobody's."""
        run = self.run
        with self.lease.about_to_commit():
            self.supply.require_claim()
            self.quarantine.record()
            statistics.record(run, self.statistics)
        self.commits = True
        faults.hit("run.before_delta_commit")
        landing = self.table.commit(self.files, schema.offline, transaction=runs.transaction_of(run))
        faults.hit("run.after_delta_commit")
        run.delta_version = landing.version
        if not landing.ours:
            self.table.discard(self.files)
        if newest := max((file.event_range[1] for file in self.files if file.event_range), default=None):
            freshness.observe(run.group.pk, run.group_version, newest)
        self.lease.step()

    def _refuse_too_many_failures(self) -> None:
        run, limit = self.run, self.supply.failure_rate_limit
        if run.rows_read and run.rows_quarantined / run.rows_read > limit:
            with transaction.atomic():
                self.lease.hold()
                self.quarantine.record()
            raise RunFailed(
                f"{run.rows_quarantined} of {run.rows_read} rows broke a rule, more than the limit of {limit:.0%}; "
                f"nothing was kept. {self.quarantine.broken_rules()}"
            )


@dataclass
class Files:
    """The supply of an ingestion run: what nobody has read yet of its source, or of the files that it was given."""

    run: Run
    nothing: str = "No new data: every file of the source has been read before."
    size: int = 0
    claimed: list[Content] = field(default_factory=list)

    @property
    def failure_rate_limit(self) -> float:
        return 0.0 if self.run.on_error == "reject" else settings.FEATUREHUB_FAILURE_RATE_LIMIT

    def claim(self) -> bool:
        self.claimed = claim(self.run, self._contents())
        self.size = sum(content.size for content in self.claimed)
        return bool(self.claimed)

    def _contents(self) -> list[Content]:
        if self.run.paths:
            return [sources.inspect(Path(path)) for path in self.run.paths]
        source = self.run.group.source
        if source is None:
            raise InvalidSource(f"{self.run.group} has no source; name a file with --from, or push rows to it.")
        return [sources.inspect(path) for path in source_roots.find(source.path)]

    def batches(self, schema: GroupSchema, read: Callable[[int], None]) -> Iterator[RawBatch]:
        for content in self.claimed:
            check_columns(sources.column_names(content), schema)
        before = 0
        for content in self.claimed:
            told = partial(_add, read, before)
            for batch in sources.read(content, told):
                yield RawBatch(batch, "text" if content.is_text else "typed")
            before += content.size
            read(before)

    def require_claim(self) -> None:
        if self.run.source_files.count() < len(self.claimed):
            raise Conflict("It was silent for so long that it was given up; another run may read its files now.")

    def give_back(self) -> None:
        self.run.source_files.all().delete()


#: Where the rows of a run come from that is no ingestion.
_SUPPLIES: dict[str, Callable[[Run], Supply]] = {RunKind.REPLAY: Rejected, RunKind.BACKFILL: OlderVersion}


def _add(read: Callable[[int], None], before: int, of_this_file: int) -> None:
    read(before + of_this_file)


def _bring_online(group: FeatureGroup, *, step: Callable[[], None]) -> str:
    """Bring what has landed online; what to say of it when Redis does not answer."""
    try:
        materialize.materialize(group, progress=lambda _: step())
    except Unavailable:
        return "Committed offline; the online store follows when Redis is back."
    return ""


def claim(run: Run, contents: Sequence[Content]) -> list[Content]:
    """Enter the contents that nobody has read into the ledger, for this run; the ones that it now is to read.

    Raises Conflict while another run is reading one of them, since what it ends with decides whether this one must.
    """
    claimed: list[Content] = []
    for content in {content.sha256: content for content in reversed(contents)}.values():
        known = _known(run, content)
        if known is not None and known.run_id != run.id and _settle(known.run):
            known = _known(run, content)
        if known is None:
            claimed += _enter(run, content)
        elif known.run_id == run.id or _take_over(known, run):
            claimed.append(content)
    return sorted(claimed, key=contents.index)


def _settle(lost: Run) -> bool:
    """Take the run from its worker if that one is gone, and bring online what it had committed."""
    settled = runs.settle(lost.pk)
    if settled == RunState.SUCCEEDED:
        _bring_online(lost.group, step=lambda: None)
    return settled is not None


def _take_over(known: SourceFile, run: Run) -> bool:
    """Whether a content that another run claimed is this one's to read now: not when that one has read it.

    Raises Conflict while it may still be read or committed by that run.
    """
    other = known.run
    if other.state == RunState.SUCCEEDED:
        return False
    if other.committing is not None:
        raise Conflict(
            f"{known.path} may have been committed by run {other.pk}, whose worker ended on the way; "
            f"try again when that run has ended as succeeded, or retry it if it is {RunState.DEAD.value}."
        )
    if other.state == RunState.RUNNING:
        raise Conflict(f"{known.path} is being read by run {other.pk}; try again when it has ended.")
    if not SourceFile.objects.filter(pk=known.pk, run=other).update(run=run):
        raise Conflict(f"{known.path} has just been claimed by another run; try again when it has ended.")
    return True


def _known(run: Run, content: Content) -> SourceFile | None:
    entries = SourceFile.objects.select_related("run__group").filter(group=run.group, group_version=run.group_version)
    return entries.filter(sha256=content.sha256).first()


def _enter(run: Run, content: Content) -> list[Content]:
    try:
        with transaction.atomic():
            run.source_files.create(
                group=run.group,
                group_version=run.group_version,
                path=str(content.path),
                size=content.size,
                sha256=content.sha256,
            )
    except IntegrityError as error:
        raise Conflict(f"{content.path} has just been claimed by another run; try again when it has ended.") from error
    faults.hit("run.after_entry")
    return [content]
