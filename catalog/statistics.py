"""Reading what feature values were like, and whether they have moved; ingestion/statistics.py writes it down.

Everything here takes one or two queries for any number of features and any length of history. Of a feature that is
tagged `pii`, or whose group or entity is, nothing but counts is ever told, whoever asks and whenever it was tagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from catalog.models import PII, Feature, FeatureGroup, FeatureStatistics
from engine import statistics as engine
from engine.statistics import MOVED, Histogram, Number, Statistics

__all__ = ["MOVED", "baseline", "baselines", "described", "forget_old", "latest", "moved", "null_rates"]

#: How long statistics are kept; the newest of a feature is kept for ever.
KEPT = timedelta(days=400)
#: What a drain of another day has no use for any more.
STATE_KEPT = timedelta(days=2)
DAYS = 7
#: A baseline is put together from so many statistics at most, the newest.
MOST_MERGED = 500
COMPARED_AT_ONCE = 100

_IS_PERSONAL = Q(tags__name=PII) | Q(group__tags__name=PII) | Q(group__entity__tags__name=PII)


def personal_names(group: FeatureGroup) -> frozenset[str]:
    """The features of a group of which only counts may be told."""
    return frozenset(Feature.objects.filter(_IS_PERSONAL, group=group).values_list("name", flat=True))


def _rows() -> QuerySet[FeatureStatistics]:
    is_personal = Exists(Feature.objects.filter(_IS_PERSONAL, pk=OuterRef("feature_id")))
    rows = FeatureStatistics.objects.select_related("feature__group").defer("state")
    return rows.annotate(is_personal=is_personal)


def latest(features: Iterable[Feature]) -> dict[int, FeatureStatistics]:
    """The newest statistics of each feature, by its primary key, those without any left out; one query.

    They are of the last run that has added rows, or of the pushes of the last day on which some were drained, whichever
    is later, in the version that the group is at. What they say is `FeatureStatistics.statistics`.
    """
    chosen = Feature.objects.filter(pk__in=[feature.pk for feature in features])
    newest = FeatureStatistics.objects.newest_of(chosen).values("pk")
    return {row.feature_id: row for row in _rows().filter(pk__in=newest)}


def baseline(feature: Feature, days: int = DAYS) -> Statistics | None:
    """The statistics of the `days` before the latest ones, put together; None without any. Two queries.

    Its histogram is re-binned: on the edges of the latest one, and what lies outside in `below` and `above`.
    """
    return baselines(latest([feature]), days).get(feature.pk)


def baselines(newest: Mapping[int, FeatureStatistics], days: int = DAYS) -> dict[int, Statistics]:
    """The same of several features whose latest statistics are known; one query."""
    if not newest:
        return {}
    before = Q()
    for row in newest.values():
        since = row.computed_at - timedelta(days=days)
        before |= Q(feature=row.feature_id, group_version=row.group_version) & Q(
            computed_at__gte=since, computed_at__lte=row.computed_at
        )
    known = (
        _rows().filter(before, Q(run=None) | Q(run__state="succeeded")).exclude(pk__in=[n.pk for n in newest.values()])
    )
    earlier: dict[int, list[Statistics]] = {}
    for row in known.order_by("-computed_at", "-pk"):
        of_feature = earlier.setdefault(row.feature_id, [])
        if len(of_feature) < MOST_MERGED:
            of_feature.append(row.statistics)
    found = {}
    for pk, rows in earlier.items():
        drawn = newest[pk].statistics.histogram
        together = engine.merged(rows, edges=drawn.edges if drawn else None)
        if together is not None:
            found[pk] = together
    return found


def moved(latest: FeatureStatistics | Statistics, baseline: Statistics | None) -> float:
    """The population stability index of the latest values against the baseline's: above MOVED (0.2) they have moved.

    0 where there is nothing to compare: without a baseline, of few values, of values that are not told.
    """
    if baseline is None:
        return 0.0
    return engine.moved(latest if isinstance(latest, Statistics) else latest.statistics, baseline)


def compare_new(features: QuerySet[Feature] | None = None) -> int:
    """Write down how far the newest statistics of features have moved, where that is not known yet; of how many.

    Housekeeping does this some minutes after rows have landed, so that ingestion does not pay for it.
    """
    chosen = Feature.objects.all() if features is None else features
    waiting = _rows().filter(pk__in=FeatureStatistics.objects.newest_of(chosen).values("pk"), psi=None, described__gt=0)
    compared = 0
    while newest := {row.feature_id: row for row in waiting.order_by("pk")[:COMPARED_AT_ONCE]}:
        before = baselines(newest)
        for row in newest.values():
            row.psi = moved(row, before.get(row.feature_id))
        FeatureStatistics.objects.bulk_update(newest.values(), ["psi"])
        compared += len(newest)
    return compared


def moved_features(features: QuerySet[Feature]) -> QuerySet[FeatureStatistics]:
    """The newest statistics of those features whose values have moved, the furthest first; of what was compared."""
    newer = FeatureStatistics.objects.of_landed_rows().filter(
        feature=OuterRef("feature"), computed_at__gt=OuterRef("computed_at")
    )
    rows = _rows().filter(psi__gt=MOVED, group_version=F("feature__group__version"))
    rows = rows.filter(is_personal=False)  # type: ignore[misc]  # annotated
    return rows.filter(~Exists(newer), feature__in=features.order_by().values("pk")).order_by("-psi", "pk")


@dataclass(frozen=True, slots=True)
class NullRate:
    """The share of nulls in the rows of one run or day, counted at `computed_at` (UTC)."""

    computed_at: datetime
    rate: float
    count: int


def null_rates(features: Iterable[Feature], runs: int = 30) -> dict[int, list[NullRate]]:
    """The null rates of the last `runs` runs and days of each feature, oldest first, by its primary key; one query."""
    rows = FeatureStatistics.objects.of_landed_rows().filter(feature__in=[feature.pk for feature in features])
    newest_first = Window(RowNumber(), partition_by=F("feature_id"), order_by=[F("computed_at").desc(), F("pk").desc()])
    last = rows.order_by().annotate(place=newest_first).filter(place__lte=runs)
    rates: dict[int, list[NullRate]] = {}
    for pk, at, count, nulls in last.order_by("-place").values_list(
        "feature_id", "computed_at", "row_count", "null_count"
    ):
        rates.setdefault(pk, []).append(NullRate(at, nulls / count if count else 0.0, count))
    return rates


# -- As programs and people read them


@dataclass(frozen=True, slots=True)
class Described:
    """One feature: its latest statistics, the baseline before them, and how far it has moved from that."""

    feature: Feature
    latest: FeatureStatistics | None
    baseline: Statistics | None

    @property
    def psi(self) -> float | None:
        """None where there is nothing to compare, or too little."""
        if self.latest is None or self.baseline is None:
            return None
        fewest = min(self.latest.statistics.described, self.baseline.described)
        return moved(self.latest, self.baseline) if fewest >= engine.FEWEST_COMPARED else None

    def told(self) -> dict[str, Any]:
        """As JSON: timestamps as such, their standard deviation in seconds."""
        psi, newest = self.psi, self.latest
        return {
            "feature": str(self.feature),
            "dtype": self.feature.dtype,
            "latest": newest
            and {
                "run": newest.run_id and str(newest.run_id),
                "day": newest.day,
                "computed_at": newest.computed_at,
                **_told(newest.statistics),
            },
            "baseline": {"days": DAYS, **_told(self.baseline)} if self.baseline else None,
            "psi": psi,
            "moved": psi is not None and psi > MOVED,
        }


def described(features: Sequence[Feature]) -> list[Described]:
    """The latest statistics and the baseline of each feature, in their order; two queries."""
    newest = latest(features)
    before = baselines(newest)
    return [Described(feature, newest.get(feature.pk), before.get(feature.pk)) for feature in features]


def _told(one: Statistics) -> dict[str, Any]:
    is_time = one.measure == "timestamp"

    def shown(value: Number | None) -> Number | str | None:
        return _time(value) if is_time and value is not None else value

    return {
        "count": one.count,
        "nulls": one.nulls,
        "described": one.described,
        "measure": one.measure,
        "min": shown(one.minimum),
        "max": shown(one.maximum),
        "mean": shown(one.mean),
        "std": one.std / 1e6 if is_time and one.std is not None else one.std,
        "quantiles": {name: shown(value) for name, value in one.quantiles.items()},
        "histogram": one.histogram and _histogram(one.histogram, shown),
        "top": [{"value": value, "count": count} for value, count in one.top],
        "distinct": one.distinct,
        "is_exact": one.is_exact,
    }


def _histogram(drawn: Histogram, shown: Any) -> dict[str, Any]:
    edges = [shown(edge) for edge in drawn.edges]
    return {"edges": edges, "counts": list(drawn.counts), "below": drawn.below, "above": drawn.above}


def _time(microseconds: Number) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(microseconds))
    return moment.isoformat().replace("+00:00", "Z")


# -- Keeping house


def forget_old() -> int:
    """Remove statistics beyond KEPT but the newest of each feature, and what is not needed of others; how many."""
    now = timezone.now()
    FeatureStatistics.objects.filter(state__isnull=False, computed_at__lt=now - STATE_KEPT).update(state=None)
    FeatureStatistics.objects.filter(feature__in=Feature.objects.filter(_IS_PERSONAL)).blank()
    old = FeatureStatistics.objects.filter(computed_at__lt=now - KEPT)
    if not old.exists():
        return 0
    newest = FeatureStatistics.objects.newest_of(Feature.objects.all()).values_list("pk", flat=True)
    return old.exclude(pk__in=list(newest)).delete()[0]
