"""What ingestion tells Prometheus of its state: rows that wait in the push log or in quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Min, Q, Sum
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from ingestion.models import PushBatch, QuarantinedRule
from ingestion.models.quarantine import QuarantineState


def on_metrics_wanted(sender: object, **_: object) -> list[Metric]:
    """Catalog's signal: called at a scrape."""
    return [*_of_push_log(), _of_quarantine()]


def _of_push_log() -> Iterator[Metric]:
    rows = GaugeMetricFamily("featurehub_undrained_rows", "Pushed rows not yet offline.", labels=["group"])
    age = GaugeMetricFamily("featurehub_undrained_seconds", "Age of the oldest of them.", labels=["group"])
    waiting = PushBatch.objects.filter(Q(drain=None) | Q(drain__landed_at=None)).order_by().values("group__name")
    for found in waiting.annotate(rows=Sum("row_count"), since=Min("acceptance__accepted_at")):
        rows.add_metric([found["group__name"]], found["rows"])
        age.add_metric([found["group__name"]], _seconds_since(found["since"]))
    yield rows
    yield age


def _of_quarantine() -> Metric:
    pending = QuarantinedRule.objects.with_state().filter(state=QuarantineState.PENDING.value).order_by()  # type: ignore[misc]  # annotated
    rows = GaugeMetricFamily("featurehub_quarantined_rows", "Rejected rows that wait for somebody.", labels=["group"])
    for found in pending.values("run__group__name").annotate(waiting=Sum("pending_rows")):
        rows.add_metric([found["run__group__name"]], found["waiting"])
    return rows


def _seconds_since(moment: datetime) -> float:
    return max((timezone.now() - moment).total_seconds(), 0.0)
