"""Paths in the log without the ids of entities, which stand in them."""

from __future__ import annotations

import logging
import re

from django.http import HttpRequest

from catalog.log_context import route_of

MASKED = "***"

#: Where a path names an entity's id; that of a feature's metadata names none.
_ID = re.compile(r"^(/features/[^/]+/|/ingest/[^/]+/|/api/v1/groups/[^/]+/rows/)(?![^/]+/metadata/?(\?|$))([^/?]+)")


def without_id(path: str) -> str:
    """The path with its id masked.

    >>> without_id("/features/customer/00002?features=a"), without_id("/features/customer/tenure/metadata")
    ('/features/customer/***?features=a', '/features/customer/tenure/metadata')
    """
    return _ID.sub(rf"\1{MASKED}", path)


class WithoutIds(logging.Filter):
    """Masks the ids in what is logged of a request; every record passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.") and isinstance(record.args, tuple):
            record.args = tuple(_without_id(each, record) for each in record.args)
        return True


def _without_id(told: object, record: logging.LogRecord) -> object:
    """A request's own path as its route's pattern: one that is misspelt may have an id anywhere."""
    if not isinstance(told, str):
        return told
    request = getattr(record, "request", None)
    if isinstance(request, HttpRequest) and told == request.path:
        return route_of(request)
    return without_id(told)
