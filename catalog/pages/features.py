"""The list of features with its facets, and the palette that finds anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from catalog.access import AnyCaller, seen
from catalog.models import Entity, FeatureGroup, FeatureService, Owner, TrainingDataset
from catalog.pages import searching
from catalog.pages.distribution import sparks_of
from catalog.pages.freshness import freshness_of
from catalog.pages.searching import SORTS, Query
from catalog.pages.viewing import page, show

PER_KIND = 5


@page
def list_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    found = searching.find(Query.of(request.GET), caller)
    fresh, sparks = freshness_of(feature.group for feature in found.rows), sparks_of(found.rows)
    context = {
        "found": found,
        "query": found.query,
        "sorts": SORTS.items(),
        "chosen": [
            (found.query.without(facet, value).parameters(), searching.FACETS[facet], value)
            for facet, values in found.query.chosen.items()
            for value in sorted(values)
        ],
        "rows": [
            (feature, found.reads.get(feature.pk, 0), fresh.get(feature.group_id), sparks.get(feature.pk, "—"))
            for feature in found.rows
        ],
    }
    return show(request, caller, "catalog/features.html", context, here="catalog-features")


@page
def palette(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    """The best few of each kind; a part of a page."""
    query = Query.of(request.GET)
    kinds = [(title, icon, list(rows)) for title, icon, rows in _kinds(query, caller)] if query.words else []
    context = {"query": query, "kinds": [kind for kind in kinds if kind[2]]}
    return render(request, "catalog/parts/palette.html", context)


def _kinds(query: Query, caller: AnyCaller) -> Iterator[tuple[str, str, Iterator[dict[str, Any]]]]:
    ids = searching.matching(query.words, caller).order_by(F("rank"), "name").values_list("pk", flat=True)[:PER_KIND]
    features = searching.features_of(list(ids))
    yield "Features", "data_object", ({"thing": f, "name": f.name, "note": f.group.name} for f in features)
    for title, icon, model in (
        ("Groups", "table", FeatureGroup),
        ("Entities", "key", Entity),
        ("Services", "deployed_code", FeatureService),
        ("Datasets", "dataset", TrainingDataset),
        ("Owners", "badge", Owner),
    ):
        rows = _named(seen(caller, model._default_manager.all()), query.words)[:PER_KIND]
        yield title, icon, ({"thing": row, "name": str(row), "note": ""} for row in rows)


def _named(rows: QuerySet[Any], words: list[str]) -> QuerySet[Any]:
    wanted = Q()
    for word in words:
        wanted &= Q(name__icontains=word)
    return rows.filter(wanted).order_by("name")
