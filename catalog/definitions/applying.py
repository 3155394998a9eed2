"""Writes a plan into the catalog: everything or nothing, and only what differs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import models as orm
from django.db import transaction
from django.utils import timezone

from catalog import models
from catalog.approvals import require_may_begin
from catalog.definitions import document
from catalog.definitions.drift import remember
from catalog.definitions.planning import Change, Plan, plan_of
from catalog.definitions.reading import Reading, read, read_texts
from catalog.definitions.schedules import set_schedule
from catalog.definitions.world import World
from catalog.lifecycle import Thing, change_status
from catalog.models import CatalogState, Status
from engine.errors import InvalidDefinition, Problem

REASON = "apply"
#: Of the history's column.
LONGEST_REASON = 100


@dataclass(frozen=True, slots=True)
class Author:
    """Whose change it is: what people call who asked, the person if it is one, and what the history gives as reason."""

    name: str = ""
    person: User | None = None
    reason: str = REASON

    @property
    def noted(self) -> str:
        """The reason as the history keeps it, with the name of who is nobody that the history can point to."""
        return self.reason if self.person or not self.name else f"{self.reason} by {self.name}"[:LONGEST_REASON]


def apply(
    files: Sequence[str | Path],
    *,
    prune: bool = False,
    by: str = "",
    local: Collection[str] = (),
    is_remembered: bool = True,
) -> Plan:
    """Make the catalog what the files say, in one transaction, and return what that changed.

    What an absent key means is told by `plan`. Applying the same files again changes nothing: no history, no catalog
    version. `prune` archives the features that a named group no longer has; without it they are a problem.
    `by` is the username that the history names, `local` as in `plan`. What was applied is remembered, for `drift`,
    unless the files are nobody's to keep. Raises InvalidDefinition as `plan` does, and
    Conflict or StillRead for a status change that the lifecycle refuses; nothing is applied then.
    """
    person = User.objects.filter(username=by).first() if by else None
    reading = read(files)
    with transaction.atomic():
        found = apply_reading(reading, prune=prune, author=Author(by, person), local=local)
        if is_remembered:
            remember(reading.document, by=by)
    return found


def apply_text(
    name: str, text: str, *, prune: bool, author: Author, approve: Callable[[Plan], None] = lambda plan: None
) -> Plan:
    """The same of one file's text that is in memory; `approve` as in `apply_reading`."""
    reading = read_texts({name: text})
    with transaction.atomic():
        found = apply_reading(reading, prune=prune, author=author, approve=approve)
        remember(reading.document, by=author.name)
    return found


def apply_reading(
    reading: Reading,
    *,
    prune: bool = False,
    author: Author = Author(),
    local: Collection[str] = (),
    approve: Callable[[Plan], None] = lambda plan: None,
) -> Plan:
    """The same of definitions that were read already. `approve` is shown the plan before anything is written, and
    raises what refuses it."""
    with alone():
        found = plan_of(reading, local=local)
        missing = [change for change in found.changes if change.sign == "-"]
        if missing and not prune:
            raise _left_out(missing, found.world)
        approve(found)
        _Apply(found, author).run()
    return found


@contextmanager
def alone() -> Iterator[None]:
    """A transaction in which nobody else applies anything: those that meet follow each other."""
    with transaction.atomic():
        CatalogState.current()
        CatalogState.objects.select_for_update().get(pk=1)
        yield


def _left_out(missing: list[Change], world: World) -> InvalidDefinition:
    places = {group.name: group.place.of("features") for group in world.files.feature_groups}
    detail = "is in the catalog and not in the files; write it, or apply with --prune to archive it"
    problems = [Problem(places[change.name.partition(":")[0]], f"{change.name} {detail}") for change in missing]
    return InvalidDefinition("The definitions leave out features of their groups; nothing was applied.", problems)


