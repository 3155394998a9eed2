"""What a status may become, what that needs, who still reads a thing, and the way back.

Archiving something that is still read is refused, naming who reads it: a feature of a service that is not archived
itself, one that others are computed from on request, or a group with a feature of such a service. Deprecating records
when, why, and what to use instead. A draft of a group that needs reviews becomes active only when it was approved
(catalog/approvals.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from catalog import approvals, notices, usage
from catalog.models import Feature, FeatureGroup, FeatureService, Status
from catalog.models.status import TRANSITIONS, effective_status
from catalog.schemas import computed_from
from engine.errors import Conflict, InvalidInput, StillRead

Thing = Feature | FeatureGroup | FeatureService


def change_status(
    thing: Thing,
    status: str,
    *,
    by: str = "",
    reason: str = "",
    replaced_by: Feature | None = None,
    sunset: datetime | None = None,
) -> None:
    """Bring `thing` into `status`, in one transaction with its history; nothing happens when it is there already.

    `reason`, `replaced_by` and `sunset` belong to a deprecated feature and are refused for anything else.
    Raises Conflict for a change that TRANSITIONS does not have and StillRead for archiving what is read.
    """
    deprecating_feature = isinstance(thing, Feature) and status == Status.DEPRECATED
    if (replaced_by or sunset) and not deprecating_feature:
        raise InvalidInput("A replacement and a sunset belong to a feature that is deprecated.")
    if thing.status == status and not (reason or replaced_by or sunset):
        return
    with transaction.atomic():
        _require_allowed(thing, status)
        if isinstance(thing, Feature):
            _record_deprecation(thing, status, reason=reason, replaced_by=replaced_by, sunset=sunset)
        if isinstance(thing, FeatureGroup):
            thing.deprecated_at = (thing.deprecated_at or timezone.now()) if status == Status.DEPRECATED else None
        notices.tell_of_status(thing, status)
        _save(thing, status, f"{status} by {by}" if by else status, reason)


def undo(thing: Thing, *, by: str = "", reason: str = "") -> None:
    """Take the last change of the thing's own status back, in one transaction with its history.

    The status before it comes back with the reason, the replacement and the sunset of then. Undoing twice is doing it
    again. Raises Conflict when there was no other status, TRANSITIONS has no way back, or a replacement is gone, and
    StillRead when that would archive what is read.
    """
    with transaction.atomic():
        before = undone(thing)
        if before is None:
            raise Conflict(f"{thing} had no other status; there is nothing to undo.")
        wanted = _effective(thing, before.status)
        _require_allowed(thing, wanted)
        if isinstance(thing, Feature):
            if before.replaced_by_id and not Feature.objects.filter(pk=before.replaced_by_id).exists():
                raise Conflict(f"What {thing} was replaced by is not there any more; deprecate it anew.")
            for field in ("replaced_by_id", "deprecated_at", "deprecation_reason", "sunset_at"):
                setattr(thing, field, getattr(before, field))
        if isinstance(thing, FeatureGroup):
            thing.deprecated_at = before.deprecated_at
        _save(thing, before.status, f"undo, {wanted} by {by}" if by else f"undo, {wanted}", reason)


def undone(thing: Thing) -> Any:
    """The row of the thing's history that `undo` would bring back: the last one of another status; None without any."""
    records = thing.history.order_by("-history_date", "-history_id")
    return records.exclude(status=thing.status).first()


def undone_status(thing: Thing) -> str | None:
    """The status that would count after `undo`; None where there is nothing to undo."""
    before = undone(thing)
    return None if before is None else _effective(thing, before.status)


def _effective(thing: Thing, own: str) -> str:
    """The status that counts when the thing's own is this one."""
    return effective_status(own, thing.group.status) if isinstance(thing, Feature) else own


def _save(thing: Thing, status: str, what: str, reason: str) -> None:
    thing.status = status
    thing._change_reason = " ".join(filter(None, [what, reason]))[:100]  # type: ignore[union-attr]
    thing.save()


def _require_allowed(thing: Thing, status: str) -> None:
    now = thing.effective_status if isinstance(thing, Feature) else thing.status
    if status not in TRANSITIONS[now] and status != now:
        allowed = ", ".join(sorted(TRANSITIONS[now]))
        raise Conflict(f"{thing} is {now} and cannot become {status}; it can become {allowed}.")
    if status == Status.ARCHIVED and (readers := readers_of(thing)):
        raise StillRead(f"{thing} cannot be archived: it is read by {', '.join(readers)}.")
    if status == Status.ACTIVE:
        approvals.require_approved(thing)


def _record_deprecation(
    feature: Feature, status: str, *, reason: str, replaced_by: Feature | None, sunset: datetime | None
) -> None:
    if replaced_by is not None and replaced_by.pk == feature.pk:
        raise InvalidInput(f"{feature} cannot be replaced by itself.")
    if status == Status.DEPRECATED:
        feature.deprecated_at = feature.deprecated_at or timezone.now()
        feature.deprecation_reason = reason or feature.deprecation_reason
        feature.replaced_by = replaced_by or feature.replaced_by
        feature.sunset_at = sunset or feature.sunset_at
    elif status == Status.ACTIVE:
        feature.deprecated_at = feature.sunset_at = feature.replaced_by = None
        feature.deprecation_reason = ""


def readers_of(thing: Thing) -> list[str]:
    """Who reads the thing: the services, as `name@version`, that are not archived, the features that are computed from
    it on request, then who asked for it of late (catalog/usage.py). A service has no readers here."""
    if isinstance(thing, FeatureService):
        return []
    features = Feature.objects.filter(pk=thing.pk) if isinstance(thing, Feature) else thing.features.all()
    services = FeatureService.objects.exclude(status=Status.ARCHIVED).filter(chosen__feature__in=features)
    computed = computed_from(thing) if isinstance(thing, Feature) else []
    served = [str(feature) for feature in computed if feature.effective_status != Status.ARCHIVED]
    return [*map(str, services.distinct()), *served, *map(str, usage.readers(features))]
