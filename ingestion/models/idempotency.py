"""What was answered under an `Idempotency-Key`, so that a repeated request is told the same."""

from __future__ import annotations

from django.db import models

from catalog.models import FeatureGroup
from ingestion.models.push_log import PushBatch


class IdempotencyKey(models.Model):
    """One accepted request under a key that its sender chose; made in the transaction that accepts its rows.

    A key belongs to who sent it, the route and the group. `request_sha256` tells another request under the same key.
    """

    principal = models.CharField(max_length=64)
    route = models.CharField(max_length=32)
    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="idempotency_keys")
    key = models.CharField(max_length=255)
    request_sha256 = models.CharField(max_length=64)
    accepted = models.PositiveIntegerField(default=0)
    quarantined = models.PositiveIntegerField(default=0)
    suppressed = models.PositiveIntegerField(default=0)
    batch = models.ForeignKey(PushBatch, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["principal", "route", "group", "key"], name="idempotencykey_is_unique")
        ]

    def __str__(self) -> str:
        return self.key

    def answered(self, accepted: int, quarantined: int, suppressed: int, batch: PushBatch | None) -> None:
        """Keep what the sender is told, in the caller's transaction."""
        self.accepted, self.quarantined, self.suppressed, self.batch = accepted, quarantined, suppressed, batch
        self.save(update_fields=["accepted", "quarantined", "suppressed", "batch"])
