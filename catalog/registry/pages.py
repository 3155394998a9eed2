"""Pages of a list by what tells its things from one another: what is added meanwhile moves nothing to another page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode

import orjson
from django.db.models import Q, QuerySet

from engine.errors import InvalidInput, Problem

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_LONGEST_CURSOR = 1000
_FORWARDS, _BACKWARDS = "after", "before"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two things: what comes after, or before, the one with these values."""

    direction: str
    values: tuple[str | int, ...]

    def text(self) -> str:
        return base64.urlsafe_b64encode(orjson.dumps([self.direction, *self.values])).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows in the order of their list, and where the pages beside it begin."""

    rows: list[Any]
    next: Cursor | None
    previous: Cursor | None


def limit_of(text: str | None) -> int:
    """How many on a page; raises InvalidInput."""
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MAX_LIMIT):
        detail = f"is a number from 1 to {MAX_LIMIT}"
        raise InvalidInput(f"limit {detail}; got {text[:100]!r}.", [Problem("limit", detail)])
    return int(text)


def cursor_of(text: str | None, order: Sequence[str]) -> Cursor | None:
    """The place that `next` or `previous` of a page has named; raises InvalidInput for any other text."""
    if text is None:
        return None
    try:
        if len(text) > _LONGEST_CURSOR:
            raise ValueError("longer than any")
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        read = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        direction, values = (read[0], read[1:]) if isinstance(read, list) and read else ("", [])
    except (ValueError, binascii.Error) as error:
        raise _no_cursor() from error
    is_place = len(values) == len(order) and all(map(_may_be, order, values))
    if direction not in (_FORWARDS, _BACKWARDS) or not is_place:
        raise _no_cursor()
    return Cursor(direction, tuple(values))


def _may_be(field: str, value: object) -> bool:
    """Whether a field could have the value, and the database can compare them."""
    if field in ("version", "pk"):
        return type(value) is int and 0 <= value < 2**31
    return isinstance(value, str) and "\0" not in value


def _no_cursor() -> InvalidInput:
    detail = "is what the `next` or `previous` of a page of this list has"
    return InvalidInput(f"cursor {detail}.", [Problem("cursor", detail)])


def page_of(rows: QuerySet[Any], order: Sequence[str], *, cursor: Cursor | None, limit: int) -> Page:
    """A page of rows that `order` tells apart, which are in that order."""
    backwards = cursor is not None and cursor.direction == _BACKWARDS
    if cursor is not None:
        rows = rows.filter(_beyond(order, cursor.values, "lt" if backwards else "gt"))
    if backwards:
        rows = rows.reverse()
    found = list(rows[: limit + 1])
    has_more, found = len(found) > limit, found[:limit]
    if backwards:
        found.reverse()
    values = [attrgetter(field.replace("__", ".")) for field in order]

    def beside(row: Any, direction: str) -> Cursor:
        return Cursor(direction, tuple(value(row) for value in values))

    if not found:
        return Page([], None, None)
    is_followed = backwards or has_more
    is_preceded = has_more if backwards else cursor is not None
    return Page(
        found,
        next=beside(found[-1], _FORWARDS) if is_followed else None,
        previous=beside(found[0], _BACKWARDS) if is_preceded else None,
    )


def _beyond(order: Sequence[str], values: Sequence[str | int], comparison: str) -> Q:
    """What comes after (`gt`) or before (`lt`) the thing with these values: equal up to a field, then beyond."""
    beyond = Q()
    for index, field in enumerate(order):
        equal = dict(zip(order[:index], values[:index], strict=True))
        beyond |= Q(**equal, **{f"{field}__{comparison}": values[index]})
    return beyond


def link(address: str, given: dict[str, str], cursor: Cursor | None) -> str | None:
    """The address of the page beside one, which was asked for with the parameters `given`."""
    return None if cursor is None else f"{address}?{urlencode(given | {'cursor': cursor.text()})}"
