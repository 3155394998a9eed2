"""Definitions files in the browser: download the catalog as one, upload one after seeing its plan, and drift."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import orjson
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldBooleanSwitchWidget

from catalog import definitions
from catalog.access import READ, reach
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.definitions.applying import apply_text
from catalog.definitions.planning import Change, Plan, plan_of
from catalog.definitions.reading import read_texts
from catalog.models import AppliedDefinition
from catalog.registry.edits import author_of
from catalog.registry.rights import require_each
from engine.errors import Conflict, FeaturehubError

#: Of an uploaded file: what a form may send back with the confirmation (DATA_UPLOAD_MAX_MEMORY_SIZE is 2.5 MB).
MAX_BYTES = 2_000_000
#: In the history.
REASON = "import"
#: How a sign of a plan is read out.
SIGNS = {"+": "new", "~": "changed", "-": "left out"}


class ImportForm(forms.Form):
    """A file to be planned; once confirmed its text comes back, with the plan that was shown."""

    file = forms.FileField(required=False, widget=UnfoldAdminFileFieldWidget, help_text="YAML, as `export` writes it.")
    prune = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        label="Archive features that a named group no longer has",
    )
    text = forms.CharField(required=False, widget=forms.HiddenInput, strip=False)
    name = forms.CharField(required=False, widget=forms.HiddenInput)
    shown = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        uploaded: UploadedFile | None = cleaned.get("file")
        if uploaded is not None:
            if (uploaded.size or 0) > MAX_BYTES:
                raise forms.ValidationError(f"Larger than {MAX_BYTES // 1_000_000} MB; use manage.py apply.")
            try:
                cleaned["text"] = uploaded.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise forms.ValidationError("It is not UTF-8 text.") from error
            cleaned["name"] = uploaded.name
        if not cleaned.get("text"):
            raise forms.ValidationError("Choose a file.")
        return cleaned


@admin.register(AppliedDefinition)
class AppliedDefinitionAdmin(ReadOnlyAdmin):
    """What was last applied from files; the pages beside it export, import and compare."""

    list_display = ["name", "kind", "file", "applied_by", "applied_at", "short_hash"]
    list_filter = ["kind"]
    search_fields = ["name", "file", "applied_by"]
    list_fullwidth = True
    list_before_template = "admin/catalog/definitions_links.html"
    fields = ["kind", "name", "file", ("applied_by", "applied_at"), "sha256", "text"]

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        pages = {"drift": self.drift_view, "import": self.import_view, "export": self.export_view}
        own = [
            path(f"{word}/", self.admin_site.admin_view(view), name=f"{name}_{word}") for word, view in pages.items()
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"may_import": self._may_import(request), **(extra_context or {})})

    @display(description="SHA-256")
    def short_hash(self, applied: AppliedDefinition) -> str:
        return applied.sha256[:12]

    def export_view(self, request: HttpRequest) -> HttpResponse:
        """The whole catalog, as `manage.py export` prints it; for who may read all of it."""
        if not self.has_view_permission(request) or reach(request.user, READ) is not None:
            raise PermissionDenied("The export has every definition; you may not read all of them.")
        headers = {"Content-Disposition": 'attachment; filename="definitions.yaml"'}
        return HttpResponse(definitions.export(), content_type="application/yaml; charset=utf-8", headers=headers)

    def drift_view(self, request: HttpRequest) -> HttpResponse:
        """What was changed since the files were applied, elsewhere."""
        if not self.has_view_permission(request) or reach(request.user, READ) is not None:
            raise PermissionDenied("The comparison has every definition; you may not read all of them.")
        try:
            plan, refused = definitions.drift(), ""
        except FeaturehubError as error:
            plan, refused = None, str(error)
        return self._page(
            request,
            "Drift between files and catalog",
            "admin/catalog/drift.html",
            changes=_shown(plan) if plan else [],
            refused=refused,
            is_empty=not AppliedDefinition.objects.exists(),
        )

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Plan an uploaded file; apply it once that plan was confirmed."""
        if not self._may_import(request):
            raise PermissionDenied("You may not import definitions.")
        form = ImportForm(request.POST, request.FILES) if request.method == "POST" else ImportForm()
        if not form.is_valid():
            return self._page(request, "Import definitions", "admin/catalog/import.html", form=form)
        if "confirmed" in request.POST:
            try:
                plan = self._apply(request, form, shown=form.cleaned_data["shown"])
            except FeaturehubError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"Applied: {len(plan.changes)} changes.", messages.SUCCESS)
                return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))
        return self._planned(request, form)

    def _planned(self, request: HttpRequest, form: ImportForm) -> HttpResponse:
        """What the file would change. All of it is done and taken back, so that what would be refused is told."""
        plan: Plan | None = None
        refused = ""
        try:
            plan = plan_of(read_texts({form.cleaned_data["name"] or "upload": form.cleaned_data["text"]}))
            with transaction.atomic():
                self._apply(request, form)
                transaction.set_rollback(True)
        except FeaturehubError as error:
            refused = str(error)
        again = ImportForm(initial={**form.cleaned_data, "shown": digest(plan) if plan else ""})
        return self._page(
            request,
            "Import definitions",
            "admin/catalog/import.html",
            form=again,
            name=form.cleaned_data["name"],
            is_planned=True,
            changes=_shown(plan) if plan else [],
            refused=refused,
        )

    def _apply(self, request: HttpRequest, form: ImportForm, *, shown: str = "") -> Plan:
        """Apply what was sent; `shown` is the digest of the plan that was confirmed, if any was."""

        def approve(plan: Plan) -> None:
            if shown and digest(plan) != shown:
                raise Conflict("The catalog was changed since this plan was shown; look at what the file changes now.")
            require_each(request.user, plan)

        author = replace(author_of(request.user), reason=REASON)
        sent = form.cleaned_data
        return apply_text(sent["name"] or "upload", sent["text"], prune=sent["prune"], author=author, approve=approve)

    def _may_import(self, request: HttpRequest) -> bool:
        may: bool = request.user.has_perm(f"catalog.add_{self.opts.model_name}")
        return may

    def _page(self, request: HttpRequest, title: str, template: str, **context: Any) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "title": title, "opts": self.opts}
        request.current_app = self.admin_site.name
        form = context.get("form")
        return TemplateResponse(
            request, template, {**shared, "media": self.media + (form.media if form else forms.Media()), **context}
        )


def digest(plan: Plan) -> str:
    """Equal for plans of the same changes."""
    return hashlib.sha256(orjson.dumps(plan.as_json(), option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()


def _shown(plan: Plan) -> list[tuple[Change, str]]:
    return [(change, SIGNS[change.sign]) for change in plan.changes]
