"""Changing a status or a review from a page: who is hit first, then what is asked for, then the word that does it.

The change itself is the registry's (catalog/registry/edits.py), with its rights and its check that nobody else has
changed the thing since it was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from catalog import follows, lifecycle, reviews
from catalog.access import REGISTRY, AnyCaller, allowed, require, seen
from catalog.models import Entity, Feature, Status
from catalog.models.feature import EFFECTIVE_STATUS
from catalog.models.status import TRANSITIONS
from catalog.pages.addresses import page_of
from catalog.pages.viewing import form_page, show
from catalog.registry import edits
from catalog.registry.answers import etag_of, shown
from catalog.registry.edits import REVIEWING, Undo, transition_of
from catalog.registry.kinds import ENTITIES, FEATURE_GROUPS, FEATURE_SERVICES, FEATURES, Kind, find
from engine.errors import InvalidInput, NotAllowed

STATUSES = {"activate": Status.ACTIVE, "deprecate": Status.DEPRECATED, "archive": Status.ARCHIVED}
#: By the word in an address: the kind of thing, and how the route calls what names it.
KINDS: dict[str, Kind] = {
    "features": FEATURES,
    "groups": FEATURE_GROUPS,
    "services": FEATURE_SERVICES,
    "entities": ENTITIES,
}
#: Replacements that the form suggests.
SUGGESTED = 500


@dataclass(frozen=True, slots=True)
class Verb:
    """What can be done with a thing: the word on its button, what it brings about, and whether that is hard to bear."""

    word: str
    title: str
    icon: str
    consequence: str
    is_danger: bool = False
    asks_reason: bool = False


VERBS = {
    verb.word: verb
    for verb in (
        Verb("activate", "Activate", "check_circle", "It is served from the next request on."),
        Verb(
            "deprecate",
            "Deprecate",
            "warning",
            "It is still served. Every answer that holds it says so, with its replacement and its sunset.",
            asks_reason=True,
        ),
        Verb(
            "archive",
            "Archive",
            "inventory_2",
            "Requests for it are answered 410 Gone from then on. Stored rows are kept, and it can be activated again.",
            is_danger=True,
            asks_reason=True,
        ),
        Verb("undo", "Undo", "undo", "Its last change of status is taken back, with its reason and replacement."),
        Verb(
            "request-review",
            "Ask for a review",
            "rate_review",
            "Somebody who may change it, and who is not its author, approves or declines it.",
            asks_reason=True,
        ),
        Verb("approve", "Approve", "thumb_up", "It becomes active, and is served from the next request on."),
        Verb("decline", "Decline", "thumb_down", "It stays a draft. Your comment says why.", asks_reason=True),
        Verb("withdraw", "Withdraw the review", "undo", "Nobody is asked for an answer any more."),
    )
}


def verbs_for(thing: lifecycle.Thing, caller: AnyCaller) -> list[Verb]:
    """What the caller may do with a thing now, the likeliest first."""
    if not allowed(caller, REGISTRY, thing):
        return []
    status = thing.effective_status if isinstance(thing, Feature) else Status(thing.status)
    words: list[str] = []
    if status == Status.DRAFT:
        words += ["approve", "decline", "withdraw"] if reviews.open_review(thing) else ["request-review"]
    words += [word for word, target in STATUSES.items() if target in TRANSITIONS[status]]
    if lifecycle.undone_status(thing) in TRANSITIONS[status]:
        words.append("undo")
    return [VERBS[word] for word in words]


@dataclass(frozen=True, slots=True)
class _Change:
    """What a form asks of the registry: `body` as a request's would be."""

    caller: AnyCaller
    kind: Kind
    names: list[str]
    verb: Verb
    body: dict[str, Any]

    def asked(self) -> Any:
        reason = self.body.get("reason", "")
        if self.verb.word == "undo":
            return Undo(reason)
        return transition_of(self.caller, self.kind, self.names, STATUSES[self.verb.word], self.body)

    def impact(self) -> dict[str, Any] | None:
        """Who is hit by the verb, whatever the form says; None for a review, which hits nobody."""
        if self.verb.word in REVIEWING:
            return None
        return edits.impact(self.caller, self.kind, self.names, replace(self, body={}).asked())

    def try_out(self) -> None:
        """Raises what the change would be refused for, and changes nothing."""
        if self.verb.word == "deprecate" and not self.body.get("reason"):
            raise InvalidInput("Say why: the reason is shown to whoever reads it.")
        if self.verb.word not in REVIEWING:
            told = edits.impact(self.caller, self.kind, self.names, self.asked())
            if told["refused"]:
                raise InvalidInput(told["refused"])

    def make(self, if_match: str | None) -> None:
        if self.verb.word in REVIEWING:
            text = self.body.get("reason", "")
            edits.review(self.caller, self.kind, self.names, self.verb.word, text, if_match=if_match)
            return
        self.try_out()
        edits.change_state(self.caller, self.kind, self.names, self.asked(), if_match=if_match)


