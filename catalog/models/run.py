"""Runs: every ingestion and materialization, with what it read, kept and refused, and who is at it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.utils import timezone

from catalog.models.acceptance import Acceptance
from catalog.models.group import FeatureGroup

#: A queued run that no worker has begun for this long is announced to the broker (again).
HINT_AFTER = timedelta(seconds=30)


class RunKind(models.TextChoices):
    INGEST = "ingest"
    MATERIALIZE = "materialize"
    PUSH = "push"
    REPLAY = "replay"
    BACKFILL = "backfill"
    TRAIN = "train"
    ERASE = "erase"


class RunState(models.TextChoices):
    """Dead: three attempts failed or lost their workers, and nobody tries again unless somebody asks for it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


def storable(text: str) -> str:
    """The text with U+0000 escaped, as in a wrong name of a file's column: PostgreSQL keeps it in no text."""
    return text.replace("\0", r"\x00")


def first_hint() -> datetime:
    """When a new run is announced again: whoever queues it announces it once, or begins it, at once."""
    return timezone.now() + HINT_AFTER


class Run(models.Model):
    """One recorded ingestion or materialization. `error` is for people, `error_code` for programs.

    The worker of an attempt holds a lease (catalog/runs.py): until `lease_until`, by the database's clock, the run is
    its own, and what it writes here it writes under its `token`, which every takeover raises.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=12, choices=RunKind, default=RunKind.INGEST)
    # Every kind but `train` and `erase` has one, and whoever carries out another kind need not ask.
    group: models.ForeignKey[FeatureGroup | None, FeatureGroup] = models.ForeignKey(  # type: ignore[misc]
        FeatureGroup, on_delete=models.PROTECT, related_name="runs", null=True, blank=True
    )
    group_version = models.PositiveIntegerField(default=0, help_text="0 without a group.")
    from_version = models.PositiveIntegerField(
        null=True, blank=True, help_text="Of a backfill: the group version whose rows it reads."
    )
    on_spark = models.BooleanField(default=False, help_text="Computed by a Spark cluster, with the same result.")
    state = models.CharField(max_length=10, choices=RunState, default=RunState.QUEUED)
    acceptance = models.OneToOneField(Acceptance, on_delete=models.PROTECT, related_name="run")
    requested_by = models.CharField(max_length=150, blank=True)
    principal = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="Whose rights are asked again when a worker takes it up; empty: nobody's, as of a schedule.",
    )
    paths = models.JSONField(default=list, blank=True, help_text="Files named by the operator; empty: the source's.")
    on_error = models.CharField(max_length=10, default="quarantine")
    rows_read = models.PositiveBigIntegerField(default=0)
    rows_accepted = models.PositiveBigIntegerField(default=0)
    rows_quarantined = models.PositiveBigIntegerField(default=0)
    rows_suppressed = models.PositiveBigIntegerField(default=0, help_text="Not taken: they are of an erased entity.")
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

    attempts = models.PositiveSmallIntegerField(default=0, help_text="Begun since it was queued or retried.")
    worker = models.CharField(max_length=255, blank=True, help_text="host:process:thread of the last attempt.")
    lease_until = models.DateTimeField(null=True, blank=True)
    token = models.PositiveIntegerField(default=0, help_text="Rises with each attempt and each takeover.")
    committing = models.PositiveIntegerField(
        null=True, blank=True, help_text="The token of the first attempt whose commit may still arrive; empty: none."
    )
    hint_due_at = models.DateTimeField(default=first_hint)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["group", "-created_at"]),
            # What the list of runs is cut from, a page at a time, however many there are.
            models.Index(fields=["-created_at"], name="run_newest"),
            models.Index(fields=["state", "-created_at"], name="run_newest_of_state"),
            models.Index(fields=["kind", "-created_at"], name="run_newest_of_kind"),
            models.Index(fields=["state"], condition=Q(state__in=["queued", "running"]), name="run_unfinished"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="run_state_is_known"),
            models.CheckConstraint(condition=Q(kind__in=RunKind.values), name="run_kind_is_known"),
            models.CheckConstraint(
                condition=Q(kind__in=["train", "erase"]) | Q(group__isnull=False),
                name="run_has_a_group_unless_it_trains_or_erases",
            ),
            models.CheckConstraint(condition=Q(on_error__in=["quarantine", "reject"]), name="run_on_error_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.id}"

    @property
    @admin.display(description="Of", ordering="group__name")
    def subject(self) -> str:
        """What it is about: its group's name, its training dataset's, or that of the entity it erases one of."""
        if self.kind == RunKind.TRAIN:
            return self.dataset.name if hasattr(self, "dataset") else "a dropped dataset"
        if self.kind == RunKind.ERASE:
            return self.erasure.subject
        return self.group.name

    @classmethod
    def queue(
        cls,
        group: FeatureGroup | None,
        *,
        requested_by: str = "",
        principal: str = "",
        kind: str = RunKind.INGEST,
        paths: Sequence[Path] = (),
        on_error: str = "quarantine",
        from_version: int | None = None,
        on_spark: bool = False,
    ) -> Run:
        """A new run of the group's current version, with its place in the version order taken; without a group one
        that trains or erases.

        `paths` are kept, absolute, so that whoever takes the run up reads the same files.
        """
        return cls.objects.create(
            kind=kind,
            group=group,
            group_version=group.version if group else 0,
            acceptance=Acceptance.take(),
            requested_by=requested_by,
            principal=principal,
            paths=[str(path.absolute()) for path in paths],
            on_error=on_error,
            from_version=from_version,
            on_spark=on_spark,
        )

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end, or to now while it runs; None before it started."""
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()

    @property
    def progress(self) -> float | None:
        """The share that is done, as far as it can be told: of the bytes of files, or of the rows of a dataset."""
        if self.kind == RunKind.TRAIN:
            return self.rows_accepted / self.rows_read if self.rows_read else None
        return self.bytes_read / self.bytes_total if self.bytes_total else None

    def begin(self) -> None:
        """Start a run that the request which made it carries out itself: it has no lease and is not taken up."""
        self.state, self.started_at = RunState.RUNNING, timezone.now()
        self.save()

    def succeed(self, message: str = "") -> None:
        """End such a run."""
        self.state, self.finished_at, self.message = RunState.SUCCEEDED, timezone.now(), message
        self.save()

    def fail(self, error: str, code: str) -> None:
        """End such a run, or one that was never begun."""
        self.state, self.finished_at, self.error_code = RunState.FAILED, timezone.now(), code
        self.error = storable(error)
        self.save()

    def summary(self) -> dict[str, Any]:
        """The run as programs read it: `manage.py ingest --json` and GET /api/v1/runs/<id>."""
        return {
            "id": str(self.id),
            "kind": self.kind,
            "group": self.group.name if self.group_id else None,
            "group_version": self.group_version,
            "state": self.state,
            "attempts": self.attempts,
            "progress": self.progress,
            "read": self.rows_read,
            "accepted": self.rows_accepted,
            "quarantined": self.rows_quarantined,
            **({"suppressed": self.rows_suppressed} if self.rows_suppressed else {}),
            "warnings": self.warnings,
            "message": self.message,
            "error": {"code": self.error_code, "detail": self.error} if self.error else None,
            "duration_seconds": self.duration_seconds,
            "delta_version": self.delta_version,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            **({"dataset": self.subject} if self.kind == RunKind.TRAIN else {}),
        }
