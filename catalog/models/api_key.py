"""API keys: what is kept of them is a hash."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords


class ApiKey(models.Model):
    """A key by its public id and the SHA-256 of its secret; catalog/keys.py makes, rotates and ends them.

    scopes:             of catalog/actions.py.
    groups:             the names of the feature groups that it is limited to; empty: every group.
    old_secret_*:       what the key's secret was before it was rotated, which is taken until then.
    last_used_on:       the UTC day of its last request, written some seconds late.
    requests_per_second, burst: its rate limit; without one it may ask as fast as it can.
    """

    name = models.CharField(max_length=100)
    public_id = models.CharField(max_length=8, unique=True, editable=False)
    secret_sha256 = models.CharField(max_length=64, editable=False)
    old_secret_sha256 = models.CharField(max_length=64, blank=True, editable=False)
    old_secret_ends_at = models.DateTimeField(null=True, blank=True, editable=False)
    scopes = models.JSONField(default=list)
    groups = models.JSONField(default=list, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        help_text="Who answers for it: the key ends when this person is deactivated.",
    )
    requests_per_second = models.PositiveIntegerField(null=True, blank=True)
    burst = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    rotated_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_on = models.DateField(null=True, blank=True, editable=False)

    # Who made, rotated and ended it, and when; no hash of a secret outlives the secret there.
    history = HistoricalRecords(excluded_fields=["secret_sha256", "old_secret_sha256", "last_used_on"])

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=Q(burst__isnull=True) | Q(requests_per_second__isnull=False), name="apikey_burst_is_of_a_rate"
            ),
            models.CheckConstraint(
                condition=Q(requests_per_second__isnull=True) | Q(requests_per_second__gte=1),
                name="apikey_rate_is_positive",
            ),
            models.CheckConstraint(condition=Q(burst__isnull=True) | Q(burst__gte=1), name="apikey_burst_is_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.name} (fh_{self.public_id}…)"

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked` at a moment."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= now else "valid"
