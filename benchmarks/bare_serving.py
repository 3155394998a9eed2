"""What serving is measured against: an MGET, a msgpack decode and orjson behind bare WSGI, and behind a Django view.

It reads the hub's own rows, with no key, plan, TTL, status or check of what it reads. `/bare` and `/django` take the
body of a read, `{"entities": {"customer_id": [...]}}`; BARE_REDIS names the Redis, BARE_PREFIX how its keys begin.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import django
import msgspec
import orjson
import redis
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.data import FEATURES, KEY

_decode = msgspec.msgpack.Decoder(list).decode
_prefix = os.environ.get("BARE_PREFIX", "")
_client = redis.Redis.from_url(os.environ.get("BARE_REDIS", "redis://"))


def read(body: bytes) -> bytes:
    """The answer's bytes."""
    ids = orjson.loads(body)["entities"][KEY]
    values = _client.mget([f"{_prefix}i{len(str(each))}:{each}}}" for each in ids])
    rows = [None if value is None else _decode(value[38:-4]) for value in values]
    return orjson.dumps({"features": list(FEATURES), "rows": rows})


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[Any]:
    """The same as a WSGI application."""
    answer = read(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def _view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(read(request.body), content_type="application/json")


urlpatterns = [path("django", _view)]


def _django() -> WSGIHandler:
    settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, MIDDLEWARE=[], LOGGING_CONFIG=None)
    django.setup()
    return WSGIHandler()


class Application:
    """The WSGI application; Django is set up when the server makes it, not when this module is imported."""

    def __init__(self) -> None:
        self._django = _django()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[Any]:
        return (bare if environ["PATH_INFO"] == "/bare" else self._django)(environ, start_response)


def make() -> Application:
    """What a server that takes a factory calls."""
    return Application()
