"""Changes of the catalog that are asked for over HTTP, made by the definitions and the lifecycle as all changes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from catalog.access import READ, REGISTRY, AnyCaller, Caller, name_of, reach, require
from catalog.definitions.applying import Author, alone, apply_reading
from catalog.definitions.planning import Plan
from catalog.definitions.reading import reading_of
from catalog.lifecycle import change_status
from catalog.models import Feature
from catalog.registry import kinds
from catalog.registry.answers import etag_of, shown
from catalog.registry.bodies import changed_document, new_document
from catalog.registry.impact import impact_of
from catalog.registry.kinds import Kind
from catalog.registry.rights import require_each
from engine.errors import FeaturehubError, IfMatchMissing, InvalidDefinition, Problem, StaleEdit

REASON = "registry"


@dataclass(frozen=True, slots=True)
class Transition:
    """What a thing is to become, and what is told with it; a replacement and a sunset belong to a feature."""

    status: str
    reason: str = ""
    replaced_by: Feature | None = None
    sunset: datetime | None = None


def author_of(caller: AnyCaller) -> Author:
    """Whom the history names: a person, or in its reason the key by its public id and name."""
    if isinstance(caller, Caller):
        return Author(f"key {caller.key_id} {caller.name}", None, REASON)
    person = caller if isinstance(caller, User) else None
    return Author(name_of(caller), person, REASON)


def create(caller: AnyCaller, kind: Kind, body: dict[str, Any], *, dry_run: bool) -> tuple[Plan, Any]:
    """Make the thing that a body describes; the plan, and the thing (as it would be, for a dry run).

    Raises InvalidDefinition with pointers into the body, Conflict when it exists, NotAllowed.
    """
    with _taken_back(dry_run), alone():
        document = new_document(kind, body, groups=_reach(caller))
        plan = _apply(caller, document)
        return plan, kinds.named(kind, _names_of_new(kind, body, plan.changes[0].name))


def change(
    caller: AnyCaller, kind: Kind, names: Sequence[str], body: dict[str, Any], *, if_match: str | None, dry_run: bool
) -> tuple[Plan, Any]:
    """Give a thing the keys of a body; the plan, and the thing (as it would be, for a dry run).

    Raises NotFound, IfMatchMissing, StaleEdit when it is not in the version `if_match`, NotAllowed, InvalidDefinition.
    """
    with _taken_back(dry_run), alone():
        row = _held(kind, names, caller)
        if if_match is None and not dry_run:
            raise IfMatchMissing(
                "A change says what it is a change of: If-Match with the ETag that the thing was read with."
            )
        require(caller, REGISTRY, row)
        _require_present(row, if_match)
        plan = _apply(caller, changed_document(kind, row, body))
        return plan, _again(kind, row)


def change_state(
    caller: AnyCaller, kind: Kind, names: Sequence[str], asked: Transition, *, if_match: str | None = None
) -> Any:
    """Bring a feature, a group or a service into a status by the lifecycle; the thing as it is then.

    Raises NotFound, NotAllowed, StaleEdit when `if_match` is given and another version is present, Conflict, StillRead.
    """
    with alone():
        row = _held(kind, names, caller)
        require(caller, REGISTRY, row)
        _require_present(row, if_match)
        _bring(caller, row, asked)
        return _again(kind, row)


def impact(caller: AnyCaller, kind: Kind, names: Sequence[str], asked: Transition) -> dict[str, Any]:
    """What bringing a thing into a status would mean for others, and why it would be refused; nothing is changed."""
    with _taken_back(True), alone():
        row = kinds.find(kind, names, caller, REGISTRY)
        require(caller, REGISTRY, row)
        told = impact_of(row)
        before = row.effective_status if isinstance(row, Feature) else row.status
        refused = None
        try:
            _bring(caller, row, asked)
        except FeaturehubError as error:
            refused = error.detail
        return {"from": before, "to": asked.status, **told, "refused": refused}


def _bring(caller: AnyCaller, row: Any, asked: Transition) -> None:
    author = author_of(caller)
    row._history_user = author.person
    change_status(
        row,
        asked.status,
        by=author.name,
        reason=asked.reason,
        replaced_by=asked.replaced_by,
        sunset=asked.sunset,
    )


def _held(kind: Kind, names: Sequence[str], caller: AnyCaller) -> Any:
    """The thing as it is and stays until the transaction ends: whoever changes it without applying waits, too."""
    found = kinds.find(kind, names, caller, REGISTRY)
    kind.model._default_manager.select_for_update().get(pk=found.pk)
    return kinds.find(kind, names, caller, REGISTRY)


def _apply(caller: AnyCaller, document: Any) -> Plan:
    try:
        return apply_reading(reading_of(document), author=author_of(caller), approve=partial(require_each, caller))
    except InvalidDefinition as error:
        groups = _reach(caller)
        if groups is not None:
            error.problems = tuple(_of_reach(problem, groups) for problem in error.problems)
        raise


def _of_reach(problem: Problem, groups: frozenset[str]) -> Problem:
    """The problem without near names of features that the caller does not see."""
    seen = (name for name in problem.did_you_mean if ":" not in name or name.partition(":")[0] in groups)
    return replace(problem, did_you_mean=tuple(seen))


def _reach(caller: AnyCaller) -> frozenset[str] | None:
    """The groups that the caller reads or changes definitions of."""
    readable, changeable = reach(caller, READ), reach(caller, REGISTRY)
    return None if readable is None or changeable is None else readable | changeable


def _require_present(row: Any, if_match: str | None) -> None:
    if if_match is None or if_match.strip() == "*":
        return
    present = shown(row)
    etag = etag_of(present)
    # A proxy that compresses answers marks their ETag as weak (W/); it names the same version.
    if etag not in [given.strip().removeprefix("W/") for given in if_match.split(",")]:
        raise StaleEdit(
            f"{kinds.name_of(row)} was changed since: it is in another version than the one named by If-Match.",
            etag=etag,
            present=present,
        )


def _again(kind: Kind, row: Any) -> Any:
    return kind.rows().get(pk=row.pk)


def _names_of_new(kind: Kind, body: dict[str, Any], first: str) -> list[str]:
    """What the address of a thing names, of which `first` is the first change of the plan that made it."""
    if kind is kinds.DATA_SOURCES:
        return [body.get("name") or body["group"]]
    return first.split(":") if kind is kinds.FEATURES else [first]


@contextmanager
def _taken_back(dry_run: bool) -> Iterator[None]:
    """All that is done inside is undone at the end of a dry run, which is refused whatever the real one would be."""
    with transaction.atomic():
        yield
        if dry_run:
            transaction.set_rollback(True)
