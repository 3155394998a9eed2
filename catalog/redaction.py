"""Texts without secrets: keys, passwords in URLs, and what the settings hold, wherever in a log line they stand."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import quote, unquote, urlsplit

from django.conf import settings

MASK = "***"
#: A shorter secret is a word like others: masking it would spoil the log and tell what it is.
SHORTEST_SECRET = 8

_PATTERNS = (
    # A key keeps its public id, by which it is found.
    (re.compile(r"\b(fh_[0-9A-Za-z]{8}_)[0-9A-Za-z]+"), rf"\1{MASK}"),
    (re.compile(r"\b(Bearer|Api-Key)\s+[^\s'\",]+", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"(://[^/\s:@]*):[^@\s]+@"), rf"\1:{MASK}@"),
    (
        re.compile(
            r"\b((?:password|passwd|pwd|secret|secret_key|token|api[-_]?key|authorization)[\"']?\s*[=:]\s*[\"']?)"
            r"(?!Bearer|Api-Key)[^\s,\"'&}]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)


def redacted(text: str) -> str:
    """The text with each secret masked.

    >>> redacted("GET /groups?api_key=abc, Authorization: Bearer fh_12345678_secret")
    'GET /groups?api_key=***, Authorization: Bearer ***'
    >>> redacted("postgres://hub:s3cret@db:5432/features does not answer")
    'postgres://hub:***@db:5432/features does not answer'
    """
    for secret in _secrets():
        text = text.replace(secret, MASK)
    for pattern, masked in _PATTERNS:
        text = pattern.sub(masked, text)
    return text


@cache
def _secrets() -> tuple[str, ...]:
    """What the settings hold that is secret, in every spelling that a text may have it; the longest first."""
    urls = [settings.ONLINE_REDIS_URL, settings.BROKER_REDIS_URL, settings.CACHE_REDIS_URL, settings.CELERY_BROKER_URL]
    passwords = [database.get("PASSWORD", "") for database in settings.DATABASES.values()]
    passwords += [urlsplit(url).password or "" for url in urls]
    found = {settings.SECRET_KEY, *passwords}
    spelled = found | {unquote(secret) for secret in found} | {quote(secret, safe="") for secret in found}
    return tuple(sorted((one for one in spelled if len(one) >= SHORTEST_SECRET), key=len, reverse=True))
