"""Schedules: django-celery-beat's pages in the hub's theme, with the next times a task is due."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.utils import timezone
from django_celery_beat import admin as beat
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from catalog.admin.guarded import GuardedAdmin
from catalog.admin.moment import moment_text

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
    list_display = ["name", "enabled", "scheduler", "group_name", "last_run_at", "next_due", "one_off"]
    list_filter = ["enabled", "one_off", "task"]
    list_fullwidth = True
    list_select_related = ["interval", "crontab", "solar", "clocked", "feature_group"]
    readonly_fields = ["last_run_at", "crontab_translation", "next_three"]
    fieldsets = [
        (None, {"fields": ["name", "regtask", "task", "enabled", "description"]}),
        (
            "Schedule",
            {
                "fields": [
                    *["interval", "crontab", "crontab_translation", "solar", "clocked"],
                    *["start_time", "last_run_at", "next_three", "one_off"],
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
