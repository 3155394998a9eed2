"""Feature groups: what is computed together, where its rows come from, and how its runs go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from catalog.access import CREATE, MANAGE, allowed
from catalog.admin.feature import add_feature_link, feature_link
from catalog.admin.guarded import GuardedInline
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.moment import DurationTextField, duration_text, moment_text
from catalog.admin.owner import OwnerFilter
from catalog.admin.recorded import RecordedAdmin
from catalog.admin.removal import GuardedRemoval
from catalog.admin.service import FIRST_STATUSES
from catalog.admin.transition import StatusActions
from catalog.approvals import require_may_begin
from catalog.models import Feature, FeatureGroup, GroupInput, GroupRole, RequestInput, Run, Status
from catalog.models.group import validate_dtype
from catalog.schemas import changes_of_meaning, problems_of, request_needs, schema_of, stored_schemas
from catalog.timing import due_times
from engine.errors import Conflict, FeaturehubError
from engine.on_request import divided
from engine.schema import Field, GroupSchema


class FeatureTable(GuardedInline):
    """The group's features, to look at; each is changed on its own page. An instance is for one request."""

    model = Feature
    fields = ["feature_name", "dtype", "type", "status_label", "computed"]
    readonly_fields = fields
    extra = 0
    max_num = 0
    can_delete = False
    hide_title = True
    verbose_name_plural = "Features"
    _needs: dict[str, tuple[Field, ...]] | None = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Feature]:
        return super().get_queryset(request).select_related("group")

    def has_add_permission(self, request: HttpRequest, obj: FeatureGroup | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: FeatureGroup | None = None) -> bool:
        return False

    @display(description="Name")
    def feature_name(self, feature: Feature) -> SafeString:
        return feature_link(feature)

    @display(description="Status")
    def status_label(self, feature: Feature) -> SafeString:
        return with_icon(feature.effective_status)

    @display(description="Computed from")
    def computed(self, feature: Feature) -> str:
        how = feature.expression or feature.function or feature.local or "the source, as it is"
        if self._needs is None:
            self._needs = request_needs(feature.group)
        return f"{how} (on request)" if feature.name in self._needs else how


class GroupColumnForm(forms.ModelForm):
    def clean_dtype(self) -> str:
        validate_dtype(self.cleaned_data["dtype"])
        return self.cleaned_data["dtype"]


class GroupColumnFormSet(PaginationInlineFormSet):
    """Refuses columns that leave a feature uncomputable or give stored rows another meaning."""

    def clean(self) -> None:
        super().clean()
        if any(self.errors) or not self.instance.entity_id:
            return
        try:
            problems = self._problems()
        except FeaturehubError as error:
            problems = [str(error)]
        if problems:
            raise forms.ValidationError(problems)

    def _problems(self) -> list[str]:
        defined = self._defined()
        problems = [str(problem) for problem in problems_of(defined)]
        if self.instance.pk:
            problems += changes_of_meaning(stored_schemas(self.instance), defined)
        return problems

    def _defined(self) -> GroupSchema:
        """The group as it would be with the columns of this form."""
        group: FeatureGroup = self.instance
        columns = tuple(form.instance.field() for form in self.forms if self._is_kept(form))
        if group.pk:
            return self.with_columns(schema_of(group), columns)
        keys = group.entity.key_fields()
        return self.with_columns(
            GroupSchema(group.name, group.version, 0, keys, (), (), group.event_timestamp), columns
        )

    def with_columns(self, schema: GroupSchema, columns: tuple[Field, ...]) -> GroupSchema:
        raise NotImplementedError

    def _is_kept(self, form: forms.ModelForm) -> bool:
        if self.can_delete and self._should_delete_form(form):
            return False
        return bool(form.instance.pk) or form.has_changed()


class GroupInputFormSet(GroupColumnFormSet):
    def with_columns(self, schema: GroupSchema, columns: tuple[Field, ...]) -> GroupSchema:
        return replace(schema, inputs=columns)


class RequestInputFormSet(GroupColumnFormSet):
    def with_columns(self, schema: GroupSchema, columns: tuple[Field, ...]) -> GroupSchema:
        """What the features read decides anew which of them are computed on request."""
        stored, computed = divided((*schema.features, *schema.on_request), columns)
        return replace(schema, request_inputs=columns, features=stored, on_request=computed)


class GroupColumnInline(GuardedInline):
    form = GroupColumnForm
    fields = ["name", "dtype", "position"]
    extra = 0
    hide_title = True


class GroupInputInline(GroupColumnInline):
    model = GroupInput
    formset = GroupInputFormSet
    verbose_name_plural = "Inputs: raw columns that transformations read, kept offline and never served"


class RequestInputInline(GroupColumnInline):
    model = RequestInput
    formset = RequestInputFormSet
    verbose_name_plural = (
        "Request inputs: values that readers send; features whose expressions read them are computed on request"
    )


class GroupRoleInline(GuardedInline):
    """Which teams may do what with the group, beside its owner's; decided by who may do everything with it."""

    model = GroupRole
    fields = ["team", "role"]
    autocomplete_fields = ["team"]
    extra = 0
    hide_title = True
    verbose_name_plural = "Roles of teams"

    def _may_change(self, request: HttpRequest, obj: models.Model | None) -> bool:
        return obj is not None and allowed(request.user, MANAGE, obj)


