"""What became of rejected rows, by the rule that they broke."""

from __future__ import annotations

from typing import Any, Self

from django.db import models
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce

from catalog.models import Run, RunState

_UNDER_WAY = [RunState.QUEUED, RunState.RUNNING]
#: A replay holds what it was queued for until it has ended and nothing of it can land any more. This is said by the
#: replay's own row alone, so that no death of a worker leaves it unsaid.
HELD = Q(replay__state__in=_UNDER_WAY) | Q(~Q(replay__state=RunState.SUCCEEDED), replay__committing__isnull=False)
REPLAYED = Q(replay__state=RunState.SUCCEEDED)
DISCARDED = Q(discarded_at__isnull=False)


class QuarantineState(models.TextChoices):
    """Settled: every row was replayed or discarded by itself. Run failed: the rows came with a run of which nothing was
    kept. Superseded: the group has moved to another version since."""

    PENDING = "pending"
    REPLAYING = "replaying"
    REPLAYED = "replayed"
    DISCARDED = "discarded"
    SETTLED = "settled"
    RUN_FAILED = "run_failed"
    SUPERSEDED = "superseded"


_OF_REPLAYS = (QuarantineState.REPLAYING, QuarantineState.REPLAYED)


class Settled(models.Model):
    """What became of rejected rows: taken up by a replay, or discarded. Neither: they wait."""

    replay = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="replayed_%(class)ss", null=True, blank=True)
    discarded_at = models.DateTimeField(null=True, blank=True)
    discarded_by = models.CharField(max_length=150, blank=True)
    discard_reason = models.TextField(blank=True)

    class Meta:
        abstract = True


def _state(*last: When) -> Case:
    """What became of a rule's rows; `last` decides between those that nothing became of."""
    return Case(
        When(DISCARDED, then=Value(QuarantineState.DISCARDED.value)),
        When(REPLAYED, then=Value(QuarantineState.REPLAYED.value)),
        When(HELD, then=Value(QuarantineState.REPLAYING.value)),
        When(~Q(run__state=RunState.SUCCEEDED), then=Value(QuarantineState.RUN_FAILED.value)),
        When(~Q(run__group_version=F("run__group__version")), then=Value(QuarantineState.SUPERSEDED.value)),
        *last,
        default=Value(QuarantineState.PENDING.value),
        output_field=models.CharField(),
    )


class QuarantinedRules(models.QuerySet["QuarantinedRule"]):
    def of_ended_runs(self) -> Self:
        """Without those of runs that are under way, which may still begin again."""
        return self.exclude(run__state__in=_UNDER_WAY)

    def with_state(self) -> Self:
        """Each with its `state` (a QuarantineState) and `pending_rows`, how many of its rows a replay would take up."""
        settled = QuarantinedRow.objects.filter(HELD | REPLAYED | DISCARDED, rule=OuterRef("pk"))
        count = settled.order_by().values("rule").annotate(count=Count("pk")).values("count")
        return self.annotate(
            settled_rows=Coalesce(Subquery(count), 0, output_field=models.BigIntegerField()),
            state=_state(When(settled_rows__gte=F("row_count"), then=Value(QuarantineState.SETTLED.value))),
            pending_rows=Case(
                When(state=QuarantineState.PENDING.value, then=F("row_count") - F("settled_rows")),
                default=0,
                output_field=models.BigIntegerField(),
            ),
        )

    def with_state_as_a_whole(self) -> Self:
        """Each with the state that it has, `whole`, as if no row had been settled by itself: to put many together, for
        which asking of the rows of each would take seconds."""
        return self.alias(whole=_state())

    def in_state(self, *states: str) -> Self:
        """Of those that `with_state` has found, the ones in any of some states."""
        wanted = {"state__in": states}
        return self.filter(**wanted)

    def with_held_rows(self) -> Self:
        """Those of which a replay holds single rows."""
        return self.filter(Exists(QuarantinedRow.objects.filter(HELD, rule=OuterRef("pk"))))


class QuarantinedRule(Settled):
    """How many rows of a run broke one rule on one column, and some of them.

    The rows themselves are in files of the run (ingestion/quarantine.py); `samples` holds the first few. What became of
    all of them is here, what became of single ones in `rows`.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="quarantined")
    column = models.CharField(max_length=63)
    rule = models.CharField(max_length=63)
    detail = models.TextField()
    row_count = models.PositiveBigIntegerField()
    samples = models.JSONField(default=list)
    #: Of those that `with_state` has found.
    state: str
    pending_rows: int

    objects = QuarantinedRules.as_manager()

    class Meta:
        ordering = ["run", "column", "rule"]
        constraints = [
            models.UniqueConstraint(fields=["run", "column", "rule"], name="quarantinedrule_is_unique"),
        ]

    def summary(self, *, shows_samples: bool = True) -> dict[str, Any]:
        """What programs read of one that `with_state` has found; samples are withheld as an empty list."""
        discarded = {"at": self.discarded_at, "by": self.discarded_by, "reason": self.discard_reason}
        return {
            "id": self.pk,
            "group": self.run.group.name,
            "run": str(self.run_id),
            "kind": self.run.kind,
            "column": self.column,
            "rule": self.rule,
            "detail": self.detail,
            "rows": self.row_count,
            "pending": self.pending_rows,
            "state": self.state,
            "samples": self.samples if shows_samples else [],
            "replay": str(self.replay_id) if self.state in _OF_REPLAYS else None,
            "discarded": discarded if self.discarded_at else None,
            "created_at": self.run.created_at,
        }

    def __str__(self) -> str:
        return f"{self.column} {self.rule}: {self.row_count} rows"


class QuarantinedRow(Settled):
    """A rejected row that was settled by itself; `values` are what a replay lays over it."""

    rule = models.ForeignKey(QuarantinedRule, on_delete=models.CASCADE, related_name="rows")
    row = models.PositiveBigIntegerField(help_text="Its number in the run, from 0.")
    values = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["rule", "row"]
        constraints = [models.UniqueConstraint(fields=["rule", "row"], name="quarantinedrow_is_settled_once")]

    def __str__(self) -> str:
        return f"row {self.row} of {self.rule.run_id}"
