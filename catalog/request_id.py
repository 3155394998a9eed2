"""Gives every request an id: the caller's `X-Request-ID` when it is a sensible one, else a new one; echoed back."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from random import getrandbits
from typing import TypeVar

from django.http import HttpRequest, HttpResponse

from catalog.log_context import current_request

SENSIBLE = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Where a request has its own id.
IN_REQUEST = "featurehub.request_id"
Answer = TypeVar("Answer")
_current: ContextVar[str] = ContextVar("request_id", default="-")


def current_request_id() -> str:
    """The id of the request that this thread answers, for the log; `-` outside of one."""
    return _current.get()


def request_id_of(given: str) -> str:
    """The id of a request: the one that the caller gave when it is a sensible one."""
    # An id is no secret; the system's randomness would let another thread go first, at each request.
    return given if given and SENSIBLE.fullmatch(given) else f"{getrandbits(128):032x}"


def with_request_id(given: str, request: HttpRequest, answer: Callable[[], Answer]) -> tuple[Answer, str]:
    """What `answer` gives while the log knows the request and its id, and the id: `given` when it is a sensible one."""
    request_id = request_id_of(given)
    request.META[IN_REQUEST] = request_id  # what Django logs of an answer it logs when this is over
    token, before = _current.set(request_id), current_request.set(request)
    try:
        return answer(), request_id
    finally:
        _current.reset(token)
        current_request.reset(before)


def request_id_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")  # request.headers would parse every header
        response, request_id = with_request_id(given, request, partial(get_response, request))
        response["X-Request-ID"] = request_id
        return response

    return middleware
