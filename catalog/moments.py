"""How moments and durations are written for people and read from them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.utils.dateparse import parse_duration
from django.utils.duration import duration_string

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WRITTEN = re.compile(r"(\d{1,10})\s*([dhms])")
#: A hundred years: the database counts microseconds in 64 bits and could not hold every timedelta.
_LONGEST = timedelta(days=36_500)


def moment_text(moment: datetime | None) -> str:
    """A UTC moment to the minute, with its zone; a dash for none."""
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "—"


def duration_text(duration: timedelta | None) -> str:
    """A duration in the largest unit that holds it exactly, as definitions files write it.

    >>> duration_text(timedelta(days=90)), duration_text(timedelta(minutes=90)), duration_text(None)
    ('90d', '90m', '')
    """
    if duration is None:
        return ""
    seconds, rest = divmod(duration, timedelta(seconds=1))
    if rest:
        return duration_string(duration)
    return next(f"{seconds // size}{unit}" for unit, size in _SECONDS.items() if seconds % size == 0)


def parse_duration_text(text: str) -> timedelta | None:
    """The duration that `text` writes as `<n>d|h|m|s` or as Django does; None when it is neither, or beyond a century.

    >>> parse_duration_text("36h") == timedelta(days=1.5), parse_duration_text("soon")
    (True, None)
    """
    if match := _WRITTEN.fullmatch(text.strip()):
        seconds = int(match[1]) * _SECONDS[match[2]]
        return timedelta(seconds=seconds) if seconds <= _LONGEST.total_seconds() else None
    try:
        duration = parse_duration(text) if ":" in text else None
    except OverflowError:
        return None
    return duration if duration is not None and abs(duration) <= _LONGEST else None
