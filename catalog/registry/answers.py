"""What the registry tells of a thing: its definition with every key, what is recorded beside it, and its version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson

from catalog.approvals import fingerprint_of
from catalog.definitions.document import Definition
from catalog.definitions.exporting import definition_of
from catalog.models import DataSource, Entity, Feature, FeatureGroup, FeatureService, Owner, ReviewRequest, Tag


def shown(row: Any) -> dict[str, Any]:
    """A thing as its address answers it: the keys of its definition, also where they have their default, and more."""
    return _SHOWN[type(row)](row)


def review_shown(review: ReviewRequest) -> dict[str, Any]:
    """A review as its list and what is done with it answer it."""
    thing = review.thing
    return {
        "id": review.pk,
        "kind": str(thing._meta.verbose_name),
        "name": str(thing),
        "state": review.state,
        "note": review.note,
        "asked_by": review.asked_by_name,
        "asked_at": review.asked_at,
        "answered_by": review.answered_by_name or None,
        "answered_at": review.answered_at,
        "comment": review.comment,
        "is_of_present_definition": review.definition == fingerprint_of(thing),
    }


def etag_of(answer: dict[str, Any]) -> str:
    """The version of an answer: equal for equal answers, another one after any change that shows."""
    canonical = orjson.dumps(answer, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
    return f'"{hashlib.sha256(canonical).hexdigest()[:32]}"'


def _defined(row: Any) -> dict[str, Any]:
    definition = definition_of(row)
    return _defaults(type(definition)) | definition.written()


def _defaults(kind: type[Definition]) -> dict[str, Any]:
    """Every key of a definition in its order, with its default as JSON has it."""
    found = {key: field.get_default() for key, field in kind.model_fields.items()}
    return {
        key: {} if isinstance(value, Definition) else list(value) if isinstance(value, tuple) else value
        for key, value in found.items()
    }


def _times(row: Any) -> dict[str, Any]:
    return {"created_at": row.created_at, "updated_at": row.updated_at}


def _entity(entity: Entity) -> dict[str, Any]:
    return _defined(entity) | _times(entity)


def _group(group: FeatureGroup) -> dict[str, Any]:
    return _defined(group) | {"status": group.status, "deprecated_at": group.deprecated_at} | _times(group)


def _feature(feature: Feature) -> dict[str, Any]:
    return (
        {"group": feature.group.name}
        | _defined(feature)
        | {
            "type": feature.type,
            "status": feature.status or None,
            "effective_status": feature.effective_status,
            "deprecated_at": feature.deprecated_at,
        }
        | _times(feature)
    )


def _service(service: FeatureService) -> dict[str, Any]:
    return _defined(service) | {"status": service.status} | _times(service)


def _source(source: DataSource) -> dict[str, Any]:
    group = getattr(source, "group", None)
    told = {"name": source.name, "kind": source.kind, "path": source.path, "group": group.name if group else None}
    return told | _times(source)


def _owner(owner: Owner) -> dict[str, Any]:
    return _defined(owner) | {"created_at": owner.created_at}


def _tag(tag: Tag) -> dict[str, Any]:
    return {"name": tag.name}


_SHOWN: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    Entity: _entity,
    FeatureGroup: _group,
    Feature: _feature,
    FeatureService: _service,
    DataSource: _source,
    Owner: _owner,
    Tag: _tag,
}
