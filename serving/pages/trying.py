"""The form that looks a vector up in the online store, and what it found."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from catalog import refusals
from catalog.access import AnyCaller, seen
from catalog.models import Entity, Feature, FeatureGroup, FeatureService, Reason, ServiceFeature, Status
from catalog.models.feature import EFFECTIVE_STATUS
from catalog.pages.viewing import form_page
from catalog.registry.kinds import ENTITIES, find
from catalog.schemas import request_needs
from engine.entity_key import KeyValue, parse_id, to_id
from engine.errors import FeaturehubError, NotAllowed
from engine.schema import Field
from engine.status import INVALID, NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT
from serving import samples, snippets, trying
from serving.pages.showing import answer, is_for_htmx
from serving.trying import ALL, FEATURE, SERVICE, Looked
from serving.vectors import instant

#: Names that the form's lists show; others can be looked up from their own pages.
NAMES_AT_MOST = 300
#: Groups that are asked for ids to suggest.
GROUPS_ASKED = 3
#: What an error lists.
PROBLEMS_AT_MOST = 10
#: Characters of an id that a button shows.
LONGEST_ID = 40

#: How each of the five answers is told: colour, icon, word, what it means.
STATUSES = {
    PRESENT: ("success", "check_circle", "present", ""),
    NULL_VALUE: ("info", "block", "null", "Null is what is stored or computed."),
    NOT_FOUND: ("warning", "search_off", "not found", "Never written, deleted, or not part of the row."),
    OUTSIDE_MAX_AGE: ("warning", "timer_off", "too old", "Older than the group's TTL: the value is withheld."),
    INVALID: ("danger", "error", "invalid", "It cannot be read or computed."),
}
TITLES = {
    400: "The request cannot be answered as it is",
    403: "Not allowed",
    404: "Not found",
    409: "Not served yet",
    410: "Archived",
    429: "Too many look-ups",
    503: "Not available now",
}


@dataclass(frozen=True, slots=True)
class FormField:
    """One field: its name in the form, how it is labelled, which sort of control it is, what it holds."""

    name: str
    label: str
    control: str
    note: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An id that there is, to be chosen by one click."""

    id: str
    text: str


