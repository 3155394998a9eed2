"""The actions that change a status: by the lifecycle, after a page that says who is hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelect2Widget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from catalog.access import REGISTRY
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.guarded import GuardedAdmin
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.lifecycle import Thing, change_status, readers_of
from catalog.models import Feature, Status
from catalog.models.status import TRANSITIONS
from engine.errors import FeaturehubError

_BY_ACTION = {"activate": Status.ACTIVE, "deprecate": Status.DEPRECATED, "archive": Status.ARCHIVED}
_QUESTIONS = {
    Status.ACTIVE: ("Activate", "It is served from the next request on.", "primary"),
    Status.DEPRECATED: (
        "Deprecate",
        "It is still served. Every answer that holds it says so, with its replacement and its sunset.",
        "warning",
    ),
    Status.ARCHIVED: (
        "Archive",
        "Requests for it are answered 410 Gone from then on. Stored rows are kept, and it can be activated again.",
        "danger",
    ),
}


class ReasonForm(forms.Form):
    """Why a group or a service is deprecated; it is kept in the history."""

    reason = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), help_text="Kept in the history, and shown to readers."
    )

    def arguments(self) -> dict[str, Any]:
        """What the lifecycle is told beside the status."""
        return dict(self.cleaned_data)


class DeprecationForm(ReasonForm):
    """Why a feature is deprecated, what replaces it, and the day that is announced to its readers."""

    replaced_by = forms.ModelChoiceField(
        Feature.objects.none(),
        required=False,
        label="Replacement",
        empty_label="None",
        widget=UnfoldAdminSelect2Widget,
        help_text="An active feature of the same entity.",
    )
    sunset = forms.DateField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="The day, in UTC, that is announced to readers; nothing happens by itself.",
    )

    def __init__(self, data: Any = None, *, features: Sequence[Feature]) -> None:
        super().__init__(data)
        entities = {feature.group.entity_id for feature in features}
        active = Feature.objects.filter(
            status__in=["", Status.ACTIVE], group__status=Status.ACTIVE, group__entity__in=entities
        )
        chosen = active.exclude(pk__in=[feature.pk for feature in features]).select_related("group")
        self.fields["replaced_by"].queryset = chosen  # type: ignore[attr-defined]

    def clean_sunset(self) -> datetime | None:
        day: date | None = self.cleaned_data["sunset"]
        if day and day <= timezone.now().date():
            raise forms.ValidationError("A sunset lies in the future.")
        return datetime.combine(day, time(), UTC) if day else None


def _form_for(things: Sequence[Thing], status: str, data: Any) -> forms.Form:
    if status != Status.DEPRECATED:
        return Nothing(data)
    features = [thing for thing in things if isinstance(thing, Feature)]
    return DeprecationForm(data, features=features) if features else ReasonForm(data)


def status_of(thing: Thing) -> str:
    """The status that counts: a feature's own and its group's together."""
    return thing.effective_status if isinstance(thing, Feature) else thing.status


def _detail_action(name: str, icon: str, variant: ActionVariant) -> Callable[..., HttpResponse]:
    def of_one(admin: StatusActions, request: HttpRequest, object_id: str) -> HttpResponse:
        return admin.change_one(request, object_id, _BY_ACTION[name])

    of_one.__name__ = name
    return action(description=name.capitalize(), permissions=["change"], icon=icon, variant=variant)(of_one)


def _list_action(name: str) -> Callable[..., HttpResponse]:
    def of_selected(admin: StatusActions, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return admin.change_statuses(request, list(queryset), _BY_ACTION[name], back=request.get_full_path())

    of_selected.__name__ = f"{name}_selected"
    description = f"{name.capitalize()} selected %(verbose_name_plural)s"
    return action(description=description, permissions=["change"])(of_selected)


class StatusActions(GuardedAdmin):
    """Activate, deprecate and archive, of one thing on its page and of several in the list."""

    actions = ["activate_selected", "deprecate_selected", "archive_selected"]
    actions_detail = ["activate", "deprecate", "archive"]

    activate = _detail_action("activate", "check_circle", ActionVariant.PRIMARY)
    deprecate = _detail_action("deprecate", "warning", ActionVariant.WARNING)
    archive = _detail_action("archive", "inventory_2", ActionVariant.DANGER)
    activate_selected = _list_action("activate")
    deprecate_selected = _list_action("deprecate")
    archive_selected = _list_action("archive")

    @display(description="Status", label=COLOURS)
    def status_label(self, thing: Thing) -> tuple[str, str]:
        return labelled(status_of(thing))

    @display(description="Status")
    def status_now(self, thing: Thing) -> SafeString:
        return with_icon(status_of(thing))

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Only the changes that may follow the thing's status now."""
        actions = super().get_actions_detail(request, object_id)
        thing = self.get_object(request, unquote(str(object_id)))
        possible = TRANSITIONS[status_of(thing)] if thing else frozenset()
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_"
        return [one for one in actions if _BY_ACTION[one.action_name.removeprefix(prefix)] in possible]

    def change_one(self, request: HttpRequest, object_id: str, status: Status) -> HttpResponse:
        thing = self.get_object(request, unquote(object_id))
        if thing is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        page = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[thing.pk])
        return self.change_statuses(request, [thing], status, back=page)

    def change_statuses(
        self, request: HttpRequest, things: Sequence[Thing], status: Status, *, back: str
    ) -> HttpResponse:
        """Ask first; once confirmed, change each thing by itself and say what came of it."""
        self.require_each(request, REGISTRY, things)
        confirmed = is_confirmed(request)
        form = _form_for(things, status, request.POST if confirmed else None)
        if confirmed and form.is_valid():
            for thing in things:
                self._change(request, thing, status, form)
            return HttpResponseRedirect(back)
        concerned = [Concerned(thing, status_of(thing), readers_of(thing)) for thing in things]
        return ask(self, request, self._question(things, status), concerned=concerned, form=form, back=back)

    def _question(self, things: Sequence[Thing], status: Status) -> Question:
        verb, consequence, variant = _QUESTIONS[status]
        noun = str(self.opts.verbose_name) if len(things) == 1 else f"{len(things)} {self.opts.verbose_name_plural}"
        subject = f"{noun} {things[0]}" if len(things) == 1 else noun
        return Question(f"{verb} {subject}?", consequence, verb, variant, refused_if_read=status == Status.ARCHIVED)

    def _change(self, request: HttpRequest, thing: Thing, status: Status, form: forms.Form) -> None:
        arguments = form.arguments() if isinstance(form, ReasonForm) else {}
        try:
            change_status(thing, status, by=request.user.get_username(), **arguments)
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        self.log_change(request, thing, f"Status: {status}.")
        self.message_user(request, f"{thing} is {status_of(thing)}.", messages.SUCCESS)
