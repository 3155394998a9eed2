"""Features: found by what people know of them, defined with their transformation and rules."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import NON_FIELD_ERRORS
from django.db import models
from django.db.models import Max, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from catalog.admin.label import COLOURS, labelled
from catalog.admin.owner import OwnerFilter
from catalog.admin.recorded import RecordedAdmin
from catalog.admin.removal import GuardedRemoval, is_stored
from catalog.admin.rules import RULES, RuleFields, rules_in_words
from catalog.admin.service import FIRST_STATUSES
from catalog.admin.transition import StatusActions
from catalog.approvals import require_may_begin
from catalog.models import Feature, FeatureGroup, FeatureService, Status
from catalog.models.feature import EFFECTIVE_STATUS
from catalog.models.group import validate_dtype
from catalog.schemas import COMPUTED_NOW, request_needs
from engine.errors import Conflict

_POINTED = re.compile(r"(?P<name>\w+)(?:/(?P<part>\w+))?[^:\s]*: (?P<detail>.*)", re.DOTALL)
_NEEDS_VERSION = " Rows of this version of the group hold the old meaning: raise the version on the group's page first."


class StatusFilter(DropdownFilter):
    """By the status that counts, which a feature may have from its group."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        return list(Status.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Feature]) -> QuerySet[Feature]:
        chosen = self.value()
        return queryset.alias(_effective=EFFECTIVE_STATUS).filter(_effective=chosen) if chosen else queryset


class FeatureOwnerFilter(OwnerFilter):
    """By who answers for a feature: its own owner, or the group's when it names none."""

    def owned(self, queryset: QuerySet[Any], owner: int | None) -> QuerySet[Any]:
        inherited = Q(owner=None, group__owner=owner)
        return queryset.filter(inherited if owner is None else Q(owner=owner) | inherited)


