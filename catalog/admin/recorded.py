"""The base of every page of something that has a history."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from simple_history.admin import SimpleHistoryAdmin
from simple_history.models import DeletedObject, HistoricalChanges, ModelChange
from simple_history.template_utils import HistoricalRecordContextHelper
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextareaWidget

from catalog.admin.guarded import GuardedAdmin
from catalog.admin.moment import moment_text


class ChangeWords(HistoricalRecordContextHelper):
    """Old and new values as people read them: nothing for none, moments with their zone."""

    def prepare_delta_change_value(self, change: ModelChange, value: Any) -> Any:
        if value is None or (isinstance(value, DeletedObject) and value.pk is None):
            return ""
        return moment_text(value) if isinstance(value, datetime) else super().prepare_delta_change_value(change, value)


class RecordedAdmin(GuardedAdmin, SimpleHistoryAdmin, ModelAdmin):
    """History says who changed what and when; going back is a change like any other, made in the form.

    A revert would bring back the old status too, past the lifecycle's checks; it is refused.
    """

    list_fullwidth = True
    warn_unsaved_form = True
    formfield_overrides = {models.TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}

    def get_historical_record_context_helper(
        self, request: HttpRequest, historical_record: HistoricalChanges
    ) -> ChangeWords:
        return ChangeWords(self.model, historical_record)

    def revert_disabled(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return True

    def history_form_view(
        self, request: HttpRequest, object_id: str, version_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            raise PermissionDenied("History is read here; change the thing in its form.")
        return super().history_form_view(request, object_id, version_id, extra_context)
