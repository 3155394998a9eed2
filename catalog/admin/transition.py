"""The actions that change a status, take that back, or are about a review: after a page that says who is hit."""

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

from catalog import lifecycle
from catalog.access import REGISTRY, AnyCaller
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.guarded import GuardedAdmin
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.approvals import begins_as_draft, reviews_of, who_need_review
from catalog.lifecycle import Thing, change_status, readers_of
from catalog.models import Feature, Status
from catalog.models.status import TRANSITIONS
from catalog.registry.edits import REVIEWING
from catalog.registry.impact import impact_of
from catalog.reviews import open_review
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


_UNDO = "undo"
#: Of each thing that is done with a review: the title's verb, what it does, the button, its colour, the text's label.
_REVIEWING = {
    "request_review": (
        "Ask for a review of",
        "Somebody else who may change it approves it, which makes it active, or declines it.",
        ("Ask for a review", "primary", "Note"),
    ),
    "approve": (
        "Approve",
        "It is served from the next request on. The approval is of the definition as it is now.",
        ("Approve and activate", "primary", "Comment"),
    ),
    "decline": ("Decline", "It stays a draft. Another review may be asked for.", ("Decline", "danger", "Comment")),
    "withdraw": (
        "Withdraw the review of",
        "It stays a draft. Another review may be asked for.",
        ("Withdraw", "warning", "Comment"),
    ),
}


class TextForm(forms.Form):
    """A text that goes with a review."""

    text = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))

    def __init__(self, data: Any = None, *, label: str) -> None:
        super().__init__(data)
        self.fields["text"].label = label


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


def _reviewing_action(name: str, icon: str, variant: ActionVariant) -> Callable[..., HttpResponse]:
    def of_one(admin: StatusActions, request: HttpRequest, object_id: str) -> HttpResponse:
        return admin.review_one(request, object_id, name)

    of_one.__name__ = name
    description = name.capitalize().replace("_", " ")
    return action(description=description, permissions=["change"], icon=icon, variant=variant)(of_one)


