"""How to use a feature or a service: a look-up, and snippets to paste."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from catalog.access import AnyCaller
from catalog.models import Feature, FeatureGroup, FeatureService
from catalog.pages.viewing import page
from catalog.registry.kinds import FEATURE_SERVICES, FEATURES, find
from catalog.schemas import request_needs
from engine.entity_key import KeyValue
from engine.schema import Dtype, Field
from serving import samples, snippets
from serving.pages.showing import answer
from serving.pages.trying import GROUPS_ASKED, base_of, form_context
from serving.snippets import Part, Wanted
from serving.trying import FEATURE, SERVICE

#: Ids of entities by the entity's name.
Recent = dict[str, list[list[KeyValue]]]


@page
def of_feature(request: HttpRequest, caller: AnyCaller, group: str, name: str) -> HttpResponse:
    feature: Feature = find(FEATURES, [group, name], caller)
    recent = _recent([feature], caller)
    entity = feature.group.entity
    context = _snippets(request, caller, [feature], recent)
    context |= form_context(entity, caller, fixed=f"{FEATURE}{feature}", recent=recent[entity.name])
    return answer(request, caller, "use", context, title=f"Use {feature.name}", about=feature, here="catalog-features")


@page
def of_service(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    service: FeatureService = find(FEATURE_SERVICES, [name], caller)
    chosen = service.chosen.select_related("feature__group__entity").order_by("position")
    features = [one.feature for one in chosen]
    recent = _recent(features, caller)
    context = _snippets(request, caller, features, recent, service=str(service))
    entities = {feature.group.entity for feature in features}
    if len(entities) == 1:  # the form has the keys of one entity
        entity = entities.pop()
        context |= form_context(entity, caller, fixed=f"{SERVICE}{service}", recent=recent[entity.name])
    return answer(request, caller, "use", context, title=f"Use {service}", about=service, here="catalog-services")


def _snippets(
    request: HttpRequest, caller: AnyCaller, features: Sequence[Feature], recent: Recent, *, service: str = ""
) -> dict[str, Any]:
    """The snippets for these features, or for the service that they are."""
    if not features:
        return {"snippets": []}
    known = FeatureGroup.objects.filter(pk__in={feature.group_id for feature in features})
    known = known.select_related("entity").prefetch_related("features", "request_inputs", "entity__join_keys")
    groups = {group.name: group for group in known}
    needs = {name: request_needs(group) for name, group in groups.items()}
    parts = tuple(
        Part(f.group.name, f.name, f.group.entity.name, Dtype.parse(f.dtype), f.name in needs[f.group.name])
        for f in features
    )
    inputs = {field.name: field for f in features for field in needs[f.group.name].get(f.name, ())}
    keys = {f.group.entity.name: groups[f.group.name].entity.key_fields() for f in features}
    wanted = Wanted(
        base_of(request),
        parts,
        keys,
        {key.name: value for name, fields in keys.items() for key, value in _id(fields, recent[name])},
        datetime.now(UTC).replace(microsecond=0),
        service,
        tuple(inputs.values()),
    )
    return {"snippets": snippets.all_of(wanted), "ids_are_real": all(recent.values())}


def _id(keys: Sequence[Field], recent: list[list[KeyValue]]) -> list[tuple[Field, KeyValue]]:
    """The join keys of an entity, each with a value: of one that is there, where there is one to show."""
    values = recent[0] if recent else [snippets.placeholder(key) for key in keys]
    return list(zip(keys, values, strict=True))


def _recent(features: Sequence[Feature], caller: AnyCaller) -> Recent:
    """Ids with new rows in the groups of these features, by the entity's name."""
    groups = {feature.group.name: feature.group for feature in features}.values()
    found: Recent = {group.entity.name: [] for group in groups}
    for group in list(groups)[:GROUPS_ASKED]:
        if not found[group.entity.name]:
            found[group.entity.name] = samples.recent_ids(group, caller)
    return found
