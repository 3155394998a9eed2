"""Whether somebody may do all that a plan would do: asked of catalog/access.py for each thing that it changes."""

from __future__ import annotations

from typing import Any

from catalog.access import CREATE, MANAGE, REGISTRY, AnyCaller, Caller, require
from catalog.definitions.planning import Change, Plan
from catalog.models import DataSource, Entity, Feature, FeatureGroup, FeatureService, Owner
from engine.errors import NotAllowed

#: What says who else may do something, or has to agree: for people who manage the thing, and for no key.
_MANAGED = {"owner", "members", "needs_review"}
_KINDS: dict[str, type[Any]] = {"owner": Owner, "entity": Entity, "feature group": FeatureGroup}


def require_each(caller: AnyCaller, plan: Plan) -> None:
    """Raises NotAllowed for the first change that the caller may not make.

    Something new needs `create` of a person and `registry` of a key, which is limited to groups or not. New features of
    a new group come with it.
    """
    new_groups = {change.name for change in plan.changes if change.sign == "+" and change.kind == "feature group"}
    for change in plan.changes:
        if change.kind == "feature" and change.name.partition(":")[0] in new_groups:
            continue
        if change.sign == "+":
            _require_making(caller, change, plan)
        else:
            _require_changing(caller, change)
        _require_source(caller, change)


def _require_making(caller: AnyCaller, change: Change, plan: Plan) -> None:
    making = REGISTRY if isinstance(caller, Caller) else CREATE
    if change.kind == "feature":
        group = FeatureGroup.objects.get(name=change.name.partition(":")[0])
        require(caller, making, Feature(group=group))
    elif change.kind == "feature service" and isinstance(caller, Caller):
        features = plan.world.services[change.name].features
        require(caller, making, {name.partition(":")[0] for name in features})
    elif change.kind == "feature group" and isinstance(caller, Caller):
        require(caller, making, [change.name])
    else:
        require(caller, making, _KINDS.get(change.kind, FeatureService))


def _require_changing(caller: AnyCaller, change: Change) -> None:
    row = _row(change)
    require(caller, REGISTRY, row)
    if managed := sorted(_MANAGED & {field.field for field in change.fields}):
        try:
            require(caller, MANAGE, row)
        except NotAllowed as error:
            error.detail = f"Changing {' and '.join(managed)} of {change.name} is for people who manage it."
            raise


def _require_source(caller: AnyCaller, change: Change) -> None:
    """A source that is not there yet is in no group's reach: a person needs the permission to make one."""
    if isinstance(caller, Caller) or change.kind != "feature group":
        return
    for field in change.fields:
        if field.field == "source" and field.new:
            name = field.new.get("name", change.name)
            found = DataSource.objects.filter(name=name).first()
            require(caller, CREATE if found is None else REGISTRY, DataSource if found is None else found)


def _row(change: Change) -> Any:
    name, _, rest = change.name.partition(":")
    if change.kind == "feature":
        return Feature.objects.select_related("group").get(group__name=name, name=rest)
    if change.kind == "feature service":
        name, _, version = change.name.partition("@")
        return FeatureService.objects.get(name=name, version=version)
    return _KINDS[change.kind].objects.get(name=change.name)
