"""What the hub tells Prometheus: requests, counted by every web process, and the state of the stores at each scrape.

The processes of one hub add up in files of a folder (prometheus_client's multiprocess mode); the state is asked for by
whoever answers a scrape. An observation costs some 4 us.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from time import perf_counter

from django.conf import settings
from django.db.models import Count, Sum
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import freshness
from catalog.access import READ
from catalog.health import what_is_damaged, what_is_down
from catalog.models import CatalogState, FeatureGroup, Refusal, Run
from catalog.openapi import documented
from catalog.request_log import log_request
from engine.process_id import process_id

FOLDER = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(Path(settings.FEATUREHUB_HOME) / "metrics")))
FOLDER.mkdir(parents=True, exist_ok=True)

from prometheus_client import CollectorRegistry, Histogram, generate_latest, multiprocess, values  # noqa: E402  reads the folder
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

#: Sent at a scrape: who knows of more state than the catalog answers with a list of metrics. It keeps rooms apart.
metrics_wanted = Signal()

values.ValueClass = values.MultiProcessValue(process_id)  # it asks twice an observation

_requests = Histogram(
    "featurehub_request_seconds",
    "Seconds from a request's start to its answer, by route, method and status.",
    ["route", "method", "status"],
    buckets=SECONDS,
    registry=CollectorRegistry(),
)


def observe(route: str, method: str, status: int, seconds: float) -> None:
    """Count one answered request; `route` is the name of its route, `none` where there is none."""
    _counted(route, method, status).observe(seconds)


@cache
def _counted(route: str, method: str, status: int) -> Histogram:
    """Finding it by its labels takes as long as counting."""
    return _requests.labels(route, method, status)


def metrics_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Observes each request that goes through Django, and says in `Server-Timing` what it took."""

    def middleware(request: HttpRequest) -> HttpResponse:
        began = perf_counter()
        response = get_response(request)
        seconds = perf_counter() - began
        match = request.resolver_match
        observe(
            match.view_name if match and match.view_name else "none", _method(request), response.status_code, seconds
        )
        log_request(request, response.status_code, seconds)
        response["Server-Timing"] = server_timing(seconds)
        return response

    return middleware


def server_timing(seconds: float) -> str:
    """The header's value: the milliseconds that the hub took."""
    return f"total;dur={1000 * seconds:.3f}"


def _method(request: HttpRequest) -> str:
    """The method, of which callers may invent any number."""
    return request.method if request.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"


class MetricsView(APIView):
    """`GET /metrics`: all of it in Prometheus' text format."""

    scopes = {"GET": READ}

    @documented("metrics", answers={(200, "text/plain"): {"type": "string"}})
    def get(self, request: Request) -> HttpResponse:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(FOLDER))
        registry.register(_State())
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE)


class _State(Collector):
    def collect(self) -> Iterator[Metric]:
        down, up = (
            what_is_down(),
            GaugeMetricFamily("featurehub_up", "1 where a store can be relied on.", labels=["store"]),
        )
        for store in ("database", "online_store"):
            up.add_metric([store], float(store not in down))
        yield up
        if "database" not in down:
            yield from _of_catalog()
            yield from chain.from_iterable(told for _, told in metrics_wanted.send(_State) if told)


def _of_catalog() -> Iterator[Metric]:
    yield gauge("featurehub_catalog_version", "Rises with every change that readers see.", CatalogState.read().version)
    yield gauge(
        "featurehub_offline_damaged", "1 while the last scrub of some group found damage.", bool(what_is_damaged())
    )
    refused = CounterMetricFamily("featurehub_refusals", "What was refused, by its reason.", labels=["reason"])
    for reason, total in (
        Refusal.objects.order_by().values("reason").annotate(all=Sum("count")).values_list("reason", "all")
    ):
        refused.add_metric([reason], total)
    yield refused
    runs = GaugeMetricFamily("featurehub_runs", "Runs on record.", labels=["kind", "state"])
    for row in Run.objects.order_by().values("kind", "state").annotate(count=Count("pk")):
        runs.add_metric([row["kind"], row["state"]], row["count"])
    yield runs
    yield from _of_freshness()


def _of_freshness() -> Iterator[Metric]:
    age = GaugeMetricFamily("featurehub_newest_event_seconds", "Age of the newest event stored.", labels=["group"])
    for group in freshness.with_age(FeatureGroup.objects.order_by("name")):
        age.add_metric([group.name], group.age.total_seconds())  # type: ignore[attr-defined]  # annotated
    yield age
    told = "Served groups whose newest event is older than their freshness target or TTL."
    yield gauge("featurehub_stale_groups", told, freshness.stale(FeatureGroup.objects.all()).count())


def gauge(name: str, told: str, value: float) -> Metric:
    """A metric of one value."""
    return GaugeMetricFamily(name, told, value=value)
