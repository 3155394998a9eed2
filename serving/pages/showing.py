"""A part of a page for htmx, and the whole page around the same part for everybody else."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from catalog.access import AnyCaller
from catalog.pages.addresses import page_of
from catalog.pages.viewing import show

Crumbs = list[tuple[str, str]]


def answer(
    request: HttpRequest,
    caller: AnyCaller,
    part: str,
    context: dict[str, Any],
    *,
    title: str,
    about: Any,
    here: str,
    status: int = 200,
) -> HttpResponse:
    """The template `serving/parts/<part>.html`; `about` is the thing whose page it belongs to."""
    is_part = is_for_htmx(request)
    context = context | {"is_part": is_part}
    if is_part:
        return render(request, f"serving/parts/{part}.html", context)
    frame = {"part": f"serving/parts/{part}.html", "title": title, "about": about, "about_address": page_of(about)}
    response = show(request, caller, "serving/page.html", context | frame, here=here)
    response.status_code = status
    return response


def is_for_htmx(request: HttpRequest) -> bool:
    return "HX-Request" in request.headers
