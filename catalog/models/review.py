"""Review requests: a draft that somebody asked others to look at, and what they said."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from catalog.models.feature import Feature
from catalog.models.group import FeatureGroup
from catalog.models.service import FeatureService


class ReviewAnswer(models.TextChoices):
    APPROVED = "approved"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


class ReviewRequest(models.Model):
    """One request for a review of a feature, a group or a service; open until it has an answer.

    asked_by, answered_by: who, as catalog/access.py names callers (`user:<number>`, `key:<public id>`,
    `shell:<login>`); the names beside them are what they were called then.
    definition: the fingerprint of the definition that it is about (catalog/approvals.py); an approval counts as long as
    the thing still has it.
    """

    feature = models.ForeignKey(Feature, on_delete=models.CASCADE, null=True, blank=True, related_name="reviews")
    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, null=True, blank=True, related_name="reviews")
    service = models.ForeignKey(FeatureService, on_delete=models.CASCADE, null=True, blank=True, related_name="reviews")
    definition = models.CharField(max_length=64, editable=False)
    asked_by = models.CharField(max_length=160)
    asked_by_name = models.CharField(max_length=160)
    asked_at = models.DateTimeField(auto_now_add=True)
    note = models.TextField(blank=True)
    answer = models.CharField(max_length=10, choices=ReviewAnswer, blank=True, default="")
    answered_by = models.CharField(max_length=160, blank=True)
    answered_by_name = models.CharField(max_length=160, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    comment = models.TextField(blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(feature__isnull=False, group=None, service=None)
                | Q(feature=None, group__isnull=False, service=None)
                | Q(feature=None, group=None, service__isnull=False),
                name="reviewrequest_is_of_one_thing",
            ),
            models.CheckConstraint(
                condition=Q(answer="", answered_at=None) | Q(answer__in=ReviewAnswer.values, answered_at__isnull=False),
                name="reviewrequest_answer_is_known",
            ),
            # Of two who ask at once, one is told that it was asked already.
            *(
                models.UniqueConstraint(
                    fields=[of],
                    condition=Q(answer="", **{f"{of}__isnull": False}),
                    name=f"reviewrequest_{of}_has_one_open",
                )
                for of in ("feature", "group", "service")
            ),
        ]

    def __str__(self) -> str:
        return f"review of {self.thing}"

    @property
    def thing(self) -> Feature | FeatureGroup | FeatureService:
        """What it is a review of."""
        found = self.feature or self.group or self.service
        if found is None:
            raise ValueError(f"review {self.pk} is of nothing")
        return found

    @property
    def kind(self) -> str:
        """What the thing is, in few words."""
        return str(self.thing._meta.verbose_name)

    @property
    def state(self) -> str:
        return self.answer or "open"
