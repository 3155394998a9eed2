"""What ingestion records: rejected rows by rule, to be replayed or discarded, files that were read, stored versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, DropdownFilter
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from catalog.access import MANAGE, READ_PII, WRITE, allowed, principal_of
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.moment import moment_text
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import FeatureGroup, Run
from engine.errors import FeaturehubError
from ingestion import versions
from ingestion.api import hand_over
from ingestion.erasure.admin import ErasureAdmin
from ingestion.models import OnlineCursor, QuarantinedRow, QuarantinedRule, QuarantineState, SourceFile
from ingestion.settle import Selection, discard, queue_replay

__all__ = ["ErasureAdmin", "QuarantinedRuleAdmin", "SourceFileAdmin", "StoredVersionAdmin"]

#: Rows settled one by one that a page names.
SINGLE_ROWS = 20
_QUESTIONS = {
    "replay": (
        "Replay",
        "The rows that wait go through the pipeline again, with their own event time and in their old place of the "
        "version order. What still breaks a rule comes back here.",
        "primary",
    ),
    "discard": ("Discard", "No replay takes the rows up from then on. Their payloads are kept.", "danger"),
}


class DiscardForm(forms.Form):
    """Why rejected rows are not wanted."""

    reason = forms.CharField(widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), help_text="Kept beside the rows.")


class StateFilter(DropdownFilter):
    """By what became of the rows."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        return list(QuarantineState.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[QuarantinedRule]) -> QuerySet[QuarantinedRule]:
        wanted = {"state": self.value()} if self.value() else {}
        return queryset.filter(**wanted)


