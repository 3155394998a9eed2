"""The clock that raw rows are judged by."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings


def max_clock_skew() -> timedelta:
    """How much later than now an event may be."""
    return timedelta(seconds=settings.FEATUREHUB_MAX_CLOCK_SKEW_SECONDS)
