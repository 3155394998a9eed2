"""Feature services: the ordered features that one model uses."""

from __future__ import annotations

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

    def feature_names(self) -> list[str]:
        """`group:name` of each feature, in order."""
        return [str(chosen.feature) for chosen in self.chosen.select_related("feature__group")]


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
