"""What an apply of some files would change, with its effects in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from catalog.definitions import checking
from catalog.definitions.document import STATUS_KEYS, Definition, Feature, FeatureGroup, FeatureService
from catalog.definitions.exporting import written_yaml
from catalog.definitions.reading import Reading, read
from catalog.definitions.world import World
from catalog.models import Status
from catalog.models.service import list_changes
from engine.errors import InvalidDefinition

Sign = Literal["+", "~", "-"]
#: Keys that nobody who reads values could notice.
_UNNOTICED = {"description", "owner", "tags"}


@dataclass(frozen=True)
class FieldChange:
    """One key, old and new as a file would have them; None is the key's default."""

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class Change:
    """One object that appears (`+`), changes (`~`), or is missing from a group that the files name (`-`)."""

    sign: Sign
    kind: str
    name: str
    fields: tuple[FieldChange, ...] = ()
    effects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All changes: owners, entities, groups each with their features, services. `world` is what they were found in."""

    changes: tuple[Change, ...]
    world: World = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        return {"changes": [asdict(change) for change in self.changes]}


def plan(files: Sequence[str | Path], *, local: Collection[str] = ()) -> Plan:
    """What applying the files (`-` is standard input) would change; changes nothing itself.

    The files are one document. What they do not name stays untouched. Of what they name, an absent key means its
    default, so that export and plan are exact; only an absent `status`, with what belongs to it, means the status
    that the catalog has: a deprecation made elsewhere outlives an apply. A feature that a named group no longer has
    shows as `-`, unless it is archived already.
    `local` names the features (`group:name`) whose transformation this process holds as a Python object.
    Raises InvalidDefinition with every problem of the files, each with its file, line and path.
    """
    return plan_of(read(files), local=local)


def plan_of(reading: Reading, *, local: Collection[str] = ()) -> Plan:
    """The same of definitions that were read already."""
    world = World(reading, frozenset(local))
    if problems := checking.problems_of(world):
        number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InvalidDefinition(f"The definitions have {number}; nothing was applied.", problems)
    return Plan(tuple(_changes(world)), world)


def _changes(world: World) -> Iterator[Change]:
    before = {(kind, name): definition for kind, name, definition in world.catalog.each()}
    for kind, name, new in world.files.each():
        old = before.get((kind, name))
        fields = _differences(old, new, world)
        if old is None or fields:
            effects = _effects(world, name, old, new, {change.field for change in fields})
            yield Change("~" if old else "+", kind, name, fields, tuple(effects))
    yield from _missing(world)


def _missing(world: World) -> Iterator[Change]:
    for group in world.files.feature_groups:
        for feature in world.before[group.name].features if group.name in world.before else ():
            name = f"{group.name}:{feature.name}"
            if name not in world.named_features and feature.status != Status.ARCHIVED:
                readers = world.readers(name)
                effect = f"cannot be archived: read by {', '.join(readers)}" if readers else "apply --prune archives it"
                yield Change("-", "feature", name, effects=(effect,))


def _differences(old: Definition | None, new: Definition, world: World) -> tuple[FieldChange, ...]:
    before, after = old.written() if old else {}, new.written()
    skipped = {"name", "features"} if isinstance(new, FeatureGroup) else {"name"}
    if old and getattr(new, "status", None) is None:
        skipped.update(STATUS_KEYS)
    keys = [key for key in type(new).model_fields if key not in skipped]
    pairs = [(key, before.get(key), after.get(key)) for key in keys]
    if isinstance(old, FeatureGroup):
        pairs += _reordered(old, world.groups[old.name])
    return tuple(FieldChange(*pair) for pair in pairs if _comparable(pair[1]) != _comparable(pair[2]))


def _reordered(old: FeatureGroup, new: FeatureGroup) -> list[tuple[str, Any, Any]]:
    """The order of the features that were there before; a new one is a change of its own."""
    names = [feature.name for feature in old.features]
    return [("features", names, [feature.name for feature in new.features if feature.name in names])]


def _comparable(value: Any) -> Any:
    """Equal for values that mean the same: 1 and 1.0 (a database may return either), but not 1 and true."""
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return (isinstance(value, bool), value)


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "(default)"
    return written_yaml(value, in_one_line=True).removesuffix("\n").removesuffix("\n...")


def _effects(world: World, name: str, old: Definition | None, new: Definition, keys: set[str]) -> Iterator[str]:
    if isinstance(new, FeatureGroup) and isinstance(old, FeatureGroup) and old.version != new.version:
        yield f"version {old.version} -> {new.version}: serves nothing until it is ingested"
    if isinstance(new, FeatureService) and old is None:
        yield from _effects_of_version(world, new)
    if isinstance(new, FeatureService) and (needed := world.needed_from_request(new)):
        yield f"computed on request: readers send {', '.join(needed)}"
    if isinstance(new, Feature) and old is None:
        yield from _effects_of_new(world, world.groups[name.partition(":")[0]], new.name)
    if isinstance(new, Feature | FeatureGroup) and old and keys - _UNNOTICED and (readers := world.readers(name)):
        yield f"read by {', '.join(readers)}"


def _effects_of_version(world: World, new: FeatureService) -> Iterator[str]:
    older = [made for made in world.services.values() if made.name == new.name and made.version < new.version]
    if older:
        before = max(older, key=lambda made: made.version)
        changes = ", ".join(list_changes(before.features, new.features)) or "the same list"
        yield f"since {before.name}@{before.version}: {changes}"


def _effects_of_new(world: World, group: FeatureGroup, name: str) -> Iterator[str]:
    if any(feature.name == name for feature in world.schema(group).on_request):
        yield "computed on request: never stored"
        return
    stored = next(reversed(world.stored.get(group.name, [])), None)
    if stored and stored.version == group.version:
        yield f"schema {stored.number + 1}: rows written so far answer NOT_FOUND for {name} until backfilled"
