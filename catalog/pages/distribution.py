"""What a feature's values are like, as its page shows it: a picture beside the baseline, and the numbers as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from django.utils.safestring import SafeString

from catalog import statistics
from catalog.models import Feature, FeatureStatistics
from catalog.pages import charts
from catalog.templatetags.catalog_pages import number, percent
from engine.statistics import Number, Statistics


@dataclass(frozen=True, slots=True)
class Distribution:
    """latest, before: of the last run and of the 7 days before it. chart: None where there is nothing to draw.

    bins: (values, share now, share before). figures: (what, now, before), in words.
    """

    row: FeatureStatistics
    latest: Statistics
    before: Statistics | None
    psi: float
    chart: SafeString | None
    bins: Sequence[tuple[str, str, str]]
    figures: Sequence[tuple[str, str, str]]

    @property
    def has_moved(self) -> bool:
        return self.psi > statistics.MOVED


def distribution_of(feature: Feature) -> Distribution | None:
    """None until something was counted; two queries."""
    row = statistics.latest([feature]).get(feature.pk)
    if row is None:
        return None
    latest, before = row.statistics, statistics.baselines({feature.pk: row}).get(feature.pk)
    labels, now, then = _bins(latest, before)
    draw = charts.histogram if latest.histogram else charts.bars
    chart = draw(labels, now, then, summary=_summary(feature, latest, before)) if labels else None
    bins = [
        (label, percent(share), percent(then[at]) if then else "—")
        for at, (label, share) in enumerate(zip(labels, now, strict=True))
    ]
    psi = statistics.moved(row, before)
    return Distribution(row, latest, before, psi, chart, bins, _figures(latest, before))


def _bins(latest: Statistics, before: Statistics | None) -> tuple[list[str], list[float], list[float]]:
    if latest.histogram:
        edges = [_shown(edge, latest) for edge in latest.histogram.edges]
        labels = [f"{low} to {high}" for low, high in pairwise(edges)]
        labels = [f"below {edges[0]}", *labels, f"{edges[-1]} and above"]
        now = _shares(latest.histogram.all_counts)
        then = _shares(before.histogram.all_counts) if before and before.histogram else []
        shown = [at for at, _ in enumerate(labels) if 0 < at < len(labels) - 1 or now[at] or (then and then[at])]
        return [labels[at] for at in shown], [now[at] for at in shown], [then[at] for at in shown] if then else []
    if latest.top:
        counts = dict(before.top) if before else {}
        total = max(before.described, 1) if before else 1
        labels = [str(value) for value, _ in latest.top]
        now = [count / max(latest.described, 1) for _, count in latest.top]
        return labels, now, [counts.get(value, 0) / total for value, _ in latest.top] if before else []
    return [], [], []


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]


def _shown(value: Number | None, of: Statistics) -> str:
    if value is not None and of.measure == "timestamp":
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(value))
        return f"{moment:%Y-%m-%d %H:%M}"
    return number(value)


def _figures(latest: Statistics, before: Statistics | None) -> list[tuple[str, str, str]]:
    def line(title: str, read: Any) -> tuple[str, str, str]:
        return title, read(latest), read(before) if before else "—"

    lines = [line("Rows", lambda s: number(s.count)), line("Nulls", lambda s: percent(s.null_rate))]
    if latest.distinct is not None:
        lines.append(line("Different values", lambda s: number(s.distinct)))
    if latest.mean is not None:
        lines += [
            line("Mean", lambda s: _shown(s.mean, s)),
            line(
                "Standard deviation",
                lambda s: number(s.std / 86_400e6) + " days" if s.measure == "timestamp" and s.std else number(s.std),
            ),
            line("Minimum", lambda s: _shown(s.minimum, s)),
            *(line(name, lambda s, name=name: _shown(s.quantiles.get(name), s)) for name in latest.quantiles),
            line("Maximum", lambda s: _shown(s.maximum, s)),
        ]
    return lines


def _summary(feature: Feature, latest: Statistics, before: Statistics | None) -> str:
    told = f"Distribution of {feature.name} in {number(latest.count)} rows of the last run"
    told += f", from {_shown(latest.minimum, latest)} to {_shown(latest.maximum, latest)}" if latest.histogram else ""
    return f"{told}{', beside the 7 days before' if before else ''}. The table below has the numbers."


def sparks_of(features: Sequence[Feature]) -> dict[int, SafeString]:
    """The null rates of the last runs of each feature as a small line; one query."""
    rates = statistics.null_rates(features)
    return {
        pk: charts.sparkline(
            [rate.rate for rate in of_feature],
            summary=f"Nulls in the last {len(of_feature)} runs: {percent(of_feature[-1].rate)} last",
        )
        for pk, of_feature in rates.items()
        if of_feature
    }
