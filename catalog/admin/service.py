"""Feature services: their features in order, fixed once a service is active."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display

from catalog.admin.guarded import GuardedInline
from catalog.admin.owner import OwnerFilter
from catalog.admin.position import PositionedForm, PositionedFormSet
from catalog.admin.recorded import RecordedAdmin
from catalog.admin.removal import GuardedRemoval
from catalog.admin.transition import StatusActions
from catalog.approvals import require_may_begin
from catalog.models import Feature, FeatureService, ServiceFeature, Status
from catalog.schemas import request_needs
from engine.errors import Conflict

#: What something may be when it is made; every later change goes through the lifecycle.
FIRST_STATUSES = [(status.value, status.label) for status in (Status.DRAFT, Status.ACTIVE)]


def is_fixed(service: FeatureService | None) -> bool:
    return service is not None and service.status != Status.DRAFT


class ServiceFeatureInline(GuardedInline):
    """The chosen features; of a service that was active somebody's model depends on them: make a new version."""

    model = ServiceFeature
    form = PositionedForm
    formset = PositionedFormSet
    verbose_name_plural = "Features, in the order of the vector"
    fields = ["feature", "position"]
    autocomplete_fields = ["feature"]
    ordering_field = "position"
    hide_title = True
    extra = 0
    min_num = 1
    validate_min = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[ServiceFeature]:
        return super().get_queryset(request).select_related("feature__group", "service")

    def has_add_permission(self, request: HttpRequest, obj: FeatureService | None = None) -> bool:
        return super().has_add_permission(request, obj) and not is_fixed(obj)

    def has_change_permission(self, request: HttpRequest, obj: FeatureService | None = None) -> bool:
        return super().has_change_permission(request, obj) and not is_fixed(obj)

    def has_delete_permission(self, request: HttpRequest, obj: FeatureService | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not is_fixed(obj)


@admin.register(FeatureService)
class FeatureServiceAdmin(StatusActions, GuardedRemoval, RecordedAdmin):
    list_display = ["name", "version", "status_label", "feature_count", "owner", "updated_at"]
    list_select_related = ["owner"]
    list_filter = [["status", ChoicesDropdownFilter], OwnerFilter, ["tags", AutocompleteSelectFilter]]
    list_filter_submit = True
    search_fields = ["name", "description", "tags__name", "owner__name", "features__name"]
    autocomplete_fields = ["owner", "tags"]
    inlines = [ServiceFeatureInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[FeatureService]:
        return super().get_queryset(request).annotate(_features=Count("chosen", distinct=True))

    def get_fields(self, request: HttpRequest, obj: FeatureService | None = None) -> list[str]:
        shown = ["status_now", "review_now", "changed_since", "readers_send"] if obj else ["status"]
        return ["name", "version", *shown, "description", "owner", "tags"]

    def get_readonly_fields(self, request: HttpRequest, obj: FeatureService | None = None) -> list[str]:
        kept = [*(["name", "version"] if is_fixed(obj) else []), *self.fields_of_managers(request, obj)]
        return ["status_now", "review_now", "changed_since", "readers_send", *kept]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"status": Status.DRAFT, **super().get_changeform_initial_data(request)}

    def formfield_for_choice_field(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.TypedChoiceField:
        if db_field.name == "status":
            kwargs["choices"] = FIRST_STATUSES
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A new service whose groups want reviews begins as a draft, whatever was chosen."""
        super().save_related(request, form, formsets, change)
        if not change:
            try:
                require_may_begin(form.instance)
            except Conflict as error:
                form.instance.status = Status.DRAFT
                form.instance.save()
                self.message_user(request, f"It is a draft. {error.detail}", messages.WARNING)

    @display(description="Changed")
    def changed_since(self, service: FeatureService) -> str:
        if (changes := service.changes_since()) is None:
            return "the first version"
        older, differences = changes
        return f"since version {older.version}: {', '.join(differences) or 'the same list'}"

    @display(description="Readers send")
    def readers_send(self, service: FeatureService) -> str:
        """The request inputs that its features are computed from, each with its type."""
        chosen = Feature.objects.filter(services=service).select_related("group")
        needed = {
            f"{sent.name} ({sent.dtype})": None
            for feature in chosen
            for sent in request_needs(feature.group).get(feature.name, ())
        }
        return ", ".join(needed) or "the keys of its entities"

    @display(description="Features", ordering="_features")
    def feature_count(self, service: FeatureService) -> int:
        return service._features  # type: ignore[attr-defined]
