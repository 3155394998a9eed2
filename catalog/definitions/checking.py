"""What is wrong with definitions that can be read: names, references, columns, versions and status changes.

Everything is judged in the catalog as it would be after the apply. Each check yields its problems; none stops another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

from django.contrib.auth import get_user_model

from catalog import schemas
from catalog.definitions.document import (
    STATUS_KEYS,
    Definition,
    Documented,
    Feature,
    FeatureGroup,
    FeatureService,
    Owner,
)
from catalog.definitions.world import World
from catalog.models import Status
from catalog.models.status import TRANSITIONS, effective_status
from engine.errors import Problem, near_names
from engine.schema import GroupSchema


def problems_of(world: World) -> list[Problem]:
    """Every problem of the files, by file and line."""
    checks = (_names, _emails, _references, _columns, _versions, _lists, _statuses, _source_names, _locals)
    found = [*world.reading.problems, *(problem for check in checks for problem in check(world))]
    return sorted(found, key=_line)


def _line(problem: Problem) -> tuple[str, int]:
    place = re.match(r"(.*?):([0-9]+)", problem.pointer)
    return (place[1], int(place[2])) if place else (problem.pointer, 0)


def _names(world: World) -> Iterator[Problem]:
    """A name stands once; the columns of one group are compared with its schema."""
    first: dict[tuple[str, str], Definition] = {}
    for kind, name, definition in world.files.each():
        if other := first.get((kind, name)):
            yield Problem(definition.place.of("name"), f"the {kind} {name} is defined twice; first at {other.place}")
        first.setdefault((kind, name), definition)
    for entity in world.files.entities:
        yield from _repeated(entity, "join_keys", [key.name for key in entity.join_keys])
    for group in world.files.feature_groups:
        yield from _repeated(group, "inputs", [column.name for column in group.inputs])
        yield from _repeated(group, "request_inputs", [column.name for column in group.request_inputs])
    for service in world.files.feature_services:
        yield from _repeated(service, "features", list(service.features))


def _repeated(definition: Definition, key: str, names: list[str]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(definition.place.of(f"{key}[{index}]"), f"{name} stands twice")


def _emails(world: World) -> Iterator[Problem]:
    given = Counter(owner.email for owner in world.owners.values() if owner.email)
    for owner in world.files.owners:
        if owner.email and given[owner.email] > 1:
            yield Problem(owner.place.of("email"), f"{owner.email} is the address of another owner, too")


def _references(world: World) -> Iterator[Problem]:
    usernames = set(_usernames())
    for _, _, made in world.files.each():
        if isinstance(made, Documented) and made.owner:
            yield from _known(world, made, "owner", made.owner, kind="owner", known=world.owners)
        if isinstance(made, Owner):
            for index, member in enumerate(made.members):
                yield from _known(world, made, f"members[{index}]", member, kind="user", known=usernames)
        if isinstance(made, FeatureGroup):
            yield from _known(world, made, "entity", made.entity, kind="entity", known=world.entities)
        if isinstance(made, FeatureService):
            for index, name in enumerate(made.features):
                yield from _known(world, made, f"features[{index}]", name, kind="feature", known=world.features)
        if isinstance(made, Feature) and made.replaced_by:
            yield from _known(world, made, "replaced_by", made.replaced_by, kind="feature", known=world.features)


def _usernames() -> Iterator[str]:
    users = get_user_model()
    yield from users._default_manager.values_list(users.USERNAME_FIELD, flat=True)


def _known(
    world: World, made: Definition, key: str, name: str, *, kind: str, known: Collection[str]
) -> Iterator[Problem]:
    if name not in known and not world.reading.half_read.intersection(name.split(":")):
        yield Problem(made.place.of(key), f"there is no {kind} named {name!r}.", near_names(name, known))


def _columns(world: World) -> Iterator[Problem]:
    """Clashes, expressions, functions and rules of every group that is named or whose join keys are."""
    for group in world.groups.values():
        if group.place.file or _changed_keys(world, group):
            yield from _columns_of(world, group)


def _changed_keys(world: World, group: FeatureGroup) -> bool:
    old = world.entities_before.get(group.entity)
    return (
        old is not None and group.entity in world.entities and old.join_keys != world.entities[group.entity].join_keys
    )


def _columns_of(world: World, group: FeatureGroup) -> Iterator[Problem]:
    schema = world.schema(group)
    doubtful = _doubtful(schema, world.reading.half_read)
    features = {feature.name: feature for feature in group.features}
    for problem in schemas.problems_of(schema):
        name, _, part = problem.pointer.partition("/")
        if name not in doubtful:
            pointer = _pointer(world, group, features.get(name), part)
            yield Problem(pointer, _about(name, features, problem.detail), problem.did_you_mean)


def _about(name: str, features: dict[str, Feature], detail: str) -> str:
    """The detail, led by the column's name where the place does not show it."""
    return detail if not name or (name in features and features[name].place.file) else f"{name}: {detail}"


