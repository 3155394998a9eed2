"""Who read what, by day."""

from __future__ import annotations

from django.db import models

from catalog.models.feature import Feature
from catalog.models.group import FeatureGroup


class FeatureUse(models.Model):
    """How many requests of one caller read a feature on one day (UTC).

    `reader` is a caller as catalog/access.py names one: `key:<public id>`, `user:<number>` or `anonymous`.
    """

    feature = models.ForeignKey(Feature, on_delete=models.CASCADE, related_name="uses")
    reader = models.CharField(max_length=100)
    day = models.DateField()
    requests = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["-day", "feature", "reader"]
        constraints = [models.UniqueConstraint(fields=["feature", "reader", "day"], name="featureuse_is_unique")]
        # Whole: who is read how often is summed up from it alone.
        indexes = [models.Index(fields=["day", "feature", "requests"], name="featureuse_by_day_summed")]

    def __str__(self) -> str:
        return f"{self.feature} by {self.reader} on {self.day}"

    @property
    def group(self) -> FeatureGroup:
        """The group that it is about."""
        return self.feature.group
