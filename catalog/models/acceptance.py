"""One numbering for everything that brings rows in: its order decides between rows of equal times."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Acceptance(models.Model):
    """One run or push. `accepted_at` is the database's time, set once: attempts share it."""

    accepted_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"#{self.pk}"

    @classmethod
    def take(cls) -> Acceptance:
        """The next acceptance, its time as the database recorded it."""
        return cls.objects.create()
