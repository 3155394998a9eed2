"""The catalog as a definitions document, and that document as YAML."""

from __future__ import annotations

import re
from typing import Any

import yaml

from catalog import models
from catalog.definitions.document import (
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


def recorded() -> Document:
    """The catalog as a document, groups and services in the order of their names, features in their own.

    Nothing is checked again: what the catalog holds is shown as it is.
    """
    entities = models.Entity.objects.select_related("owner").prefetch_related("tags", "join_keys")
    groups = models.FeatureGroup.objects.select_related(
        "owner", "entity", "source", "schedule__interval", "schedule__crontab"
    ).prefetch_related(
        *("tags", "inputs", "request_inputs", "features__tags", "features__owner", "features__replaced_by__group")
    )
    services = models.FeatureService.objects.select_related("owner").prefetch_related("tags", "chosen__feature__group")
    return Document.model_construct(
        owners=tuple(_owner(owner) for owner in models.Owner.objects.prefetch_related("members")),
        entities=tuple(_entity(entity) for entity in entities),
        feature_groups=tuple(_group(group) for group in groups),
        feature_services=tuple(_service(service) for service in services),
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
