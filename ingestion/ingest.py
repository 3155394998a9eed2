"""One ingestion run: new source files through the pipeline, committed offline once, then brought online.

`manage.py ingest`, the Celery task and the schedule all call `ingest`. The rows of a run are written as files that no
reader sees until the one commit at its end; a run that fails before it leaves nothing behind in either store.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pyarrow as pa
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from catalog import stores
from catalog.models import FeatureGroup, Run, RunKind, RunState
from catalog.schemas import current_schema
from engine.conform import check_columns, conform_table
from engine.errors import Conflict, FeaturehubError, InvalidSource, RunFailed, Unavailable
from engine.offline.table import DataFile
from engine.schema import GroupSchema
from engine.violations import Violation
from ingestion import materialize, sources
from ingestion.models import SourceFile
from ingestion.pipeline import Pipeline, stamped
from ingestion.push import require_writable
from ingestion.quarantine import Quarantine
from ingestion.sources import Content

log = logging.getLogger(__name__)

#: The error code of a run whose worker ended before its commit: it may be carried out again.
WORKER_LOST = "worker_lost"

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

    Without new content the run succeeds and says so. Raises the error that ended a failed run, after it was recorded.
    """
    return execute(Run.queue(group, requested_by=by), paths=paths, on_error=on_error, progress=progress)


def execute(
    run: Run, *, paths: Sequence[Path] | None = None, on_error: OnError = "quarantine", progress: Progress | None = None
) -> Run:
    """Carry out a queued run, or one whose worker is gone; see `ingest`. A run that has ended is left as it is.

    Raises Conflict while another worker carries it out.
    """
    if not _begin(run):
        return run
    attempt = _Attempt(run, on_error, progress or (lambda _: None))
    try:
        attempt.carry_out(paths)
    except FeaturehubError as error:
        attempt.fail(str(error), error.code)
        raise
    except Exception:
        # What we did not foresee still must not leave a run that says it is running; it is raised on, not hidden.
        attempt.fail("The run ended by an error of the hub itself; its log has the details.", "server_error")
        raise
    return run


def _begin(run: Run) -> bool:
    """Whether the caller is to carry the run out, from its start and into the version that its group has now."""
    recorded = Run.objects.get(pk=run.pk)
    if recorded.is_silent:
        _give_up_on(recorded)
    with transaction.atomic():
        recorded = Run.objects.select_for_update().get(pk=run.pk)
        if recorded.state == RunState.RUNNING:
            raise Conflict(f"Run {run.pk} is being carried out by another worker.")
        if recorded.state == RunState.SUCCEEDED or recorded.error_code not in ("", WORKER_LOST):
            run.refresh_from_db()
            return False
        run.quarantined.all().delete()
        run.error = run.error_code = ""
        run.finished_at = None
        run.rows_read = run.rows_accepted = run.rows_quarantined = run.bytes_read = 0
        run.group_version = run.group.version
        run.begin()
    return True


