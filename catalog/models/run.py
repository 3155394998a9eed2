"""Runs: every ingestion and materialization, with what it read, kept and refused."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from catalog.models.acceptance import Acceptance
from catalog.models.group import FeatureGroup

#: A running run that has not been heard of for this long has lost its worker.
SILENT_AFTER = timedelta(seconds=60)


class RunKind(models.TextChoices):
    INGEST = "ingest"
    MATERIALIZE = "materialize"


class RunState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Run(models.Model):
    """One recorded ingestion or materialization. `error` is for people, `error_code` for programs."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=12, choices=RunKind, default=RunKind.INGEST)
    group = models.ForeignKey(FeatureGroup, on_delete=models.PROTECT, related_name="runs")
    group_version = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=RunState, default=RunState.QUEUED)
    acceptance = models.OneToOneField(Acceptance, on_delete=models.PROTECT, related_name="run")
    requested_by = models.CharField(max_length=150, blank=True)
    rows_read = models.PositiveBigIntegerField(default=0)
    rows_accepted = models.PositiveBigIntegerField(default=0)
    rows_quarantined = models.PositiveBigIntegerField(default=0)
    bytes_total = models.PositiveBigIntegerField(default=0)
    bytes_read = models.PositiveBigIntegerField(default=0)
    message = models.CharField(max_length=255, blank=True)
    warnings = models.JSONField(default=list, blank=True, help_text="Rows kept although a rule found them wanting.")
    error = models.TextField(blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    delta_version = models.BigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["group", "-created_at"])]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="run_state_is_known"),
            models.CheckConstraint(condition=Q(kind__in=RunKind.values), name="run_kind_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.group.name} {self.id}"

    @classmethod
    def queue(cls, group: FeatureGroup, *, requested_by: str = "", kind: str = RunKind.INGEST) -> Run:
        """A new run of the group's current version, with its place in the version order taken."""
        return cls.objects.create(
            kind=kind,
            group=group,
            group_version=group.version,
            acceptance=Acceptance.take(),
            requested_by=requested_by,
        )

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end, or to now while it runs; None before it started."""
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()

    @property
    def is_silent(self) -> bool:
        """Whether it says that it is running, but its worker has not been heard of."""
        heard = self.heartbeat_at or self.created_at
        return self.state == RunState.RUNNING and heard < timezone.now() - SILENT_AFTER

    def begin(self) -> None:
        self.state, self.started_at = RunState.RUNNING, timezone.now()
        self.beat()

    def beat(self) -> None:
        """Record progress, and that the worker is alive."""
        self.heartbeat_at = timezone.now()
        self.save()

    def succeed(self, message: str = "") -> None:
        self.state, self.finished_at, self.message = RunState.SUCCEEDED, timezone.now(), message
        self.save()

    def fail(self, error: str, code: str) -> None:
        self.state, self.finished_at, self.error, self.error_code = RunState.FAILED, timezone.now(), error, code
        self.save()

    def summary(self) -> dict[str, Any]:
        """The run as programs read it: `manage.py ingest --json` and GET /api/v1/runs/<id>."""
        return {
            "id": str(self.id),
            "kind": self.kind,
            "group": self.group.name,
            "group_version": self.group_version,
            "state": self.state,
            "progress": self.bytes_read / self.bytes_total if self.bytes_total else None,
            "read": self.rows_read,
            "accepted": self.rows_accepted,
            "quarantined": self.rows_quarantined,
            "warnings": self.warnings,
            "message": self.message,
            "error": {"code": self.error_code, "detail": self.error} if self.error else None,
            "duration_seconds": self.duration_seconds,
            "delta_version": self.delta_version,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
        }
