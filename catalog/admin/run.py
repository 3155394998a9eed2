"""Runs: what was read, kept and refused, how long it took, why it failed; to be cancelled and retried."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RangeDateTimeFilter
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from catalog import runs
from catalog.access import WRITE
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import Run, RunState
from engine.errors import FeaturehubError

_COUNTS = ["read", "accepted", "quarantined"]
_WORKER = ["attempts", "worker", "lease_until", "heartbeat_at"]
_QUESTIONS = {
    "cancel": ("Cancel", "It ends before it lands: nothing of it becomes visible.", "danger"),
    "retry": ("Retry", "A worker carries it out again, in its old place in the version order.", "primary"),
}
_POSSIBLE = {
    "cancel": {RunState.QUEUED, RunState.RUNNING},
    "retry": {RunState.FAILED, RunState.DEAD, RunState.CANCELLED},
}


def _detail_action(name: str, icon: str, variant: ActionVariant) -> Callable[..., HttpResponse]:
    def of_one(admin: RunAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
        run = admin.get_object(request, unquote(object_id))
        if run is None:
            return admin._get_obj_does_not_exist_redirect(request, admin.opts, object_id)
        return admin.settle(request, [run], name, back=reverse("admin:catalog_run_change", args=[run.pk]))

    of_one.__name__ = name
    return action(description=name.capitalize(), permissions=["settle"], icon=icon, variant=variant)(of_one)


def _list_action(name: str) -> Callable[..., HttpResponse]:
    def of_selected(admin: RunAdmin, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse:
        return admin.settle(request, list(queryset), name, back=request.get_full_path())

    of_selected.__name__ = f"{name}_selected"
    return action(description=f"{name.capitalize()} selected runs", permissions=["settle"])(of_selected)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    group_path = "group__name"
    list_display = ["short_id", "subject", "kind", "state_label", *_COUNTS, "duration", "delta_version", "created_at"]
    list_select_related = ["group", "dataset"]
    list_filter = ["state", "kind", ["group", AutocompleteSelectFilter], ["created_at", RangeDateTimeFilter]]
    list_filter_submit = True
    list_fullwidth = True
    search_fields = ["id", "group__name", "error", "error_code", "requested_by"]
    fieldsets = [
        (
            None,
            {"fields": ["id", "subject", "group_version", "kind", "on_spark", "state_now", "requested_by", "message"]},
        ),
        ("Rows", {"fields": [*_COUNTS, "rows_suppressed", "delta_version", "warnings"]}),
        ("Error", {"fields": ["error_code", "error"]}),
        ("Worker", {"fields": _WORKER}),
        ("Times", {"fields": ["created_at", "started_at", "finished_at", "duration"]}),
    ]
    actions = ["cancel_selected", "retry_selected"]
    actions_detail = ["cancel", "retry"]

    cancel = _detail_action("cancel", "cancel", ActionVariant.DANGER)
    retry = _detail_action("retry", "replay", ActionVariant.PRIMARY)
    cancel_selected = _list_action("cancel")
    retry_selected = _list_action("retry")

    def has_settle_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Runs are not edited, but whoever may change them may end them and have them tried again."""
        return self.may(request, WRITE, object_id)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Only what may follow the run's state now."""
        run = self.get_object(request, unquote(str(object_id)))
        return [
            one
            for one in super().get_actions_detail(request, object_id)
            if run and run.state in _POSSIBLE[one.action_name.removeprefix("catalog_run_")]
        ]

    def settle(self, request: HttpRequest, chosen: Sequence[Run], name: str, *, back: str) -> HttpResponse:
        """Ask first; once confirmed, cancel or retry each run by itself and say what came of it."""
        self.require_each(request, WRITE, chosen)
        if is_confirmed(request):
            for run in chosen:
                self._settle_one(request, run, name)
            return HttpResponseRedirect(back)
        verb, consequence, variant = _QUESTIONS[name]
        subject = f"run {chosen[0]}" if len(chosen) == 1 else f"{len(chosen)} runs"
        question = Question(f"{verb} {subject}?", consequence, verb, variant, of_readers=False)
        return ask(
            self,
            request,
            question,
            concerned=[Concerned(run, run.state) for run in chosen],
            form=Nothing(),
            back=back,
        )

    def _settle_one(self, request: HttpRequest, run: Run, name: str) -> None:
        try:
            (runs.cancel if name == "cancel" else runs.retry)(run, by=request.user.get_username())
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        self.log_change(request, run, f"State: {run.state}.")
        self.message_user(request, f"{run} is {run.state}.", messages.SUCCESS)

    @display(description="Run", ordering="id")
    def short_id(self, run: Run) -> str:
        return str(run.pk)[:8]

    @display(description="State", label=COLOURS, ordering="state")
    def state_label(self, run: Run) -> tuple[str, str]:
        return labelled(run.state)

    @display(description="State")
    def state_now(self, run: Run) -> SafeString:
        return with_icon(run.state)

    @display(description="Read", ordering="rows_read")
    def read(self, run: Run) -> str:
        return f"{run.rows_read:,}"

    @display(description="Accepted", ordering="rows_accepted")
    def accepted(self, run: Run) -> str:
        return f"{run.rows_accepted:,}"

    @display(description="Quarantined", ordering="rows_quarantined")
    def quarantined(self, run: Run) -> str:
        return f"{run.rows_quarantined:,}"

    @display(description="Duration")
    def duration(self, run: Run) -> str:
        return "—" if run.duration_seconds is None else f"{run.duration_seconds:,.1f} s"
