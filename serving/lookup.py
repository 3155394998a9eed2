"""One entity's vector, asked for by the entity's name and its id as it stands in a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from catalog.access import AnyCaller
from catalog.models import Status
from catalog.snapshot import Catalog, FeatureSnapshot
from engine.entity_key import parse_id
from engine.errors import EntityNotFound, InvalidInput, Problem
from engine.status import NOT_FOUND
from serving import names, vectors
from serving.plan import Plan, remembered
from serving.rights import for_caller
from serving.steps import Steps
from serving.vectors import Vectors


def reading_entity(
    entity: str,
    id: str,
    *,
    features: str | None = None,
    service: str | None = None,
    caller: AnyCaller | None = None,
    request: Mapping[str, object] | None = None,
) -> Steps[tuple[Vectors, list[str]]]:
    """One entity's vector and the label of each value; `features` is a comma list, by default all that are stored and
    servable.

    `request` has a value for each request input of asked features that are computed on request; None refuses these.
    Raises EntityNotFound when there is no row of the entity in any asked group, unless something asked for is computed
    all the same, and NotAllowed when `caller` may not read all of them; without one everything may be read.
    """
    asked = [name.strip() for name in features.split(",")] if features is not None else None

    def make_plan(catalog: Catalog) -> Plan:
        key = ("entity", entity, features, service)
        plan = remembered(key, catalog, lambda catalog: _features_of_entity(entity, asked, service, catalog))
        if plan.computed and request is None:
            raise _cannot_be_looked_up(plan)
        return plan

    sent = None if request is None else {name: [value] for name, value in request.items()}
    plans = for_caller(caller, make_plan) if caller else make_plan
    found = yield from vectors.reading(plans, partial(key_columns, id), request=sent)
    if found.plan.features and set(found.statuses[0]) == {NOT_FOUND}:
        raise EntityNotFound(f"There is no row of this {entity} in the asked groups.")
    return found, asked or labels_of(found.plan.features)


def key_columns(id: str, plan: Plan) -> Mapping[str, Sequence[object]]:
    """The join keys of one id as columns of one value; raises InvalidInput for what is no id of the entity."""
    return {key.name: [value] for key, value in zip(plan.keys, parse_id(id, plan.keys), strict=True)}


def _cannot_be_looked_up(plan: Plan) -> InvalidInput:
    computed = [feature.full_name for feature in plan.features if feature.on_request]
    needed = ", ".join(f'"{field.name}": [<{field.dtype}>]' for field in plan.request_inputs)
    problems = [Problem(name, "is computed on request") for name in computed]
    return InvalidInput(
        f"{', '.join(computed)}: computed from values of the request, which an address does not have. "
        f'POST /api/v1/vectors with "request": {{{needed}}}.',
        problems,
    )


def _features_of_entity(
    entity: str, asked: Sequence[str] | None, service: str | None, catalog: Catalog
) -> Sequence[FeatureSnapshot]:
    of_entity, groups = names.entity_or_group(entity, catalog)
    if service is not None:
        features = vectors.of_service(service)(catalog).features
        if other := sorted({f.full_name for f in features if catalog.groups[f.group].entity != of_entity}):
            raise InvalidInput(f"{service} also reads features of other entities: {', '.join(other)}.")
        return features
    if asked is not None:
        return names.find_features(asked, groups, where=entity)
    servable = (Status.ACTIVE, Status.DEPRECATED)
    stored = [f for group in groups for f in group.features.values() if not f.on_request]
    found = [feature for feature in stored if feature.status in servable]
    if not found:
        raise EntityNotFound(f"{entity} has no feature that is served.")
    return found


def labels_of(features: Sequence[FeatureSnapshot]) -> list[str]:
    """What values are called when nobody asked by name: bare, `group:name` where two features share a name."""
    bare = [feature.name for feature in features]
    return [f.full_name if bare.count(f.name) > 1 else f.name for f in features]
