"""The short way to the two routes that models wait for: their DRF views' own methods, called from the WSGI entry point.

Django and DRF take some 300 us of a request, the read 40 (docs/serving-hot-path.md). Left out here are the middlewares
that only pages need (sessions, CSRF, messages, static files, history), the signals of a request and DRF's dispatch. Not
left out are the host check, the request id, the headers of security and the redirect to TLS, the key and its scopes,
and errors as problem documents: the same functions do it. What this way is not for, such as a session, an `Accept` that
has to be weighed or a host that is not allowed, goes the whole way through Django.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIRequest
from django.db import DEFAULT_DB_ALIAS, connections
from django.http import HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import URLPattern
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.views import APIView

from catalog.access import ApiKeyAuthentication, HasScope
from catalog.metrics import observe, server_timing
from catalog.problems import exception_handler
from catalog.request_id import with_request_id
from catalog.request_log import log_request
from serving.urls import urlpatterns

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[Any]]


def _route(name: str) -> URLPattern:
    return next(pattern for pattern in urlpatterns if pattern.name == name)


#: The hot route of each method, and what its address begins with.
_ROUTES = {"POST": ("/api/v1/vectors", _route("vectors")), "GET": ("/features/", _route("entity-vector"))}
#: All that Django finds a request's host by.
_NAMING_THE_HOST = (
    "HTTP_HOST",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "SERVER_NAME",
    "SERVER_PORT",
    "wsgi.url_scheme",
)
#: ALLOWED_HOSTS may stand for any number of names.
HOSTS_REMEMBERED = 1_000
_AUTHENTICATION, _PERMISSION = ApiKeyAuthentication(), HasScope()


class HotPath:
    """A WSGI application that answers the hot routes itself and asks `django` for everything else."""

    def __init__(self, django: Application) -> None:
        self._django = django
        self._added: dict[bool, list[tuple[str, str]] | None] = {}
        self._allowed_hosts: set[tuple[str | None, ...]] = set()
        self._thread = _Thread()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        began = perf_counter()
        request = _hot_request(environ)
        added = request and self._has_allowed_host(request) and self._headers_of_security(request)
        if not request or not added:
            return self._django(environ, start_response)
        # A key that is not known yet and a changed catalog are looked up in the database.
        self._thread.database.close_if_unusable_or_obsolete()
        response, request_id = with_request_id(environ.get("HTTP_X_REQUEST_ID", ""), request, partial(_call, request))
        body, status, seconds = response.content, response.status_code, perf_counter() - began
        observe(request.route, environ["REQUEST_METHOD"], status, seconds)
        log_request(request, status, seconds)
        own = [
            ("X-Request-ID", request_id),
            ("Server-Timing", server_timing(seconds)),
            ("Content-Length", str(len(body))),
        ]
        start_response(f"{status} {response.reason_phrase}", [*response.items(), *added, *own])
        return [body]

    def _has_allowed_host(self, request: HttpRequest) -> bool:
        """Whether the host is one of ours; what Django allowed before it allows again, and has not to be asked."""
        named = tuple(map(request.META.get, _NAMING_THE_HOST))
        if named in self._allowed_hosts:
            return True
        try:
            request.get_host()
        except DisallowedHost:
            return False
        if len(self._allowed_hosts) < HOSTS_REMEMBERED:
            self._allowed_hosts.add(named)
        return True

    def _headers_of_security(self, request: HttpRequest) -> list[tuple[str, str]] | None:
        """What Django's middlewares add to each answer, found out once; None when they send the caller elsewhere."""
        is_secure = request.is_secure()
        if is_secure not in self._added:
            guarded = SecurityMiddleware(XFrameOptionsMiddleware(lambda _: HttpResponse()))
            response = cast(HttpResponse, guarded(request))
            del response.headers["Content-Type"]
            self._added[is_secure] = list(response.items()) if response.status_code == 200 else None
        return self._added[is_secure]


class _Thread(threading.local):
    """What a thread keeps: its connection to the database, which takes ten times as long to find as to look at."""

    def __init__(self) -> None:
        self.database = connections[DEFAULT_DB_ALIAS]


class _HotRequest(WSGIRequest):
    """A request with what a hot view's method reads beside what Django gives it."""

    user: Any
    route: str
    pattern: Any
    view: APIView
    arguments: dict[str, Any]
    accepted_renderer: BaseRenderer


def _hot_request(environ: Environ) -> _HotRequest | None:
    """The request, when it can take the short way as far as can be seen before its key is."""
    start, route = _ROUTES.get(environ["REQUEST_METHOD"], ("", None))
    if route is None or not environ["PATH_INFO"].startswith(start):
        return None
    if "HTTP_AUTHORIZATION" not in environ and ("HTTP_COOKIE" in environ or not settings.FEATUREHUB_ANONYMOUS_READS):
        return None
    request = _HotRequest(dict(environ))  # a copy, since Django decodes the path in it
    match = route.pattern.match(request.path_info[1:])
    view = route.callback.cls()  # type: ignore[attr-defined]  # DRF's as_view leaves the class there
    renderer = _renderer(view, environ.get("HTTP_ACCEPT", "*/*"))
    if match is None or renderer is None:
        return None
    request.route, request.pattern, request.view, request.arguments = str(route.name), route.pattern, view, match[2]
    request.accepted_renderer = renderer
    return request


def _renderer(view: APIView, accept: str) -> BaseRenderer | None:
    """What to answer with, where that needs no weighing."""
    if accept in ("*/*", "application/json"):
        return JSONRenderer()
    return next((renderer() for renderer in view.renderer_classes if renderer.media_type == accept), None)


def _call(request: _HotRequest) -> HttpResponse:
    """What DRF's dispatch does for these routes: who asks, whether they may, the view's method, errors as problems."""
    try:
        known = _AUTHENTICATION.authenticate(request)
        request.user = known and known[0]
        _PERMISSION.has_permission(request, request.view)
        response = getattr(request.view, str(request.method).lower())(request, **request.arguments)
    except Exception as error:  # each is a problem document, as in DRF's dispatch
        response = exception_handler(error, {"request": request})
    if len(request.view.renderer_classes) > 1:
        response.headers["Vary"] = "Accept"
    return response
