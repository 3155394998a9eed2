"""The push log: what was pushed and answered, until it is part of the offline table."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from catalog.models import Acceptance, FeatureGroup


class Drain(models.Model):
    """Push batches that land in the offline table in one commit; its id is the transaction id of that commit."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    group = models.ForeignKey(FeatureGroup, on_delete=models.PROTECT, related_name="drains")
    group_version = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    landed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["group"], condition=Q(landed_at=None), name="drain_unlanded")]

    def __str__(self) -> str:
        return f"drain {self.id}"


class PushBatch(models.Model):
    """One accepted push: its computed rows as an Arrow stream, with the columns of the offline table."""

    group = models.ForeignKey(FeatureGroup, on_delete=models.PROTECT, related_name="push_batches")
    group_version = models.PositiveIntegerField()
    acceptance = models.OneToOneField(Acceptance, on_delete=models.PROTECT, related_name="push_batch")
    rows = models.BinaryField()
    row_count = models.PositiveIntegerField()
    pushed_by = models.CharField(max_length=150, blank=True)
    drain = models.ForeignKey(Drain, on_delete=models.PROTECT, null=True, blank=True, related_name="batches")

    class Meta:
        indexes = [models.Index(fields=["group", "group_version"], condition=Q(drain=None), name="pushbatch_undrained")]
        verbose_name_plural = "push batches"

    def __str__(self) -> str:
        return f"push {self.acceptance_id}"
