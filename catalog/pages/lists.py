"""The lists of groups, entities, services and training datasets: found by text, a page at a time."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.fields.json import KT
from django.http import HttpRequest, HttpResponse

from catalog.access import AnyCaller, seen
from catalog.models import Entity, FeatureGroup, FeatureService, Run, TrainingDataset
from catalog.pages.freshness import freshness_of
from catalog.pages.paging import Listed, cut
from catalog.pages.searching import Query
from catalog.pages.viewing import page, show


@page
def groups_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    newest = Run.objects.filter(group=OuterRef("pk")).order_by("-created_at")
    rows = seen(caller, FeatureGroup.objects.select_related("entity", "owner")).annotate(
        number=Count("features", distinct=True),
        last_state=Subquery(newest.values("state")[:1]),
        last_run=Subquery(newest.values("created_at")[:1]),
    )
    return _list(request, caller, "groups", rows.order_by("name"), "name", "description", "entity__name", "owner__name")


@page
def entities_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    rows = seen(caller, Entity.objects.select_related("owner").prefetch_related("join_keys"))
    rows = rows.annotate(number=Count("groups", distinct=True)).order_by("name")
    return _list(request, caller, "entities", rows, "name", "description", "owner__name")


@page
def services_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    rows = seen(caller, FeatureService.objects.select_related("owner")).annotate(number=Count("chosen", distinct=True))
    return _list(request, caller, "services", rows.order_by("name", "-version"), "name", "description", "owner__name")


@page
def datasets_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    rows = seen(caller, TrainingDataset.objects.select_related("run").defer("manifest")).order_by("-created_at")
    return _list(request, caller, "datasets", rows, "name", "service")


def _list(request: HttpRequest, caller: AnyCaller, kind: str, rows: QuerySet[Any], *fields: str) -> HttpResponse:
    query = Query.of(request.GET)
    for word in query.words:
        has_word = Q()
        for field in fields:
            has_word |= Q(**{f"{field}__icontains": word})
        rows = rows.filter(has_word)
    total = rows.count()
    number, part = cut(total, query.page)
    found = Listed(list(rows[part]), total, number)
    fresh = freshness_of(found.rows) if kind == "groups" else {}
    for row in found.rows:
        row.seen_fresh = fresh.get(row.pk)
    if kind == "datasets":  # of a long manifest the page shows one number
        shown = TrainingDataset.objects.filter(pk__in=[row.pk for row in found.rows])
        rows_of = dict(shown.values_list("pk", KT("manifest__result__rows")).order_by())
        for row in found.rows:
            row.made_rows = int(rows_of[row.pk]) if rows_of[row.pk] else None
    context = {"found": found, "list_query": query, "title": kind.capitalize()}
    return show(request, caller, f"catalog/{kind}.html", context, here=f"catalog-{kind}")
