"""Following things of the catalog, and the inbox of what was told of them.

Who may not read a thing cannot follow it; who may not read it any more is told nothing of it, and does not see what
they were told before. What is worth telling is found in catalog/notices.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, cast

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from catalog.access import READ, allowed, require, seen
from catalog.models import Entity, Feature, FeatureGroup, FeatureService, Follow, Inbox, Notice, NoticeKind, Run, Status

Thing = Feature | FeatureGroup | FeatureService | Entity
Person = AbstractBaseUser | AnonymousUser

#: Older notices are forgotten.
KEPT_DAYS = 90
_FIELDS: dict[type[Thing], str] = {
    Feature: "feature",
    FeatureGroup: "group",
    FeatureService: "service",
    Entity: "entity",
}


def follow(user: Person, thing: Thing) -> None:
    """Tell `user` from now on of what happens to `thing`; nothing changes when they follow it already.

    Raises NotAllowed when they may not read it.
    """
    require(user, READ, thing)
    Follow.objects.get_or_create(user=cast(User, user), **_about(thing))


def unfollow(user: Person, thing: Thing) -> None:
    """Tell `user` no more of `thing`; what they were told stays in their inbox."""
    _follows_of(user, thing).delete()


def is_following(user: Person, thing: Thing) -> bool:
    """Whether `user` follows this very thing, and not only something that it belongs to."""
    return _follows_of(user, thing).exists()


def followers(thing: Thing) -> QuerySet[User]:
    """The people who follow this very thing and are still active, by name."""
    return _active(Follow.objects.filter(**_about(thing)))


def concerned(thing: Thing) -> QuerySet[User]:
    """The people who follow the thing or something that stands or falls with it, each once.

    Of a feature that is its group, its entity and the services that read it; of a group its entity, its features and
    the services that read one of them. Services that are archived read nothing.
    """
    about = Q(**_about(thing))
    if isinstance(thing, Feature):
        about |= Q(group=thing.group_id) | Q(entity=thing.group.entity_id) | Q(service__in=_readers(feature=thing))
    if isinstance(thing, FeatureGroup):
        about |= Q(entity=thing.entity_id) | Q(feature__group=thing) | Q(service__in=_readers(feature__group=thing))
    return _active(Follow.objects.filter(about))


def tell(kind: NoticeKind, thing: Thing, text: str, *, key: str, run: Run | None = None) -> Notice | None:
    """Put a notice about `thing` into the inbox of everybody concerned who may read it; None when that was done before.

    key: which event it is; of several calls with one key the first tells. text: names and counts, never an id of an
    entity or a value.
    """
    with transaction.atomic():
        notice, is_new = Notice.objects.get_or_create(
            key=key, defaults={"kind": kind, "text": text, "run": run, **_about(thing)}
        )
        if not is_new:
            return None
        told = [user for user in concerned(thing) if allowed(user, READ, thing)]
        Inbox.objects.bulk_create(Inbox(user=user, notice=notice) for user in told)
    return notice


def inbox(user: Person) -> QuerySet[Inbox]:
    """What `user` was told of things that they may read now, the newest first; each with its notice."""
    visible = Q()
    for kind, field in _FIELDS.items():
        visible |= Q(**{f"notice__{field}__in": seen(user, kind._default_manager.all()).order_by().values("pk")})
    told = Inbox.objects.filter(visible, user=user.pk)
    things = [f"notice__{field}" for field in _FIELDS.values()]
    return told.select_related("notice__run", "notice__feature__group", *things)


def following(user: Person) -> QuerySet[Follow]:
    """What `user` follows and may read now, the latest first; each with its thing."""
    visible = Q()
    for kind, field in _FIELDS.items():
        visible |= Q(**{f"{field}__in": seen(user, kind._default_manager.all()).order_by().values("pk")})
    return Follow.objects.filter(visible, user=user.pk).select_related("feature__group", *_FIELDS.values())


def unread_count(user: Person) -> int:
    """How many of them they have not read: one query, beside those that ask once a request for a person's roles."""
    return inbox(user).filter(read_at=None).count()


def mark_read(user: Person, ids: Iterable[int] | Literal["all"]) -> int:
    """Mark entries of the person's own inbox as read, by their ids or all of them; how many were unread.

    Ids of other people's entries, or of none, change nothing.
    """
    unread = Inbox.objects.filter(user=user.pk, read_at=None)
    chosen = unread if ids == "all" else unread.filter(pk__in=list(ids))
    return chosen.update(read_at=timezone.now())


def forget_old() -> int:
    """Remove notices that are older than KEPT_DAYS, from every inbox; how many."""
    old = Notice.objects.filter(at__lt=timezone.now() - timedelta(days=KEPT_DAYS))
    return old.delete()[1].get(Notice._meta.label, 0)


def _about(thing: Thing) -> dict[str, Any]:
    return {_FIELDS[type(thing)]: thing}


def _follows_of(user: Person, thing: Thing) -> QuerySet[Follow]:
    return Follow.objects.filter(user=user.pk, **_about(thing))


def _readers(**chosen: Any) -> QuerySet[FeatureService]:
    """The services that read features, as a query finds these beside a place in a service's list."""
    read = {f"chosen__{field}": value for field, value in chosen.items()}
    return FeatureService.objects.filter(**read).exclude(status=Status.ARCHIVED).order_by()


def _active(follows: QuerySet[Follow]) -> QuerySet[User]:
    theirs = follows.filter(user=OuterRef("pk"))
    return User.objects.filter(Exists(theirs), is_active=True).order_by("username")
