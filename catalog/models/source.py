"""Where a group's rows come from."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from catalog.models.naming import name_constraint, name_field


class DataSource(models.Model):
    """Files below an allowed root, by a path or a glob; `format` is told by the file's name."""

    class Kind(models.TextChoices):
        FILE = "file"

    name = name_field(unique=True)
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.FILE)
    path = models.CharField(
        max_length=1024,
        help_text="A path or glob relative to one of the source roots: CSV (also .csv.gz) or Parquet.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        constraints = [
            name_constraint("datasource"),
            models.CheckConstraint(condition=~Q(path=""), name="datasource_path_is_given"),
            models.CheckConstraint(condition=Q(kind__in=["file"]), name="datasource_kind_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.path}"
