"""What was changed of a thing, by whom, when and why, field by field; and the way back to what it was.

The fields are the keys of a definitions file, so that a change reads like a plan. A thing's parts (the join keys of an
entity, the inputs of a group, the features of a service) have histories of their own; what one save or one apply wrote
is put together again: rows by the same person, with the same reason, each within a second of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Model

from catalog.access import AnyCaller
from catalog.approvals import principal_in
from catalog.definitions.document import STATUS_KEYS
from catalog.definitions.exporting import definition_as, definition_of
from catalog.definitions.planning import Plan
from catalog.models import (
    DataSource,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    GroupInput,
    JoinKey,
    Owner,
    RequestInput,
    ServiceFeature,
    Tag,
)
from catalog.registry import edits
from catalog.registry.kinds import OF_MODEL, name_of
from engine.errors import Conflict, NotFound

#: What has a history that reads like definitions.
Thing = Entity | FeatureGroup | Feature | FeatureService | DataSource | Owner
KINDS: tuple[type[Model], ...] = (Entity, FeatureGroup, Feature, FeatureService, DataSource, Owner)
TOGETHER = timedelta(seconds=1)
#: What a revert leaves as it is: the status is the lifecycle's, when a group is ingested its schedule's, and a version
#: only rises.
_KEPT = frozenset({*STATUS_KEYS, "schedule", "version", "name"})


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed at once.

    id:        names it for `revert`: of the thing's own history row; None where only parts of it have one.
    at:        when, UTC.
    by:        who, as people call them; "" where nobody is known. `principal` as catalog/access.py has it.
    reason:    as it was given.
    is_first, is_deletion: whether the thing was made, or deleted, then.
    fields:    (key, old, new) of each key of a definitions file that differs; None is a key's default.
    """

    id: int | None
    at: datetime
    by: str
    principal: str
    reason: str
    is_first: bool
    is_deletion: bool
    fields: tuple[tuple[str, Any, Any], ...]


def changes_of(thing: Thing) -> list[Change]:
    """Every change of a thing that a definitions file could show, the newest first."""
    return [change for change, _ in _told(thing)]


def changes_since(thing: Thing, history_id: int) -> list[Change]:
    """Those that came after the row of the thing's history with that id, the newest first."""
    return [change for change in changes_of(thing) if change.id is None or change.id > history_id]


def revert(thing: Thing, history_id: int, by: AnyCaller, *, dry_run: bool = False) -> Plan:
    """Make the definition what it was after the change `history_id`, by an edit like any other: what that changes.

    The status, the schedule and a group's version stay, and a group's features have histories of their own.
    Raises NotFound, and what an edit raises: NotAllowed, and InvalidDefinition where it needs a new group version.
    """
    state = next((state for change, state in _told(thing) if change.id == history_id), None)
    if state is None:
        raise NotFound(f"{thing} has no change {history_id} in its history.")
    if not state:
        raise Conflict(f"{thing} was not there after change {history_id}.")
    kind, body = OF_MODEL[type(thing)], _body(thing, state)
    names = [thing.group.name, thing.name] if isinstance(thing, Feature) else [name_of(thing)]
    reason = f"revert to change {history_id}"
    plan, _ = edits.change(by, kind, names, body, if_match="*", dry_run=dry_run, reason=reason)
    return plan


def _body(thing: Thing, state: dict[str, Any]) -> dict[str, Any]:
    """What a PATCH that brings a state back would send; null is a key's default."""
    if isinstance(thing, DataSource):
        return {key: state[key] for key in ("kind", "path")}
    kept = _KEPT | ({"features"} if isinstance(thing, FeatureGroup) else frozenset())
    keys = [key for key in type(definition_of(thing)).model_fields if key not in kept]
    return {key: state.get(key) for key in keys}


# -- Rows of the history, and the states that they leave


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that belong to a thing, each with a history of its own; `parent` is the column that says to which."""

    model: Any
    parent: str


_PARTS: dict[type[Model], dict[str, _Part]] = {
    Entity: {"join_keys": _Part(JoinKey, "entity_id")},
    FeatureGroup: {
        "inputs": _Part(GroupInput, "group_id"),
        "request_inputs": _Part(RequestInput, "group_id"),
        "features": _Part(Feature, "group_id"),
    },
    FeatureService: {"chosen": _Part(ServiceFeature, "service_id")},
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a history: of the thing itself (part ""), of one of its parts, or of its source (part "source")."""

    part: str
    record: Any


