"""What was refused: counts by day and reason, and the names and addresses with failed logins."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from catalog.admin.read_only import ReadOnlyAdmin
from catalog.logins import locked_until
from catalog.models import FailedLogin, Refusal


@admin.register(Refusal)
class RefusalAdmin(ReadOnlyAdmin):
    list_display = ["day", "reason_name", "meaning", "count"]
    list_filter = [["reason", ChoicesDropdownFilter], "day"]
    list_filter_submit = True
    list_fullwidth = True

    @display(description="Reason", ordering="reason")
    def reason_name(self, refusal: Refusal) -> str:
        return refusal.reason

    @display(description="What it was")
    def meaning(self, refusal: Refusal) -> str:
        return refusal.get_reason_display()


@admin.register(FailedLogin)
class FailedLoginAdmin(ReadOnlyAdmin):
    list_display = ["whose", "address", "failures", "since", "is_refused"]
    search_fields = ["name", "address"]

    @display(description="Login", ordering="name")
    def whose(self, failed: FailedLogin) -> str:
        return failed.name or "names that do not exist"

    @display(description="Refused now", boolean=True)
    def is_refused(self, failed: FailedLogin) -> bool:
        return locked_until(failed.name, failed.address, now=timezone.now()) is not None
