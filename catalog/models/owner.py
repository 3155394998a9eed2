"""Who answers for something in the catalog, and the words people find it by."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from simple_history.models import HistoricalRecords

from catalog.models.naming import name_constraint, name_field


class Owner(models.Model):
    """A team or a person that answers for entities, groups, features and services."""

    name = name_field(unique=True)
    email = models.EmailField(blank=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="owners")
    created_at = models.DateTimeField(auto_now_add=True)

    history = HistoricalRecords(m2m_fields=[members])

    class Meta:
        ordering = ["name"]
        constraints = [
            name_constraint("owner"),
            models.UniqueConstraint(
                fields=["email"], condition=~models.Q(email=""), name="owner_email_is_unique_if_given"
            ),
        ]

    def __str__(self) -> str:
        return self.name


#: The tag of what is about persons: values of a feature that bears it, or whose group does, need `pii:read`, and so do
#: the join keys of an entity that bears it wherever others than those that the caller sent would be shown.
PII = "pii"


class Tag(models.Model):
    """A word that things in the catalog are found by."""

    name = name_field(unique=True)

    class Meta:
        ordering = ["name"]
        constraints = [name_constraint("tag")]

    def __str__(self) -> str:
        return self.name


class Documented(models.Model):
    """What everything in the catalog says about itself."""

    description = models.TextField(blank=True)
    owner = models.ForeignKey(Owner, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    tags = models.ManyToManyField(Tag, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
