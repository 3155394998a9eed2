"""Everything that is refused is counted by its reason and logged: in memory first, so that a refusal costs no write."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from datetime import date
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from catalog.logged_paths import without_id
from catalog.models.refusal import Reason, Refusal
from catalog.request_id import current_request_id

if TYPE_CHECKING:  # DRF loads this module while it loads its own views
    from rest_framework.request import Request

log = logging.getLogger(__name__)

_counts: Counter[tuple[date, str]] = Counter()
_lock = threading.Lock()


def count(reason: str, request: Request | HttpRequest | None, *, about: str = "") -> None:
    """Count a refusal and log it. `about` says whose it is, such as a key's public id; never a secret."""
    with _lock:
        _counts[timezone.now().date(), reason] += 1
    where = f"{request.method} {without_id(request.path)!r}" if request is not None else "no request"
    log.warning(
        "request %s: refused (%s), %s from %s%s",
        current_request_id(),
        reason,
        where,
        address_of(request) or "an unknown address",
        f", {about!r}" if about else "",
    )


def record() -> None:
    """Add what was counted since the last call to the table, in one transaction; what it cannot write is kept.

    Called by one thread of a process at a time.
    """
    with _lock:
        counted = dict(_counts)
    if not counted:
        return
    with transaction.atomic():
        for (day, reason), number in counted.items():
            Refusal.objects.get_or_create(day=day, reason=reason)
            Refusal.objects.filter(day=day, reason=reason).update(count=F("count") + number)
    with _lock:
        _counts.subtract(counted)
        for written in [what for what, number in _counts.items() if number == 0]:
            del _counts[written]


def forget() -> None:
    """Have counted nothing, as a process that has just begun."""
    with _lock:
        _counts.clear()


def address_of(request: Request | HttpRequest | Any) -> str:
    """The address that a request came from, in its canonical text; empty where there is none.

    Behind a proxy it is the last of X-Forwarded-For, the one that the proxy saw itself, if it is trusted to add it
    (`FEATUREHUB_TRUST_FORWARDED_FOR`); those before it are the caller's own words.
    """
    if request is None:
        return ""
    text = request.META.get("REMOTE_ADDR", "")
    if settings.FEATUREHUB_TRUST_FORWARDED_FOR and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR")):
        text = forwarded.rpartition(",")[2].strip()
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


__all__ = ["Reason", "address_of", "count", "forget", "record"]