@form_page
def change_page(request: HttpRequest, caller: AnyCaller, kind: str, names: str, verb: str) -> HttpResponse:
    """Who is hit, what is asked for, and after a last word the change."""
    of, parts = KINDS[kind], names.split("/")
    if len(parts) != len(of.order) and of is not FEATURE_SERVICES:
        raise Http404
    thing = find(of, parts, caller, REGISTRY)
    require(caller, REGISTRY, thing)
    change = _Change(caller, of, parts, VERBS[verb], _body(request, of, verb))
    step, problem = request.POST.get("step", "impact"), None
    try:
        if step == "do":
            change.make(request.POST.get("etag") or None)
            messages.success(request, f"{thing}: {_DONE[verb]}.")
            return redirect(page_of(thing))
        if step == "confirm":
            change.try_out()
    except (InvalidInput, NotAllowed) as error:
        problem, step = error, "ask"
    context = {
        "thing": thing,
        "verb": change.verb,
        "title": f"{change.verb.title} {thing}",
        "impact": change.impact(),
        "etag": etag_of(shown(thing)),
        "step": step,
        "given": change.body,
        "problem": problem,
        "replacements": _replacements(thing, caller) if verb == "deprecate" and of is FEATURES else [],
        "is_feature": of is FEATURES,
        "review": reviews.open_review(thing),
    }
    return show(request, caller, "catalog/change.html", context, here=f"catalog-{kind}")


def _body(request: HttpRequest, kind: Kind, verb: str) -> dict[str, Any]:
    """What the form says, as the body of the registry's request would; what was left empty is not in it."""
    fields = ["reason", "replaced_by", "sunset"] if verb == "deprecate" and kind is FEATURES else ["reason"]
    given = {name: request.POST.get(name, "").replace("\0", "").strip() for name in fields}
    body = {name: value for name, value in given.items() if value}
    if len(body.get("sunset", "")) == len("2026-01-01"):
        body["sunset"] += "T00:00:00Z"
    return body


_DONE = {
    "activate": "active now",
    "deprecate": "deprecated; Undo takes it back",
    "archive": "archived; Undo takes it back",
    "undo": "as it was before",
    "request-review": "a review is asked for",
    "approve": "approved, and active now",
    "decline": "declined",
    "withdraw": "the review is withdrawn",
}


def _replacements(feature: Feature, caller: AnyCaller) -> list[str]:
    """Active features of the same entity, as the form suggests them."""
    active = Feature.objects.alias(effective=EFFECTIVE_STATUS).filter(
        effective=Status.ACTIVE, group__entity=feature.group.entity_id
    )
    found = seen(caller, active.exclude(pk=feature.pk)).select_related("group").order_by("group__name", "name")
    return [str(other) for other in found[:SUGGESTED]]


@form_page
def follow_page(request: HttpRequest, caller: AnyCaller, kind: str, names: str) -> HttpResponse:
    """Follow a thing, or follow it no more; back to its page."""
    thing = find(KINDS[kind], names.split("/"), caller)
    if request.method == "POST":
        if not isinstance(caller, User):
            raise NotAllowed("Following needs a login: it is a person that is told.")
        if request.POST.get("follow") == "no":
            follows.unfollow(caller, thing)
        else:
            follows.follow(caller, thing)
    return redirect(page_of(thing))


def actions_on(thing: Any, caller: AnyCaller) -> dict[str, Any]:
    """What the buttons on a thing's page offer the caller."""
    word = next(word for word, kind in KINDS.items() if isinstance(thing, kind.model))
    names = str(thing).replace(":", "/")
    person = caller if isinstance(caller, User) else None
    may_edit = person is not None and person.is_staff and allowed(person, REGISTRY, thing)
    page = f"admin:{thing._meta.app_label}_{thing._meta.model_name}"
    return {
        "verbs": [
            (verb, reverse("catalog-change", args=[word, names, verb.word]))
            for verb in ([] if isinstance(thing, Entity) else verbs_for(thing, caller))
        ],
        "follow": reverse("catalog-follow", args=[word, names]) if person else "",
        "is_following": person is not None and follows.is_following(person, thing),
        "edit": reverse(f"{page}_change", args=[thing.pk]) if may_edit else "",
        "restore": reverse(f"{page}_history", args=[thing.pk]) if may_edit else "",
    }
