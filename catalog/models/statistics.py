"""What the values of a feature were like in the rows of one run, or in those that were pushed on one day."""

from __future__ import annotations

from functools import cached_property

from django.db import models
from django.db.models import F, OuterRef, Q, Subquery

from catalog.models.feature import Feature
from catalog.models.group import FeatureGroup
from catalog.models.run import Run, RunState
from engine.schema import Dtype
from engine.statistics import MOVED, Statistics, measure_of


class FeatureStatisticsRows(models.QuerySet["FeatureStatistics"]):
    def of_landed_rows(self) -> FeatureStatisticsRows:
        """Those of pushes and of runs that have succeeded, of the version that their group is at now."""
        landed = Q(run=None) | Q(run__state=RunState.SUCCEEDED)
        return self.filter(landed, group_version=F("feature__group__version"))

    def newest_of(self, features: models.QuerySet[Feature]) -> FeatureStatisticsRows:
        """The newest of each feature: one step in an index for each of them, however many there are."""
        rows = FeatureStatistics.objects.of_landed_rows().filter(feature=OuterRef("pk"))
        newest = Subquery(rows.order_by("-computed_at", "-pk").values("pk")[:1])
        return self.filter(pk__in=features.order_by().annotate(newest=newest).values("newest"))

    def blank(self) -> int:
        """Take out of them whatever quotes a value: the counts of rows and nulls are left. How many that was."""
        quoting = self.filter(Q(told__isnull=False) | Q(state__isnull=False))
        return quoting.update(told=None, state=None, described=0)


class FeatureStatistics(models.Model):
    """One feature in the accepted rows of one run (`run`), or in the pushed ones that were drained on one `day` (UTC).

    psi:                        how far they have moved from the days before, once that was looked at; of pushes it is
                                empty again when more of the day come.
    accepted_from, accepted_to: between which acceptance numbers its rows are, so that it can be told which statistics
                                may quote a row.
    told:                       the rest of engine.statistics.Statistics as JSON; null when nothing but counts may be
                                told.
    state:                      what more pushes of the day are merged into.
    """

    feature = models.ForeignKey(Feature, on_delete=models.CASCADE, related_name="statistics")
    group_version = models.PositiveIntegerField()
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="statistics", null=True, blank=True)
    day = models.DateField(null=True, blank=True, help_text="Of what was pushed: the day (UTC) it was drained on.")
    computed_at = models.DateTimeField()
    accepted_from = models.BigIntegerField()
    accepted_to = models.BigIntegerField()
    row_count = models.PositiveBigIntegerField()
    null_count = models.PositiveBigIntegerField()
    described = models.PositiveBigIntegerField(default=0)
    told = models.JSONField(null=True, blank=True)
    psi = models.FloatField(
        null=True, blank=True, help_text="Against the days before; empty until it was compared (catalog/statistics.py)."
    )
    state = models.BinaryField(null=True, blank=True)

    objects = FeatureStatisticsRows.as_manager()

    class Meta:
        ordering = ["-computed_at", "-pk"]
        verbose_name_plural = "feature statistics"
        indexes = [
            models.Index(fields=["feature", "-computed_at", "-id"], name="featurestatistics_by_time"),
            models.Index(fields=["computed_at"], name="featurestatistics_age"),
            models.Index(fields=["psi"], condition=Q(psi__gt=MOVED), name="featurestatistics_moved"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["feature", "run"], name="featurestatistics_run_once"),
            models.UniqueConstraint(fields=["feature", "group_version", "day"], name="featurestatistics_day_once"),
            models.CheckConstraint(
                condition=Q(run__isnull=True, day__isnull=False) | Q(run__isnull=False, day__isnull=True),
                name="featurestatistics_of_run_or_day",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.feature} of {self.run_id or self.day}"

    @property
    def group(self) -> FeatureGroup:
        """The group that it is about."""
        return self.feature.group

    @cached_property
    def statistics(self) -> Statistics:
        """What it says, as a value; nothing but counts of a feature that is tagged `pii` by now.

        That is told by `is_personal`, which catalog/statistics.py reads along.
        """
        if self.told is None or getattr(self, "is_personal", False):
            return Statistics(measure_of(Dtype.parse(self.feature.dtype)), self.row_count, self.null_count)
        counts = {"count": self.row_count, "nulls": self.null_count, "described": self.described}
        return Statistics.read({**self.told, **counts})

    def keep(self, statistics: Statistics) -> None:
        """Take over what was counted; the caller saves."""
        told = statistics.told()
        self.row_count, self.null_count = told.pop("count"), told.pop("nulls")
        self.described = told.pop("described")
        self.told, self.psi = told if self.described else None, None
        self.__dict__.pop("statistics", None)
