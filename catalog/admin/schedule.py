"""Schedules: django-celery-beat's pages in the hub's theme, with when a task is due in words, and if it is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_celery_beat import admin as beat
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from catalog.admin.guarded import GuardedAdmin
from catalog.admin.label import in_words_with_icon, with_icon
from catalog.admin.moment import moment_text
from catalog.models import Run

#: A task that is this late is overdue: a beat notes when it ran every three minutes.
GRACE = timedelta(minutes=5)

for model in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(model)


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


class TaskSelect(UnfoldAdminSelectWidget, beat.TaskSelectWidget):
    """The registered tasks, in the theme's select."""


class PeriodicTaskForm(beat.PeriodicTaskForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" in self.fields:  # not for somebody who may only look
            self.fields["task"].widget = UnfoldAdminTextInputWidget()
            self.fields["regtask"].widget = TaskSelect()


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(GuardedAdmin, beat.PeriodicTaskAdmin, ModelAdmin):
    form = PeriodicTaskForm
    date_hierarchy = None
    list_display = ["name", "enabled", "timing", "zone", "group_name", "last_result", "next_due", "lateness"]
    list_filter = ["enabled", "one_off", "task"]
    list_fullwidth = True
    list_select_related = ["interval", "crontab", "solar", "clocked", "feature_group"]
    readonly_fields = ["last_run_at", "timing", "zone", "late_now", "last_result", "crontab_translation", "next_three"]
    fieldsets = [
        (None, {"fields": ["name", "regtask", "task", "enabled", "description"]}),
        (
            "Schedule",
            {
                "fields": [
                    *[("timing", "zone"), "interval", "crontab", "crontab_translation", "solar", "clocked"],
                    *["start_time", ("last_run_at", "last_result"), ("next_three", "late_now"), "one_off"],
                ]
            },
        ),
        ("Arguments", {"fields": ["args", "kwargs"], "classes": ["collapse"]}),
        (
            "Execution options",
            {
                "fields": ["expires", "expire_seconds", "queue", "exchange", "routing_key", "priority", "headers"],
                "classes": ["collapse"],
            },
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PeriodicTask]:
        newest = Run.objects.filter(group__schedule=OuterRef("pk"), requested_by="schedule").order_by("-created_at")
        columns = {f"_run_{name}": Subquery(newest.values(name)[:1]) for name in ("pk", "state", "created_at")}
        return super().get_queryset(request).annotate(**columns)

    @display(description="When")
    def timing(self, task: PeriodicTask) -> str:
        return timing_in_words(task)

    @display(description="Time zone")
    def zone(self, task: PeriodicTask) -> str:
        return str(task.crontab.timezone) if task.crontab_id else "UTC"

    @display(description="Last result")
    def last_result(self, task: PeriodicTask) -> SafeString | str:
        """The run that it made last; of what makes none, when it was last called."""
        run = getattr(task, "_run_pk", None)
        if run is None:
            return f"called {moment_text(task.last_run_at)}" if task.last_run_at else "never ran"
        page, made = reverse("admin:catalog_run_change", args=[run]), moment_text(task._run_created_at)
        return format_html('<a class="text-link" href="{}">{}</a><br>{}', page, with_icon(task._run_state), made)

    @display(description="In time", label={"overdue": "danger", "in time": "success", "off": "info"})
    def lateness(self, task: PeriodicTask) -> tuple[str, SafeString]:
        return self._lateness(task)

    @display(description="In time")
    def late_now(self, task: PeriodicTask) -> str:
        return self._lateness(task)[1] if task.pk else "—"

    def _lateness(self, task: PeriodicTask) -> tuple[str, SafeString]:
        if not task.enabled:
            return "off", in_words_with_icon("off", "pause_circle")
        late = overdue_since(task, now=timezone.now(), ran_at=getattr(task, "_run_created_at", None))
        if late is None:
            return "in time", in_words_with_icon("in time", "check_circle")
        return "overdue", in_words_with_icon(f"overdue since {moment_text(late)}", "alarm")

    @display(description="Group")
    def group_name(self, task: PeriodicTask) -> str:
        return str(getattr(task, "feature_group", "—"))

    @display(description="Next due")
    def next_due(self, task: PeriodicTask) -> str:
        return next(iter(self._due(task, 1)), "—")

    @display(description="Next three times")
    def next_three(self, task: PeriodicTask) -> str:
        return "\n".join(self._due(task, 3)) or "—"

    def _due(self, task: PeriodicTask, count: int) -> list[str]:
        return [moment_text(moment) for moment in due_times(task, count, now=timezone.now())] if task.pk else []


class PeriodicTaskInline(beat.PeriodicTaskInline, TabularInline):
    """The tasks that follow a schedule."""

    tab = False


class ScheduleAdmin(GuardedAdmin):
    inlines = [PeriodicTaskInline]


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(ScheduleAdmin):
    list_display = ["__str__", "human_readable"]
    search_fields = ["minute", "hour", "day_of_week"]
    fields = ["human_readable", "minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone"]
    readonly_fields = ["human_readable"]


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(ScheduleAdmin):
    list_display = ["__str__", "every", "period"]


@admin.register(ClockedSchedule)
class ClockedScheduleAdmin(ScheduleAdmin):
    list_display = ["clocked_time"]
    fields = ["clocked_time"]


@admin.register(SolarSchedule)
class SolarScheduleAdmin(ScheduleAdmin):
    list_display = ["event", "latitude", "longitude"]
