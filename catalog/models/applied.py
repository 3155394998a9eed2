"""What was last applied from files: each definition's text, to be compared with the catalog later on."""

from __future__ import annotations

from django.db import models


class AppliedDefinition(models.Model):
    """One owner, entity, group (with its features) or service as the last file that named it had it.

    kind, name: as a plan names it.
    text:       a definitions file of it alone, with the keys that were written and no others.
    sha256:     of the text, hexadecimal.
    file:       where it came from, as it was given to `apply`.
    """

    kind = models.CharField(max_length=20)
    name = models.CharField(max_length=100)
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    file = models.CharField(max_length=255, blank=True)
    applied_by = models.CharField(max_length=160, blank=True)
    applied_at = models.DateTimeField()

    class Meta:
        ordering = ["kind", "name"]
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="applieddefinition_is_unique")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
