"""When scheduled tasks are due, in times and in words, and which are late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django_celery_beat.models import PeriodicTask

from catalog.moments import moment_text

#: A task that is this late is overdue: a beat notes when it ran every three minutes.
GRACE = timedelta(minutes=5)


def due_times(task: PeriodicTask, count: int, *, now: datetime) -> list[datetime]:
    """When the task is due next, at most `count` times, UTC; none for a task that is off or follows the sun.

    A time that has passed without the task is due now.
    """
    if not task.enabled or task.solar_id:
        return []
    if task.clocked_id:
        return [] if task.last_run_at else [max(task.clocked.clocked_time, now)]
    schedule, moment, due = task.schedule, task.last_run_at or now, []
    for _ in range(1 if task.one_off else count):
        start, wait, _ = schedule.remaining_delta(moment) if task.crontab_id else (moment, schedule.run_every, None)
        moment = max(start + wait, now)
        due.append(moment)
    return due


def overdue_since(task: PeriodicTask, *, now: datetime, ran_at: datetime | None = None) -> datetime | None:
    """When the task was due without running since, UTC, if that is longer ago than GRACE; None for one that is in time.

    ran_at: when it was last seen to run otherwise; a beat notes it only every few minutes. One that never ran counts
    from its last change.
    """
    if not task.enabled or task.one_off or not (task.interval_id or task.crontab_id):
        return None
    last = max(moment for moment in (task.last_run_at, ran_at, task.date_changed) if moment is not None)
    start, wait, _ = task.schedule.remaining_delta(last) if task.crontab_id else (last, task.schedule.run_every, None)
    due: datetime = max(start + wait, task.start_time or start + wait)
    return due.astimezone(UTC) if due + GRACE < now else None


def timing_in_words(task: PeriodicTask) -> str:
    """When the task is due, as people say it; the zone of a crontab stands beside it."""
    if task.interval_id:
        return every_in_words(task.interval.schedule.run_every)
    if task.crontab_id:
        return str(task.crontab.human_readable).removesuffix(f" {task.crontab.timezone}")
    if task.clocked_id:
        return f"once, at {moment_text(task.clocked.clocked_time)}"
    return f"at {task.solar}" if task.solar_id else "never"


def every_in_words(every: timedelta) -> str:
    """An interval in its largest whole unit.

    >>> every_in_words(timedelta(seconds=3600)), every_in_words(timedelta(minutes=90))
    ('every hour', 'every 90 minutes')
    """
    seconds = every.total_seconds()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            number = int(seconds // size)
            return f"every {unit}" if number == 1 else f"every {number:,} {unit}s"
    return f"every {seconds} seconds"
