"""Makes a definitions document of one thing out of a request's body, whose problems point into that body."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from catalog.definitions import document
from catalog.definitions.document import STATUS_KEYS, Place, PlacedMapping
from catalog.definitions.exporting import definition_of
from catalog.definitions.reading import read_one
from catalog.models import DataSource, Feature, FeatureGroup, FeatureService
from catalog.registry.kinds import DATA_SOURCES, FEATURE_GROUPS, FEATURE_SERVICES, FEATURES, Kind, name_of
from engine.errors import Conflict, InvalidDefinition, Problem, near_names

MAX_DEPTH = 8  # a body needs 5
_BODY = "body"


class NewFeature(document.Feature):
    """A feature as it is posted: a file has it inside its group."""

    group: document.Name


class NewSource(document.Source):
    """A data source as it is posted: a file has it inside its group."""

    group: document.Name


class Reason(document.Definition):
    """Why a status is changed, for the history."""

    reason: document.Text = ""


class Deprecation(Reason):
    """Why a feature is deprecated, what to read instead (`group:name`), and until when it is meant to be there."""

    replaced_by: document.Text | None = None
    sunset: document.Moment | None = None


class Note(document.Definition):
    """What who asks for a review wants to have looked at."""

    note: document.Text = ""


class Comment(document.Definition):
    """What who answers a review says of it."""

    comment: document.Text = ""


@dataclass(frozen=True, slots=True)
class BodyPlace(Place):
    """Where an object stands in a body; `path` is its JSON pointer (RFC 6901)."""

    def __str__(self) -> str:
        return self.path

    def of(self, key: str) -> str:
        name, *indexes = re.split(r"\[(\d+)\]", key)
        steps = [name.replace("~", "~0").replace("/", "~1"), *indexes[::2]]
        return "/".join([self.path, *steps])


@dataclass(frozen=True, slots=True)
class Outside(Place):
    """What the body does not have: its problems are problems of the body as a whole."""

    def __str__(self) -> str:
        return ""

    def of(self, key: str) -> str:
        return ""


def new_document(kind: Kind, body: dict[str, Any], *, groups: frozenset[str] | None) -> PlacedMapping:
    """The document that makes the thing that a body describes, a feature in one of `groups` (None: in any).

    Raises InvalidDefinition, Conflict for a thing that exists.
    """
    if kind in (FEATURES, DATA_SOURCES):
        return _in_its_group(kind, body, groups)
    made = _placed(body, "")
    _require_new(kind, body)
    return _document(kind.key, made)


def changed_document(kind: Kind, row: Any, body: dict[str, Any]) -> PlacedMapping:
    """The document that makes a thing what a body says: keys that it does not have stay, null is a key's default.

    Raises InvalidDefinition for a name that differs, Conflict for what cannot be changed.
    """
    _require_same_name(kind, row, body)
    if isinstance(row, DataSource):
        return _changed_source(row, body)
    made = _laid_over(definition_of(row).written(), {key: body[key] for key in body if key != "group"}, row)
    if isinstance(row, Feature):
        return _group_with(row.group, made)
    return _document(kind.key, made)


def read_reason(model: type[document.Found], body: dict[str, Any]) -> document.Found:
    """What a body says of a change of status; raises InvalidDefinition with pointers into it."""
    return read_one(model, _placed(body, ""))


def _in_its_group(kind: Kind, body: dict[str, Any], groups: frozenset[str] | None) -> PlacedMapping:
    own = _placed({key: value for key, value in body.items() if key != "group"}, "")
    group = _group_of(body, groups)
    if kind is FEATURES:
        _require_new(kind, {"name": body.get("name"), "group": group.name})
        return _group_with(group, own)
    if group.source is not None:
        raise Conflict(f"{group.name} has the source {group.source.name} already; change that one.")
    _require_new(kind, {"name": body.get("name") or group.name})
    return _group_from(group, own)


def _group_of(body: dict[str, Any], groups: frozenset[str] | None) -> FeatureGroup:
    name = body.get("group")
    if name is None:
        raise _refused("/group", "is required")
    rows = FEATURE_GROUPS.rows() if groups is None else FEATURE_GROUPS.rows().filter(name__in=groups)
    found: FeatureGroup | None = rows.filter(name=name).first() if isinstance(name, str) and "\0" not in name else None
    if found is None:
        known = rows.values_list("name", flat=True)
        raise _refused("/group", "there is no feature group of that name", near_names(str(name)[:100], known))
    return found


def _require_new(kind: Kind, body: dict[str, Any]) -> None:
    """Raises Conflict when the thing is there. What is no name is refused where the document is read."""
    name, version, group = body.get("name"), body.get("version", 1), body.get("group")
    if not isinstance(name, str) or "\0" in name or type(version) is not int or not 0 < version <= document.MAX_INTEGER:
        return
    named = kind.rows().filter(name=name)
    told: dict[Kind, dict[str, Any]] = {FEATURES: {"group__name": group}, FEATURE_SERVICES: {"version": version}}
    found = named.filter(**told.get(kind, {})).first()
    if found is None:
        return
    if isinstance(found, FeatureService):
        newest = max(service.version for service in named)
        raise Conflict(f"{found} exists; the next version of {name} is {newest + 1}.", [_taken("/version")])
    raise Conflict(f"The {kind.noun} {name_of(found)} exists already; change it with PATCH.", [_taken("/name")])


def _taken(pointer: str) -> Problem:
    return Problem(pointer, "is taken")


def _require_same_name(kind: Kind, row: Any, body: dict[str, Any]) -> None:
    """What names a thing is told by its address; a body may repeat it."""
    fixed = {"name": row.name}
    if isinstance(row, FeatureService):
        fixed["version"] = row.version
    if isinstance(row, Feature):
        fixed["group"] = row.group.name
    if isinstance(row, DataSource):
        group = getattr(row, "group", None)
        fixed["group"] = group.name if group else None
    wrong = [
        key for key, value in fixed.items() if key in body and (type(body[key]), body[key]) != (type(value), value)
    ]
    if wrong:
        problems = [Problem(f"/{key}", f"is {fixed[key]!r} and cannot be changed") for key in wrong]
        raise InvalidDefinition(f"What names a {kind.noun} is fixed.", problems)


def _changed_source(source: DataSource, body: dict[str, Any]) -> PlacedMapping:
    group = getattr(source, "group", None)
    if group is None:
        raise Conflict(f"The source {source.name} belongs to no feature group; name it in the group that reads it.")
    now = {"name": source.name, "kind": source.kind, "path": source.path}
    made = _laid_over(now, {key: body[key] for key in body if key != "group"}, source)
    return _group_from(group, made)


def _laid_over(now: dict[str, Any], body: dict[str, Any], row: Any) -> PlacedMapping:
    """A definition with the keys of a body in place of its own."""
    told = _placed(body, "")
    status: str = getattr(row, "status", "")
    if "status" in body and body["status"] is None and status:
        raise _refused("/status", f"is {status}, and becomes another one but never none")
    kept = {key: value for key, value in now.items() if key not in body}
    if not _keeps_status(now, body):
        kept = {key: value for key, value in kept.items() if key not in STATUS_KEYS}
    made = PlacedMapping(told.place)
    made.update(kept)
    made.update({key: value for key, value in told.items() if value is not None or key not in _keys_of(row)})
    return made


def _keys_of(row: Any) -> set[str]:
    """The keys that null is the default of; of any other it is a value that is refused."""
    if isinstance(row, DataSource):
        return set()
    kind = type(definition_of(row))
    return {key for key, field in kind.model_fields.items() if not field.is_required()}


def _keeps_status(now: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether what belongs to the status is told with a change: when the body has some of it, and not another status.

    Else it is left out: then it stays (or goes) as the lifecycle has it.
    """
    return any(key in body for key in STATUS_KEYS) and body.get("status") in (None, now.get("status"))


