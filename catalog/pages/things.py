"""The page of each thing: a feature, a group, an entity, a service, a training dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from catalog.access import READ, WRITE, AnyCaller, allowed, reach, seen
from catalog.history import changes_of
from catalog.models import Entity, Feature, FeatureGroup, FeatureService, Status, TrainingDataset
from catalog.pages import searching, wording
from catalog.pages.changing import actions_on
from catalog.pages.distribution import distribution_of, sparks_of
from catalog.pages.freshness import freshness_of
from catalog.pages.lineage import lineage_of
from catalog.pages.viewing import page, show
from catalog.registry.impact import impact_of
from catalog.registry.kinds import ENTITIES, FEATURE_GROUPS, FEATURE_SERVICES, FEATURES, find
from catalog.schemas import request_needs
from catalog.timing import due_times, timing_in_words
from engine.errors import NotFound

#: Runs of a group that its page tells of.
RUNS = 30
#: Changes of a thing that its page tells of.
CHANGES = 10


@page
def feature_page(request: HttpRequest, caller: AnyCaller, group: str, name: str) -> HttpResponse:
    feature: Feature = find(FEATURES, [group, name], caller)
    impact = impact_of(feature, caller)
    context = {
        "feature": feature,
        "offered": actions_on(feature, caller),
        "freshness": freshness_of([feature.group]).get(feature.group_id),
        "distribution": distribution_of(feature),
        "spark": sparks_of([feature]).get(feature.pk, ""),
        "group": feature.group,
        "status": feature.effective_status,
        "computed_by": wording.computed_by(feature),
        "reads": wording.reads_in_order(feature),
        "on_request": request_needs(feature.group).get(feature.name, ()),
        "rules": wording.rules_of(feature),
        "on_violation": wording.on_violation(feature),
        "owner": feature.owner or feature.group.owner,
        "requests": sum(reader["requests"] for reader in impact["readers"]),
        "impact": impact,
        "services": seen(caller, FeatureService.objects.filter(features=feature)).order_by("name", "version"),
        **_history(feature),
        "lineage": lineage_of(feature, caller),
        "last_run": feature.group.runs.order_by("-created_at").first(),
    }
    return show(request, caller, "catalog/feature.html", context, here="catalog-features")


@page
def group_page(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    group: FeatureGroup = find(FEATURE_GROUPS, [name], caller)
    features = list(group.features.select_related("group", "owner").order_by("position", "pk"))
    reads = dict(searching.reads_by_feature().filter(feature__group=group))
    sparks = sparks_of(features)
    runs = list(group.runs.order_by("-created_at")[:RUNS])
    context = {
        "group": group,
        "offered": actions_on(group, caller),
        "freshness": freshness_of([group]).get(group.pk),
        "rows": [
            (feature, wording.computed_by(feature), reads.get(feature.pk, 0), sparks.get(feature.pk, "—"))
            for feature in features
        ],
        "on_request": request_needs(group, features),
        "inputs": group.inputs.all(),
        "request_inputs": group.request_inputs.all(),
        "runs": runs,
        "tracker": [None] * (RUNS - len(runs)) + runs[::-1],
        "timing": timing_in_words(group.schedule) if group.schedule else "",
        "due": due_times(group.schedule, 3, now=timezone.now()) if group.schedule else [],
        **_history(group),
        "lineage": lineage_of(group, caller),
        "impact": impact_of(group, caller),
        "may_write": allowed(caller, WRITE, group),
    }
    return show(request, caller, "catalog/group.html", context, here="catalog-groups")


@page
def entity_page(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    entity: Entity = find(ENTITIES, [name], caller)
    groups = seen(caller, FeatureGroup.objects.filter(entity=entity)).select_related("owner")
    context = {
        "entity": entity,
        "offered": actions_on(entity, caller),
        "keys": entity.join_keys.all(),
        "groups": groups.annotate(number=Count("features", distinct=True)).order_by("name"),
        **_history(entity),
        "lineage": lineage_of(entity, caller),
    }
    return show(request, caller, "catalog/entity.html", context, here="catalog-entities")


@page
def service_page(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    service: FeatureService = find(FEATURE_SERVICES, [name], caller)
    chosen = service.chosen.select_related("feature__group__entity", "feature__owner", "feature__replaced_by__group")
    visible = set(seen(caller, Feature.objects.filter(services=service).order_by()).values_list("pk", flat=True))
    places = [(one.position + 1, one.feature) for one in chosen if one.feature_id in visible]
    features = [feature for _, feature in places]
    sees_all = reach(caller, READ) is None  # what its list was before may name features of any group
    context = {
        "service": service,
        "offered": actions_on(service, caller),
        "places": places,
        "number": len(chosen),
        "problems": problems_of(service, features),
        "versions": seen(caller, FeatureService.objects.filter(name=service.name)).order_by("-version"),
        "changes": service.changes_since() if sees_all else None,
        "impact": impact_of(service, caller),
        **_history(service, without="" if sees_all else "features"),
        "lineage": lineage_of(service, caller),
    }
    return show(request, caller, "catalog/service.html", context, here="catalog-services")


def _history(thing: Entity | FeatureGroup | Feature | FeatureService, *, without: str = "") -> dict[str, Any]:
    """The changes of a thing, newest first; `without` is a key of its definition that is not to be told."""
    changes = [
        replace(change, fields=tuple(one for one in change.fields if one[0] != without)) for change in changes_of(thing)
    ]
    return {"history": changes[:CHANGES], "history_more": max(len(changes) - CHANGES, 0)}


def problems_of(service: FeatureService, features: list[Feature]) -> list[tuple[Feature, str]]:
    """What breaks the service's contract: its features that are not served, each with why."""
    if service.status == Status.ARCHIVED:
        return []
    why = {
        Status.ARCHIVED: "is archived: requests are answered 410",
        Status.DRAFT: "is a draft: requests are answered 409",
    }
    return [(f, why[f.effective_status]) for f in features if f.effective_status in why]


@page
def dataset_page(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    found = TrainingDataset.objects.select_related("run").filter(name=name.replace("\0", "")).first()
    if found is None or not allowed(caller, READ, found):
        raise NotFound(f"There is no training dataset named {name[:200]!r}.")
    manifest: dict[str, Any] = found.manifest or {}
    context = {
        "dataset": found,
        "run": found.run,
        "manifest": manifest,
        "null_rates": sorted(found.null_rates().items()),
        "parts": manifest.get("groups", []),
    }
    return show(request, caller, "catalog/dataset.html", context, here="catalog-datasets")
