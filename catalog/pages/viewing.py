"""Who looks at a page, what the page may load, and what is shown instead when it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from django.contrib.auth.views import redirect_to_login
from django.db import Error as DatabaseFailure
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers

from catalog import refusals
from catalog.access import READ, AnyCaller, ApiKeyAuthentication, allowed, name_of
from catalog.actions import ANONYMOUS_READER
from catalog.models import Reason
from catalog.pages import navigation
from catalog.request_id import current_request_id
from engine.errors import FeaturehubError, NotAllowed, NotAuthenticated, NotFound, Unavailable

log = logging.getLogger(__name__)

#: Everything comes from the hub, no script stands in a page, and no style either. Tabler's marks are `data:` images.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)

View = Callable[..., HttpResponse]


def page(view: View) -> View:
    """A view for whoever may read: others log in first. Its errors are pages, and it sends the strict policy.

    The view is called with the caller after the request. What it answers to htmx is a part of a page.
    """
    return _viewed(view, ("GET", "HEAD"))


def form_page(view: View) -> View:
    """The same for a page that is also posted to; what that needs, the view asks catalog/access.py for."""
    return _viewed(view, ("GET", "HEAD", "POST"))


def _viewed(view: View, methods: tuple[str, ...]) -> View:
    @wraps(view)
    def viewed(request: HttpRequest, **names: Any) -> HttpResponse:
        return guarded(_answer(view, request, names) if request.method in methods else HttpResponseNotAllowed(methods))

    return viewed


def guarded(response: HttpResponse) -> HttpResponse:
    """The response with what every page sends: the strict policy, and that it is the caller's own."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers.setdefault("Cache-Control", "private, no-cache")
    patch_vary_headers(response, ["Cookie", "HX-Request"])
    return response


def _answer(view: View, request: HttpRequest, names: dict[str, Any]) -> HttpResponse:
    try:
        caller = caller_of(request)
        if caller is None:
            return _to_login(request)
        if not allowed(caller, READ):
            raise NotAllowed(f"{name_of(caller)} may not read any feature group yet: its owner gives roles.")
        return view(request, caller, **names)
    except FeaturehubError as error:
        if isinstance(error, NotAllowed | NotAuthenticated):
            refusals.count(error.reason or Reason.PAGE, request, about=error.about)
        return error_page(request, error)
    except Http404:
        return error_page(request, NotFound("There is nothing at this address."))
    except DatabaseFailure as error:
        log.error("request %s: the database does not answer: %s", current_request_id(), error)
        return error_page(request, Unavailable("The database does not answer."))


def caller_of(request: HttpRequest) -> AnyCaller | None:
    """Who asks: by a key, by a login, or anonymously where reads need neither; None for nobody known."""
    by_key = ApiKeyAuthentication().authenticate(request)
    if by_key is not None:
        return by_key[0]
    return request.user if request.user.is_authenticated else None


def _to_login(request: HttpRequest) -> HttpResponse:
    """A fragment cannot be a login form: htmx is told to go there with the whole page."""
    response = redirect_to_login(request.get_full_path(), reverse("login"))
    if "HX-Request" in request.headers:
        return HttpResponse(status=204, headers={"HX-Redirect": response.url})
    return response


def error_page(request: HttpRequest, error: FeaturehubError) -> HttpResponse:
    """What went wrong, what would be right where that is known, and the id that finds it in the log."""
    context: dict[str, Any] = {
        "error": error,
        "title": _TITLES.get(error.status, "This did not work"),
        "request_id": current_request_id(),
    }
    name = "catalog/parts/error.html" if "HX-Request" in request.headers else "catalog/error.html"
    if error.status < 500 and hasattr(request, "user") and request.user.is_authenticated:  # a refused host has no user
        context |= frame(request, request.user)
    return render(request, name, context, status=error.status)


_TITLES = {404: "Not found", 403: "Not allowed", 503: "Not available now", 429: "Too many requests"}


def show(
    request: HttpRequest, caller: AnyCaller, template: str, context: dict[str, Any], *, here: str = ""
) -> HttpResponse:
    """A page: the template with its context and what the frame around every page needs. `here` is the entry of the
    navigation that it belongs to."""
    return render(request, template, context | frame(request, caller) | {"here": here})


def frame(request: HttpRequest, caller: AnyCaller) -> dict[str, Any]:
    """What the frame shows of the caller."""
    person = request.user if request.user.is_authenticated else None
    return {
        "caller": caller,
        "navigation": navigation.items_for(person),
        "caller_name": "" if caller is ANONYMOUS_READER else name_of(caller),
        "is_staff": bool(person and cast(Any, person).is_staff),
    }
