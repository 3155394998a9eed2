"""Who carries a run out: leases, fencing tokens, takeover, cancelling and retrying.

Every change of hands is one conditional UPDATE by the database's clock, so of any number of workers, reapers and
people one succeeds and the others see that they did not. A worker that was paused and wakes finds its token outdated
before it commits; should it sleep between that look and the commit itself, then the transaction id of the commit (the
run's own, checked on the very snapshot that is committed on) lets only one attempt land. `committing` remembers that
such a commit may still arrive.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Protocol, Self
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Case, DurationField, F, PositiveIntegerField, Q, QuerySet, Value, When
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Coalesce, Now

from catalog import access, notices, stores
from catalog.log_context import at_run
from catalog.models.run import HINT_AFTER, Run, RunKind, RunState, storable
from engine.errors import Conflict, FeaturehubError, LeaseLost, NotAllowed, Unavailable

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
#: A worker that has not come a step further for this long hangs: its heart is not heard any more.
HANGS_AFTER_SECONDS = 900.0
#: Queued runs announced to the broker in one go: a broker that nobody reads must not fill up.
HINTS_AT_ONCE = 100
#: The error codes of a dead run whose workers ended, and of a cancelled one.
WORKER_LOST = "worker_lost"
CANCELLED = "cancelled"
#: The kinds that a worker can carry out by the run's id alone.
KINDS_OF_WORKERS = (RunKind.INGEST, RunKind.REPLAY, RunKind.BACKFILL, RunKind.TRAIN, RunKind.ERASE)
#: What an attempt counts, from nothing.
_COUNTED = ("rows_read", "rows_accepted", "rows_quarantined", "rows_suppressed", "bytes_total", "bytes_read")
#: Celery's names of what carries a kind out.
_TASKS = {
    RunKind.INGEST: "ingestion.tasks.ingest_run",
    RunKind.REPLAY: "ingestion.tasks.ingest_run",
    RunKind.BACKFILL: "ingestion.tasks.ingest_run",
    RunKind.TRAIN: "serving.tasks.build_dataset",
    RunKind.ERASE: "ingestion.tasks.erase_entity",
}


def transaction_of(run: Run) -> str:
    """The application transaction id under which the run's rows are committed.

    Of a backfill it names what is computed and not the run: of two runs that compute the same one lands.
    """
    return f"backfill:{run.from_version}" if run.kind == RunKind.BACKFILL else f"run:{run.id}"


def take(run: Run) -> Lease | None:
    """The lease on a queued run (`settle` makes it of one whose worker is gone); None when it has ended. `run` is read
    again.

    The attempt starts from nothing, into the version that its group has now. Raises Conflict while another worker holds
    the lease. A run whose asker may not write any more (a revoked key, a role that was taken away) fails instead.
    """
    if _fails_for_its_asker(run):
        return None
    taken = Run.objects.filter(pk=run.pk, state=RunState.QUEUED).update(
        state=RunState.RUNNING,
        token=F("token") + 1,
        attempts=F("attempts") + 1,
        worker=f"{socket.gethostname()}:{os.getpid()}:{threading.current_thread().name}"[:255],
        lease_until=_from_now(_lease()),
        heartbeat_at=Now(),
        started_at=Coalesce("started_at", Now()),
        # Where an earlier commit may still arrive the version stays: the same id must not land in two tables.
        group_version=Case(
            When(committing=None, then=_number(run.group.version if run.group_id else 0)), default=F("group_version")
        ),
        **dict.fromkeys(_COUNTED, 0),
    )
    run.refresh_from_db(fields=[field.name for field in Run._meta.concrete_fields if not field.is_relation])
    if taken:
        return Lease(run)
    if run.state == RunState.RUNNING:
        raise Conflict(f"Run {run.pk} is being carried out by another worker.")
    return None


def _fails_for_its_asker(run: Run) -> bool:
    """Whether the run was queued by somebody who may not ask for it now; it has failed then."""
    if run.state != RunState.QUEUED or not run.principal:
        return False
    asker = access.caller_named(run.principal)
    if asker is not None and access.allowed(asker, access.WRITE, run):
        return False
    error = f"{run.requested_by or run.principal} may not {access.WRITE} {run.subject} any more."
    with transaction.atomic():
        ended = Run.objects.filter(pk=run.pk, state=RunState.QUEUED).update(
            state=RunState.FAILED, error=error, error_code=NotAllowed.code, finished_at=Now()
        )
        run.refresh_from_db(fields=["state", "error", "error_code", "finished_at"])
        if ended:
            notices.tell_of_run(run)
    log.warning("run %s of %s is not begun: %s", run.pk, run.subject, error)
    return bool(ended)


def settle(run_id: UUID) -> RunState | None:
    """What became of a run whose lease ended: succeeded if its commit landed, else queued again, or dead after
    MAX_ATTEMPTS. None when it is not such a run."""
    lost = lost_runs().select_related("group").filter(pk=run_id).first()
    if lost is None:
        return None
    if lost.committing is not None and has_landed(lost):
        said = "Its worker ended after the commit; the online store was brought up by another."
        return _hand_on(lost, RunState.SUCCEEDED, message=said, finished_at=Now())
    if lost.attempts >= MAX_ATTEMPTS:
        return _hand_on(lost, RunState.DEAD, finished_at=Now(), **_lost_for_good(lost))
    said = f"The worker of attempt {lost.attempts} of {MAX_ATTEMPTS} ended; it is tried again."
    return _hand_on(lost, RunState.QUEUED, message=said, hint_due_at=Now())


def lost_runs() -> QuerySet[Run]:
    """Runs that say that they are running, whose worker has not renewed its lease."""
    return Run.objects.filter(state=RunState.RUNNING, lease_until__lt=Now())


def settle_all() -> None:
    """Settle every run whose worker is gone, so that none says for ever that it is running."""
    for run_id in lost_runs().values_list("pk", flat=True):
        settle(run_id)


def has_landed(run: Run) -> bool:
    """Whether an attempt of the run is part of its group's offline table."""
    return stores.offline(run.group.name, run.group_version).has_landed(transaction_of(run))


