"""Paths in the log without the ids of entities, which stand in them."""

from __future__ import annotations

import logging
import re

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
            record.args = tuple(without_id(each) if isinstance(each, str) else each for each in record.args)
        return True
