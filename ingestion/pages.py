"""The pages of what ingestion does: runs with their progress, and rejected rows by rule."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse

from catalog.access import AnyCaller
from catalog.pages.viewing import page, show


@page
def runs_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    return show(request, caller, "catalog/error.html", {}, here="catalog-runs")


@page
def run_page(request: HttpRequest, caller: AnyCaller, id: UUID) -> HttpResponse:
    return show(request, caller, "catalog/error.html", {}, here="catalog-runs")


@page
def run_now(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    return show(request, caller, "catalog/error.html", {}, here="catalog-runs")


@page
def quarantine_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    return show(request, caller, "catalog/error.html", {}, here="catalog-quarantine")


@page
def group_quarantine(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    return HttpResponse()
