"""Which text is an instant: one grammar for CSV fields, JSON values and CAST, that of RFC 3339 without leap seconds.

An offset is needed, at most six decimals of a second count, and the years are 1 to 9999, in the text and in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import polars as pl

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Written for the regexes of both Polars and Python.
_GRAMMAR = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6}0{0,3})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_TEXT = re.compile(_GRAMMAR)
_FORMAT = "%Y-%m-%dT%H:%M:%S%.f%:z"


def microseconds(instant: datetime) -> int:
    """Whole microseconds since 1970 of an aware datetime."""
    return (instant - EPOCH) // _MICROSECOND


FIRST = microseconds(datetime.min.replace(tzinfo=UTC))
LAST = microseconds(datetime.max.replace(tzinfo=UTC))


def rfc3339(microseconds: int) -> str:
    """Microseconds since 1970, FIRST to LAST, as RFC 3339 in UTC, with a fraction only where there is one.

    >>> rfc3339(0), rfc3339(1_500_000)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.500000Z')
    """
    return (EPOCH + microseconds * _MICROSECOND).isoformat().replace("+00:00", "Z")


def read(text: str) -> datetime | None:
    """The aware datetime that the text is; None if it is none. Its instant may be out of range by its offset."""
    if not _TEXT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:  # a day that the calendar does not have
        return None


def read_column(text: pl.Expr) -> pl.Expr:
    """The instants that texts are, in microseconds and UTC; null where one is none."""
    plain = text.str.replace("[Zz]$", "+00:00").str.replace("[t ]", "T")
    parsed = plain.str.to_datetime(_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    # The offset may carry the years 1 and 9999 out of range; year 0 is Polars', not RFC 3339's.
    is_instant = text.str.contains(f"^(?:{_GRAMMAR})$") & ~text.str.starts_with("0000")
    return pl.when(is_instant & parsed.to_physical().is_between(FIRST, LAST)).then(parsed)