class FeatureGroupForm(forms.ModelForm):
    ttl = DurationTextField(
        required=False,
        label="TTL",
        help_text="Values older than this are withheld: 90d, 12h, 30m or 45s; empty: never.",
    )
    freshness = DurationTextField(required=False, help_text="Target age of the newest event, in the same words.")
    version = forms.IntegerField(
        min_value=1,
        initial=1,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Each version has a table and keys of its own. Raise it before a dtype, a time column or a "
        "transformation changes.",
    )

    class Meta:
        model = FeatureGroup
        fields = "__all__"

    def clean_version(self) -> int:
        version: int = self.cleaned_data["version"]
        if self.instance.pk and version < self.instance.version:
            raise forms.ValidationError(f"A version only rises; it is {self.instance.version} now.")
        return version

    def _post_clean(self) -> None:
        """The model checks what the fields have let pass: without an entity there is nothing to check."""
        if self.errors:
            return
        super()._post_clean()  # type: ignore[misc]  # the stubs lack it
        if self.instance.pk is None:
            try:
                require_may_begin(self.instance)
            except Conflict as error:
                self.add_error("status", error.detail)


@admin.register(FeatureGroup)
class FeatureGroupAdmin(StatusActions, GuardedRemoval, RecordedAdmin):
    form = FeatureGroupForm
    group_path = "name"
    list_display = [
        *["name", "version", "entity", "owner", "status_label", "ttl_text", "freshness_text", "source"],
        *["last_run", "next_run"],
    ]
    list_select_related = [
        *["entity", "owner", "source", "schedule__interval", "schedule__crontab"],
        *["schedule__clocked", "schedule__solar"],
    ]
    list_filter = [
        ["status", ChoicesDropdownFilter],
        ["entity", AutocompleteSelectFilter],
        ["tags", AutocompleteSelectFilter],
        OwnerFilter,
    ]
    list_filter_submit = True
    search_fields = ["name", "description", "tags__name", "owner__name", "entity__name"]
    search_help_text = "Name, description, tag, owner or entity"
    autocomplete_fields = ["entity", "owner", "tags", "source", "schedule"]
    inlines = [FeatureTable, GroupInputInline, RequestInputInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[FeatureGroup]:
        newest = Run.objects.filter(group=OuterRef("pk")).order_by("-created_at")
        return (
            super()
            .get_queryset(request)
            .annotate(
                **{f"_run_{name}": Subquery(newest.values(name)[:1]) for name in ("pk", "state", "created_at")},
            )
        )

    def get_fieldsets(self, request: HttpRequest, obj: FeatureGroup | None = None) -> list[tuple[str | None, Any]]:
        sections: list[tuple[str | None, list[Any]]] = [
            (None, ["name", "version", "entity", "description", ("owner", "tags"), "ttl", "freshness"]),
            (
                "Status",
                ["status_now", "review_now", "needs_review", "add_feature"] if obj else ["status", "needs_review"],
            ),
            ("Rows", ["source", "event_timestamp", "created_timestamp", "schedule"]),
            ("Runs", [("last_run", "next_run")] if obj else []),
        ]
        return [(title, {"fields": fields}) for title, fields in sections if fields]

    def get_readonly_fields(self, request: HttpRequest, obj: FeatureGroup | None = None) -> list[str]:
        """A group with rows keeps its name: its tables and keys bear it."""
        shown = [
            "status_now",
            "review_now",
            "last_run",
            "next_run",
            "add_feature",
            *self.fields_of_managers(request, obj),
        ]
        if "owner" in shown:  # who may not hand the group over does not decide either who has to agree
            shown.append("needs_review")
        keeps_name = obj and (obj.schemas.exists() or not self.may(request, CREATE))  # roles are in a group by its name
        return [*shown, "name"] if keeps_name else shown

    def get_inlines(self, request: HttpRequest, obj: FeatureGroup | None) -> list[type[TabularInline]]:
        columns = [GroupInputInline, RequestInputInline]
        return [FeatureTable, *columns, GroupRoleInline] if obj else [*columns]

    def formfield_for_choice_field(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.TypedChoiceField:
        if db_field.name == "status":
            kwargs["choices"] = FIRST_STATUSES
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    @display(description="Status", label=COLOURS, ordering="status")
    def status_label(self, group: FeatureGroup) -> tuple[str, str]:
        return labelled(Status(group.status))

    @display(description="TTL", ordering="ttl")
    def ttl_text(self, group: FeatureGroup) -> str:
        return duration_text(group.ttl) or "never"

    @display(description="Freshness", ordering="freshness")
    def freshness_text(self, group: FeatureGroup) -> str:
        return duration_text(group.freshness) or "—"

    @display(description="Last run", ordering="_run_created_at")
    def last_run(self, group: FeatureGroup) -> SafeString | str:
        run = getattr(group, "_run_pk", None)
        if run is None:
            return "never ran"
        page, started = reverse("admin:catalog_run_change", args=[run]), moment_text(group._run_created_at)  # type: ignore[attr-defined]
        return format_html('<a class="text-link" href="{}">{}</a><br>{}', page, with_icon(group._run_state), started)  # type: ignore[attr-defined]

    @display(description="Next run")
    def next_run(self, group: FeatureGroup) -> str:
        if group.schedule is None:
            return "no schedule"
        due = due_times(group.schedule, 1, now=timezone.now())
        return moment_text(due[0]) if due else "paused"

    @display(description="New features")
    def add_feature(self, group: FeatureGroup) -> SafeString:
        return add_feature_link(group)