class FeatureForm(RuleFields, forms.ModelForm):
    """A feature; what the model finds wrong with it stands at the field that can mend it."""

    arguments = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="The columns given to the function, separated by commas.",
    )

    class Meta:
        model = Feature
        fields = "__all__"
        widgets = {
            "expression": UnfoldAdminTextareaWidget(attrs={"rows": 3, "class": "font-mono", "spellcheck": "false"})
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.initial_rules(self.instance.validation, self.instance.dtype)
        self.initial = {**stored, **self.initial, "arguments": ", ".join(self.instance.arguments)}

    def clean_dtype(self) -> str:
        validate_dtype(self.cleaned_data["dtype"])
        return self.cleaned_data["dtype"]

    def clean_arguments(self) -> list[str]:
        return [name.strip() for name in self.cleaned_data["arguments"].split(",") if name.strip()]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        dtype = cleaned.get("dtype") or self.instance.dtype
        try:
            self.instance.validation = self.rules(self.instance.validation, dtype)
        except forms.ValidationError as error:
            self.add_error("allowed_values", error)
        return cleaned

    def _post_clean(self) -> None:
        """The model checks what the fields have let pass: it needs a group and a dtype to check anything."""
        if self.errors:
            return
        super()._post_clean()  # type: ignore[misc]  # the stubs lack it
        for message in self.errors.pop(NON_FIELD_ERRORS, forms.utils.ErrorList()):
            field, detail = self._placed(str(message))
            self.add_error(field if field in self.fields else None, detail)
        if self.instance.pk is None or "group" in self.changed_data:
            self._require_may_begin()

    def _require_may_begin(self) -> None:
        try:
            require_may_begin(self.instance)
        except Conflict as error:
            self.add_error("status" if "status" in self.fields else "group", error.detail)

    def _placed(self, message: str) -> tuple[str | None, str]:
        """The field that a message of the model belongs to, and the message as it reads there."""
        transformation = "function" if self.instance.function else "expression"
        if message in (f"{self.instance.name} {what}" for what in ("has another transformation", COMPUTED_NOW)):
            return transformation, message + "." + _NEEDS_VERSION
        if message.startswith(f"{self.instance.name} changed from "):
            return "dtype", message + "." + _NEEDS_VERSION
        pointed = _POINTED.fullmatch(message)
        if pointed is None or pointed["name"] != self.instance.name:
            return None, message
        if pointed["part"] == "validation":
            rule = next((rule for rule in RULES if pointed["detail"].startswith(rule)), "on_violation")
            return rule, pointed["detail"]
        if "name is taken" in pointed["detail"]:
            return "name", pointed["detail"]
        return transformation, _with_picture(pointed["detail"])


def _with_picture(detail: str) -> str:
    """A message whose further lines point at a place in the expression, kept in columns."""
    said, _, picture = detail.partition("\n")
    return format_html("{}<pre>{}</pre>", said, picture) if picture else said


@admin.register(Feature)
class FeatureAdmin(StatusActions, GuardedRemoval, RecordedAdmin):
    form = FeatureForm
    group_path = "group__name"
    list_display = ["name", "group", "entity", "dtype", "type", "status_label", "computed", "answered_by", "tag_names"]
    list_select_related = ["group__entity", "group__owner", "owner"]
    list_filter = [
        StatusFilter,
        ["group", AutocompleteSelectFilter],
        ["group__entity", AutocompleteSelectFilter],
        ["type", ChoicesDropdownFilter],
        ["tags", AutocompleteSelectFilter],
        FeatureOwnerFilter,
    ]
    list_filter_submit = True
    search_fields = ["name", "description", "tags__name", "owner__name", "group__owner__name", "group__name"]
    search_help_text = "Name, description, tag, owner or group"
    autocomplete_fields = ["group", "owner", "tags"]
    _deprecation = ["deprecated_at", "deprecation_reason", "replaced_by", "sunset_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Feature]:
        return super().get_queryset(request).prefetch_related("tags", "group__request_inputs", "group__features")

    def get_fieldsets(self, request: HttpRequest, obj: Feature | None = None) -> list[tuple[str | None, Any]]:
        may_change = self.has_change_permission(request, obj) if obj else True
        rules: list[Any] = [("not_null", "unique"), ("min_value", "max_value"), "allowed_values", "regex"]
        rules += [("min_length", "max_length"), "on_violation"]
        sections: list[tuple[str | None, list[Any]]] = [
            (None, ["name", "group", "description", ("dtype", "type"), ("owner", "tags")]),
            ("Status", ["status_now", "review_now", "read_by"] if obj else ["status"]),
            ("Deprecation", self._deprecation if obj and obj.deprecated_at else []),
            (
                "Transformation",
                (["computed"] if obj else [])
                + (["local"] if obj and obj.local else ["expression", "function", "arguments", "rowwise"]),
            ),
            ("Validation", rules if may_change else ["rules_text"]),
        ]
        return [(title, {"fields": fields}) for title, fields in sections if fields]

    def get_readonly_fields(self, request: HttpRequest, obj: Feature | None = None) -> list[str]:
        """A feature that rows hold keeps its name and group: under another it would lose them."""
        return ["status_now", "review_now", "read_by", "rules_text", "local", "computed", *self._deprecation] + (
            ["name", "group"] if obj and is_stored(obj) else []
        )

    def formfield_for_choice_field(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.TypedChoiceField:
        if db_field.name == "status":
            kwargs["choices"] = [("", "As its group"), *FIRST_STATUSES]
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Feature, form: forms.ModelForm, change: bool) -> None:
        """A new feature comes last in its group."""
        if not change:
            last = Feature.objects.filter(group=obj.group).aggregate(last=Max("position"))["last"]
            obj.position = 0 if last is None else last + 1
        super().save_model(request, obj, form, change)

    @display(description="Status", label=COLOURS, ordering=EFFECTIVE_STATUS)
    def status_label(self, feature: Feature) -> tuple[str, str]:
        return labelled(feature.effective_status)

    @display(description="Computed")
    def computed(self, feature: Feature) -> str:
        """When, and for one that is computed on request what readers have to send."""
        if needed := request_needs(feature.group).get(feature.name):
            return f"on request, from {', '.join(f'{sent.name} ({sent.dtype})' for sent in needed)}"
        return "on ingestion" if feature.transformation() else "by the source"

    @display(description="Entity", ordering="group__entity__name")
    def entity(self, feature: Feature) -> str:
        return feature.group.entity.name

    @display(description="Owner", ordering="owner__name")
    def answered_by(self, feature: Feature) -> str:
        owner = feature.owner or feature.group.owner
        return owner.name if owner else "nobody"

    @display(description="Tags")
    def tag_names(self, feature: Feature) -> str:
        return ", ".join(tag.name for tag in feature.tags.all()) or "—"

    @display(description="Read by")
    def read_by(self, feature: Feature) -> SafeString | str:
        services = FeatureService.objects.exclude(status=Status.ARCHIVED).filter(chosen__feature=feature)
        links = [(reverse("admin:catalog_featureservice_change", args=[s.pk]), s) for s in services]
        link = '<a class="text-link" href="{}">{}</a>'
        return format_html_join(", ", link, links) if links else "no feature service"

    @display(description="Rules")
    def rules_text(self, feature: Feature) -> str:
        return rules_in_words(feature.validation)


def feature_link(feature: Feature) -> SafeString:
    """The feature's name as a link to its page."""
    page = reverse("admin:catalog_feature_change", args=[feature.pk])
    return format_html('<a class="text-link" href="{}">{}</a>', page, feature.name)


def add_feature_link(group: FeatureGroup) -> SafeString:
    page = reverse("admin:catalog_feature_add", query={"group": group.pk})
    return format_html('<a class="text-link" href="{}">Add a feature to {}</a>', page, group.name)
