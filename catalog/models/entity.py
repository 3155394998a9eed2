"""The things features describe, and the typed keys that tell one from another."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from catalog.models.naming import column_constraint, name_constraint, name_field
from catalog.models.owner import Documented
from engine.schema import Dtype, Field


class Entity(Documented):
    """The thing features describe; named by one or several typed join keys, in their order."""

    name = name_field(unique=True)

    history = HistoricalRecords(m2m_fields=["tags"])

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "entities"
        constraints = [name_constraint("entity")]

    def __str__(self) -> str:
        return self.name

    def key_fields(self) -> tuple[Field, ...]:
        """The join keys as typed fields, in order."""
        return tuple(Field(key.name, Dtype.parse(key.dtype)) for key in self.join_keys.all())


class JoinKey(models.Model):
    """One column that names an entity."""

    class Dtype(models.TextChoices):
        INT64 = "int64"
        STRING = "string"

    entity = models.ForeignKey(Entity, on_delete=models.CASCADE, related_name="join_keys")
    name = name_field()
    dtype = models.CharField(max_length=8, choices=Dtype, default=Dtype.STRING)
    position = models.PositiveSmallIntegerField(default=0)

    history = HistoricalRecords()

    class Meta:
        ordering = ["position"]
        constraints = [
            name_constraint("joinkey"),
            column_constraint("joinkey"),
            models.UniqueConstraint(fields=["entity", "name"], name="joinkey_name_is_unique"),
            models.UniqueConstraint(fields=["entity", "position"], name="joinkey_position_is_unique"),
            models.CheckConstraint(condition=Q(dtype__in=["int64", "string"]), name="joinkey_dtype_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}"