def _told(thing: Thing) -> list[tuple[Change, dict[str, Any]]]:
    """Each change with the state after it, the newest first; the state of something deleted is empty."""
    states, found, before = _States(thing), [], None
    for burst in _bursts(_rows(thing)):
        for row in burst:
            states.take(row)
        after = states.now()
        if after is None:  # parts of something that is not there yet
            continue
        change = _change(burst, before, after)
        if change.fields or change.is_first or change.is_deletion:
            found.append((change, after))
        before = after
    return found[::-1]


def _rows(thing: Thing) -> list[_Row]:
    rows = [_Row("", record) for record in _with_user(type(thing).history.filter(id=thing.pk))]
    for name, part in _PARTS.get(type(thing), {}).items():
        ids = part.model.history.filter(**{part.parent: thing.pk}).values_list("id", flat=True)
        rows += [_Row(name, record) for record in _with_user(part.model.history.filter(id__in=set(ids)))]
    if isinstance(thing, FeatureGroup):
        sources = {row.record.source_id for row in rows if row.part == "" and row.record.source_id}
        rows += [_Row("source", record) for record in _with_user(DataSource.history.filter(id__in=sources))]
    return sorted(rows, key=lambda row: (row.record.history_date, row.part != "", row.record.history_id))


def _with_user(records: Any) -> Any:
    return records.select_related("history_user")


