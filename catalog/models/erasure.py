"""Erasures: which entities are not to come back, and the receipts of what was taken away of them."""

from __future__ import annotations

from typing import Any

from django.db import models

from catalog.models.entity import Entity
from catalog.models.run import Run


class Erasure(models.Model):
    """One entity erased from every store, and kept from coming back (ADR 18).

    key_hash: the keyed hash of its entity key (engine/suppression.py), hexadecimal; all that is kept of it in the end.
    key:      the entity key itself while the erasure is under way, since a worker must know what to look for; then "".
    salt:     the key of the hash, hexadecimal: 32 random bytes that the erasures of a hub share.
    until:    rows of an event at or before it are not taken any more.
    receipt:  what was removed, as ingestion/erasure/receipt.py writes it.
    gone_at:  when the last of it was gone; empty while something waits.
    """

    entity = models.ForeignKey(Entity, on_delete=models.PROTECT, related_name="erasures")
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="erasure")
    key_hash = models.CharField(max_length=64, db_index=True, help_text="The keyed hash of the id.")
    key = models.TextField(blank=True, editable=False)
    salt = models.CharField(max_length=64, editable=False)
    reason = models.TextField(blank=True)
    until = models.DateTimeField(help_text="Rows of an event until then do not come back.")
    receipt = models.JSONField(default=dict, blank=True)
    rows_suppressed = models.PositiveBigIntegerField(default=0, help_text="Rows that came since and were not taken.")
    created_at = models.DateTimeField(auto_now_add=True)
    gone_at = models.DateTimeField(null=True, blank=True, help_text="When the last of it was gone.")

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.subject

    @property
    def subject(self) -> str:
        """Of what it is, without the id: the entity's name and the beginning of the hash."""
        return f"{self.entity.name} {self.key_hash[:12]}"

    def summary(self) -> dict[str, Any]:
        """The receipt as programs read it; nothing in it tells the id."""
        run = self.run
        return {
            "entity": self.entity.name,
            "key_hash": self.key_hash,
            "run": str(run.pk),
            "state": run.state,
            "message": run.message,
            "error": {"code": run.error_code, "detail": run.error} if run.error else None,
            "requested_by": run.requested_by,
            "requested_at": self.created_at,
            "reason": self.reason,
            "until": self.until,
            "removed": self.receipt,
            "rows_suppressed": self.rows_suppressed,
            "gone_at": self.gone_at,
        }