def _hand_on(lost: Run, state: RunState, **fields: Any) -> RunState | None:
    """Take the run from its lost worker, unless that one has been heard of or another was quicker."""
    still_lost = lost_runs().filter(pk=lost.pk, token=lost.token)
    with transaction.atomic():
        handed = still_lost.update(state=state, token=F("token") + 1, lease_until=None, **fields)
        if handed:
            notices.tell_of_run(Run.objects.get(pk=lost.pk))
    if handed:
        log.warning("run %s of %s lost its worker %s: %s", lost.pk, lost.subject, lost.worker, state.value)
    return state if handed else None


def _lost_for_good(lost: Run) -> dict[str, str]:
    detail = (
        f"{lost.attempts} workers ended while they carried it out, the last was {lost.worker}. It is not tried again "
        "by itself: find what ends them (memory, most often), then retry it."
    )
    return {"error": detail, "error_code": WORKER_LOST}


def hint(run: Run) -> None:
    """Tell the broker of a queued run; raises kombu's OperationalError when it does not answer."""
    current_app.send_task(_TASKS[RunKind(run.kind)], [str(run.pk)])


def due_hints() -> list[Run]:
    """Queued runs that a worker should be told of now, oldest first; each is due again HINT_AFTER later.

    The broker may have lost what it was told, or told a worker that ended: the database is what counts.
    """
    due = Run.objects.filter(state=RunState.QUEUED, kind__in=KINDS_OF_WORKERS, hint_due_at__lte=Now())
    oldest = list(due.order_by("acceptance_id")[:HINTS_AT_ONCE])
    return [run for run in oldest if due.filter(pk=run.pk).update(hint_due_at=_from_now(HINT_AFTER))]


def cancel(run: Run, *, by: str) -> None:
    """End a queued or running run before it lands; its worker notices at its next batch and leaves nothing behind.

    Raises Conflict for one that has ended, and for one whose commit may be under way. `run` is read again.
    """
    open_ = Run.objects.filter(pk=run.pk, state__in=[RunState.QUEUED, RunState.RUNNING], committing=None)
    cancelled = open_.update(
        state=RunState.CANCELLED,
        token=F("token") + 1,
        lease_until=None,
        finished_at=Now(),
        error=f"Cancelled by {by}.",
        error_code=CANCELLED,
    )
    run.refresh_from_db()
    if cancelled:
        return
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        raise Conflict(f"Run {run.pk} is being committed; what became of it is known within a minute.")
    raise Conflict(f"Run {run.pk} has {run.state}; only a queued or a running one can be cancelled.")


