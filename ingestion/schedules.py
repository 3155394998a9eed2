"""When a schedule is due, and who sees to it: each due time once, and of those that were missed only the last.

A beat only hints: what its message means is decided here, when a worker reads it. Two beats, a message that comes twice
and ten messages that waited for a worker all end in one run.
"""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time, timedelta

from celery.schedules import crontab
from django.db import IntegrityError, transaction
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from catalog.models import FeatureGroup, Run, RunState
from engine import faults
from ingestion.models import ScheduleTick

log = logging.getLogger(__name__)

#: A tick may come this much of its interval before its time: a beat's clock and its loop are not exact.
EARLY = 0.1
EARLY_AT_MOST = timedelta(seconds=5)
#: Days looked back for a crontab's last due time: 29 February comes every eighth year at the latest.
DAYS_BACK = 8 * 366
KEPT = timedelta(days=30)


def claim_tick(group: FeatureGroup, *, now: datetime | None = None) -> Run | None:
    """The run to make of a group's tick, queued; None when its due time was seen to or a run is still at it.

    A group without a schedule is asked for by hand: each asking makes a run.
    """
    task = group.schedule
    if task is None:
        return Run.queue(group, requested_by="schedule")
    run = _claimed(group, task, now or timezone.now())
    faults.hit("schedule.after_tick")
    return run


def _claimed(group: FeatureGroup, task: PeriodicTask, now: datetime) -> Run | None:
    try:
        with transaction.atomic():
            # One worker at a time, so that the first tick, from which the others are counted, is one.
            PeriodicTask.objects.select_for_update().get(pk=task.pk)
            due_at = due_time(task, now=now)
            if due_at is None:
                log.info("%s: this due time was seen to before", task.name)
                return None
            tick = ScheduleTick.objects.create(schedule=task, due_at=due_at)
            ScheduleTick.objects.filter(schedule=task, due_at__lt=due_at - KEPT).delete()
            if group.runs.filter(state__in=[RunState.QUEUED, RunState.RUNNING], kind="ingest").exists():
                log.info("%s: an earlier run is still at it, so none is made", task.name)
                return None
            tick.run = Run.queue(group, requested_by="schedule")
            tick.save(update_fields=["run"])
            return tick.run
    except IntegrityError:
        log.info("%s: another worker has just claimed this due time", task.name)
        return None


def due_time(task: PeriodicTask, *, now: datetime) -> datetime | None:
    """The last due time of the schedule, UTC, at or before `now`; None when it has been claimed.

    An interval is counted from the first tick on. Due times before the last one were missed: nobody makes up for them,
    since one run reads all that is new.
    """
    newest = task.ticks.first()
    last = newest.due_at if newest else None
    if task.interval_id:
        due = _interval_due(task.schedule.run_every, last, now)
    elif task.crontab_id:
        due = crontab_due(task.schedule, now=now)
    else:  # by the sun, or once at a moment: such messages do not come close together
        due = now.replace(second=0, microsecond=0)
    return due if last is None or due > last else None


def _interval_due(every: timedelta, last: datetime | None, now: datetime) -> datetime:
    if last is None:
        return now
    return last + every * ((now - last + min(every * EARLY, EARLY_AT_MOST)) // every)


def crontab_due(when: crontab, *, now: datetime) -> datetime:
    """The last time at or before `now`, UTC, that a crontab names in its own time zone; `now` when there is none."""
    local = (now + EARLY_AT_MOST).astimezone(when.tz)
    for days in range(DAYS_BACK):
        day = local.date() - timedelta(days=days)
        if _names(when, day) and (due := _last_of(when, day, local)) is not None:
            return due
    return now


def _names(when: crontab, day: date) -> bool:
    return day.month in when.month_of_year and day.day in when.day_of_month and day.isoweekday() % 7 in when.day_of_week


def _last_of(when: crontab, day: date, until: datetime) -> datetime | None:
    for hour in sorted(when.hour, reverse=True):
        for minute in sorted(when.minute, reverse=True):
            moment = datetime.combine(day, time(hour, minute), until.tzinfo)
            if moment <= until:
                return moment.astimezone(UTC)
    return None
