"""Feature services: the ordered features that one model uses."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from catalog.models.feature import Feature
from catalog.models.naming import name_constraint, name_field
from catalog.models.owner import Documented
from catalog.models.status import Status


class FeatureService(Documented):
    """One version of a service. Its features and their order are fixed once it is active."""

    name = name_field()
    version = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=10, choices=Status, default=Status.ACTIVE)
    features = models.ManyToManyField(Feature, through="ServiceFeature", related_name="services")

    history = HistoricalRecords(m2m_fields=["tags"])

    class Meta:
        ordering = ["name", "version"]
        constraints = [
            name_constraint("featureservice"),
            models.UniqueConstraint(fields=["name", "version"], name="featureservice_version_is_unique"),
            models.CheckConstraint(condition=Q(version__gte=1), name="featureservice_version_is_positive"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="featureservice_status_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def changes_since(self) -> tuple[FeatureService, list[str]] | None:
        """The version before this one, and how the list differs from its (see `list_changes`); None for the first."""
        older = FeatureService.objects.filter(name=self.name, version__lt=self.version).order_by("version").last()
        return (older, list_changes(older.feature_names(), self.feature_names())) if older else None

    def feature_names(self) -> list[str]:
        """`group:name` of each feature, in order."""
        return [str(chosen.feature) for chosen in self.chosen.select_related("feature__group")]


def list_changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """How a list of features differs: `+ group:name` is new, `- group:name` is gone, `order` of the others changed.

    >>> list_changes(["a:x", "a:y", "a:z"], ["a:z", "a:y", "a:w"])
    ['+ a:w', '- a:x', 'order']
    """
    new, gone = [name for name in after if name not in before], [name for name in before if name not in after]
    kept = [name for name in before if name in after]
    moved = kept != [name for name in after if name in before]
    return [*(f"+ {name}" for name in new), *(f"- {name}" for name in gone), *(["order"] if moved else [])]


class ServiceFeature(models.Model):
    """One place in a service's order."""

    service = models.ForeignKey(FeatureService, on_delete=models.CASCADE, related_name="chosen")
    feature = models.ForeignKey(Feature, on_delete=models.PROTECT, related_name="chosen_by")
    position = models.PositiveSmallIntegerField()

    history = HistoricalRecords()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["service", "feature"], name="servicefeature_is_unique"),
            models.UniqueConstraint(fields=["service", "position"], name="servicefeature_position_is_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.service} {self.position}: {self.feature}"
