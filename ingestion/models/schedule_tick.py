"""Which due times of a schedule have been seen to: a tick is claimed once, however many processes send it."""

from __future__ import annotations

from django.db import models
from django_celery_beat.models import PeriodicTask

from catalog.models import Run


class ScheduleTick(models.Model):
    """One due time of one schedule; its run is empty when an earlier one was still at it."""

    schedule = models.ForeignKey(PeriodicTask, on_delete=models.CASCADE, related_name="ticks")
    due_at = models.DateTimeField()
    run = models.ForeignKey(Run, on_delete=models.CASCADE, null=True, blank=True, related_name="ticks")
    claimed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-due_at"]
        constraints = [models.UniqueConstraint(fields=["schedule", "due_at"], name="scheduletick_is_claimed_once")]

    def __str__(self) -> str:
        return f"{self.schedule} {self.due_at:%Y-%m-%d %H:%M:%S}"
