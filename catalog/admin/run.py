"""Runs, to look at: what was read, kept and refused, how long it took, and why it failed."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RangeDateTimeFilter
from unfold.decorators import display

from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import Run

_COUNTS = ["read", "accepted", "quarantined"]


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = ["short_id", "group", "kind", "state_label", *_COUNTS, "duration", "delta_version", "created_at"]
    list_select_related = ["group"]
    list_filter = ["state", "kind", ["group", AutocompleteSelectFilter], ["created_at", RangeDateTimeFilter]]
    list_filter_submit = True
    list_fullwidth = True
    search_fields = ["id", "group__name", "error", "error_code", "requested_by"]
    fieldsets = [
        (None, {"fields": ["id", "group", "group_version", "kind", "state_now", "requested_by", "message"]}),
        ("Rows", {"fields": [*_COUNTS, "delta_version", "warnings"]}),
        ("Error", {"fields": ["error_code", "error"]}),
        ("Times", {"fields": ["created_at", "started_at", "heartbeat_at", "finished_at", "duration"]}),
    ]

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