def retry(run: Run, *, by: str) -> None:
    """Queue a failed, dead or cancelled run again, with all its attempts before it. `run` is read again.

    It stays the same run: it has its place in the version order already, and its transaction id keeps whatever an
    earlier attempt may still commit from being added twice. Raises Conflict for one in another state or of a kind that
    workers do not carry out.
    """
    ended = [RunState.FAILED, RunState.DEAD, RunState.CANCELLED]
    retried = Run.objects.filter(
        pk=run.pk, state__in=ended, kind__in=KINDS_OF_WORKERS
    ).update(
        state=RunState.QUEUED,
        token=F("token") + 1,
        attempts=0,
        principal="",  # whoever retries it may, and it is theirs now
        error="",
        error_code="",
        finished_at=None,
        started_at=None,
        message=f"Retried by {by}."[:255],
        hint_due_at=Now(),
    )
    run.refresh_from_db()
    if not retried:
        raise Conflict(
            f"Run {run.pk} of kind {run.kind} is {run.state}; only a failed, dead or cancelled run of a worker can be "
            "retried."
        )


class Lease:
    """One attempt's hold on a run, renewed by a thread of its own while it is entered.

    All that the attempt writes of the run goes through here, under its token.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.token = run, run.token
        self._ended = threading.Event()
        self._logged = ExitStack()
        self._stepped = time.monotonic()

    def __enter__(self) -> Self:
        self._heart = threading.Thread(target=self._beat_until_ended, name=f"lease-{self.run.pk}", daemon=True)
        self._heart.start()
        self._logged.enter_context(at_run(str(self.run.pk)))
        return self

    def __exit__(self, *_: object) -> None:
        self._logged.close()
        self._ended.set()
        self._heart.join()

    def _beat_until_ended(self) -> None:
        try:
            while not self._ended.wait(_lease().total_seconds() / 3) and self._renew():
                pass
        finally:
            connection.close()

    def _renew(self) -> bool:
        if time.monotonic() - self._stepped > HANGS_AFTER_SECONDS:
            log.error("run %s hangs: its lease is not renewed any more", self.run.pk)
            return False
        try:
            return bool(self._held().update(lease_until=_from_now(_lease()), heartbeat_at=Now()))
        except DatabaseFailure as error:  # the next beat may come through; if none does, the lease ends as it should
            log.warning("the lease of run %s could not be renewed: %s", self.run.pk, error)
            connection.close()  # a database that was restarted answers on a new connection only
            return True

    def _held(self) -> QuerySet[Run]:
        return Run.objects.filter(pk=self.run.pk, state=RunState.RUNNING, token=self.token)

    def step(self) -> None:
        """Note that the attempt came further."""
        self._stepped = time.monotonic()

    def check(self) -> None:
        """Raises LeaseLost when the run is another's now, or was cancelled."""
        self.step()
        if not self._held().exists():
            self._refuse()

    def hold(self) -> None:
        """In a transaction: nobody takes or cancels the run before it ends. Raises LeaseLost as `check` does."""
        if not list(self._held().select_for_update().values_list("pk")):
            self._refuse()

    def report(self) -> None:
        """Save the run's counts. Raises LeaseLost as `check` does."""
        self.step()
        if not self._held().update(**_counts(self.run), lease_until=_from_now(_lease()), heartbeat_at=Now()):
            self._refuse()

    @contextmanager
    def about_to_commit(self) -> Iterator[None]:
        """A transaction that holds the run's row and ends with it marked as committing, its counts saved.

        Raises LeaseLost as `check` does. From its end on nobody cancels the run, and whoever takes it up asks the table
        first.
        """
        with transaction.atomic():
            self.hold()
            yield
            if not self._held().update(
                committing=Coalesce("committing", _number(self.token)),
                lease_until=_from_now(_lease()),
                warnings=self.run.warnings,
                **_counts(self.run),
            ):
                self._refuse()

    def succeed(self, message: str = "", *, landed: bool = False) -> None:
        """End the run as succeeded. What has landed has succeeded, whoever holds the run by now."""
        mine = Run.objects.filter(pk=self.run.pk).exclude(state=RunState.SUCCEEDED) if landed else self._held()
        with transaction.atomic():
            ended = mine.update(
                state=RunState.SUCCEEDED,
                token=F("token") + 1,
                lease_until=None,
                finished_at=Now(),
                message=message[:255],
                error="",
                error_code="",
                warnings=self.run.warnings,
                delta_version=self.run.delta_version,
                **_counts(self.run),
            )
            self.run.refresh_from_db()
            if ended:
                notices.tell_of_run(self.run)
        if not ended and self.run.state != RunState.SUCCEEDED:
            self._refuse()

    def wait(self, seconds: float, message: str) -> None:
        """End the attempt, which did all that it could for now: the run is queued, and a worker is told of it so much
        later. Raises LeaseLost as `check` does."""
        queued = self._held().update(
            state=RunState.QUEUED,
            token=F("token") + 1,
            attempts=0,
            lease_until=None,
            hint_due_at=_from_now(timedelta(seconds=seconds)),
            message=message[:255],
            error="",
            error_code="",
            **_counts(self.run),
        )
        self.run.refresh_from_db()
        if not queued:
            self._refuse()

    def fail(self, error: str, code: str, *, retryable: bool) -> bool:
        """End the attempt: a retryable one leaves the run queued, or dead after MAX_ATTEMPTS. Whether it was ours.

        Of its own commit nothing can arrive any more; of an earlier attempt's, it may.
        """
        again = retryable and self.run.attempts < MAX_ATTEMPTS
        ended = RunState.DEAD if retryable else RunState.FAILED
        with transaction.atomic():
            mine = self._held().update(
                state=RunState.QUEUED if again else ended,
                token=F("token") + 1,
                lease_until=None,
                committing=Case(When(~Q(committing=self.token), then=F("committing")), default=None),
                hint_due_at=_from_now(HINT_AFTER),
                finished_at=None if again else Now(),
                error=storable(error),
                error_code=code,
                **_counts(self.run),
            )
            self.run.refresh_from_db()
            if mine:
                notices.tell_of_run(self.run)
        return bool(mine)

    def _refuse(self) -> None:
        now = Run.objects.get(pk=self.run.pk)
        if now.error_code == CANCELLED:
            raise LeaseLost(f"{now.error} Nothing of run {now.pk} is visible.")
        raise LeaseLost(
            f"This worker was silent for so long that run {now.pk} was given up; it is {now.state} now, and what this "
            "attempt wrote is not used."
        )


