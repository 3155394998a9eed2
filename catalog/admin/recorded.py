"""The base of every page of something that has a history: what was changed, the way back, and edits that meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from simple_history.admin import SimpleHistoryAdmin
from simple_history.models import DeletedObject, HistoricalChanges, ModelChange
from simple_history.template_utils import HistoricalRecordContextHelper
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextareaWidget

from catalog import history
from catalog.access import REGISTRY
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.guarded import GuardedAdmin
from catalog.admin.moment import moment_text
from catalog.definitions.exporting import written_yaml
from engine.errors import FeaturehubError

#: The field of a form that says which version it shows: the newest row of the thing's history.
READ_VERSION = "_read_version"
CHANGES_ON_A_PAGE = 50


class ChangeWords(HistoricalRecordContextHelper):
    """Old and new values as people read them: nothing for none, moments with their zone."""

    def prepare_delta_change_value(self, change: ModelChange, value: Any) -> Any:
        if value is None or (isinstance(value, DeletedObject) and value.pk is None):
            return ""
        return moment_text(value) if isinstance(value, datetime) else super().prepare_delta_change_value(change, value)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of two versions, as people read it."""

    field: str
    old: str
    new: str


def in_words(fields: tuple[tuple[str, Any, Any], ...]) -> list[Difference]:
    """The fields of a change; nothing stands for a key's default."""
    return [Difference(field, _text(old), _text(new)) for field, old, new in fields]


def _text(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        return value
    plain = list(value) if isinstance(value, tuple) else value
    return written_yaml(plain, in_one_line=True).removesuffix("\n").removesuffix("\n...")


class RecordedAdmin(GuardedAdmin, SimpleHistoryAdmin, ModelAdmin):
    """History says who changed what, when and why. Going back is an edit like any other, which leaves the status.

    The library's own revert would bring back the old status too, past the lifecycle's checks; it is refused.
    """

    list_fullwidth = True
    warn_unsaved_form = True
    change_form_before_template = "admin/catalog/read_version.html"
    formfield_overrides = {models.TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}

    def get_urls(self) -> list[URLPattern]:
        urls: list[URLPattern] = super().get_urls()
        if self.model not in history.KINDS:
            return urls
        name = f"{self.opts.app_label}_{self.opts.model_name}_revert"
        view = self.admin_site.admin_view(self.revert_view)
        return [path("<path:object_id>/history/<int:history_id>/revert/", view, name=name), *urls]

    # -- History

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Every change in the keys of a definitions file; of other things what the library shows."""
        thing = self.get_object(request, unquote(object_id))
        if self.model not in history.KINDS or thing is None:
            return super().history_view(request, object_id, extra_context)
        if not self.has_view_permission(request, thing):
            raise PermissionDenied
        page = Paginator(history.changes_of(thing), CHANGES_ON_A_PAGE).get_page(request.GET.get("p"))
        context = {
            **self.admin_site.each_context(request),
            "title": f"History: {thing}",
            "opts": self.opts,
            "object": thing,
            "page": page,
            "changes": [(change, moment_text(change.at), in_words(change.fields)) for change in page],
            "may_revert": self.may(request, REGISTRY, thing),
            "newest": page.number == 1 and next((change.id for change in page), None),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/catalog/history.html", {**context, **(extra_context or {})})

    def revert_view(self, request: HttpRequest, object_id: str, history_id: int) -> HttpResponse:
        """Make the definition what it was after a change, once that is confirmed."""
        thing = self.get_object(request, unquote(object_id))
        if thing is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        self.require_each(request, REGISTRY, [thing])
        back = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_history", args=[thing.pk])
        confirmed = is_confirmed(request)
        try:
            plan = history.revert(thing, history_id, request.user, dry_run=not confirmed)
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(back)
        if confirmed:
            self.log_change(request, thing, f"Reverted to change {history_id}.")
            self.message_user(request, f"{thing} is what it was after change {history_id}.", messages.SUCCESS)
            return HttpResponseRedirect(back)
        changed = [(f"{change.kind} {change.name}", [str(field) for field in change.fields]) for change in plan.changes]
        question = Question(
            f"Revert {thing} to what it was after change {history_id}?",
            "Its status, its schedule and its group's version stay as they are." if changed else "It is that already.",
            "Revert",
            "warning",
            of_readers=False,
        )
        concerned = [Concerned(thing, "as it is now", others=changed)]
        return ask(self, request, question, concerned=concerned, form=Nothing(None), back=back)

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

    # -- Edits that meet

    def _changeform_view(
        self, request: HttpRequest, object_id: str | None, form_url: str, extra_context: dict[str, Any] | None
    ) -> HttpResponse:
        """A form that shows an older version than the present one saves nothing: both are shown."""
        thing = self.get_object(request, unquote(object_id)) if object_id else None
        context = dict(extra_context or {})
        if thing is not None:
            read = request.POST.get(READ_VERSION, "")
            if request.method == "POST" and read.isascii() and read.isdecimal():
                self.model._default_manager.select_for_update().get(pk=thing.pk)  # whoever saves now follows
                if version_of(thing) != int(read):
                    return self._stale(request, thing, int(read))
            context["read_version"] = (READ_VERSION, read or version_of(thing))
        return super()._changeform_view(request, object_id, form_url, context)

    def _stale(self, request: HttpRequest, thing: Any, read: int) -> HttpResponse:
        since = history.changes_since(thing, read) if self.model in history.KINDS else []
        sent = [
            (name, value)
            for name, values in request.POST.lists()
            for value in values
            if name not in ("csrfmiddlewaretoken", READ_VERSION)
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": f"{thing} was changed meanwhile",
            "opts": self.opts,
            "object": thing,
            "since": [(change, moment_text(change.at), in_words(change.fields)) for change in since],
            "differences": list(self._differences(request, thing)),
            "sent": sent,
            "read_version": (READ_VERSION, version_of(thing)),
            "page": request.path,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/catalog/stale.html", context, status=409)

    def _differences(self, request: HttpRequest, thing: Any) -> Iterator[Difference]:
        """The fields in which what was sent differs from the present version."""
        kind = self.get_form(request, thing, change=True)
        present = kind(instance=self.get_object(request, str(thing.pk)))
        sent = kind(request.POST, instance=self.get_object(request, str(thing.pk)))
        for name, field in sent.fields.items():
            if sent[name]._has_changed():
                label = str(field.label or name)
                yield Difference(label, _in_form(present[name]), _in_form(sent[name]))


def version_of(thing: Any) -> int:
    """The newest row of a thing's history; every save of a form, every apply and every change of a status adds one."""
    return int(thing.history.order_by("-history_id").values_list("history_id", flat=True).first() or 0)


def _in_form(bound: forms.BoundField) -> str:
    """A field's value as its form shows it: the names of what is chosen."""
    value = bound.value()
    if isinstance(bound.field, forms.ModelChoiceField):
        chosen = value if isinstance(value, list | tuple) else [value]
        keys = [getattr(one, "pk", one) for one in chosen if one not in (None, "")]
        queryset = bound.field.queryset
        return ", ".join(map(str, queryset.filter(pk__in=keys))) if queryset is not None else ""
    choices = dict(getattr(bound.field, "choices", ()))
    return str(choices.get(value, "" if value is None else value))
