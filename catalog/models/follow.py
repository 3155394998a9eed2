"""Who follows what in the catalog, what was told of it, and who has read that."""

from __future__ import annotations

from functools import reduce
from operator import or_

from django.conf import settings
from django.db import models
from django.db.models import Q

from catalog.models.entity import Entity
from catalog.models.feature import Feature
from catalog.models.group import FeatureGroup
from catalog.models.run import Run
from catalog.models.service import FeatureService

#: What can be followed: each a field of `About`.
KINDS = ("feature", "group", "service", "entity")


def _is_about_one() -> Q:
    """Exactly one of the kinds is set."""
    return reduce(or_, (Q(**{f"{kind}__isnull": kind != one for kind in KINDS}) for one in KINDS))


class About(models.Model):
    """Belongs to one feature, group, service or entity."""

    feature = models.ForeignKey(Feature, on_delete=models.CASCADE, null=True, blank=True, related_name="%(class)ss")
    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, null=True, blank=True, related_name="%(class)ss")
    service = models.ForeignKey(
        FeatureService, on_delete=models.CASCADE, null=True, blank=True, related_name="%(class)ss"
    )
    entity = models.ForeignKey(Entity, on_delete=models.CASCADE, null=True, blank=True, related_name="%(class)ss")

    class Meta:
        abstract = True

    @property
    def thing(self) -> Feature | FeatureGroup | FeatureService | Entity:
        """What it is about."""
        return next(thing for kind in KINDS if (thing := getattr(self, kind)) is not None)


class Follow(About):
    """A person wants to be told of what happens to one thing."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="follows")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(condition=_is_about_one(), name="follow_is_of_one_thing"),
            *(models.UniqueConstraint(fields=["user", kind], name=f"follow_of_{kind}_is_unique") for kind in KINDS),
        ]

    def __str__(self) -> str:
        return f"{self.user} follows {self.thing}"


class NoticeKind(models.TextChoices):
    STALE = "stale"
    FRESH = "fresh", "fresh again"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"


class Notice(About):
    """Something that happened to a thing, told once: `key` says which event it was.

    Its text has names and counts; never an id of an entity, or a value.
    """

    kind = models.CharField(max_length=12, choices=NoticeKind)
    text = models.TextField()
    run = models.ForeignKey(Run, on_delete=models.CASCADE, null=True, blank=True, related_name="notices")
    at = models.DateTimeField(auto_now_add=True)
    key = models.CharField(max_length=150, unique=True)

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["at"], name="notice_by_time")]
        constraints = [
            models.CheckConstraint(condition=_is_about_one(), name="notice_is_about_one_thing"),
            models.CheckConstraint(condition=Q(kind__in=NoticeKind.values), name="notice_kind_is_known"),
        ]

    def __str__(self) -> str:
        return self.text


class Inbox(models.Model):
    """A notice that one person was told, and when they read it."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="inbox")
    notice = models.ForeignKey(Notice, on_delete=models.CASCADE, related_name="told")
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-notice__at", "-pk"]
        verbose_name_plural = "inbox"
        indexes = [models.Index(fields=["user"], condition=Q(read_at=None), name="inbox_unread")]
        constraints = [models.UniqueConstraint(fields=["user", "notice"], name="inbox_has_a_notice_once")]

    def __str__(self) -> str:
        return f"{self.user}: {self.notice}"