@dataclass
class _Attempt:
    """The state of one run while it is carried out."""

    run: Run
    on_error: OnError
    progress: Progress
    claimed: int = 0
    files: list[DataFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = stores.offline(self.run.group.name, self.run.group_version)

    def carry_out(self, paths: Sequence[Path] | None) -> None:
        require_writable(self.run.group)
        claimed = claim(self.run, self._contents(paths))
        self.claimed = len(claimed)
        if not claimed:
            self.run.succeed("No new data: every file of the source has been read before.")
            return
        schema = current_schema(self.run.group)
        for content in claimed:
            check_columns(sources.column_names(content), schema)
        self.run.bytes_total = sum(content.size for content in claimed)
        self._write(claimed, schema)
        self._land(schema)

    def fail(self, error: str, code: str) -> None:
        """End the run as failed, without a trace in either store; what has landed is not undone by what came after."""
        if self.files and self.table.has_landed(f"run:{self.run.id}"):
            self.run.succeed(f"Committed offline; then: {error}"[:255])
            return
        for file in self.files:
            (self.table.folder / file.name).unlink(missing_ok=True)
        self.run.source_files.all().delete()
        self.run.fail(error, code)

    def _contents(self, paths: Sequence[Path] | None) -> list[Content]:
        source = self.run.group.source
        if paths is None and source is None:
            raise InvalidSource(f"{self.run.group} has no source; name a file with --from, or push rows to it.")
        found = paths if paths is not None else sources.find(source.path)  # type: ignore[union-attr]
        return [sources.inspect(path) for path in found]

    def _write(self, contents: Sequence[Content], schema: GroupSchema) -> None:
        """Every accepted row in files beside the table, every rejected one in quarantine."""
        self.token = uuid.uuid4().hex[:8]
        self.pipeline, self.quarantine = Pipeline(schema), Quarantine(self.run)
        self.noted: Counter[tuple[str, str, str]] = Counter()
        try:
            for content in contents:
                for batch in sources.read(content):
                    self._write_batch(batch, content, schema)
                self.run.bytes_read += content.size
        finally:
            self.quarantine.close()

    def _write_batch(self, batch: pa.RecordBatch, content: Content, schema: GroupSchema) -> None:
        run = self.run
        processed = self.pipeline.process(
            conform_table(batch, schema, now=timezone.now(), max_skew=_max_skew(), text=content.is_text)
        )
        self.quarantine.add(batch, processed.rejected, first_row=run.rows_read)
        self._note(processed.noted)
        offline = stamped(
            processed.accepted,
            schema,
            accepted=run.acceptance_id,
            accepted_at=run.acceptance.accepted_at,
            first_ordinal=run.rows_read,
            run=str(run.id),
        )
        name = f"run-{run.id}-{self.token}-{len(self.files):05}"
        if len(offline):
            self.files.append(self.table.write_file(offline, schema.offline, name=name, sort_by=schema.key_names))
        self._report(batch.num_rows, len(offline))

    def _note(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.noted[violation.column, violation.rule, violation.detail] += len(violation.rows)

    def _report(self, read: int, accepted: int) -> None:
        run = self.run
        run.rows_read += read
        run.rows_accepted += accepted
        run.rows_quarantined = self.quarantine.rows
        if run.heartbeat_at is None or timezone.now() - run.heartbeat_at > timedelta(seconds=1):
            run.beat()
        self.progress(run)

    def _land(self, schema: GroupSchema) -> None:
        run = self.run
        self._refuse_too_many_failures()
        self.quarantine.record()
        run.warnings = [
            {"column": column, "rule": rule, "detail": detail, "rows": rows}
            for (column, rule, detail), rows in self.noted.items()
        ]
        if self.files:
            self._commit(schema)
        run.succeed(_bring_online(run.group) if self.files else "No row was accepted.")

    def _commit(self, schema: GroupSchema) -> None:
        run = self.run
        with transaction.atomic():
            # Under the lock of its row, so that nobody gives up on it between the look and the commit.
            Run.objects.select_for_update().get(pk=run.pk)
            if run.source_files.count() < self.claimed:
                raise RunFailed("It was silent for so long that it was given up; another run may read its files now.")
            run.delta_version = self.table.commit(self.files, schema.offline, transaction=f"run:{run.id}")

    def _refuse_too_many_failures(self) -> None:
        run, limit = self.run, settings.FEATUREHUB_FAILURE_RATE_LIMIT
        if self.on_error == "reject":
            limit = 0.0
        if run.rows_read and run.rows_quarantined / run.rows_read > limit:
            self.quarantine.record()
            raise RunFailed(
                f"{run.rows_quarantined} of {run.rows_read} rows broke a rule, more than the limit of {limit:.0%}; "
                f"nothing was kept. {self.quarantine.broken_rules()}"
            )


def _bring_online(group: FeatureGroup) -> str:
    """Bring what has landed online; what to say of it when Redis does not answer."""
    try:
        materialize.materialize(group)
    except Unavailable:
        return "Committed offline; the online store follows when Redis is back."
    return ""


def claim(run: Run, contents: Sequence[Content]) -> list[Content]:
    """Enter the contents that nobody has read into the ledger, for this run; the ones that it now is to read.

    Raises Conflict while another run is reading one of them, since what it ends with decides whether this one must.
    """
    claimed = []
    for content in contents:
        known = _known(run, content)
        if known is not None and known.run.is_silent:
            _give_up_on(known.run)
            known = _known(run, content)
        if known is None:
            claimed += _enter(run, content)
        elif known.run_id != run.id and known.run.state in (RunState.QUEUED, RunState.RUNNING):
            raise Conflict(f"{content.path} is being read by run {known.run_id}; try again when it has ended.")
    return claimed


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
    return [content]


def _give_up_on(run: Run) -> None:
    """End a run whose worker is gone: as succeeded if its commit landed, else as failed, its claims given back."""
    with transaction.atomic():
        lost = Run.objects.select_for_update().select_related("group").get(pk=run.pk)
        if not lost.is_silent:
            return
        has_landed = stores.offline(lost.group.name, lost.group_version).has_landed(f"run:{lost.id}")
        if has_landed:
            lost.succeed("Its worker ended after the commit; the online store was brought up by another run.")
        else:
            lost.fail("Its worker ended before the commit; nothing of it is visible.", WORKER_LOST)
            lost.source_files.all().delete()
    if has_landed:
        _bring_online(lost.group)


def give_up_silent_runs() -> None:
    """End every run whose worker is gone, so that none says for ever that it is running."""
    for run in Run.objects.select_related("group").filter(state=RunState.RUNNING, kind=RunKind.INGEST):
        if run.is_silent:
            _give_up_on(run)


def _max_skew() -> timedelta:
    return timedelta(seconds=settings.FEATUREHUB_MAX_CLOCK_SKEW_SECONDS)