class Fail(Protocol):
    """Ends an attempt with an error for people and a code for programs; a retryable one leaves the run queued."""

    def __call__(self, error: str, code: str, *, retryable: bool) -> object: ...


@contextmanager
def failures_recorded(fail: Fail) -> Iterator[None]:
    """Whatever ends an attempt is recorded by `fail` and raised on; an attempt that lost its lease records nothing."""
    try:
        yield
    except LeaseLost:
        raise
    except FeaturehubError as error:
        fail(str(error), error.code, retryable=error.retryable)
        raise
    except (OperationalError, InterfaceError, MemoryError) as error:
        if not connection.in_atomic_block:  # a restarted database answers on a new connection only
            connection.close_if_unusable_or_obsolete()
        fail(f"It may go better next time: {error!r}", Unavailable.code, retryable=True)
        raise
    except Exception:
        # What we did not foresee still must not leave a run that says it is running; it is raised on, not hidden.
        said = "The run ended by an error of the hub itself; its log has the details."
        fail(said, "server_error", retryable=False)
        raise


def _counts(run: Run) -> dict[str, int]:
    return {name: getattr(run, name) for name in _COUNTED}


def _number(value: int) -> Value:
    return Value(value, output_field=PositiveIntegerField())


def _lease() -> timedelta:
    return timedelta(seconds=settings.FEATUREHUB_LEASE_SECONDS)


def _from_now(wait: timedelta) -> CombinedExpression:
    """So much later than now, by the database's clock: the workers' own may differ."""
    return Now() + Value(wait, output_field=DurationField())
