"""Request bodies as strict JSON: what two readers could understand differently is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from django.http import HttpRequest
from django.http.request import RawPostDataException
from rest_framework.request import Request

from engine.errors import InvalidInput, Problem, TooLarge

MAX_BYTES = 10 << 20
_HALF_OF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # may be one of a whole pair, too


def read_json(request: Request | HttpRequest, *, limit: int = MAX_BYTES) -> Any:
    """The JSON document of a request body of at most `limit` bytes, whatever its content type says.

    Raises TooLarge, or InvalidInput for what is not JSON: NaN, Infinity, a repeated key, nesting without end.
    """
    return parse_json(_body(request, limit))


def read_object(request: Request | HttpRequest, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object of a request body; see `read_json`."""
    document = read_json(request, limit=limit)
    if not isinstance(document, dict):
        raise InvalidInput(f"The body is a JSON object; got {_kind(document)}.")
    return document


def _body(request: Request | HttpRequest, limit: int) -> bytes:
    declared = request.META.get("CONTENT_LENGTH") or "0"
    too_large = TooLarge(f"A body has at most {limit} bytes.")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    try:
        raw = request._request if isinstance(request, Request) else request
        body = raw.read(limit + 1)
    except (OSError, RawPostDataException) as error:
        raise InvalidInput("The body ended before its declared length.") from error
    if len(body) > limit:
        raise too_large
    return body


def parse_json(body: bytes) -> Any:
    """One strict JSON document in UTF-8; raises InvalidInput saying what is not JSON about it."""
    try:
        text = body.decode()
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        if _HALF_OF_A_PAIR.search(text):
            _refuse_half_characters(document)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The body is not UTF-8: byte {error.start}.") from error
    except RecursionError as error:
        raise InvalidInput("The body is nested too deeply.") from error
    except ValueError as error:
        raise InvalidInput(f"The body is not JSON: {error}.") from error
    return document


def _refuse_half_characters(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("The body holds half of a surrogate pair, which is no character.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        twice = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise InvalidInput(f"The body repeats the key {', '.join(map(repr, twice))} in one object.")
    return document


def _refuse_constant(name: str) -> None:
    raise InvalidInput(f"{name} is not JSON; a missing value is null.")


def _kind(document: object) -> str:
    return {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(document), "a number")


def require_keys(document: dict[str, Any], *, required: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Raises InvalidInput listing every key that is missing and every one that is not known."""
    problems = [Problem(f"/{name}", "is missing") for name in sorted(required - document.keys())]
    problems += [Problem(f"/{name}", "is not known") for name in sorted(document.keys() - required - optional)]
    if problems:
        known = ", ".join(sorted(required | optional))
        raise InvalidInput(f"The body's keys are {known}.", problems)
