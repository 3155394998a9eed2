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
from http.client import responses
from time import perf_counter
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import DisallowedHost, SynchronousOnlyOperation
from django.core.handlers.wsgi import LimitedStream, WSGIRequest, get_path_info
from django.db import DEFAULT_DB_ALIAS, connections
from django.http import HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls.resolvers import RegexPattern
from rest_framework.renderers import BaseRenderer

from catalog.access import ApiKeyAuthentication, HasScope
from catalog.bodies import declared_length
from catalog.metrics import observe, server_timing
from catalog.problems import exception_handler
from catalog.request_id import Logged
from catalog.request_log import log_request
from serving.answer import JSON, Answer
from serving.steps import Steps, carried_out
from serving.urls import urlpatterns

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[Any]]
Headers = list[tuple[str, str]]
#: Status, headers and body.
Response = tuple[int, Headers, bytes]


class _Route:
    """A hot route, its view and what that answers with, found out once."""

    def __init__(self, name: str) -> None:
        pattern = next(pattern for pattern in urlpatterns if pattern.name == name)
        self.name, self.pattern = name, cast(RegexPattern, pattern.pattern)
        self.view: Any = pattern.callback.cls()  # type: ignore[attr-defined]  # DRF's as_view leaves the class there
        renderers = {renderer.media_type: renderer() for renderer in self.view.renderer_classes}
        #: What to answer with, by an `Accept` that needs no weighing.
        self.renderers = {**renderers, "*/*": renderers[JSON]}


#: The hot route of each method, and what its address begins with.
_ROUTES = {"POST": ("/api/v1/vectors", _Route("vectors")), "GET": ("/features/", _Route("entity-vector"))}
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
        self._named_by = (*_NAMING_THE_HOST, *(settings.SECURE_PROXY_SSL_HEADER or ())[:1])
        self._added: dict[tuple[str | None, ...], Headers | None] = {}
        self._thread = _Thread()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        steps = self.steps(environ)
        if steps is None:
            return self._django(environ, start_response)
        # A key that is not known yet and a changed catalog are looked up in the database.
        self._thread.database.close_if_unusable_or_obsolete()
        status, headers, body = carried_out(steps)
        start_response(f"{status} {responses[status]}", headers)
        return [body]

    def steps(self, environ: Environ) -> Steps[Response] | None:
        """The response to a request, as steps; None where the short way is not for it.

        On an event loop they raise SynchronousOnlyOperation before anything is done when they need the database for the
        request's key.
        """
        request = _hot_request(environ)
        added = request and self._headers_of_security(request)
        return self._steps(request, added) if request and added else None

    def _steps(self, request: _HotRequest, added: Headers) -> Steps[Response]:
        began, environ = perf_counter(), request.environ
        with Logged(request, environ.get("HTTP_X_REQUEST_ID", "")) as request_id:
            answer = yield from _answer(request)
        seconds = perf_counter() - began
        observe(request.route.name, environ["REQUEST_METHOD"], answer.status, seconds)
        log_request(request, answer.status, seconds)
        headers = [
            ("Content-Type", answer.media_type),
            *answer.headers.items(),
            ("Vary", "Accept"),
            *added,
            ("X-Request-ID", request_id),
            ("Server-Timing", server_timing(seconds)),
            ("Content-Length", str(len(answer.body))),
        ]
        return answer.status, headers, answer.body

    def _headers_of_security(self, request: HttpRequest) -> Headers | None:
        """What Django's middlewares add to each answer, found out once for a host; None when they send the caller
        elsewhere, or when the host is none of ours."""
        named = tuple(map(request.META.get, self._named_by))
        try:
            return self._added[named]
        except KeyError:
            added = _added_by_middlewares(request)
        if len(self._added) >= HOSTS_REMEMBERED:
            self._added.clear()
        self._added[named] = added
        return added


def _added_by_middlewares(request: HttpRequest) -> Headers | None:
    try:
        request.get_host()
    except DisallowedHost:
        return None
    guarded = SecurityMiddleware(XFrameOptionsMiddleware(lambda _: HttpResponse()))
    response = cast(HttpResponse, guarded(request))
    del response.headers["Content-Type"]
    return list(response.items()) if response.status_code == 200 else None


class _Thread(threading.local):
    """What a thread keeps: its connection to the database, which takes ten times as long to find as to look at."""

    def __init__(self) -> None:
        self.database = connections[DEFAULT_DB_ALIAS]


class _HotRequest(WSGIRequest):
    """Django's request as far as hot views, the log and problem documents read it.

    Its own beginning is left out, which also looks for a content type, an encoding and the name of a script.
    """

    user: Any

    def __init__(
        self, environ: Environ, path: str, *, route: _Route, arguments: dict[str, str], renderer: BaseRenderer
    ) -> None:
        self.environ = self.META = environ
        self.path = self.path_info = path
        self.method = environ["REQUEST_METHOD"]
        self.resolver_match = None
        self.route, self.pattern, self.arguments, self.accepted_renderer = route, route.pattern, arguments, renderer
        self._stream = LimitedStream(environ["wsgi.input"], declared_length(environ))  # type: ignore[assignment]  # as Django has it
        self._read_started = False


def _hot_request(environ: Environ) -> _HotRequest | None:
    """The request, when it can take the short way as far as can be seen before its key is."""
    start, route = _ROUTES.get(environ["REQUEST_METHOD"], ("", None))
    if route is None or not environ["PATH_INFO"].startswith(start):
        return None
    if "HTTP_AUTHORIZATION" not in environ and ("HTTP_COOKIE" in environ or not settings.FEATUREHUB_ANONYMOUS_READS):
        return None
    if environ.get("SCRIPT_NAME") or settings.FORCE_SCRIPT_NAME:
        return None
    renderer = route.renderers.get(environ.get("HTTP_ACCEPT", "*/*"))
    path = get_path_info(environ)
    match = route.pattern.regex.fullmatch(path[1:])
    if renderer is None or match is None:
        return None
    return _HotRequest(environ, path, route=route, arguments=match.groupdict(), renderer=renderer)


def _answer(request: _HotRequest) -> Steps[Answer]:
    """What DRF's dispatch does for these routes: who asks, whether they may, the view's answer, errors as problems."""
    try:
        known = _AUTHENTICATION.authenticate(request)
        request.user = known and known[0]
        _PERMISSION.has_permission(request, request.route.view)
        return (yield from request.route.view.answer(request, **request.arguments))
    except SynchronousOnlyOperation:
        raise
    except Exception as error:  # each is a problem document, as in DRF's dispatch
        return Answer.of(exception_handler(error, {"request": request}))
