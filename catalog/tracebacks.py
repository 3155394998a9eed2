"""Errors as the log may have them: where they were raised, with no value of anybody's.

Python's tracebacks have no local variables, but a text such as `could not convert string to float: 'Ada'` quotes one.
Only texts of kinds that speak of code, files and connections are told; of any other error its type and its place.
"""

from __future__ import annotations

import traceback

import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from kombu.exceptions import OperationalError as BrokerDown

from engine.errors import FeaturehubError

#: An error's text that tells of no row; of the hub's own errors that is a rule (engine/errors.py).
_TELLING = (
    *(
        FeaturehubError,
        OSError,
        OperationalError,
        InterfaceError,
        BrokerDown,
        redis.ConnectionError,
        redis.TimeoutError,
    ),
    *(ImproperlyConfigured, SuspiciousOperation, ImportError, AttributeError, NameError, NotImplementedError),
    *(RecursionError, MemoryError),
)
LEFT_OUT = "its text is left out, since it may quote a value"


def said(error: BaseException) -> str:
    """The type of an error, with its text where that cannot have a value in it (and where DEBUG is on)."""
    kind = type(error).__qualname__
    if settings.DEBUG or isinstance(error, _TELLING):
        return f"{kind}: {str(error).strip()}"
    return f"{kind} ({LEFT_OUT})"


def traceback_of(error: BaseException) -> str:
    """The error and those that it came from, the first cause first, as Python writes them."""
    parts: list[str] = []
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        frames = "".join(traceback.format_list(traceback.extract_tb(one.__traceback__)))
        parts.append(f"Traceback (most recent call last):\n{frames}{said(one)}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n\nthen\n\n".join(reversed(parts))
