"""Celery's way to the functions of this app; the database decides what is done, a task is only a hint."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celery import shared_task

from catalog.models import FeatureGroup, Run
from engine.errors import FeaturehubError, Unavailable
from ingestion import drain, ingest, materialize
from ingestion.push import find_group

log = logging.getLogger(__name__)


@shared_task(name="ingestion.tasks.ingest_run")
def ingest_run(run_id: str) -> None:
    """Carry out a queued run."""
    run = Run.objects.select_related("group__entity", "group__source", "acceptance").get(pk=run_id)
    _recorded(run.group.name, lambda: ingest.execute(run))


@shared_task(name="ingestion.tasks.ingest_scheduled")
def ingest_scheduled(group: str) -> None:
    """What a group's schedule calls: one run over what is new."""
    _recorded(group, lambda: ingest.ingest(find_group(group), by="schedule"))


@shared_task(name="ingestion.tasks.catch_up")
def catch_up() -> None:
    """Every few seconds: pushes from the log into the offline tables, offline rows into the online store."""
    drain.drain_all()
    try:
        materialize.ensure_warm()
        for group in FeatureGroup.objects.select_related("entity"):
            materialize.materialize(group)
    except Unavailable as error:
        log.warning("the online store cannot be brought up to date: %s", error.detail)


def _recorded(group: str, work: Callable[[], object]) -> None:
    """Run `work`; an error of ours is recorded by its run already, so that the log needs one line only."""
    try:
        work()
    except FeaturehubError as error:
        log.error("ingesting %s failed: %s", group, error)