class _Apply:
    """One apply: first what exists, then what refers to it; statuses late, so that their checks see the rest."""

    def __init__(self, found: Plan, author: Author) -> None:
        self.world = found.world
        self.changes = {(change.kind, change.name): change for change in found.changes}
        self.author = author

    def run(self) -> None:
        for kind, name, made in self.world.files.each():
            if (kind, name) in self.changes:
                self._write(name, made)
        for group in self.world.files.feature_groups:
            self._order(group.name)
        self._statuses()
        self._deprecations()
        self._require_drafts()

    def _write(self, name: str, made: document.Definition) -> None:
        match made:
            case document.Owner():
                self._owner(made)
            case document.Entity():
                self._entity(made)
            case document.FeatureGroup():
                self._group(made)
            case document.Feature():
                self._feature(name, made)
            case document.FeatureService():
                self._service(name, made)

    def _changed(self, kind: str, name: str, key: str) -> bool:
        change = self.changes[kind, name]
        return change.sign == "+" or key in {field.field for field in change.fields}

    def _save(self, row: Any, **values: Any) -> None:
        """Save a row with its history; also without a difference of its own, when what belongs to it differs."""
        for name, value in values.items():
            setattr(row, name, value)
        row._change_reason, row._history_user = self.author.noted, self.author.person
        row.save()

    def _delete(self, rows: orm.QuerySet[Any]) -> None:
        for row in rows:
            row._change_reason, row._history_user = self.author.noted, self.author.person
            row.delete()

    def _documented(self, row: Any, made: document.Documented, **values: Any) -> None:
        owner = models.Owner.objects.get(name=made.owner) if made.owner else None
        self._save(row, description=made.description, owner=owner, **values)
        row.tags.set([models.Tag.objects.get_or_create(name=tag)[0] for tag in made.tags])

    def _owner(self, made: document.Owner) -> None:
        row = models.Owner.objects.filter(name=made.name).first() or models.Owner(name=made.name)
        self._save(row, email=made.email or "")
        users = get_user_model()
        row.members.set(users._default_manager.filter(**{f"{users.USERNAME_FIELD}__in": made.members}))

    def _entity(self, made: document.Entity) -> None:
        row = models.Entity.objects.filter(name=made.name).first() or models.Entity(name=made.name)
        self._documented(row, made)
        if self._changed("entity", made.name, "join_keys"):
            self._delete(row.join_keys.all())
            for position, key in enumerate(made.join_keys):
                self._save(models.JoinKey(entity=row), name=key.name, dtype=key.dtype, position=position)

    def _group(self, made: document.FeatureGroup) -> None:
        row = models.FeatureGroup.objects.filter(name=made.name).first()
        row = row or models.FeatureGroup(name=made.name, status=made.status or made.default_status)
        self._documented(
            row,
            made,
            entity=models.Entity.objects.get(name=made.entity),
            version=made.version,
            ttl=made.ttl,
            freshness=made.freshness,
            event_timestamp=made.event_timestamp,
            created_timestamp=made.created_timestamp or "",
            needs_review=made.needs_review,
            **self._source(made),
            **self._schedule(row, made),
        )
        if self._changed("feature group", made.name, "inputs"):
            self._columns(row.inputs, made.inputs)
        if self._changed("feature group", made.name, "request_inputs"):
            self._columns(row.request_inputs, made.request_inputs)

    def _source(self, made: document.FeatureGroup) -> dict[str, models.DataSource | None]:
        if not self._changed("feature group", made.name, "source"):
            return {}
        if made.source is None:
            return {"source": None}
        row = models.DataSource.objects.filter(name=made.source_name).first()
        row = row or models.DataSource(name=made.source_name)
        self._save(row, kind=made.source.kind, path=made.source.path)
        return {"source": row}

    def _schedule(self, row: models.FeatureGroup, made: document.FeatureGroup) -> dict[str, Any]:
        if not self._changed("feature group", made.name, "schedule"):
            return {}
        if made.schedule is None and row.schedule:
            row.schedule.delete()
        return {"schedule": set_schedule(row, made.schedule) if made.schedule else None}

    def _columns(self, of_group: Any, wanted: Sequence[document.Input]) -> None:
        """Make the inputs or request inputs of a group, given as its related manager, the wanted ones."""
        self._delete(of_group.all())
        for position, column in enumerate(wanted):
            made = of_group.model(group=of_group.instance)
            self._save(made, name=column.name, dtype=column.dtype, position=position)

    def _feature(self, name: str, made: document.Feature) -> None:
        row = _feature_row(name) or self._new_feature(name, made)
        how = made.transformation or document.Transformation.model_construct()
        self._documented(
            row,
            made,
            dtype=made.dtype,
            type=made.settled_type,
            expression=how.expression or "",
            function=how.function or "",
            arguments=list(how.arguments),
            rowwise=how.rowwise,
            local=how.local or "",
            validation=made.validation.written(),
        )

    def _new_feature(self, name: str, made: document.Feature) -> models.Feature:
        group = _group_row(name.partition(":")[0])
        return models.Feature(
            group=group,
            name=made.name,
            position=self._wanted(group.name).index(made.name),
            status=made.status or "",
            deprecated_at=timezone.now() if made.status == Status.DEPRECATED else None,
        )

    def _wanted(self, group: str) -> list[str]:
        return [feature.name for feature in self.world.groups[group].features]

    def _order(self, group: str) -> None:
        """Number the features anew when their order differs; the numbers of an equal order stay as they are."""
        rows = list(models.Feature.objects.filter(group__name=group).order_by("position", "pk"))
        wanted = self._wanted(group)
        if [row.name for row in rows] != wanted:
            for row in rows:
                if row.position != wanted.index(row.name):
                    self._save(row, position=wanted.index(row.name))

    def _service(self, name: str, made: document.FeatureService) -> None:
        row = _service_row(name)
        if row is None:
            status = made.status or made.default_status
            row = models.FeatureService(name=made.name, version=made.version, status=status)
        self._documented(row, made)
        if self._changed("feature service", name, "features"):
            self._delete(row.chosen.all())
            for position, chosen in enumerate(made.features):
                self._save(models.ServiceFeature(service=row), feature=_feature_row(chosen), position=position)

    def _statuses(self) -> None:
        """Raise groups, then features, then services; archive in the opposite order, which frees what was read."""
        moves = [(kind, name, Status.ARCHIVED) for (kind, name), change in self.changes.items() if change.sign == "-"]
        for (kind, name), change in self.changes.items():
            if change.sign == "~":
                moves += [(kind, name, Status(field.new)) for field in change.fields if field.field == "status"]
        for kind, name, status in sorted(moves, key=_turn):
            self._move(_ROWS[kind](name), name, status)

    def _move(self, row: Thing, name: str, status: Status) -> None:
        row._history_user = self.author.person  # type: ignore[union-attr]
        made = self.world.named_features.get(name)
        if made is None or not isinstance(row, models.Feature) or status != Status.DEPRECATED:
            change_status(row, status, by=self.author.name, reason=self.author.reason)
            return
        replacement = _feature_row(made.replaced_by) if made.replaced_by else None
        reason = made.deprecation_reason or ""
        change_status(row, status, by=self.author.name, reason=reason, replaced_by=replacement, sunset=made.sunset)

    def _deprecations(self) -> None:
        """What stands beside a status that did not change now, or names a feature that was new."""
        for name, made in self.world.named_features.items():
            if ("feature", name) in self.changes and made.status is not None:
                row = _feature_row(name)
                replacement = _feature_row(made.replaced_by) if made.replaced_by else None
                wanted = {
                    "replaced_by": replacement,
                    "sunset_at": made.sunset,
                    "deprecation_reason": made.deprecation_reason or "",
                }
                if any(getattr(row, key) != value for key, value in wanted.items()):
                    self._save(row, **wanted)

    def _require_drafts(self) -> None:
        """Nothing new is served at once where drafts want to be approved."""
        for (kind, name), change in self.changes.items():
            if change.sign == "+" and kind in _ROWS:
                require_may_begin(_ROWS[kind](name))


_FLOORS = ("feature group", "feature", "feature service")


def _turn(move: tuple[str, str, Status]) -> int:
    kind, _, status = move
    floor = _FLOORS.index(kind)
    return 2 * len(_FLOORS) - floor if status == Status.ARCHIVED else floor


def _group_row(name: str) -> models.FeatureGroup:
    return models.FeatureGroup.objects.get(name=name)


def _feature_row(name: str) -> models.Feature | None:
    group, _, own = name.partition(":")
    return models.Feature.objects.select_related("group").filter(group__name=group, name=own).first()


def _service_row(name: str) -> models.FeatureService | None:
    own, _, version = name.partition("@")
    return models.FeatureService.objects.filter(name=own, version=version).first()


_ROWS: dict[str, Callable[[str], Any]] = dict(zip(_FLOORS, (_group_row, _feature_row, _service_row), strict=True))
