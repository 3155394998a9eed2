"""Reviews: somebody asks for one of a draft, somebody else approves it, which activates it, or declines it.

Who answers may change the thing's definition (`registry`) and is neither who asked nor who made the last change of it,
and a key is the person that it belongs to.
Whether a draft needs an approval is decided in catalog/approvals.py; one may be asked for anyway.
"""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from catalog.access import REGISTRY, AnyCaller, name_of, noted_as, principal_of, require, seen
from catalog.approvals import Thing, author_of, begins_as_draft, fields_of, fingerprint_of, reviews_of
from catalog.lifecycle import change_status
from catalog.models import ApiKey, Feature, FeatureGroup, FeatureService, ReviewAnswer, ReviewRequest, Status
from engine.errors import Conflict, NotAllowed


def request_review(thing: Thing, *, by: AnyCaller, note: str = "") -> ReviewRequest:
    """Ask others to look at a draft; one that was asked for before the last change of the definition is withdrawn.

    Raises NotAllowed, and Conflict for what is no draft or is waiting for a review as it is.
    """
    require(by, REGISTRY, thing)
    with transaction.atomic():
        _lock(thing)
        if not begins_as_draft(thing):
            raise Conflict(f"{thing} is no draft; a review is about what is to become active.")
        definition = fingerprint_of(thing)
        waiting = open_review(thing)
        if waiting is not None and waiting.definition == definition:
            raise Conflict(
                f"{thing} waits for an answer to review {waiting.pk}, which {waiting.asked_by_name} asked for."
            )
        if waiting is not None:
            _answer(waiting, ReviewAnswer.WITHDRAWN, by, "The definition was changed, and another review asked for.")
        return ReviewRequest.objects.create(
            **fields_of(thing), definition=definition, asked_by=principal_of(by), asked_by_name=name_of(by), note=note
        )


def approve(thing: Thing, *, by: AnyCaller, comment: str = "") -> ReviewRequest:
    """Say yes to the review that is asked for, and activate the thing by the lifecycle, in one transaction.

    Raises NotAllowed for who may not answer, Conflict when none is asked for or the definition was changed since, and
    what the lifecycle raises.
    """
    with transaction.atomic():
        review = _answerable(thing, by)
        if review.definition != fingerprint_of(thing):
            raise Conflict(f"{thing} was changed since review {review.pk} was asked for; ask for another one.")
        _answer(review, ReviewAnswer.APPROVED, by, comment)
        thing._history_user = by if isinstance(by, User) else None  # type: ignore[union-attr]
        change_status(thing, Status.ACTIVE, by=noted_as(by), reason=f"review {review.pk}")
    return review


def decline(thing: Thing, *, by: AnyCaller, comment: str = "") -> ReviewRequest:
    """Say no to the review that is asked for; the thing stays a draft. Raises as `approve` does."""
    with transaction.atomic():
        review = _answerable(thing, by)
        _answer(review, ReviewAnswer.DECLINED, by, comment)
    return review


def withdraw(thing: Thing, *, by: AnyCaller, comment: str = "") -> ReviewRequest:
    """Take back the review that is asked for: by who asked, or by whoever else may change the definition."""
    require(by, REGISTRY, thing)
    with transaction.atomic():
        _lock(thing)
        review = _waiting(thing)
        _answer(review, ReviewAnswer.WITHDRAWN, by, comment)
    return review


def open_review(thing: Thing) -> ReviewRequest | None:
    """The review of the thing that waits for an answer; None where there is none."""
    return reviews_of(thing).filter(answer="").first()


def seen_by(caller: AnyCaller) -> QuerySet[ReviewRequest]:
    """The reviews of what a caller may read, the first one first."""
    things = {"feature": Feature, "group": FeatureGroup, "service": FeatureService}
    readable = Q(pk__in=[])
    for field, kind in things.items():
        readable |= Q(**{f"{field}__in": seen(caller, kind._default_manager.order_by())})
    return ReviewRequest.objects.filter(readable).select_related("feature__group", "group", "service")


def _answerable(thing: Thing, by: AnyCaller) -> ReviewRequest:
    """The open review, for somebody who may answer it."""
    require(by, REGISTRY, thing)
    _lock(thing)
    review, who = _waiting(thing), _selves(principal_of(by))
    if who & _selves(review.asked_by):
        raise NotAllowed(f"{name_of(by)} asked for review {review.pk}; somebody else answers it.")
    if who & _selves(author_of(thing)):
        raise NotAllowed(f"{name_of(by)} made the last change of {thing}; somebody else answers its review.")
    return review


def _selves(principal: str) -> frozenset[str]:
    """A caller, and of a key also the person that it belongs to; nobody for an unknown one."""
    if not principal:
        return frozenset()
    key = ApiKey.objects.filter(public_id=principal.removeprefix("key:")).first() if principal[:4] == "key:" else None
    return frozenset({principal, f"user:{key.owner_id}"} if key and key.owner_id else {principal})


def _waiting(thing: Thing) -> ReviewRequest:
    review = open_review(thing)
    if review is None:
        raise Conflict(f"No review of {thing} is asked for.")
    return review


def _lock(thing: Thing) -> None:
    """Two who ask for a review of a thing, or answer one, follow each other."""
    type(thing)._default_manager.select_for_update().get(pk=thing.pk)


def _answer(review: ReviewRequest, answer: ReviewAnswer, by: AnyCaller, comment: str) -> None:
    review.answer, review.comment = answer, comment
    review.answered_by, review.answered_by_name = principal_of(by), name_of(by)
    review.answered_at = timezone.now()
    review.save()