def _detail_action(name: str, icon: str, variant: ActionVariant) -> Callable[..., HttpResponse]:
    def of_one(admin: QuarantinedRuleAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
        rule = admin.get_object(request, unquote(object_id))
        if rule is None:
            return admin._get_obj_does_not_exist_redirect(request, admin.opts, object_id)
        page = reverse("admin:ingestion_quarantinedrule_change", args=[rule.pk])
        return admin.settle(request, [rule], name, back=page)

    of_one.__name__ = name
    return action(description=name.capitalize(), permissions=["settle"], icon=icon, variant=variant)(of_one)


def _list_action(name: str) -> Callable[..., HttpResponse]:
    def of_selected(
        admin: QuarantinedRuleAdmin, request: HttpRequest, queryset: QuerySet[QuarantinedRule]
    ) -> HttpResponse:
        return admin.settle(request, list(queryset), name, back=request.get_full_path())

    of_selected.__name__ = f"{name}_selected"
    return action(description=f"{name.capitalize()} selected rows", permissions=["settle"])(of_selected)


@admin.register(QuarantinedRule)
class QuarantinedRuleAdmin(ReadOnlyAdmin):
    group_path = "run__group__name"
    list_display = ["broken", "group", "state_label", "waiting", "rows", "detail", "run_started"]
    list_select_related = ["run__group"]
    list_filter = [StateFilter, "rule", ["run__group", AutocompleteSelectFilter]]
    list_filter_submit = True
    list_fullwidth = True
    search_fields = ["column", "rule", "detail", "run__group__name", "run__id"]
    ordering = ["-run__created_at", "column", "rule"]
    fieldsets = [
        (None, {"fields": ["run_link", "column", "rule", "detail", "rows"]}),
        ("What became of them", {"fields": ["state_now", "waiting", "settled"]}),
        ("First rows", {"fields": ["payloads"]}),
    ]
    readonly_fields = ["run_link", "rows", "state_now", "waiting", "settled", "payloads"]
    actions = ["replay_selected", "discard_selected"]
    actions_detail = ["replay", "discard"]

    replay = _detail_action("replay", "replay", ActionVariant.PRIMARY)
    discard = _detail_action("discard", "delete", ActionVariant.DANGER)
    replay_selected = _list_action("replay")
    discard_selected = _list_action("discard")

    def get_fieldsets(self, request: HttpRequest, obj: QuarantinedRule | None = None) -> list[tuple[str | None, Any]]:
        """Rejected rows hold values like accepted ones: without `pii:read` those about persons are not shown."""
        sections = super().get_fieldsets(request, obj)
        group = obj.run.group if obj else None
        if group and group.holds_personal() and not allowed(request.user, READ_PII, group):
            return [section for section in sections if "payloads" not in section[1]["fields"]]
        return sections

    def get_queryset(self, request: HttpRequest) -> QuerySet[QuarantinedRule]:
        return self.within_reach(request, QuarantinedRule.objects.of_ended_runs().with_state())

    def has_settle_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Rejected rows are not edited here, but whoever may change them may have them replayed or discarded."""
        return self.may(request, WRITE, object_id)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Nothing to do where no row waits."""
        rule = self.get_object(request, unquote(str(object_id)))
        return super().get_actions_detail(request, object_id) if rule and rule.pending_rows else []

    def settle(self, request: HttpRequest, chosen: Sequence[QuarantinedRule], name: str, *, back: str) -> HttpResponse:
        """Ask first, for a reason where one is needed; once confirmed, settle the rows of each group together."""
        self.require_each(request, WRITE, chosen)
        confirmed = is_confirmed(request)
        form = (DiscardForm if name == "discard" else Nothing)(request.POST if confirmed else None)
        if confirmed and form.is_valid():
            for group, rules in _by_group(chosen).items():
                self._settle(request, group, rules, name, form.cleaned_data)
            return HttpResponseRedirect(back)
        verb, consequence, variant = _QUESTIONS[name]
        waiting = sum(rule.pending_rows for rule in chosen)
        question = Question(
            f"{verb} {waiting:,} {'row' if waiting == 1 else 'rows'}?", consequence, verb, variant, of_readers=False
        )
        concerned = [
            Concerned(rule, f"{rule.state.replace('_', ' ')}, {rule.pending_rows:,} waiting") for rule in chosen
        ]
        return ask(self, request, question, concerned=concerned, form=form, back=back)

    def _settle(
        self,
        request: HttpRequest,
        group: FeatureGroup,
        rules: Sequence[QuarantinedRule],
        name: str,
        asked: dict[str, Any],
    ) -> None:
        selection, by = Selection(ids=tuple(rule.pk for rule in rules)), request.user.get_username()
        try:
            if name == "discard":
                said = f"Discarded: rows of {group.name}, {discard(group, selection, by=by, **asked):,}."
            else:
                said = self._replay(group, selection, by, principal_of(request.user))
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        for rule in rules:
            self.log_change(request, rule, said)
        self.message_user(request, said, messages.SUCCESS)

    def _replay(self, group: FeatureGroup, selection: Selection, by: str, principal: str) -> SafeString:
        run = queue_replay(group, selection, by=by, principal=principal)
        transaction.on_commit(partial(hand_over, run))
        return format_html("Rows of {} are replayed by {}.", group.name, _run_link(run))

    @display(description="Rule", ordering="rule")
    def broken(self, rule: QuarantinedRule) -> str:
        return f"{rule.column} {rule.rule}"

    @display(description="Group", ordering="run__group__name")
    def group(self, rule: QuarantinedRule) -> str:
        return rule.run.group.name

    @display(description="State", label=COLOURS, ordering="state")
    def state_label(self, rule: QuarantinedRule) -> tuple[str, SafeString]:
        return labelled(rule.state)

    @display(description="State")
    def state_now(self, rule: QuarantinedRule) -> SafeString:
        return with_icon(rule.state)

    @display(description="Waiting", ordering="pending_rows")
    def waiting(self, rule: QuarantinedRule) -> str:
        return f"{rule.pending_rows:,}"

    @display(description="Settled by")
    def settled(self, rule: QuarantinedRule) -> SafeString | str:
        """The run that replays the rows, or who discarded them, when and why; the same of rows settled one by one."""
        singles = rule.rows.select_related("replay__group")[:SINGLE_ROWS]
        lines = [("all", _by_whom(rule))] + [(f"row {single.row}", _by_whom(single)) for single in singles]
        return format_html_join("", '<p class="mb-2">{}: {}</p>', [line for line in lines if line[1]]) or "—"

    @display(description="Run")
    def run_link(self, rule: QuarantinedRule) -> SafeString:
        return _run_link(rule.run)

    @display(description="Rows", ordering="row_count")
    def rows(self, rule: QuarantinedRule) -> str:
        return f"{rule.row_count:,}"

    @display(description="Run", ordering="run__created_at")
    def run_started(self, rule: QuarantinedRule) -> datetime:
        return rule.run.created_at

    @display(description="Payloads")
    def payloads(self, rule: QuarantinedRule) -> SafeString:
        """The first rejected rows, each with its number in the run; all of them are in the run's quarantine file."""
        rows = ((sample["row"], sample["payload"]) for sample in rule.samples)
        return format_html_join("\n", '<p class="mb-2"><code>{}: {}</code></p>', rows)


def _by_group(rules: Sequence[QuarantinedRule]) -> dict[FeatureGroup, list[QuarantinedRule]]:
    groups: defaultdict[FeatureGroup, list[QuarantinedRule]] = defaultdict(list)
    for rule in rules:
        groups[rule.run.group].append(rule)
    return groups


def _by_whom(settled: QuarantinedRule | QuarantinedRow) -> SafeString | str:
    if settled.discarded_at:
        return f"discarded by {settled.discarded_by}, {moment_text(settled.discarded_at)}: {settled.discard_reason}"
    return _run_link(settled.replay) if settled.replay else ""


def _run_link(run: Run) -> SafeString:
    page = reverse("admin:catalog_run_change", args=[run.pk])
    return format_html('<a class="text-link" href="{}">{}</a>', page, run)


@admin.register(SourceFile)
class SourceFileAdmin(ReadOnlyAdmin):
    group_path = "group__name"
    list_display = ["path", "group", "bytes", "short_hash", "run"]
    list_select_related = ["group", "run__group"]
    list_filter = [["group", AutocompleteSelectFilter]]
    list_filter_submit = True
    search_fields = ["path", "sha256", "group__name"]
    ordering = ["-pk"]

    @display(description="Bytes", ordering="size")
    def bytes(self, file: SourceFile) -> str:
        return f"{file.size:,}"

    @display(description="SHA-256")
    def short_hash(self, file: SourceFile) -> str:
        return file.sha256[:12]


@admin.register(OnlineCursor)
class StoredVersionAdmin(ReadOnlyAdmin):
    """The versions of groups that rows are stored of; one that is not served any more is dropped from its page."""

    group_path = "group__name"
    list_display = ["group", "group_version", "served", "delta_version"]
    list_select_related = ["group"]
    list_filter = [["group", AutocompleteSelectFilter]]
    list_filter_submit = True
    search_fields = ["group__name"]
    ordering = ["group__name", "-group_version"]
    fieldsets = [(None, {"fields": ["group", "group_version", "served", "stored", "computed_into", "delta_version"]})]
    readonly_fields = ["served", "stored", "computed_into"]
    actions_detail = ["drop"]

    @action(description="Drop", permissions=["drop"], icon="delete", variant=ActionVariant.DANGER)
    def drop(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask first, saying what would go; once confirmed, drop the version and say what went."""
        stored = self.get_object(request, unquote(object_id))
        if stored is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        try:
            if is_confirmed(request):
                return self._drop(request, stored)
            found = versions.check_drop(stored.group, stored.group_version)
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:ingestion_onlinecursor_change", args=[stored.pk]))
        question = Question(
            f"Drop version {stored.group_version} of {stored.group}?",
            "Its rows go from both stores, and nothing brings them back. Other versions stay as they are."
            + ("" if found.computed_into else " None of them was computed from it by a backfill."),
            "Drop",
            "danger",
            of_readers=False,
        )
        concerned = [Concerned(stored, found.size)]
        page = reverse("admin:ingestion_onlinecursor_change", args=[stored.pk])
        return ask(self, request, question, concerned=concerned, form=Nothing(None), back=page)

    def _drop(self, request: HttpRequest, stored: OnlineCursor) -> HttpResponse:
        done = versions.drop_version(stored.group, stored.group_version, by=request.user.get_username())
        said = f"Dropped: {stored}, {done.version.size}, {done.online:,} online keys."
        self.log_change(request, stored, said)
        self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:ingestion_onlinecursor_changelist"))

    def has_drop_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Versions are not edited here, but whoever may delete of the group may drop an old one."""
        stored = None if object_id is None else self._by_key(object_id)
        return stored is not None and allowed(request.user, MANAGE, stored.group)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Nothing to drop where the version is served."""
        stored = self.get_object(request, unquote(str(object_id)))
        is_old = stored is not None and stored.group_version < stored.group.version
        return super().get_actions_detail(request, object_id) if is_old else []

    @display(description="Served", boolean=True)
    def served(self, stored: OnlineCursor) -> bool:
        return stored.group_version == stored.group.version

    @display(description="Stored offline")
    def stored(self, stored: OnlineCursor) -> str:
        return versions.describe(stored.group, stored.group_version).size

    @display(description="Computed into")
    def computed_into(self, stored: OnlineCursor) -> str:
        """The versions that a backfill has computed from it."""
        return ", ".join(map(str, versions.describe(stored.group, stored.group_version).computed_into)) or "—"
