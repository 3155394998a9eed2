"""From catalog rows to the schema that ingestion works from; what may change in place and what needs a new version.

Every stored row names the schema it was written with. Adding a feature or an input makes a new schema of the same
group version; a changed dtype, join key, time column or transformation would give old and new rows different
meanings under one name, and is refused until the group's version is raised (ADR 4). Features that are computed on
request are in no row, so they may change in place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet

from catalog.models import CatalogState, Feature, FeatureGroup, StoredSchema
from engine import on_request, transformations, validation
from engine.errors import FeaturehubError, InvalidDefinition, Problem
from engine.expressions import references_of
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema, Transformation

#: What is said of a feature that rows hold and that is now computed on request.
COMPUTED_NOW = "is computed on request now"

Local = dict[str, Callable[..., object]]


def schema_of(group: FeatureGroup, features: Sequence[Feature] | None = None) -> GroupSchema:
    """The group as it is defined now, with schema id 0; raises InvalidDefinition for an unreadable dtype."""
    features = list(group.features.order_by("position", "pk")) if features is None else features
    request_inputs = tuple(column.field() for column in group.request_inputs.all())
    stored, computed = on_request.divided((feature.column() for feature in features), request_inputs)
    return GroupSchema(
        group=group.name,
        version=group.version,
        schema_id=0,
        join_keys=group.entity.key_fields(),
        features=stored,
        inputs=tuple(column.field() for column in group.inputs.all()),
        event_timestamp=group.event_timestamp,
        created_timestamp=group.created_timestamp,
        request_inputs=request_inputs,
        on_request=computed,
    )


def readable_schema(group: FeatureGroup, features: Iterable[Feature]) -> GroupSchema | None:
    """The group as whoever computes features on request sees it, without keys and inputs; None where there are none.

    `features` are all of the group's.
    """
    inputs = tuple(column.field() for column in group.request_inputs.all())
    if not inputs:
        return None
    stored, computed = on_request.divided((feature.column() for feature in features), inputs)
    return GroupSchema(group.name, group.version, 0, (), stored, request_inputs=inputs, on_request=computed)


def request_needs(group: FeatureGroup, features: Iterable[Feature] | None = None) -> dict[str, tuple[Field, ...]]:
    """For each feature of the group that is computed on request, the request inputs that it needs.

    `features` are all of the group's, for a caller who has them.
    """
    readable = readable_schema(group, group.features.all() if features is None else features)
    computed = readable.on_request if readable else ()
    return {f.name: on_request.computation_of(readable, [f.name]).request_inputs for f in computed if readable}


def computed_from(feature: Feature) -> list[Feature]:
    """The features of its group that are computed on request from this stored one, directly or through others."""
    siblings = list(feature.group.features.all())
    readable = readable_schema(feature.group, siblings)
    reading = {
        column.name
        for column in (readable.on_request if readable else ())
        if readable and feature.name in {f.name for f in on_request.computation_of(readable, [column.name]).stored}
    }
    return [sibling for sibling in siblings if sibling.name in reading]


def derived_from(feature: Feature) -> list[Feature]:
    """The features of its group that are computed from this one, on ingestion or on request, directly or through
    others; in their order."""
    siblings = list(feature.group.features.order_by("position", "pk"))
    reached = {feature.name}
    while new := {s.name for s in siblings if _columns_read(s) & reached} - reached:
        reached |= new
    return [sibling for sibling in siblings if sibling.name in reached and sibling.pk != feature.pk]


def _columns_read(feature: Feature) -> frozenset[str]:
    return references_of(feature.expression) if feature.expression else frozenset(feature.arguments)


def current_schema(group: FeatureGroup) -> GroupSchema:
    """The schema that a writer works from now, recorded under its id; the same id while nothing changes.

    Raises InvalidDefinition when the definition is broken or would change the meaning of stored rows.
    """
    defined = schema_of(group)
    recorded = _recorded(group, defined) or _record(group, defined)
    return GroupSchema(**{**_fields(defined), "schema_id": recorded.number})


def _recorded(group: FeatureGroup, defined: GroupSchema) -> StoredSchema | None:
    """The newest schema of the group if it is the defined one. Takes no lock: every push comes by here."""
    newest = group.schemas.last()
    is_it = newest and newest.version == group.version and newest.columns == to_columns(defined)
    return newest if is_it else None


def _record(group: FeatureGroup, defined: GroupSchema) -> StoredSchema:
    with transaction.atomic():
        # Writers that meet follow each other: there may be no schema yet that they could lock. What is recorded moves
        # the catalog's version, so that row is locked anyway; before all others, as an apply does.
        CatalogState.current()
        CatalogState.objects.select_for_update().get(pk=1)
        if recorded := _recorded(group, defined):
            return recorded
        if broken := changes_of_meaning(stored_schemas(group), defined):
            raise InvalidDefinition(f"{group.name} needs version {group.version + 1}: {'; '.join(broken)}.")
        newest = group.schemas.last()
        number = newest.number + 1 if newest else 1
        return group.schemas.create(version=group.version, number=number, columns=to_columns(defined))


def _fields(schema: GroupSchema) -> dict[str, Any]:
    return {name: getattr(schema, name) for name in GroupSchema.__dataclass_fields__}


def changes_of_meaning(schemas: Iterable[StoredSchema], defined: GroupSchema) -> list[str]:
    """What of `defined` contradicts any of a group's `schemas` that rows of its version were written under, in words.

    Any and not only the newest: a column that went away is still in the table, with its type.
    """
    stored = [from_stored(schema) for schema in schemas if schema.version == defined.version]
    return list(dict.fromkeys(change for schema in stored for change in breaking_changes(schema, defined)))


def stored_schemas(group: FeatureGroup) -> QuerySet[StoredSchema]:
    """The schemas that rows of the group were written under, oldest first."""
    return group.schemas.select_related("group")


def breaking_changes(stored: GroupSchema, defined: GroupSchema) -> list[str]:
    """What of `defined` would change the meaning of rows written under `stored`, in words."""
    changes = []
    if stored.join_keys != defined.join_keys:
        changes.append("its join keys changed")
    for name in ("event_timestamp", "created_timestamp"):
        if getattr(stored, name) != getattr(defined, name):
            old, new = getattr(stored, name) or "none", getattr(defined, name) or "none"
            changes.append(f"{name} changed from {old} to {new}")
    before = {column.name: column for column in _columns(stored)}
    for column in _columns(defined):
        if (old := before.get(column.name)) and (difference := _difference(old, column)):
            changes.append(f"{column.name} {difference}")
    changes += [f"{f.name} {COMPUTED_NOW}" for f in defined.on_request if f.name in before]
    return changes


def _columns(schema: GroupSchema) -> list[Field | FeatureColumn]:
    return [*schema.inputs, *schema.features]


def _difference(old: Field | FeatureColumn, new: Field | FeatureColumn) -> str:
    if old.dtype != new.dtype:
        return f"changed from {old.dtype} to {new.dtype}"
    if getattr(old, "transformation", None) != getattr(new, "transformation", None):
        return "has another transformation"
    return ""


def to_columns(schema: GroupSchema) -> dict[str, Any]:
    """A schema as the JSON that StoredSchema keeps: all that decides what a stored row means."""
    return {
        "join_keys": [[key.name, str(key.dtype)] for key in schema.join_keys],
        "event_timestamp": schema.event_timestamp,
        "created_timestamp": schema.created_timestamp,
        "inputs": [[column.name, str(column.dtype)] for column in schema.inputs],
        "features": [
            [f.name, str(f.dtype), json.loads(json.dumps(asdict(f.transformation))) if f.transformation else None]
            for f in schema.features
        ],
    }


def from_stored(stored: StoredSchema) -> GroupSchema:
    """The schema that rows with this id were written under; it has no validation rules."""
    columns = stored.columns
    return GroupSchema(
        group=stored.group.name,
        version=stored.version,
        schema_id=stored.number,
        join_keys=_typed(columns["join_keys"]),
        features=tuple(
            FeatureColumn(name, Dtype.parse(dtype), _transformation(how)) for name, dtype, how in columns["features"]
        ),
        inputs=_typed(columns["inputs"]),
        event_timestamp=columns["event_timestamp"],
        created_timestamp=columns["created_timestamp"],
    )


def _typed(pairs: list[list[str]]) -> tuple[Field, ...]:
    return tuple(Field(name, Dtype.parse(dtype)) for name, dtype in pairs)


def _transformation(how: dict[str, Any] | None) -> Transformation | None:
    return None if how is None else Transformation(**{**how, "arguments": tuple(how["arguments"])})


def transformer(schema: GroupSchema, local: Local | None = None) -> transformations.Transformer:
    """The compiled transformations of a schema, with the functions that the settings allow."""
    return transformations.compile_group(schema, modules=settings.FEATUREHUB_FUNCTION_MODULES, local=local or {})


def problems_of(schema: GroupSchema) -> list[Problem]:
    """Everything wrong with a definition, each under `columns/<name>`; empty when it can be used."""
    problems = _clashes(schema)
    for feature in schema.features:
        found = validation.problems_of(feature.validation, feature.dtype)
        problems += [Problem(f"{feature.name}/validation", detail) for detail in found]
    recorded = {f.name: _not_here for f in schema.features if f.transformation and f.transformation.local}
    try:
        transformer(schema, recorded)
    except InvalidDefinition as error:
        problems += error.problems or [Problem("", error.detail)]
    return problems + on_request.problems_of(schema)


def _not_here(row: object) -> object:
    """Stands for a Python object of another process while its definition is checked; it is never called."""
    raise InvalidDefinition("A local transformation runs only in the process that registered it.")


def _clashes(schema: GroupSchema) -> list[Problem]:
    seen: dict[str, str] = {}
    problems = []
    columns = [("join key", k.name) for k in schema.join_keys] + [("input", c.name) for c in schema.inputs]
    columns += [("request input", c.name) for c in schema.request_inputs]
    for kind, name in columns + [("feature", f.name) for f in (*schema.features, *schema.on_request)]:
        if name in seen:
            problems.append(Problem(name, f"the name is taken by {seen[name]} of the same group"))
        seen.setdefault(name, f"the {kind}")
    return problems


def validate_group(group: FeatureGroup) -> None:
    """Model validation: raises ValidationError when the group, as saved so far, could not be ingested."""
    if group.pk:
        _validate(group, list(group.features.order_by("position", "pk")))


def validate_feature(feature: Feature) -> None:
    """Model validation of one feature among its saved siblings."""
    _validate(feature.group, [f for f in feature.group.features.all() if f.pk != feature.pk] + [feature])


def _validate(group: FeatureGroup, features: list[Feature]) -> None:
    try:
        defined = schema_of(group, features)
        problems = [str(problem) for problem in problems_of(defined)]
        problems += changes_of_meaning(stored_schemas(group), defined) if group.pk else []
    except (FeaturehubError, TypeError) as error:
        problems = [str(error)]
    if problems:
        raise ValidationError(problems)