def _document(key: str, definition: PlacedMapping) -> PlacedMapping:
    whole = PlacedMapping(Outside(_BODY))
    whole[key] = [definition]
    return whole


def _group_mapping(group: FeatureGroup) -> PlacedMapping:
    """A group as it is, none of which stands in the body."""
    made = PlacedMapping(Outside(_BODY))
    made.update(definition_of(FEATURE_GROUPS.rows().get(pk=group.pk)).written())
    made["features"] = [_beside(feature) for feature in made["features"]]
    return made


def _beside(feature: dict[str, Any]) -> PlacedMapping:
    """A feature of the same group: no part of what is asked for."""
    made = PlacedMapping(Outside())
    made.update(feature)
    return made


def _group_from(group: FeatureGroup, source: PlacedMapping) -> PlacedMapping:
    made = _group_mapping(group)
    made["source"] = source
    return _document("feature_groups", made)


def _group_with(group: FeatureGroup, feature: PlacedMapping) -> PlacedMapping:
    made = _group_mapping(group)
    others = made["features"]
    at = next((i for i, other in enumerate(others) if other["name"] == feature.get("name")), len(others))
    made["features"] = [*others[:at], feature, *others[at + 1 :]]
    return _document("feature_groups", made)


def _placed(body: dict[str, Any], path: str, depth: int = 0) -> PlacedMapping:
    """A body's object whose mappings know where they stand; raises InvalidDefinition for one without end."""
    made = PlacedMapping(BodyPlace(_BODY, path=path))
    for key, value in body.items():
        made[key] = _placed_value(value, made.place.of(key), depth + 1)
    return made


def _placed_value(value: Any, path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise _refused(path, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return _placed(value, path, depth)
    if isinstance(value, list):
        return [_placed_value(item, f"{path}/{index}", depth + 1) for index, item in enumerate(value)]
    return value


def _refused(pointer: str, detail: str, near: tuple[str, ...] = ()) -> InvalidDefinition:
    return InvalidDefinition("The body has 1 problem; nothing was changed.", [Problem(pointer, detail, near)])
