"""Request bodies as strict JSON: what two readers could understand differently is refused."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
from django.http import HttpRequest
from django.http.request import RawPostDataException
from rest_framework.request import Request

from engine.errors import InvalidInput, Problem, TooLarge, UnsupportedMediaType

MAX_BYTES = 10 << 20
_DOUBTFUL = object()
#: Every digit as `0`, so that a long number is a run of one character: a pattern takes ten times as long to find it.
_ALL_ZEROS, _LONG_NUMBER = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19
_HALF_OF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # may be one of a whole pair, too


def read_object(request: Request | HttpRequest, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object of a request body of at most `limit` bytes, whatever its content type says.

    Raises TooLarge, or InvalidInput for what is not JSON: NaN, Infinity, a repeated key, nesting without end.
    """
    return parse_object(read_body(request, limit=limit))


def parse_object(body: bytes) -> dict[str, Any]:
    """One strict JSON object; see `parse_json`."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise InvalidInput(f"The body is a JSON object; got {_kind(document)}.")
    return document


def read_body(request: Request | HttpRequest, *, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a request body, declared or chunked; no more than `limit` and one are ever read.

    Raises TooLarge, UnsupportedMediaType for an encoded body, InvalidInput for one that ends before its declared
    length.
    """
    raw = request._request if isinstance(request, Request) else request
    _refuse_encodings(raw)
    declared = declared_length(raw.META)
    if declared > limit:
        raise TooLarge(f"A body has at most {limit} bytes.")
    try:
        body: bytes = _stream(raw).read(limit + 1)
    except (OSError, RawPostDataException) as error:
        raise InvalidInput("The body ended before its declared length.") from error
    if len(body) > limit:
        raise TooLarge(f"A body has at most {limit} bytes.")
    if len(body) < declared:
        raise InvalidInput("The body ended before its declared length.")
    return body


def _refuse_encodings(raw: HttpRequest) -> None:
    encoding = raw.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType("Bodies are read as they are; send this one without a Content-Encoding.")


def declared_length(environ: Mapping[str, Any]) -> int:
    """The length that a request says; 0 where it says none."""
    declared = environ.get("CONTENT_LENGTH") or "0"
    return int(declared[:20]) if declared.isascii() and declared.isdecimal() else 0


def _stream(raw: HttpRequest) -> Any:
    """What the body is read from. Django reads nothing without a declared length, since not every server ends the
    stream where the body ends; one that says that it does is taken at its word."""
    is_chunked = "chunked" in raw.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    return raw.META["wsgi.input"] if is_chunked and raw.META.get("wsgi.input_terminated") else raw


def parse_json(body: bytes) -> Any:
    """One strict JSON document in UTF-8; raises InvalidInput saying what is not JSON about it.

    Numbers are what they are written as: a float too large is infinite, and so is an integer of more digits than Python
    converts, so that whoever gets them names the place.
    """
    document = _plain(body)
    return _judged(body) if document is _DOUBTFUL else document


def _plain(body: bytes) -> Any:
    """What a quick reader makes of a body in which nothing is doubtful: most bodies are so, and it takes a tenth.

    It takes the last of two equal keys and rounds integers beyond 64 bits, silently. Without an escape each colon of
    the body stands behind a key or in a string, so that what it has left out shows in their number.
    """
    if b"\\" in body or _LONG_NUMBER in body.translate(_ALL_ZEROS):
        return _DOUBTFUL
    try:
        document = orjson.loads(body)
        written = orjson.dumps(document)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # it reads what is nested deeper than it writes
        return _DOUBTFUL
    return document if written.count(b":") == body.count(b":") else _DOUBTFUL


def _judged(body: bytes) -> Any:
    """The same by a reader that shows every pair of an object; see `parse_json`."""
    try:
        text = body.decode()
        document = _parsed(text)
        if _HALF_OF_A_PAIR.search(text):
            _refuse_half_characters(document)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The body is not UTF-8: byte {error.start}.") from error
    except RecursionError as error:
        raise InvalidInput("The body is nested too deeply.") from error
    except ValueError as error:
        raise InvalidInput(f"The body is not JSON: {error}.") from error
    return document


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more digits than Python converts; a second reading, since hooks cost time
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_bounded_int)


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= sys.get_int_max_str_digits() else float(digits)


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
    if required <= document.keys() <= required | optional:
        return
    problems = [Problem(f"/{name}", "is missing") for name in sorted(required - document.keys())]
    problems += [Problem(f"/{name}", "is not known") for name in sorted(document.keys() - required - optional)]
    known = ", ".join(sorted(required | optional))
    raise InvalidInput(f"The body's keys are {known}.", problems)