def _list_action(name: str) -> Callable[..., HttpResponse]:
    def of_selected(admin: StatusActions, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return admin.change_statuses(request, list(queryset), _BY_ACTION[name], back=request.get_full_path())

    of_selected.__name__ = f"{name}_selected"
    description = f"{name.capitalize()} selected %(verbose_name_plural)s"
    return action(description=description, permissions=["change"])(of_selected)


def _concerned(thing: Thing, caller: AnyCaller) -> Concerned:
    """A thing with all who are hit; readers are told apart, since they keep it from being archived."""
    impact = impact_of(thing, caller)
    others = {
        "computed from it": impact["computed_features"],
        "training datasets": impact["training_datasets"],
        "out of your reach": [f"{impact['hidden']:,} more services or datasets"] if impact["hidden"] else [],
        "owners": impact["owners"],
    }
    return Concerned(
        thing, status_of(thing), readers_of(thing), [(noun, names) for noun, names in others.items() if names]
    )


def _possible(thing: Thing) -> frozenset[str]:
    """The actions that may be done with a thing as it is."""
    names = {name for name, status in _BY_ACTION.items() if status in TRANSITIONS[status_of(thing)]}
    undone = lifecycle.undone_status(thing)
    if undone and (undone in TRANSITIONS[status_of(thing)] or undone == status_of(thing)):
        names.add(_UNDO)
    if open_review(thing):
        names |= {"approve", "decline", "withdraw"}
    elif begins_as_draft(thing):
        names.add("request_review")
    return frozenset(names)


class StatusActions(GuardedAdmin):
    """Activate, deprecate and archive, of one thing on its page and of several in the list; of one also what takes the
    last change back, and reviews."""

    actions = ["activate_selected", "deprecate_selected", "archive_selected"]
    actions_detail = ["activate", "deprecate", "archive", "undo", "request_review", "approve", "decline", "withdraw"]

    activate = _detail_action("activate", "check_circle", ActionVariant.PRIMARY)
    deprecate = _detail_action("deprecate", "warning", ActionVariant.DEFAULT)
    archive = _detail_action("archive", "inventory_2", ActionVariant.DANGER)
    request_review = _reviewing_action("request_review", "rate_review", ActionVariant.PRIMARY)
    approve = _reviewing_action("approve", "thumb_up", ActionVariant.SUCCESS)
    decline = _reviewing_action("decline", "thumb_down", ActionVariant.DANGER)
    withdraw = _reviewing_action("withdraw", "undo", ActionVariant.WARNING)
    activate_selected = _list_action("activate")
    deprecate_selected = _list_action("deprecate")
    archive_selected = _list_action("archive")

    @display(description="Status", label=COLOURS)
    def status_label(self, thing: Thing) -> tuple[str, str]:
        return labelled(status_of(thing))

    @display(description="Status")
    def status_now(self, thing: Thing) -> SafeString:
        return with_icon(status_of(thing))

    @display(description="Review")
    def review_now(self, thing: Thing) -> str:
        """Whether one is needed, and how the last one stands."""
        needing = who_need_review(thing)
        needed = f"needed by {', '.join(needing)}" if needing else "not needed"
        last = reviews_of(thing).last()
        if last is None:
            return f"{needed}; none was asked for"
        asked = f"{needed}; review {last.pk}, which {last.asked_by_name} asked for, is {last.state}"
        return f"{asked}{': ' if last.comment else ''}{last.comment}"

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Only what may be done with the thing as it is now."""
        actions = super().get_actions_detail(request, object_id)
        thing = self.get_object(request, unquote(str(object_id)))
        possible = _possible(thing) if thing else frozenset()
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_"
        return [one for one in actions if one.action_name.removeprefix(prefix) in possible]

    @action(description="Undo", permissions=["change"], icon="undo", variant=ActionVariant.DEFAULT)
    def undo(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Take the last change of the status back, once that is confirmed."""
        thing = self.get_object(request, unquote(object_id))
        if thing is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        self.require_each(request, REGISTRY, [thing])
        page = self._page_of(thing)
        if is_confirmed(request):
            self._do(request, thing, lambda: lifecycle.undo(thing, by=request.user.get_username()), "Undo")
            return HttpResponseRedirect(page)
        target = lifecycle.undone_status(thing)
        back = f"It becomes {target} again." if target else "It had no other status."
        question = Question(
            f"Undo the last change of the status of {thing}?", back, "Undo", "primary", target == Status.ARCHIVED
        )
        return ask(self, request, question, concerned=[_concerned(thing, request.user)], form=Nothing(None), back=page)

    def review_one(self, request: HttpRequest, object_id: str, act: str) -> HttpResponse:
        """Ask for a review, answer it or take it back, once that is confirmed."""
        thing = self.get_object(request, unquote(object_id))
        if thing is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        self.require_each(request, REGISTRY, [thing])
        page, confirmed = self._page_of(thing), is_confirmed(request)
        verb, consequence, (button, variant, label) = _REVIEWING[act]
        form = TextForm(request.POST if confirmed else None, label=label)
        if confirmed and form.is_valid():
            do, text = REVIEWING[act.replace("_", "-")], form.cleaned_data["text"]
            self._do(request, thing, lambda: do(thing, request.user, text), f"Review: {act.replace('_', ' ')}")
            return HttpResponseRedirect(page)
        asked = open_review(thing)
        told = f" {asked.asked_by_name} asked: {asked.note or 'no note'}." if asked and act != "request_review" else ""
        question = Question(f"{verb} {thing}?", f"{consequence}{told}", button, variant)
        return ask(self, request, question, concerned=[_concerned(thing, request.user)], form=form, back=page)

    def _page_of(self, thing: Thing) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[thing.pk])

    def _do(self, request: HttpRequest, thing: Thing, change: Callable[[], object], what: str) -> None:
        try:
            change()
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        thing.refresh_from_db()
        self.log_change(request, thing, f"{what}.")
        self.message_user(request, f"{thing} is {status_of(thing)}.", messages.SUCCESS)

    def change_one(self, request: HttpRequest, object_id: str, status: Status) -> HttpResponse:
        thing = self.get_object(request, unquote(object_id))
        if thing is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return self.change_statuses(request, [thing], status, back=self._page_of(thing))

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
        concerned = [_concerned(thing, request.user) for thing in things]
        return ask(self, request, self._question(things, status), concerned=concerned, form=form, back=back)

    def _question(self, things: Sequence[Thing], status: Status) -> Question:
        verb, consequence, variant = _QUESTIONS[status]
        noun = str(self.opts.verbose_name) if len(things) == 1 else f"{len(things)} {self.opts.verbose_name_plural}"
        subject = f"{noun} {things[0]}" if len(things) == 1 else noun
        return Question(f"{verb} {subject}?", consequence, verb, variant, refused_if_read=status == Status.ARCHIVED)

    def _change(self, request: HttpRequest, thing: Thing, status: Status, form: forms.Form) -> None:
        arguments = form.arguments() if isinstance(form, ReasonForm) else {}
        by = request.user.get_username()
        self._do(request, thing, lambda: change_status(thing, status, by=by, **arguments), f"Status: {status}")
