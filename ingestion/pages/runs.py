"""The list of runs: filtered by its address, newest first, those under way on top."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils.dateparse import parse_date, parse_datetime

from catalog.access import READ, AnyCaller, reach, seen
from catalog.models import FeatureGroup, Run, RunKind, RunState, TrainingDataset
from catalog.pages.paging import Listed, cut
from catalog.pages.searching import page_number
from catalog.pages.viewing import page, show
from ingestion.pages.progress import UNDER_WAY, Progress, progress_of

#: Further back than this the list is not counted and not paged; filters reach what lies behind it.
MOST = 10_000
#: Runs under way that are shown with their progress.
MOST_UNDER_WAY = 10
#: Names of groups that the filter offers.
MOST_NAMES = 200
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs an address asks for; what it says wrongly is as if it did not."""

    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    group: str = ""
    since: datetime | None = None
    page: int = 1

    @classmethod
    def of(cls, given: QueryDict) -> RunQuery:
        return cls(
            tuple(state for state in RunState.values if state in given.getlist("state")),
            tuple(kind for kind in RunKind.values if kind in given.getlist("kind")),
            given.get("group", "").replace("\0", "").strip()[:_LONGEST],
            moment_of(given.get("since", "")),
            page_number(given),
        )

    @property
    def is_narrowed(self) -> bool:
        return bool(self.states or self.kinds or self.group or self.since)

    def parameters(self) -> str:
        """The query as the end of an address, without its page."""
        pairs = [("state", state) for state in self.states] + [("kind", kind) for kind in self.kinds]
        pairs += [("group", self.group)] if self.group else []
        return urlencode(pairs + ([("since", self.since.isoformat())] if self.since else []))

    def chosen(self) -> list[tuple[str, str, str]]:
        """Each filter that is set: what it is called, its value, and the parameters of the list without it."""
        told = [
            ("State", state, replace(self, states=tuple(other for other in self.states if other != state)))
            for state in self.states
        ]
        told += [
            ("Kind", kind, replace(self, kinds=tuple(other for other in self.kinds if other != kind)))
            for kind in self.kinds
        ]
        if self.group:
            told.append(("Group", self.group, replace(self, group="")))
        if self.since:
            told.append(("Started since", f"{self.since:%Y-%m-%d %H:%M} UTC", replace(self, since=None)))
        return [(title, value, left.parameters()) for title, value, left in told]

    def narrow(self, runs: QuerySet[Run]) -> QuerySet[Run]:
        """Those of the runs that it asks for."""
        if self.states:
            runs = runs.filter(state__in=self.states)
        if self.kinds:
            runs = runs.filter(kind__in=self.kinds)
        if self.group:
            runs = runs.filter(group__name=self.group)
        return runs.filter(created_at__gte=self.since) if self.since else runs


def moment_of(text: str) -> datetime | None:
    """A day or a moment as an address has it, UTC where it names no zone; None for anything else."""
    try:
        if day := parse_date(text):
            return datetime.combine(day, time(), UTC)
        moment = parse_datetime(text)
        return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # written like one, and no such day
        return None


def readable(caller: AnyCaller) -> QuerySet[Run]:
    """The runs that a caller may read, with what a list shows of each."""
    runs = seen(caller, Run.objects.all())
    if reach(caller, READ) is not None:
        runs |= Run.objects.filter(pk__in=seen(caller, TrainingDataset.objects.order_by()).values("run"))
    return runs.select_related("group", "dataset", "erasure__entity").defer(
        "paths", "warnings", "dataset__manifest", "dataset__features", "erasure__receipt"
    )


@dataclass(frozen=True, slots=True)
class Found(Listed):
    """A page of runs; of more than MOST it only says that there are more."""

    has_more: bool = False


def find(query: RunQuery, runs: QuerySet[Run]) -> Found:
    """A page of what a query asks for. Without a state it is of runs that have ended: the others stand above them."""
    if not query.states:
        runs = runs.exclude(state__in=UNDER_WAY)
    runs = query.narrow(runs)
    total = runs.order_by()[: MOST + 1].count()
    counted = min(total, MOST)
    number, part = cut(counted, query.page)
    newest = runs.order_by("-created_at", "-pk")[part]
    return Found(list(newest) if total else [], counted, number, has_more=total > MOST)


def under_way(query: RunQuery, runs: QuerySet[Run]) -> dict[str, Any]:
    """The runs that are queued or running, newest first, each with its progress."""
    found = list(query.narrow(runs.filter(state__in=UNDER_WAY)).order_by("-created_at", "-pk")[: MOST_UNDER_WAY + 1])
    shown: list[tuple[Run, Progress]] = [(run, progress_of(run)) for run in found[:MOST_UNDER_WAY]]
    return {"under_way": shown, "has_more_under_way": len(found) > MOST_UNDER_WAY, "query": query}


@page
def runs_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    query, runs = RunQuery.of(request.GET), readable(caller)
    found = find(query, runs)
    is_first = found.page == 1 and not query.states
    context = {
        "title": "Runs",
        "found": found,
        "query": query,
        "chosen": query.chosen(),
        "states": [(state, state in query.states) for state in RunState.values],
        "kinds": [(kind, kind in query.kinds) for kind in RunKind.values],
        "groups": seen(caller, FeatureGroup.objects.order_by("name")).values_list("name", flat=True)[:MOST_NAMES],
        **(under_way(query, runs) if is_first else {}),
    }
    return show(request, caller, "ingestion/runs.html", context, here="catalog-runs")


@page
def under_way_part(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    """What runs now, again and again; by itself it is no page."""
    query = RunQuery.of(request.GET)
    if "HX-Request" not in request.headers:
        return redirect(f"{request.path.removesuffix('under-way/')}?{query.parameters()}")
    return show(request, caller, "ingestion/parts/under_way.html", under_way(query, readable(caller)))
