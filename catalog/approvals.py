"""Whether a draft may become active: what its definition is, who made it so, and whether somebody else approved that.

A group that `needs_review` has its drafts approved before they are active: the group itself, its features, and the
services that read one of them. An approval is of one definition, by its fingerprint: any later change makes it void.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
from django.db.models import Q, QuerySet

from catalog.models import Feature, FeatureGroup, FeatureService, ReviewAnswer, ReviewRequest, Status
from catalog.models.service import ServiceFeature
from engine.errors import Conflict

Thing = Feature | FeatureGroup | FeatureService
#: What is no part of what is approved: where a thing is in its life, when it is ingested, and who decides on it.
_NOT_APPROVED = frozenset(
    {"status", "deprecation_reason", "replaced_by", "sunset", "schedule", "needs_review"},
)
#: What a history row has beside the definition.
_BESIDE = frozenset(
    {
        *("status", "deprecated_at", "deprecation_reason", "replaced_by", "sunset_at", "schedule", "needs_review"),
        *("created_at", "updated_at"),
    }
)
_THEN = "once somebody else approves it, it is active."
_KEY_IN_REASON = re.compile(r"\bby key ([0-9A-Za-z]+)")
_SHELL_IN_REASON = re.compile(r"\bby shell (\S+)")


def groups_of(thing: Thing) -> QuerySet[FeatureGroup]:
    """The groups whose word counts for a thing."""
    if isinstance(thing, FeatureGroup):
        return FeatureGroup.objects.filter(pk=thing.pk)
    if isinstance(thing, Feature):
        return FeatureGroup.objects.filter(pk=thing.group_id)
    return FeatureGroup.objects.filter(features__services=thing).distinct()


def who_need_review(thing: Thing) -> list[str]:
    """The names of the groups that want a draft of this thing to be approved; empty where it needs no review."""
    if isinstance(thing, FeatureGroup) and thing.pk is None:
        return [thing.name] if thing.needs_review else []
    return list(groups_of(thing).filter(needs_review=True).values_list("name", flat=True))


def reviews_of(thing: Thing) -> QuerySet[ReviewRequest]:
    """The reviews that were asked for, the first one first."""
    return ReviewRequest.objects.filter(_is_of(thing))


def fields_of(thing: Thing) -> dict[str, Thing]:
    """The field of a review request that names the thing."""
    name = "feature" if isinstance(thing, Feature) else "group" if isinstance(thing, FeatureGroup) else "service"
    return {name: thing}


def _is_of(thing: Thing) -> Q:
    return Q(**fields_of(thing))


def require_approved(thing: Thing) -> None:
    """Raises Conflict, saying what to do, for a draft that a group wants approved and nobody has approved as it is."""
    needing = who_need_review(thing) if begins_as_draft(thing) else []
    if not needing:
        return
    asked = list(reviews_of(thing).filter(answer__in=["", ReviewAnswer.APPROVED]))
    now = fingerprint_of(thing)
    if any(review.answer and review.definition == now for review in asked):
        return
    newest = next(reversed(asked), None)
    name = f"{kind_of(thing)} {thing}"
    wanted = (
        f"{thing} is a draft, and {' and '.join(needing)} {'wants' if len(needing) == 1 else 'want'} a review first"
    )
    if newest is None:
        raise Conflict(f"{wanted}: ask for one with `lifecycle request-review {name}`; {_THEN}")
    if newest.definition != now:
        raise Conflict(
            f"{wanted}: it was changed since review {newest.pk}, so ask for another one with "
            f"`lifecycle request-review {name}`; {_THEN}"
        )
    raise Conflict(
        f"{wanted}: it waits for an answer to review {newest.pk}, which {newest.asked_by_name} asked for; {_THEN}"
    )


def require_may_begin(thing: Thing) -> None:
    """Raises Conflict, saying what to do, for something new that is served at once where drafts want to be approved."""
    status = thing.effective_status if isinstance(thing, Feature) else thing.status
    if status not in (Status.ACTIVE, Status.DEPRECATED) or not (needing := who_need_review(thing)):
        return
    name = f"{kind_of(thing)} {thing}"
    raise Conflict(
        f"{thing} is new, and {' and '.join(needing)} {'wants' if len(needing) == 1 else 'want'} a review first: "
        f"begin with `status: draft`, then ask for one with `lifecycle request-review {name}`; {_THEN}"
    )


def kind_of(thing: Thing) -> str:
    """The word for its kind that `manage.py lifecycle` takes."""
    return next(iter(fields_of(thing)))


def fingerprint_of(thing: Thing) -> str:
    """A hash that equal definitions share, as the database has them now: everything that a file says of the thing (of a
    group its features with it) but its status, its schedule, and whether reviews are needed."""
    from catalog.definitions.exporting import definition_of  # which applies statuses by the lifecycle, which asks here

    saved = type(thing)._default_manager.get(pk=thing.pk)
    canonical = orjson.dumps(_approved(definition_of(saved).written()), option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(canonical).hexdigest()


def _approved(written: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in written.items() if key not in _NOT_APPROVED}
    if "features" in kept and kept["features"] and isinstance(kept["features"][0], dict):
        kept["features"] = [_approved(feature) for feature in kept["features"]]
    return kept


def begins_as_draft(thing: Thing) -> bool:
    """Whether becoming active would be the first time: it is a draft, or was one when it was archived."""
    now = thing.effective_status if isinstance(thing, Feature) else thing.status
    if Status.DRAFT in (now, thing.status):
        return True
    if now != Status.ARCHIVED or thing.status != Status.ARCHIVED:
        return False
    earlier = thing.history.exclude(status=Status.ARCHIVED).order_by("-history_date", "-history_id").first()
    return earlier is not None and earlier.status == Status.DRAFT


def author_of(thing: Thing) -> str:
    """Who made the last change of the definition, as `principal_of` names callers; "" where nobody is known.

    Changes of the status alone are not one.
    """
    newest: tuple[datetime, int, str] | None = None
    for history in _histories(thing):
        record = _last_change(history)
        if record is not None:
            found = (record.history_date, record.history_id, principal_in(record))
            newest = found if newest is None or found[:2] > newest[:2] else newest
    return newest[2] if newest else ""


def principal_in(record: Any) -> str:
    """Who made a change, from its row of the history: a person, the key or the shell that its reason names, or ""."""
    if record.history_user_id:
        return f"user:{record.history_user_id}"
    reason = record.history_change_reason or ""
    if key := _KEY_IN_REASON.search(reason):
        return f"key:{key[1]}"
    shell = _SHELL_IN_REASON.search(reason)
    return f"shell:{shell[1]}" if shell else ""


def _histories(thing: Thing) -> Iterator[QuerySet[Any]]:
    """The histories of what the definition consists of, what was taken away from it included."""
    yield thing.history.all()
    if isinstance(thing, FeatureService):
        for one in _ids(ServiceFeature.history.filter(service_id=thing.pk)):
            yield ServiceFeature.history.filter(id=one)
    if isinstance(thing, FeatureGroup):
        for kind in ("inputs", "request_inputs", "features"):
            history = getattr(thing, kind).model.history
            for one in _ids(history.filter(group_id=thing.pk)):
                yield history.filter(id=one)
        if thing.source is not None:
            yield thing.source.history.all()


def _ids(records: QuerySet[Any]) -> list[int]:
    return sorted(set(records.values_list("id", flat=True)))


def _last_change(history: QuerySet[Any]) -> Any:
    """The newest row that differs from the one before it in more than its status."""
    records = list(history.order_by("-history_date", "-history_id"))
    for newer, older in zip(records, [*records[1:], None], strict=True):
        if older is None or newer.history_type != "~" or _told(newer) != _told(older):
            return newer
    return None


def _told(record: Any) -> dict[str, Any]:
    told = {
        field.attname: getattr(record, field.attname) for field in record.tracked_fields if field.name not in _BESIDE
    }
    if hasattr(record, "tags"):
        told["tags"] = sorted(record.tags.values_list("tag_id", flat=True))
    return told
