"""Celery's way to the functions of this app; the database decides what is done, a task is only a hint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from celery import shared_task
from celery.signals import worker_ready
from kombu.exceptions import OperationalError

from catalog import follows, runs, statistics, usage
from catalog.log_context import at_run
from catalog.models import FeatureGroup, Run, TrainingDataset
from engine.errors import FeaturehubError, Unavailable
from ingestion import damage, drain, idempotency, ingest, materialize, upkeep
from ingestion.erasure import run as erasure
from ingestion.push import find_group
from ingestion.schedules import claim_tick

log = logging.getLogger(__name__)


@shared_task(name="ingestion.tasks.ingest_run")
def ingest_run(run_id: str) -> None:
    """Carry out a queued run, or one whose worker is gone; told a second time it does nothing."""
    run = Run.objects.select_related("group__entity", "group__source", "acceptance").get(pk=run_id)
    _logged(f"ingesting {run.group.name}", lambda: ingest.execute(run))


@shared_task(name="ingestion.tasks.erase_entity")
def erase_entity(run_id: str) -> None:
    """Carry out a queued erasure, or one whose worker is gone; told a second time it does nothing."""
    run = Run.objects.select_related("acceptance", "erasure__entity").get(pk=run_id)
    _logged(f"erasing one {run.subject}", lambda: erasure.execute(run))


@shared_task(name="ingestion.tasks.ingest_scheduled")
def ingest_scheduled(group: str) -> None:
    """What a group's schedule calls: one run over what is new, once for each due time."""
    _logged(f"ingesting {group}", lambda: _ingest_when_due(group))


def _ingest_when_due(group: str) -> None:
    run = claim_tick(find_group(group))
    if run is not None:
        with at_run(str(run.pk)):
            _logged(f"ingesting {group}", lambda: ingest.execute(run))


@shared_task(name="ingestion.tasks.catch_up")
def catch_up() -> None:
    """Every few seconds: pushes from the log into the offline tables, offline rows into the online store.

    Runs whose workers are gone are taken up first. What is wrong with one group does not keep the others behind.
    """
    take_up_runs()
    _for_each(drain.waiting_groups(), "draining", drain.drain)
    try:
        materialize.ensure_warm()
        for group in damage.followed_groups():
            _logged(f"bringing {group.name} online", partial(materialize.materialize, group))
    except Unavailable as error:
        log.warning("the online store cannot be brought up to date: %s", error.detail)
    _for_each(upkeep.unobserved_groups(), "looking for the newest event of", upkeep.observe_stored)
    idempotency.forget_expired()
    drain.forget_landed()


@shared_task(name="ingestion.tasks.upkeep")
def upkeep_all() -> None:
    """Every few minutes: small files of each table put together, files that nobody needs removed."""
    _for_each(upkeep.groups(), "upkeep of", partial(upkeep.upkeep, kept_files=TrainingDataset.kept_files()))
    _logged("removing what is left of training datasets", upkeep.remove_left_datasets)
    _logged("forgetting who read what long ago", usage.forget_old)
    _logged("comparing new statistics with older ones", statistics.compare_new)
    _logged("forgetting old statistics", statistics.forget_old)
    _logged("forgetting old notices", follows.forget_old)


@shared_task(name="ingestion.tasks.scrub")
def scrub_all() -> None:
    """Once a day: every file of every table compared with what was committed."""
    _for_each(upkeep.groups(), "scrubbing", upkeep.scrub)


def take_up_runs() -> None:
    """Settle the runs whose workers are gone, and tell the broker of queued ones that nobody has begun."""
    runs.settle_all()
    try:
        for run in runs.due_hints():
            runs.hint(run)
    except OperationalError as error:  # they stay queued, and are due again
        log.warning("the broker does not take tasks: %s", error)


@worker_ready.connect(dispatch_uid="ingestion.catch_up")
def on_worker_ready(**_: object) -> None:
    """A worker that starts looks at once for what an earlier one has left, also while no beat runs."""
    catch_up.delay()


def _logged(what: str, work: Callable[[], object]) -> None:
    """Run `work`; an error of ours needs one line in the log. A store that does not answer is the caller's to judge."""
    try:
        work()
    except Unavailable:
        raise
    except FeaturehubError as error:
        log.error("%s failed: %s", what, error)


def _for_each(groups: Iterable[FeatureGroup], what: str, work: Callable[[FeatureGroup], object]) -> None:
    """Do the work for each group; what is wrong with one does not keep the others behind."""
    for group in groups:
        try:
            work(group)
        except FeaturehubError as error:
            log.error("%s %s failed: %s", what, group.name, error)
