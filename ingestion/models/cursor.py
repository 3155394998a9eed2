"""How far the online store has followed a group's offline table."""

from __future__ import annotations

from django.db import models

from catalog.models import FeatureGroup


class OnlineCursor(models.Model):
    """The rows that arrived up to `delta_version` of the table of `group_version` are in the online store.

    There is one for each version of a group that rows are stored of, so to people they are the stored versions.
    """

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="online_cursors")
    group_version = models.PositiveIntegerField()
    delta_version = models.BigIntegerField(default=-1)

    class Meta:
        verbose_name = "stored version"
        constraints = [models.UniqueConstraint(fields=["group", "group_version"], name="onlinecursor_is_unique")]

    def __str__(self) -> str:
        return f"{self.group.name} v{self.group_version}"

    def advance(self, delta_version: int) -> None:
        """Move on to `delta_version`; never back, whoever else moved it meanwhile."""
        OnlineCursor.objects.filter(pk=self.pk, delta_version__lt=delta_version).update(delta_version=delta_version)
