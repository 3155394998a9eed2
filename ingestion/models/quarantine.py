"""What became of rejected rows, by the rule that they broke."""

from __future__ import annotations

from django.db import models

from catalog.models import Run


class QuarantinedRule(models.Model):
    """How many rows of a run broke one rule on one column, and some of them.

    The payloads of all are in the run's Parquet file (ingestion/quarantine.py); `samples` holds the first few.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="quarantined")
    column = models.CharField(max_length=63)
    rule = models.CharField(max_length=63)
    detail = models.TextField()
    row_count = models.PositiveBigIntegerField()
    samples = models.JSONField(default=list)

    class Meta:
        ordering = ["run", "column", "rule"]
        constraints = [
            models.UniqueConstraint(fields=["run", "column", "rule"], name="quarantinedrule_is_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.column} {self.rule}: {self.row_count} rows"
