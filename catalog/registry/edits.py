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
from django.utils import timezone

from catalog import lifecycle, reviews
from catalog.access import READ, REGISTRY, AnyCaller, noted_as, reach, require, seen
from catalog.definitions.applying import Author, alone, apply_reading
from catalog.definitions.planning import Plan
from catalog.definitions.reading import reading_of
from catalog.models import Feature, ReviewRequest, Status
from catalog.registry import kinds
from catalog.registry.answers import etag_of, shown
from catalog.registry.bodies import Deprecation, Reason, changed_document, new_document, read_reason
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

    def target(self, row: lifecycle.Thing) -> str | None:
        """The status that the thing would have."""
        return self.status

    def bring(self, row: lifecycle.Thing, by: str) -> None:
        how = {"replaced_by": self.replaced_by, "sunset": self.sunset}
        lifecycle.change_status(row, self.status, by=by, reason=self.reason, **how)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Undo:
    """The last change of a thing's status is to be taken back."""

    reason: str = ""

    def target(self, row: lifecycle.Thing) -> str | None:
        """The status that the thing would have; None where there is nothing to undo."""
        return lifecycle.undone_status(row)

    def bring(self, row: lifecycle.Thing, by: str) -> None:
        lifecycle.undo(row, by=by, reason=self.reason)


#: What is asked of a review, by the word in addresses and commands.
REVIEWING = {
    "request-review": lambda row, by, text: reviews.request_review(row, by=by, note=text),
    "approve": lambda row, by, text: reviews.approve(row, by=by, comment=text),
    "decline": lambda row, by, text: reviews.decline(row, by=by, comment=text),
    "withdraw": lambda row, by, text: reviews.withdraw(row, by=by, comment=text),
}


def transition_of(caller: AnyCaller, kind: Kind, names: Sequence[str], status: str, body: dict[str, Any]) -> Transition:
    """What a body asks of a thing that is to get a status: of a feature's deprecation also a replacement and a sunset.

    Raises InvalidDefinition with pointers into the body.
    """
    if status != Status.DEPRECATED or kind is not kinds.FEATURES:
        return Transition(status, read_reason(Reason, body).reason)
    told = read_reason(Deprecation, body)
    if told.sunset and told.sunset <= timezone.now():
        raise InvalidDefinition("A sunset lies in the future.", [Problem("/sunset", "lies in the past")])
    replacement = _replacement(caller, names[0], told.replaced_by) if told.replaced_by else None
    return Transition(status, told.reason, replacement, told.sunset)


def _replacement(caller: AnyCaller, group: str, name: str) -> Feature:
    """The feature that is to be read instead: `group:name`, or a bare name of the same group."""
    full = name if ":" in name else f"{group}:{name}"
    group, _, own = full.partition(":")
    found: Feature | None = seen(caller, kinds.FEATURES.rows()).filter(group__name=group, name=own).first()
    if found is None:
        detail = f"there is no feature named {full[:200]!r}."
        near = kinds.near_seen(kinds.FEATURES, full, caller)
        raise InvalidDefinition("A replacement is a feature.", [Problem("/replaced_by", detail, near)])
    return found


def author_of(caller: AnyCaller) -> Author:
    """Whom the history names: a person, or in its reason the key by its public id and name, or the shell's login."""
    return Author(noted_as(caller), caller if isinstance(caller, User) else None, REASON)


def create(caller: AnyCaller, kind: Kind, body: dict[str, Any], *, dry_run: bool) -> tuple[Plan, Any]:
    """Make the thing that a body describes; the plan, and the thing (as it would be, for a dry run).

    Raises InvalidDefinition with pointers into the body, Conflict when it exists, NotAllowed.
    """
    with _taken_back(dry_run), alone():
        document = new_document(kind, body, groups=_reach(caller))
        plan = _apply(caller, document)
        return plan, kinds.named(kind, _names_of_new(kind, body, plan.changes[0].name))


def change(
    caller: AnyCaller,
    kind: Kind,
    names: Sequence[str],
    body: dict[str, Any],
    *,
    if_match: str | None,
    dry_run: bool,
    reason: str = REASON,
) -> tuple[Plan, Any]:
    """Give a thing the keys of a body; the plan, and the thing (as it would be, for a dry run).

    `reason` is for the history. Raises NotFound, IfMatchMissing, StaleEdit when it is not in the version `if_match`,
    NotAllowed, InvalidDefinition.
    """
    with _taken_back(dry_run), alone():
        row = _held(kind, names, caller)
        if if_match is None and not dry_run:
            raise IfMatchMissing(
                "A change says what it is a change of: If-Match with the ETag that the thing was read with."
            )
        require(caller, REGISTRY, row)
        _require_present(row, if_match)
        plan = _apply(caller, changed_document(kind, row, body), reason)
        return plan, _again(kind, row)


def change_state(
    caller: AnyCaller, kind: Kind, names: Sequence[str], asked: Transition | Undo, *, if_match: str | None = None
) -> Any:
    """Bring a feature, a group or a service into another status by the lifecycle; the thing as it is then.

    Raises NotFound, NotAllowed, StaleEdit when `if_match` is given and another version is present, Conflict, StillRead.
    """
    with alone():
        row = _held(kind, names, caller)
        require(caller, REGISTRY, row)
        _require_present(row, if_match)
        _bring(caller, row, asked)
        return _again(kind, row)


def impact(
    caller: AnyCaller, kind: Kind, names: Sequence[str], asked: Transition | Undo | None = None
) -> dict[str, Any]:
    """Who is hit when a thing changes its status; for one that is asked for also from what to what, and why it would be
    refused. Nothing is changed."""
    with _taken_back(True), alone():
        row = kinds.find(kind, names, caller, REGISTRY)
        require(caller, REGISTRY, row)
        told = impact_of(row, caller)
        if asked is None:
            return told
        before, target = (row.effective_status if isinstance(row, Feature) else row.status), asked.target(row)
        refused = None
        try:
            _bring(caller, row, asked)
        except FeaturehubError as error:
            refused = error.detail
        return {"from": before, "to": target, **told, "refused": refused}


def review(
    caller: AnyCaller, kind: Kind, names: Sequence[str], act: str, text: str = "", *, if_match: str | None = None
) -> ReviewRequest:
    """Do one of REVIEWING with a thing; `text` is the note of who asks, or the comment of who answers.

    Raises NotFound, NotAllowed, StaleEdit when `if_match` is given and another version is present, Conflict.
    """
    with alone():
        row = _held(kind, names, caller)
        _require_present(row, if_match)
        return REVIEWING[act](row, caller, text)


def _bring(caller: AnyCaller, row: Any, asked: Transition | Undo) -> None:
    author = author_of(caller)
    row._history_user = author.person
    asked.bring(row, author.name)


def _held(kind: Kind, names: Sequence[str], caller: AnyCaller) -> Any:
    """The thing as it is and stays until the transaction ends: whoever changes it without applying waits, too."""
    found = kinds.find(kind, names, caller, REGISTRY)
    kind.model._default_manager.select_for_update().get(pk=found.pk)
    return kinds.find(kind, names, caller, REGISTRY)


def _apply(caller: AnyCaller, document: Any, reason: str = REASON) -> Plan:
    author = replace(author_of(caller), reason=reason)
    try:
        return apply_reading(reading_of(document), author=author, approve=partial(require_each, caller))
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
