"""How new the newest event of each group is, so that nobody has to ask the stores."""

from __future__ import annotations

from django.db import models

from catalog.models.group import FeatureGroup


class GroupFreshness(models.Model):
    """The newest event time of the rows, tombstones included, that the hub has accepted of one version of a group.

    It lags behind by what waits in the push log. catalog/freshness.py writes and reads it.
    """

    group = models.OneToOneField(FeatureGroup, on_delete=models.CASCADE, related_name="observed")
    group_version = models.PositiveIntegerField()
    newest_event_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "group freshness"

    def __str__(self) -> str:
        return f"{self.group} v{self.group_version}: {self.newest_event_at}"
