"""A group's schedule as a file says it, and as the django-celery-beat row that makes its runs."""

from __future__ import annotations

import json
from datetime import timedelta

from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from catalog.definitions.document import Schedule
from catalog.models import FeatureGroup

INGEST_TASK = "ingestion.tasks.ingest_scheduled"


def schedule_of(task: PeriodicTask | None) -> Schedule | None:
    """The schedule as a file can say it; None for one it cannot (by the sun, in another time zone): that one stays."""
    if task is not None and task.interval:
        return Schedule.model_construct(every=timedelta(**{task.interval.period: task.interval.every}))
    if task is not None and task.crontab and str(task.crontab.timezone) == "UTC":
        when = task.crontab
        parts = (when.minute, when.hour, when.day_of_month, when.month_of_year, when.day_of_week)
        return Schedule.model_construct(cron=" ".join(part.replace(" ", "") for part in parts))
    return None


def set_schedule(group: FeatureGroup, schedule: Schedule) -> PeriodicTask:
    """The task that ingests the group on this schedule, made or changed; whether it is enabled stays as it is."""
    name = f"ingest {group.name}"
    task = group.schedule or PeriodicTask.objects.filter(name=name).first() or PeriodicTask(name=name)
    task.task, task.kwargs = INGEST_TASK, json.dumps({"group": group.name})
    task.interval = _interval(schedule.every) if schedule.every else None
    task.crontab = _crontab(schedule.cron) if schedule.cron else None
    task.solar = task.clocked = None
    task.one_off = False
    task.save()
    return task


def _interval(every: timedelta) -> IntervalSchedule:
    """One row a length: the table does not hold lengths apart itself, so there may be several."""
    wanted = {"every": int(every.total_seconds()), "period": IntervalSchedule.SECONDS}
    return IntervalSchedule.objects.filter(**wanted).first() or IntervalSchedule.objects.create(**wanted)


def _crontab(line: str) -> CrontabSchedule:
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    wanted = {**dict(zip(names, line.split(), strict=True)), "timezone": "UTC"}
    return CrontabSchedule.objects.filter(**wanted).first() or CrontabSchedule.objects.create(**wanted)
