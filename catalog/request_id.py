"""Gives every request an id: the caller's `X-Request-ID` when it is a sensible one, else a new one; echoed back."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from random import getrandbits

from django.http import HttpRequest, HttpResponse

from catalog.log_context import current_request

SENSIBLE = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Where a request has its own id.
IN_REQUEST = "featurehub.request_id"
_current: ContextVar[str] = ContextVar("request_id", default="-")


def current_request_id() -> str:
    """The id of the request that this thread answers, for the log; `-` outside of one."""
    return _current.get()


def request_id_of(given: str) -> str:
    """The id of a request: the one that the caller gave when it is a sensible one."""
    # An id is no secret; the system's randomness would let another thread go first, at each request.
    return given if given and SENSIBLE.fullmatch(given) else f"{getrandbits(128):032x}"


class Logged:
    """While it lasts the log knows a request and its id, which is `given` when that is a sensible one.

    It may end in another context than it began in, as a copy of that: a read that is carried on in a thread does.
    """

    __slots__ = ("_before", "_given", "_request")

    def __init__(self, request: HttpRequest, given: str) -> None:
        self._request, self._given = request, given

    def __enter__(self) -> str:
        request_id = request_id_of(self._given)
        self._request.META[IN_REQUEST] = request_id  # what Django logs of an answer it logs when this is over
        self._before = _current.get(), current_request.get()
        _current.set(request_id)
        current_request.set(self._request)
        return request_id

    def __exit__(self, *_: object) -> None:
        request_id, request = self._before
        _current.set(request_id)
        current_request.set(request)


def request_id_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        with Logged(request, request.META.get("HTTP_X_REQUEST_ID", "")) as request_id:  # headers would parse them all
            response = get_response(request)
        response["X-Request-ID"] = request_id
        return response

    return middleware
