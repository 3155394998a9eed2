"""Which contents a file source has read: the same bytes are not read twice, under whatever name."""

from __future__ import annotations

from django.db import models

from catalog.models import FeatureGroup, Run


class SourceFile(models.Model):
    """One file's content, claimed by the run that reads it; the claim is given back when that run fails."""

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="source_files")
    group_version = models.PositiveIntegerField()
    path = models.CharField(max_length=4096)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="source_files")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "group_version", "sha256"], name="sourcefile_content_is_read_once")
        ]

    def __str__(self) -> str:
        return self.path
