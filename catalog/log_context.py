"""What this thread is at while it logs: the request that it answers, or the task and the run that it carries out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, empty

#: The request itself, since what is told of it is only found out when a line is written.
current_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)
current_task: ContextVar[str] = ContextVar("task", default="")
current_run: ContextVar[str] = ContextVar("run", default="")

NO_ROUTE = "none"


@contextmanager
def at_run(run_id: str) -> Iterator[None]:
    """What is logged inside names the run."""
    token = current_run.set(run_id)
    try:
        yield
    finally:
        current_run.reset(token)


def route_of(request: HttpRequest) -> str:
    """The pattern of a request's route, which has no id in it, such as `/features/<entity>/<id>`; `none` for an address
    that there is not."""
    if pattern := getattr(request, "pattern", None):  # of the short way (serving/hot_path.py)
        return _readable(str(pattern))
    return _readable(request.resolver_match.route) if request.resolver_match else NO_ROUTE


@cache
def _readable(pattern: str) -> str:
    """A pattern of regular expressions as Django writes the others.

    >>> _readable("^features/(?P<entity>[^/]+)/(?P<id>[^/]+)/?$")
    '/features/<entity>/<id>'
    """
    return "/" + re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", pattern).removeprefix("^").removesuffix("$").removesuffix("/?")


def principal_in(request: HttpRequest) -> str:
    """Whose request it is, `key:<public id>` or `user:<number>`, as far as that is known; asks no database for it."""
    user = request.__dict__.get("user")
    if type(user) is SimpleLazyObject and user._wrapped is empty:
        return ""  # a session that nobody has looked into
    if key := getattr(user, "key_id", ""):
        return f"key:{key}"
    number = getattr(user, "pk", None)
    return f"user:{number}" if number else ""