def _pointer(world: World, group: FeatureGroup, feature: Feature | None, part: str) -> str:
    """The nearest place in the files: the feature's key, the feature, the group, or its entity's join keys."""
    if feature is not None and feature.place.file:
        return feature.place.of(part or ("transformation" if feature.transformation else "name"))
    return str(group.place) if group.place.file else world.entities[group.entity].place.of("join_keys")


def _doubtful(schema: GroupSchema, half_read: set[str]) -> set[str]:
    """Features whose problems may only follow from a column that could not be read, directly or through others."""
    doubtful = set(half_read)
    sources = {
        feature.name: {*re.findall(r"\w+", feature.transformation.expression), *feature.transformation.arguments}
        for feature in (*schema.features, *schema.on_request)
        if feature.transformation
    }
    while more := {name for name, words in sources.items() if words & doubtful} - doubtful:
        doubtful |= more
    return doubtful


def _versions(world: World) -> Iterator[Problem]:
    """What would give stored rows another meaning needs a raised version of the group."""
    for name, group in world.groups.items():
        old = world.before.get(name)
        if old and group.version < old.version:
            detail = f"{name} has version {old.version} already; write version: {old.version} or a higher one"
            yield Problem(group.place.of("version"), detail)
        stored = world.stored.get(name, [])
        if not stored or group.entity not in world.entities:
            continue
        if broken := schemas.changes_of_meaning(stored, world.schema(group)):
            detail = f"{name} has stored rows and {'; '.join(broken)}: that needs version: {group.version + 1}"
            yield Problem(_pointer(world, group, None, ""), detail)


def _lists(world: World) -> Iterator[Problem]:
    """The features of a service are fixed once it is no draft; a new list is a new version, without archived ones."""
    for service in world.files.feature_services:
        name = f"{service.name}@{service.version}"
        old = world.services_before.get(name)
        if old and old.features == service.features:
            continue
        if old and (old.status or "") != Status.DRAFT:
            newest = max(made.version for made in world.services.values() if made.name == service.name)
            detail = f"the list of {name} is fixed; another one needs version: {newest + 1}"
            yield Problem(service.place.of("features"), detail)
        elif world.service_status(name) != Status.ARCHIVED:
            for index, chosen in enumerate(service.features):
                if chosen in world.features and world.feature_status(chosen) == Status.ARCHIVED:
                    yield Problem(service.place.of(f"features[{index}]"), f"{chosen} is archived")


def _statuses(world: World) -> Iterator[Problem]:
    for kind, name, made in world.files.each():
        if isinstance(made, Feature):
            yield from _deprecation(world, name, made)
        new = getattr(made, "status", None)
        old = _status_before(world, name, made)
        if new is None or old is None or new == old:
            continue
        if new not in TRANSITIONS[old]:
            allowed = ", ".join(sorted(TRANSITIONS[old]))
            yield Problem(made.place.of("status"), f"the {kind} {name} is {old}; it can become {allowed}, not {new}")
        elif new == Status.ARCHIVED and not isinstance(made, FeatureService) and (readers := world.readers(name)):
            yield Problem(made.place.of("status"), f"{name} cannot be archived: it is read by {', '.join(readers)}")


def _status_before(world: World, name: str, made: Definition) -> str | None:
    """The status that a change starts from; None for a new object. Groups change before their features do."""
    if isinstance(made, FeatureGroup) and name in world.before:
        return world.group_status(name, before=True)
    if isinstance(made, FeatureService) and name in world.services_before:
        return world.services_before[name].status
    if isinstance(made, Feature) and name in world.features_before:
        group = name.partition(":")[0]
        archived = world.group_status(group) == Status.ARCHIVED
        return effective_status(world.features_before[name].status or "", world.group_status(group, before=archived))
    return None


def _deprecation(world: World, name: str, feature: Feature) -> Iterator[Problem]:
    """A reason, a replacement and a sunset stand beside a status that explains them."""
    for key in STATUS_KEYS[1:]:
        if getattr(feature, key) is not None and feature.status not in (Status.DEPRECATED, Status.ARCHIVED):
            yield Problem(feature.place.of(key), "belongs to a feature with status: deprecated")
    if feature.replaced_by == name:
        yield Problem(feature.place.of("replaced_by"), f"{name} cannot be replaced by itself")


def _source_names(world: World) -> Iterator[Problem]:
    taken = {group.source_name: name for name, group in world.groups.items() if group.source}
    for group in world.files.feature_groups:
        if group.source and (other := taken[group.source_name]) != group.name:
            detail = f"the source {group.source_name} belongs to {other}; a source has one group"
            yield Problem(group.source.place.of("name"), detail)


def _locals(world: World) -> Iterator[Problem]:
    for _, name, made in world.files.each():
        if isinstance(made, Feature) and made.transformation and made.transformation.local:
            old = world.features_before.get(name)
            how = old.transformation.local if old and old.transformation else None
            if made.transformation.local != how and name not in world.local:
                detail = "a local transformation is registered by its own process; write an expression or a function"
                yield Problem(made.transformation.place.of("local"), detail)
