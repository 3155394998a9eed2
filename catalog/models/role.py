"""What the people of a team may do with a feature group that is not their own."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from catalog.models.group import FeatureGroup
from catalog.models.owner import Owner


class Role(models.TextChoices):
    """What each may do is in catalog/access.py."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


class GroupRole(models.Model):
    """A team's role in a feature group. The members of the group's owner have the role `owner` without a row here."""

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="roles")
    team = models.ForeignKey(Owner, on_delete=models.CASCADE, related_name="roles")
    role = models.CharField(max_length=6, choices=Role, default=Role.VIEWER)

    history = HistoricalRecords()

    class Meta:
        ordering = ["team__name"]
        verbose_name = "role"
        constraints = [
            models.UniqueConstraint(fields=["group", "team"], name="grouprole_is_one_a_team"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="grouprole_role_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.team}: {self.role} of {self.group}"
