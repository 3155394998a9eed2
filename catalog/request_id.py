"""Gives every request an id: the caller's `X-Request-ID` when it is a sensible one, else a new one; echoed back."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from random import getrandbits
from typing import TypeVar

from django.http import HttpRequest, HttpResponse

SENSIBLE = re.compile(r"[A-Za-z0-9._-]{1,128}")
Answer = TypeVar("Answer")
_current: ContextVar[str] = ContextVar("request_id", default="-")


def current_request_id() -> str:
    """The id of the request that this thread answers, for the log; `-` outside of one."""
    return _current.get()


def with_request_id(given: str, answer: Callable[[], Answer]) -> tuple[Answer, str]:
    """What `answer` gives while the request has its id, and the id: `given` when that is a sensible one."""
    # An id is no secret; the system's randomness would let another thread go first, at each request.
    request_id = given if SENSIBLE.fullmatch(given) else f"{getrandbits(128):032x}"
    token = _current.set(request_id)
    try:
        return answer(), request_id
    finally:
        _current.reset(token)


def request_id_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")  # request.headers would parse every header
        response, request_id = with_request_id(given, partial(get_response, request))
        response["X-Request-ID"] = request_id
        return response

    return middleware
