"""Celery's way to the functions of this app."""

from __future__ import annotations

import logging

from celery import shared_task

from catalog.models import Run
from engine.errors import FeaturehubError
from serving import datasets

log = logging.getLogger(__name__)


@shared_task(name="serving.tasks.build_dataset")
def build_dataset(run_id: str) -> None:
    """Make the dataset of a queued run, or of one whose worker is gone; told a second time it does nothing."""
    run = Run.objects.select_related("dataset", "acceptance").get(pk=run_id)
    try:
        datasets.execute(run)
    except FeaturehubError as error:
        log.error("making the dataset %s failed: %s", run.subject, error)
