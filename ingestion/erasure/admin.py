"""Erasures in the admin: their receipts, and the page that asks for another one."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from catalog.access import READ
from catalog.admin.confirmation import Question, ask, is_confirmed
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import Entity, Erasure
from engine.errors import FeaturehubError
from ingestion.erasure import receipt
from ingestion.erasure import run as erasing

_ASKED = Question(
    "Erase an entity?",
    "First it is shown what would go. Its rows in source files and in other systems are not the hub's: take them away "
    "there.",
    "Show what would go",
    "primary",
    of_readers=False,
)


class ErasureForm(forms.Form):
    """Whom and why; `sure` is sent by the page that has shown what would go."""

    entity = forms.ModelChoiceField(Entity.objects.all(), widget=UnfoldAdminSelectWidget)
    id = forms.CharField(
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="As in a path: the join keys joined by commas, `~c` for a comma in one.",
    )
    reason = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), help_text="Kept in the receipt: name nobody in it."
    )
    sure = forms.CharField(required=False, widget=forms.HiddenInput)


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    list_display = ["subject", "state_label", "created_at", "asked_by", "reason", "rows_suppressed", "gone_at"]
    list_select_related = ["entity", "run"]
    list_filter = [["entity", AutocompleteSelectFilter]]
    list_filter_submit = True
    search_fields = ["key_hash", "entity__name", "reason"]
    ordering = ["-created_at"]
    fieldsets = [
        (None, {"fields": ["entity", "key_hash", "asked_by", "created_at", "reason"]}),
        ("What went", {"fields": ["state_now", "run_link", "removed", "gone_at"]}),
        ("Kept out", {"fields": ["until", "rows_suppressed"]}),
    ]
    readonly_fields = ["asked_by", "state_now", "run_link", "removed"]
    actions_list = ["erase"]

    def may(self, request: HttpRequest, action: str, obj: Model | str | int | None = None) -> bool:
        """No role is for erasures: they are about people, in whatever groups their entity is."""
        return action == READ and request.user.has_perm("catalog.view_erasure")

    @action(description="Erase an entity", permissions=["erase"], icon="person_off", variant=ActionVariant.DANGER)
    def erase(self, request: HttpRequest) -> HttpResponse:
        """Ask whom and why, show what would go, ask again; once confirmed a worker carries it out."""
        confirmed = is_confirmed(request)
        form = ErasureForm(request.POST if confirmed else None)
        back = reverse("admin:catalog_erasure_changelist")
        if not confirmed or not form.is_valid():
            return ask(self, request, _ASKED, concerned=[], form=form, back=back)
        try:
            if form.cleaned_data["sure"]:
                return self._erase(request, form.cleaned_data)
            found = receipt.lines(erasing.plan(form.cleaned_data["entity"], form.cleaned_data["id"]))
        except FeaturehubError as error:
            form.add_error(None, str(error))
            return ask(self, request, _ASKED, concerned=[], form=form, back=back)
        question = Question(
            f"Erase this {form.cleaned_data['entity']} for good?",
            f"Would go: {'; '.join(found) or 'nothing that is here now'}. Nothing brings it back, and its rows of "
            "events until now are not taken any more.",
            "Erase",
            "danger",
            of_readers=False,
        )
        return ask(self, request, question, concerned=[], form=_surely(request), back=back)

    def _erase(self, request: HttpRequest, asked: dict[str, Any]) -> HttpResponse:
        by = request.user.get_username()
        erasure = erasing.queue(asked["entity"], asked["id"], reason=asked["reason"], by=by)
        transaction.on_commit(partial(erasing.hand_over, erasure))
        self.log_addition(request, erasure, f"Asked for the erasure of {erasure.subject}.")
        self.message_user(request, f"{erasure.subject} is being erased.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:catalog_erasure_change", args=[erasure.pk]))

    def has_erase_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Erasures are not edited, but whoever may add one may ask for one."""
        return request.user.has_perm("catalog.add_erasure")

    @display(description="Of", ordering="entity__name")
    def subject(self, erasure: Erasure) -> str:
        return erasure.subject

    @display(description="State", label=COLOURS, ordering="run__state")
    def state_label(self, erasure: Erasure) -> tuple[str, SafeString]:
        return labelled(erasure.run.state)

    @display(description="State")
    def state_now(self, erasure: Erasure) -> SafeString:
        said = erasure.run.message or erasure.run.error
        return format_html("{} {}", with_icon(erasure.run.state), said)

    @display(description="Asked for by", ordering="run__requested_by")
    def asked_by(self, erasure: Erasure) -> str:
        return erasure.run.requested_by or "—"

    @display(description="Run")
    def run_link(self, erasure: Erasure) -> SafeString:
        page = reverse("admin:catalog_run_change", args=[erasure.run_id])
        return format_html('<a class="text-link" href="{}">{}</a>', page, erasure.run)

    @display(description="Removed")
    def removed(self, erasure: Erasure) -> SafeString | str:
        lines = [(line,) for line in receipt.lines(erasure.receipt)]
        return format_html_join("", '<p class="mb-2">{}</p>', lines) or "—"


def _surely(request: HttpRequest) -> ErasureForm:
    """What was asked, to be sent once more by somebody who has seen what would go."""
    sent = request.POST.copy()
    sent["sure"] = "yes"
    return ErasureForm(sent)
