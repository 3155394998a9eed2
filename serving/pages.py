"""Fragments of pages with values in them: samples, a look-up of a vector, snippets to paste."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from catalog.access import AnyCaller
from catalog.pages.viewing import page


@page
def samples(request: HttpRequest, caller: AnyCaller, **names: str) -> HttpResponse:
    return HttpResponse()
