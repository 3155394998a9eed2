"""Durations as people write them: `none`, or a whole number and a unit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

DURATION_RULE = "none, or a whole number and a unit: 90d, 12h, 30m, 10s"
MAX_DURATION = timedelta(days=36_500)

_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}
_DURATION = re.compile(r"([0-9]{1,18})(d|h|m|s|us)")


def read_duration(written: Any) -> timedelta | None:
    """The duration as written; None for none. Raises ValueError saying how durations are written.

    >>> read_duration("90d"), read_duration("none")
    (datetime.timedelta(days=90), None)
    """
    if written is None or written == "none":
        return None
    match = _DURATION.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError(f"{written!r} is not a duration; it is {DURATION_RULE}")
    microseconds = int(match[1]) * _MICROSECONDS[match[2]]
    if not 0 < microseconds <= MAX_DURATION // timedelta(microseconds=1):
        raise ValueError(f"{written} is out of range; a duration is above 0 and at most {MAX_DURATION.days}d")
    return timedelta(microseconds=microseconds)


def written_duration(duration: timedelta | None) -> str | None:
    """The duration in its largest whole unit; microseconds (`us`) only for what no file of people has.

    >>> written_duration(timedelta(hours=48)), written_duration(timedelta(minutes=90))
    ('2d', '90m')
    """
    if duration is None:
        return None
    microseconds = duration // timedelta(microseconds=1)
    unit = next(unit for unit, size in _MICROSECONDS.items() if microseconds % size == 0)
    return f"{microseconds // _MICROSECONDS[unit]}{unit}"
