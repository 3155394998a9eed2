"""The catalog as a definitions document, and that document as YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import yaml
from django.db.models import Model, QuerySet

from catalog import models
from catalog.definitions.document import (
    Definition,
    Document,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    Input,
    JoinKey,
    Owner,
    RequestInput,
    Source,
    Transformation,
    Validation,
)
from catalog.definitions.schedules import schedule_of
from catalog.models.feature import default_type
from engine.schema import Dtype


def export() -> str:
    """The whole catalog as one definitions file; planning it against the same catalog shows no difference."""
    return written_yaml(exported())


def exported() -> dict[str, list[dict[str, Any]]]:
    """The whole catalog as the plain data of a definitions file."""
    document = recorded()
    found = {key: [made.written() for made in getattr(document, key)] for key in Document.model_fields}
    return {key: made for key, made in found.items() if made}


_OTHER_LINE_ENDS = re.compile("[\r\x85\u2028\u2029\ufeff]")


class _Dumper(yaml.SafeDumper):
    """Longer texts as blocks; collections that hold only scalars in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Quoted where a character would be read as a line's end: PyYAML writes those plainly and loses them."""
    style = '"' if _OTHER_LINE_ENDS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def written_yaml(data: Any, *, in_one_line: bool = False) -> str:
    """Plain data as YAML that reading takes back unchanged."""
    flow = True if in_one_line else None
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=10**9 if flow else 110
    )


#: What the rows of each kind are read with, so that however many there are, it is a fixed number of queries.
_RELATED: dict[type[Model], tuple[tuple[str, ...], tuple[str, ...]]] = {
    models.Owner: ((), ("members",)),
    models.Entity: (("owner",), ("tags", "join_keys")),
    models.FeatureGroup: (
        ("owner", "entity", "source", "schedule__interval", "schedule__crontab"),
        ("tags", "inputs", "request_inputs", "features__tags", "features__owner", "features__replaced_by__group"),
    ),
    models.Feature: (("owner", "group", "replaced_by__group"), ("tags",)),
    models.FeatureService: (("owner",), ("tags", "chosen__feature__group")),
}
Row = TypeVar("Row", bound=Model)


def rows_of(kind: type[Row]) -> QuerySet[Row]:
    """The rows of a kind that definitions have, read with all that `definition_of` looks at."""
    joined, fetched = _RELATED[kind]
    rows = kind._default_manager.all()
    return (rows.select_related(*joined) if joined else rows).prefetch_related(*fetched)


def definition_of(row: Model) -> Definition:
    """What a row of the catalog is in a file. Nothing is checked again: what the catalog holds is shown as it is."""
    return definition_as(type(row), row)


def definition_as(kind: type[Model], row: Any) -> Definition:
    """The same of something that has the attributes of a row of that kind."""
    return _DEFINED[kind](row)


def recorded() -> Document:
    """The catalog as a document, groups and services in the order of their names, features in their own."""
    return Document.model_construct(
        owners=tuple(map(_owner, rows_of(models.Owner))),
        entities=tuple(map(_entity, rows_of(models.Entity))),
        feature_groups=tuple(map(_group, rows_of(models.FeatureGroup))),
        feature_services=tuple(map(_service, rows_of(models.FeatureService))),
    )


def _documented(row: Any) -> dict[str, Any]:
    tags = tuple(sorted(tag.name for tag in row.tags.all()))
    return {
        "name": row.name,
        "description": row.description,
        "owner": row.owner.name if row.owner else None,
        "tags": tags,
    }


def _owner(owner: models.Owner) -> Owner:
    members = tuple(sorted(member.get_username() for member in owner.members.all()))
    return Owner.model_construct(name=owner.name, email=owner.email or None, members=members)


def _entity(entity: models.Entity) -> Entity:
    keys = tuple(JoinKey.model_construct(name=key.name, dtype=key.dtype) for key in entity.join_keys.all())
    return Entity.model_construct(**_documented(entity), join_keys=keys)


def _group(group: models.FeatureGroup) -> FeatureGroup:
    features = sorted(group.features.all(), key=lambda feature: (feature.position, feature.pk))
    return FeatureGroup.model_construct(
        **_documented(group),
        entity=group.entity.name,
        version=group.version,
        status=group.status,
        ttl=group.ttl,
        freshness=group.freshness,
        event_timestamp=group.event_timestamp,
        created_timestamp=group.created_timestamp or None,
        needs_review=group.needs_review,
        inputs=tuple(Input.model_construct(name=column.name, dtype=column.dtype) for column in group.inputs.all()),
        request_inputs=tuple(
            RequestInput.model_construct(name=column.name, dtype=column.dtype) for column in group.request_inputs.all()
        ),
        features=tuple(_feature(feature) for feature in features),
        source=_source(group.source),
        schedule=schedule_of(group.schedule),
    )


def _feature(feature: models.Feature) -> Feature:
    suggested = default_type(Dtype.parse(feature.dtype))
    return Feature.model_construct(
        **_documented(feature),
        dtype=feature.dtype,
        type=None if feature.type == suggested else feature.type,
        status=feature.status,
        deprecation_reason=feature.deprecation_reason or None,
        replaced_by=str(feature.replaced_by) if feature.replaced_by else None,
        sunset=feature.sunset_at,
        transformation=_transformation(feature),
        validation=_validation(feature.validation),
    )


def _validation(rules: dict[str, Any]) -> Validation:
    found: dict[str, Any] = {key: tuple(rule) if isinstance(rule, list) else rule for key, rule in rules.items()}
    return Validation.model_construct(None, **found)


def _transformation(feature: models.Feature) -> Transformation | None:
    if feature.transformation() is None:
        return None
    return Transformation.model_construct(
        expression=feature.expression or None,
        function=feature.function or None,
        local=feature.local or None,
        arguments=tuple(feature.arguments) if feature.function else (),
        rowwise=bool(feature.function) and feature.rowwise,
    )


def _source(source: models.DataSource | None) -> Source | None:
    return Source.model_construct(kind=source.kind, path=source.path, name=source.name) if source else None


def _service(service: models.FeatureService) -> FeatureService:
    chosen = tuple(str(chosen.feature) for chosen in service.chosen.all())
    return FeatureService.model_construct(
        **_documented(service), version=service.version, status=service.status, features=chosen
    )


_DEFINED: dict[type[Model], Callable[[Any], Definition]] = {
    models.Owner: _owner,
    models.Entity: _entity,
    models.FeatureGroup: _group,
    models.Feature: _feature,
    models.FeatureService: _service,
}
