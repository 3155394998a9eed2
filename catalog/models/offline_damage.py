"""What is known to be damaged in the offline store."""

from __future__ import annotations

from django.db import models

from catalog.models.group import FeatureGroup


class OfflineDamage(models.Model):
    """A file of a group version's table that is not what was committed, as it was found last.

    `is_missing_online`: a rebuild of the online store could not read it, so rows of the group may be missing there;
    reads of the group are refused until a whole materialization of it has succeeded.
    """

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="offline_damages")
    group_version = models.PositiveIntegerField()
    path = models.TextField()
    detail = models.TextField()
    is_missing_online = models.BooleanField(default=False)
    found_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["group", "path"]
        constraints = [
            models.UniqueConstraint(fields=["group", "group_version", "path"], name="offlinedamage_is_unique"),
        ]

    def __str__(self) -> str:
        return self.path
