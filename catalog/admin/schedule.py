"""Schedules: django-celery-beat's pages in the hub's theme, with when a task is due in words, and if it is late."""

from __future__ import annotations

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
from catalog.timing import due_times, overdue_since, timing_in_words

for model in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(model)


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
