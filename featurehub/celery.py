"""The Celery app; its settings are the CELERY_ ones of Django's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from logging.config import dictConfig

from celery import Celery, Task
from celery.signals import setup_logging, task_postrun, task_prerun
from django.conf import settings

from catalog.log_context import current_run, current_task
from featurehub.broker import outlive_the_broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")

outlive_the_broker()
app = Celery("featurehub")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect(dispatch_uid="featurehub.logging")
def _log_as_the_hub_does(loglevel: int | str | None = None, **_: object) -> None:
    """Celery would write lines of its own form, with the values that errors quote in them; its level is kept."""
    dictConfig(settings.LOGGING)
    if loglevel:
        logging.getLogger("celery").setLevel(loglevel)


@task_prerun.connect(dispatch_uid="featurehub.logging")
def _name_the_task(task: Task, args: Sequence[object], kwargs: Mapping[str, object], **_: object) -> None:
    current_task.set(task.name)
    takes_a_run = task.run.__code__.co_varnames[:1] == ("run_id",)
    current_run.set(str(kwargs.get("run_id") or next(iter(args), "")) if takes_a_run else "")


@task_postrun.connect(dispatch_uid="featurehub.logging")
def _forget_the_task(**_: object) -> None:
    current_task.set("")
    current_run.set("")
