"""Requests that may be repeated: the same `Idempotency-Key` and request are answered as before and done once.

Near draft-ietf-httpapi-idempotency-key-header: the key is opaque, another request under it is refused, one that
is still under way is waited for, and a request that was refused leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from catalog.models import FeatureGroup
from engine.errors import IdempotencyKeyReused, InvalidInput
from ingestion.models import IdempotencyKey

KEPT_FOR = timedelta(hours=24)

_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Repeatable:
    """One request as its repetition is told from another: who sent it where under which key, and what it says."""

    principal: str
    route: str
    key: str
    request_sha256: str

    def find(self, group: FeatureGroup) -> IdempotencyKey | None:
        """What was accepted under this key in the last day; raises IdempotencyKeyReused when it was something else."""
        found = self._same_key(group).select_related("batch").first()
        if found is None or found.created_at <= timezone.now() - KEPT_FOR:
            return None
        if found.request_sha256 != self.request_sha256:
            raise IdempotencyKeyReused(
                f"This Idempotency-Key was used for another request to {group.name}; use a new one."
            )
        return found

    def claim(self, group: FeatureGroup) -> tuple[IdempotencyKey, bool]:
        """The record of this key and whether the caller's transaction made it; call before any other write of it.

        Where another transaction has made it and not ended yet, this waits for its end: on PostgreSQL for the unique
        index, on SQLite for the write lock, which the caller's transaction holds by now.
        """
        self._same_key(group).filter(created_at__lte=timezone.now() - KEPT_FOR).delete()
        try:
            with transaction.atomic():
                made = IdempotencyKey.objects.create(
                    principal=self.principal,
                    route=self.route,
                    group=group,
                    key=self.key,
                    request_sha256=self.request_sha256,
                )
            return made, True
        except IntegrityError:
            if (found := self.find(group)) is None:
                raise
            return found, False

    def _same_key(self, group: FeatureGroup) -> QuerySet[IdempotencyKey]:
        return IdempotencyKey.objects.filter(principal=self.principal, route=self.route, group=group, key=self.key)


def check_key(text: str) -> str:
    """The key as it stands; raises InvalidInput unless it is 1 to 255 visible ASCII characters."""
    if not _KEY.fullmatch(text):
        raise InvalidInput(
            f"An Idempotency-Key is 1 to 255 visible ASCII characters without spaces; got {len(text)} characters."
        )
    return text


def fingerprint(*parts: bytes) -> str:
    """The SHA-256 of what a request says; no two lists of parts share what is hashed.

    >>> fingerprint(b"ab", b"c") == fingerprint(b"a", b"bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def forget_expired() -> int:
    """Delete the keys that are older than a day; how many."""
    return IdempotencyKey.objects.filter(created_at__lte=timezone.now() - KEPT_FOR).delete()[0]