def _bursts(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows that were written together."""
    burst: list[_Row] = []
    for row in rows:
        if burst and not _is_one(burst[-1].record, row.record):
            yield burst
            burst = []
        burst.append(row)
    if burst:
        yield burst


def _is_one(earlier: Any, later: Any) -> bool:
    return bool(
        later.history_date - earlier.history_date <= TOGETHER
        and earlier.history_user_id == later.history_user_id
        and earlier.history_change_reason == later.history_change_reason
    )


def _change(burst: Sequence[_Row], before: dict[str, Any] | None, after: dict[str, Any]) -> Change:
    own = [row.record for row in burst if row.part == ""]
    last = burst[-1].record
    principal = principal_in(last)
    return Change(
        id=own[-1].history_id if own else None,
        at=last.history_date,
        by=_called(last, principal),
        principal=principal,
        reason=last.history_change_reason or "",
        is_first=before is None,
        is_deletion=not after,
        fields=tuple(_differences(before or {}, after)) if after else (),
    )


def _called(record: Any, principal: str) -> str:
    """Who it was: a person's login, or the words of the reason after `by` for a key and a shell."""
    if record.history_user is not None:
        return str(record.history_user.get_username())
    if principal:
        return " ".join((record.history_change_reason or "").partition(" by ")[2].split(" ")[:3])
    return (record.history_change_reason or "").partition(" by ")[2].partition(" ")[0]


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    old, new = _flat(before), _flat(after)
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _flat(state: dict[str, Any]) -> dict[str, Any]:
    """The rules and the transformation key by key."""
    flat: dict[str, Any] = {}
    for key, value in state.items():
        flat.update(
            {f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}
        )
    return flat


class _States:
    """What a thing was, row by row of its history, as a definitions file would have it."""

    def __init__(self, thing: Thing) -> None:
        self.model, self.pk = type(thing), thing.pk
        self.own: Any = None
        self.parts: dict[str, dict[int, Any]] = {}
        self.names = _Names()
        self.tags = _tags_of(thing)

    def take(self, row: _Row) -> None:
        if row.part == "":
            self.own = row.record
        else:
            self.parts.setdefault(row.part, {})[row.record.id] = row.record

    def now(self) -> dict[str, Any] | None:
        """The definition; empty once deleted, None before there is any."""
        if self.own is None:
            return None
        return {} if self.own.history_type == "-" else _WRITTEN[self.model](self)

    def row(self) -> SimpleNamespace:
        """The own row with what `definition_as` looks at."""
        found = SimpleNamespace(
            **{field.attname: getattr(self.own, field.attname) for field in self.own.tracked_fields}
        )
        if hasattr(self.own, "owner_id"):
            found.owner = self.names.of(Owner, self.own.owner_id)
        if self.tags is not None:
            found.tags = _All(self.names.of(Tag, tag) for tag in self.tags.get(self.own.history_id, ()))
        return found

    def part(self, name: str) -> list[Any]:
        """The rows of a part in their order."""
        parent = _PARTS[self.model][name].parent
        there = [
            r for r in self.parts.get(name, {}).values() if r.history_type != "-" and getattr(r, parent) == self.pk
        ]
        return sorted(there, key=lambda record: (record.position, record.id))


def _tags_of(thing: Thing) -> dict[int, list[int]] | None:
    """The keys of the tags that each row of the thing's history had, by the row's id; None for what bears no tags."""
    if not hasattr(thing, "tags"):
        return None
    rows = type(thing).history.model
    links = vars(rows)["tags"].model.objects.filter(history__in=rows.objects.filter(id=thing.pk))
    found: dict[int, list[int]] = {}
    for row, tag in links.order_by("pk").values_list("history_id", "tag_id"):
        found.setdefault(row, []).append(tag)
    return found


class _All(list[Any]):
    """Rows, asked for as of a related manager."""

    def __init__(self, rows: Iterable[Any]) -> None:
        super().__init__(row for row in rows if row is not None)

    def all(self) -> list[Any]:
        return self


@dataclass(frozen=True)
class _Named:
    """What is left of a row that something refers to: what it is called."""

    name: str

    def __str__(self) -> str:
        return self.name

    def get_username(self) -> str:
        return self.name


class _Names:
    """What rows are called now, or were when they were last there; each asked for once."""

    def __init__(self) -> None:
        self._known: dict[tuple[type[Model], int], _Named] = {}

    def of(self, model: type[Model], pk: int | None) -> _Named | None:
        if pk is None:
            return None
        if (model, pk) not in self._known:
            self._known[model, pk] = _Named(self._find(model, pk))
        return self._known[model, pk]

    def meet(self, features: Iterable[int]) -> None:
        """Ask for those of many features that are still there at once."""
        unknown = [pk for pk in features if (Feature, pk) not in self._known]
        for feature in Feature.objects.select_related("group").filter(pk__in=unknown) if unknown else ():
            self._known[Feature, feature.pk] = _Named(str(feature))

    def _find(self, model: type[Model], pk: int) -> str:
        row = model._default_manager.filter(pk=pk).first()
        if isinstance(row, User):
            return row.get_username()
        if row is not None:
            return str(row)
        history = getattr(model, "history", None)
        last = history.filter(id=pk).order_by("-history_id").first() if history is not None else None
        name = getattr(last, "name", None) or f"(deleted {model._meta.verbose_name} {pk})"
        return f"{self.of(FeatureGroup, last.group_id)}:{name}" if model is Feature and last is not None else str(name)


def _entity(states: _States) -> dict[str, Any]:
    row = states.row()
    row.join_keys = _All(states.part("join_keys"))
    return definition_as(Entity, row).written()


def _group(states: _States) -> dict[str, Any]:
    row = states.row()
    row.entity = states.names.of(Entity, row.entity_id)
    row.inputs, row.request_inputs = _All(states.part("inputs")), _All(states.part("request_inputs"))
    row.source = states.parts.get("source", {}).get(row.source_id) if row.source_id else None
    row.features, row.schedule = _All([]), None
    return {
        **definition_as(FeatureGroup, row).written(),
        "features": [column.name for column in states.part("features")],
    }


def _feature(states: _States) -> dict[str, Any]:
    row = states.row()
    row.replaced_by = states.names.of(Feature, row.replaced_by_id)
    row.transformation = lambda: row.expression or row.function or row.local or None
    return definition_as(Feature, row).written()


def _service(states: _States) -> dict[str, Any]:
    row = states.row()
    ids = [chosen.feature_id for chosen in states.part("chosen")]
    states.names.meet(ids)
    features = [states.names.of(Feature, pk) for pk in ids]
    row.chosen = _All(SimpleNamespace(feature=feature) for feature in features)
    return definition_as(FeatureService, row).written()


def _owner(states: _States) -> dict[str, Any]:
    row = states.row()
    row.members = _All(states.names.of(User, user) for user in states.own.members.values_list("user_id", flat=True))
    return definition_as(Owner, row).written()


def _source(states: _States) -> dict[str, Any]:
    return {key: getattr(states.own, key) for key in ("name", "kind", "path")}


_WRITTEN: dict[type[Model], Callable[[_States], dict[str, Any]]] = {
    Entity: _entity,
    FeatureGroup: _group,
    Feature: _feature,
    FeatureService: _service,
    Owner: _owner,
    DataSource: _source,
}