@form_page
def try_page(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    entity: Entity = find(ENTITIES, [name], caller)
    what = (request.POST if request.method == "POST" else request.GET).get("what", ALL)
    outcome = _look_up(request, entity, what, caller) if request.method == "POST" else {}
    status = outcome["error"].status if outcome.get("error") else 200
    if is_for_htmx(request) and request.method == "POST":
        context, part = outcome, "looked"
    else:
        context, part = form_context(entity, caller, what=what, texts=request.POST.dict()) | outcome, "try"
    response = answer(
        request,
        caller,
        part,
        context,
        title=f"Try {entity.name}",
        about=entity,
        here="catalog-entities",
        status=status,  # htmx shows no error's body, so it gets these words as any other result
    )
    if status == 429:
        response.headers["Retry-After"] = str(outcome["error"].retry_after_seconds)
    response.headers["Cache-Control"] = "private, no-store"
    return response


def form_context(
    entity: Entity,
    caller: AnyCaller,
    *,
    what: str = ALL,
    fixed: str = "",
    recent: list[list[KeyValue]] | None = None,
    texts: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What the form shows. `fixed` is what is looked up where that is not to be chosen, `recent` are ids to suggest for
    whoever has found some, and `texts` fill the fields."""
    texts = {name: samples.printable(text) for name, text in (texts or {}).items()}
    groups = list(seen(caller, FeatureGroup.objects.filter(entity=entity).select_related("entity")).order_by("name"))
    ids = _recent(groups, caller) if recent is None else recent
    return {
        "entity": entity,
        "address": reverse("catalog-try", args=[entity.name]),
        "keys": [
            FormField(f"key-{key.name}", key.name, key.dtype.kind, str(key.dtype), texts.get(f"key-{key.name}", ""))
            for key in entity.key_fields()
        ],
        "fixed": fixed,
        "what": what,
        "choices": [] if fixed else _choices(entity, groups, caller),
        "inputs": [_input(field, names, texts) for field, names in _inputs(groups, fixed)],
        "suggestions": [Suggestion(to_id(values), _told(values)) for values in ids],
        "ids_are_hidden": bool(groups) and samples.keys_are_hidden(groups[0], caller),
    }


def _choices(
    entity: Entity, groups: Iterable[FeatureGroup], caller: AnyCaller
) -> list[tuple[str, list[tuple[str, str]]]]:
    """What can be looked up, in titled lists of (value, label): services of this entity alone, and features."""
    served = [Status.ACTIVE, Status.DEPRECATED]
    elsewhere = ServiceFeature.objects.exclude(feature__group__entity=entity).values("service")
    services = seen(caller, FeatureService.objects.filter(status__in=served, features__group__in=groups))
    services = services.exclude(pk__in=elsewhere).distinct().order_by("name", "-version")
    features = Feature.objects.filter(group__in=groups).alias(effective=EFFECTIVE_STATUS).filter(effective__in=served)
    names = features.select_related("group").order_by("group__name", "position", "pk")
    return [
        ("Services", [(f"{SERVICE}{service}", str(service)) for service in services[:NAMES_AT_MOST]]),
        ("One feature", [(f"{FEATURE}{feature}", str(feature)) for feature in names[:NAMES_AT_MOST]]),
    ]


def _inputs(groups: Iterable[FeatureGroup], fixed: str) -> list[tuple[Field, list[str]]]:
    """The request inputs, each with the features that need it; of one feature only its own."""
    found: dict[str, tuple[Field, list[str]]] = {}
    asking = FeatureGroup.objects.filter(pk__in=[group.pk for group in groups], request_inputs__isnull=False)
    for group in asking.distinct().order_by("name").prefetch_related("features", "request_inputs"):
        for feature, fields in request_needs(group).items():
            if fixed.startswith(FEATURE) and fixed != f"{FEATURE}{group.name}:{feature}":
                continue
            for field in fields:
                found.setdefault(field.name, (field, []))[1].append(feature)
    return list(found.values())


def _input(field: Field, names: list[str], texts: dict[str, str]) -> FormField:
    kind = field.dtype.kind
    control = "bool" if kind == "bool" else "text"
    examples = {"timestamp": "2026-01-31T12:00:00Z", "embedding": "JSON: [0.5, 1]", "list": "JSON: [1, 2]"}
    note = f"{field.dtype}, for {', '.join(names)}. " + (f"Such as {examples[kind]}. " if kind in examples else "")
    name = f"request-{field.name}"
    return FormField(name, field.name, control, f"{note}Empty is null.", texts.get(name, ""))


def _recent(groups: list[FeatureGroup], caller: AnyCaller) -> list[list[KeyValue]]:
    """Ids with new rows, of as many groups as it takes to have some."""
    found: dict[tuple[KeyValue, ...], None] = {}
    for group in groups[:GROUPS_ASKED]:
        found |= dict.fromkeys(map(tuple, samples.recent_ids(group, caller)))
        if len(found) >= samples.SUGGESTED:
            break
    return [list(values) for values in found][: samples.SUGGESTED]


def _told(values: Iterable[Any]) -> str:
    text = samples.printable(", ".join(map(str, values)))
    return text if len(text) <= LONGEST_ID else f"{text[: LONGEST_ID - 1]}…"


def _look_up(request: HttpRequest, entity: Entity, what: str, caller: AnyCaller) -> dict[str, Any]:
    """What the part with the result shows: what was found, or why nothing was."""
    texts = request.POST.dict()
    keys = entity.key_fields()
    try:
        chosen = texts.get("id") or trying.id_of(keys, _without("key-", texts))
        looked = trying.look_up(entity.name, chosen, what, _without("request-", texts), caller)
    except FeaturehubError as error:
        if isinstance(error, NotAllowed):
            refusals.count(error.reason or Reason.PAGE, request, about=error.about)
        title = TITLES.get(error.status, "This did not work")
        return {"error": error, "error_title": title, "error_lines": list(_lines(error))}
    return {"looked": looked, "rows": list(_rows(looked)), "curl": _curl(request, looked), "id": _told([looked.id])}


def _lines(error: FeaturehubError) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """Where, what and the near names of each problem of an error, what was sent as it can be shown."""
    for problem in error.problems[:PROBLEMS_AT_MOST]:
        yield samples.printable(problem.pointer), samples.printable(problem.detail), problem.did_you_mean


def _without(prefix: str, texts: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(prefix): text for name, text in texts.items() if name.startswith(prefix)}


def _rows(looked: Looked) -> Iterable[dict[str, Any]]:
    """A row of the result for each feature, in the order asked."""
    found, now = looked.found, time.time()
    columns = zip(
        looked.labels, found.plan.features, found.python_values()[0], found.statuses[0], found.event_us[0], strict=True
    )
    for label, feature, value, status, event_us in columns:
        tone, icon, word, meaning = STATUSES[status]
        yield {
            "label": label,
            "feature": feature,
            "cell": None if value is None else samples.shown(value, feature.dtype),
            "tone": tone,
            "icon": icon,
            "word": word,
            "meaning": meaning,
            "event": None if event_us is None else instant(event_us),
            "age": None if event_us is None else max(0.0, now - event_us / 1e6),
        }


def _curl(request: HttpRequest, looked: Looked) -> str:
    base = base_of(request)
    asked = {"feature_service": looked.service} if looked.service else {"features": looked.features or ""}
    if looked.request is None:
        query = {name: text for name, text in asked.items() if text}
        return snippets.curl_of_address(base, looked.entity, looked.id, query)
    values = parse_id(looked.id, looked.found.plan.keys)
    body: dict[str, Any] = {"feature_service": looked.service} if looked.service else {"features": looked.labels}
    body["entities"] = {key.name: [value] for key, value in zip(looked.found.plan.keys, values, strict=True)}
    body["request"] = {name: [value] for name, value in looked.request.items()}
    return snippets.curl_of_body(base, body)


def base_of(request: HttpRequest) -> str:
    """The hub's address as the browser has it, without a slash at its end."""
    return request.build_absolute_uri("/").rstrip("/")
