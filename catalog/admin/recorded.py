"""The base of every page of something that has a history."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin


class RecordedAdmin(SimpleHistoryAdmin, ModelAdmin):
    """History says who changed what and when; going back is a change like any other, made in the form.

    A revert would bring back the old status too, past the lifecycle's checks; it is refused.
    """

    list_fullwidth = True
    warn_unsaved_form = True

    def revert_disabled(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return True

    def history_form_view(
        self, request: HttpRequest, object_id: str, version_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            raise PermissionDenied("History is read here; change the thing in its form.")
        return super().history_form_view(request, object_id, version_id, extra_context)
