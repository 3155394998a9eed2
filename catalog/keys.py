"""API keys: how they are made, rotated, ended and recognised.

A key reads `fh_<public id>_<secret><checksum>`: the id finds its row, the SHA-256 of the secret is compared, and
the CRC-32 at the end lets a mistyped key be refused without a look-up. The secret has 238 random bits, so a fast
hash is enough; it is shown once and cannot be recovered.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import threading
import time
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from catalog.actions import SCOPES, Caller, Limit
from catalog.models import ApiKey, FeatureGroup, Reason
from engine.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, Problem, near_names

LONGEST_NAME = 100  # as the column has it, which PostgreSQL holds us to
#: Beyond these a limit is none, and the columns end at 2**31.
MOST_PER_SECOND = 1_000_000
#: How long a process trusts what it learned of a key: a revoked one stops working within this time.
TRUST_SECONDS = 5.0

_ALPHABET = string.digits + string.ascii_letters
_SECRET_LENGTH = 40
_CHECKSUM_LENGTH = 6
_KEY = re.compile(f"fh_([0-9A-Za-z]{{8}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})")
_TRUSTED_AT_MOST = 10_000


def create_key(
    *,
    name: str,
    scopes: Iterable[str],
    owner: User | None = None,
    groups: Iterable[str] = (),
    expires_at: datetime | None = None,
    requests_per_second: int | None = None,
    burst: int | None = None,
    by: str = "",
) -> tuple[ApiKey, str]:
    """A new key and its text, which is not kept; `groups` limits it to these feature groups, `by` is for its history.

    Without `burst` a limited key may ask for a second's requests at once. Raises InvalidInput saying what is wrong.
    """
    chosen, limited = sorted(set(scopes)), sorted(set(groups))
    check_key(name, chosen, limited, expires_at=expires_at, requests_per_second=requests_per_second, burst=burst)
    public_id, secret = _random(8), _random(_SECRET_LENGTH)
    key = ApiKey(
        name=name,
        public_id=public_id,
        secret_sha256=_sha256(secret),
        scopes=chosen,
        groups=limited,
        owner=owner,
        expires_at=expires_at,
        requests_per_second=requests_per_second,
        burst=burst,
    )
    _save(key, "created", by)
    return key, _text(public_id, secret)


def check_key(
    name: str,
    scopes: Collection[str],
    groups: Collection[str],
    *,
    expires_at: datetime | None = None,
    requests_per_second: int | None = None,
    burst: int | None = None,
) -> None:
    """Raises InvalidInput for what no key can be."""
    if not name.strip() or len(name) > LONGEST_NAME or "\0" in name:
        raise InvalidInput(f"A key's name has 1 to {LONGEST_NAME} characters without U+0000; got {name[:200]!r}.")
    if not scopes or set(scopes) - set(SCOPES):
        raise InvalidInput(f"Scopes are {', '.join(SCOPES)}; got {', '.join(scopes) or 'none'}.")
    if groups:
        _require_known(groups)
    if expires_at is not None and (timezone.is_naive(expires_at) or expires_at <= timezone.now()):
        raise InvalidInput(f"A key expires at a moment to come, with its zone; got {expires_at}.")
    for what, number in {"requests_per_second": requests_per_second, "burst": burst}.items():
        if number is not None and not 1 <= number <= MOST_PER_SECOND:
            raise InvalidInput(f"{what} is a whole number from 1 to {MOST_PER_SECOND}; got {number}.")
    if burst is not None and requests_per_second is None:
        raise InvalidInput("burst belongs to a limit: say requests_per_second too.")


def _require_known(groups: Collection[str]) -> None:
    known = set(FeatureGroup.objects.values_list("name", flat=True))
    if unknown := [name for name in groups if name not in known]:
        problems = [Problem(name, "unknown feature group", near_names(name, known)) for name in unknown]
        raise InvalidInput(f"There is no feature group named {', '.join(unknown)}.", problems)


def rotate_key(public_id: str, *, old_ends_at: datetime, by: str = "") -> tuple[ApiKey, str]:
    """The key with a new secret, and its new text, which is not kept; the old one is taken until `old_ends_at`.

    Raises NotFound; InvalidInput for a naive moment; Conflict for a key that has ended, and while the secret before
    the old one is still taken, unless the old one ends now: then both do.
    """
    if timezone.is_naive(old_ends_at):
        raise InvalidInput(f"The old secret ends at a moment with its zone; got {old_ends_at}.")
    now, secret = timezone.now(), _random(_SECRET_LENGTH)
    with transaction.atomic():
        key = _find(public_id)
        if key.state(now) != "valid":
            raise Conflict(f"{key} is {key.state(now)}; make a new one.")
        if old_ends_at > now and key.old_secret_ends_at and key.old_secret_ends_at > now:
            raise Conflict(
                f"{key} was rotated, and the secret before is taken until {key.old_secret_ends_at:%Y-%m-%d %H:%M} UTC; "
                "wait until then, or let the old one end now."
            )
        key.old_secret_sha256, key.old_secret_ends_at = key.secret_sha256, old_ends_at
        key.secret_sha256, key.rotated_at = _sha256(secret), now
        _save(key, f"rotated, the old secret ends at {old_ends_at:%Y-%m-%d %H:%M} UTC", by)
    _trusted.clear()
    return key, _text(public_id, secret)


def revoke_key(public_id: str, *, by: str = "") -> ApiKey:
    """End a key; every process refuses it within TRUST_SECONDS. Raises NotFound."""
    with transaction.atomic():
        key = _find(public_id)
        if key.revoked_at is None:
            key.revoked_at = timezone.now()
            _save(key, "revoked", by)
    _trusted.clear()
    return key


def _find(public_id: str) -> ApiKey:
    """The key, locked until the transaction ends."""
    known = ApiKey.objects.select_for_update()
    key = known.filter(public_id=public_id).first() if "\0" not in public_id else None
    if key is None:
        raise NotFound(f"There is no key with the id {public_id!r}.")
    return key


def _save(key: ApiKey, change: str, by: str) -> None:
    key._change_reason = (f"{change} by {by}" if by else change)[:100]  # type: ignore[attr-defined]
    key.save()


# -- Recognising


@dataclass(frozen=True, slots=True)
class _Trusted:
    caller: Caller
    until: float  # on the monotonic clock


_trusted: dict[str, _Trusted] = {}
_lock = threading.Lock()
#: The keys that were used since that was last recorded, and the day that was recorded of each.
_used: set[str] = set()
_recorded: dict[str, date] = {}


def caller_of(text: str) -> Caller:
    """Whom a key's text belongs to; raises NotAuthenticated, saying the same whatever is wrong with it."""
    digest = _sha256(text)
    known = _trusted.get(digest)
    if known is None or known.until <= time.monotonic():
        known = _look_up(text)
        with _lock:
            if len(_trusted) >= _TRUSTED_AT_MOST:
                _trusted.clear()
            _trusted[digest] = known
    _used.add(known.caller.key_id)
    return known.caller


def forget() -> None:
    """Trust no key, as a process that has just begun."""
    _trusted.clear()
    _used.clear()
    _recorded.clear()


def _look_up(text: str) -> _Trusted:
    parts = _KEY.fullmatch(text)
    if parts is None:
        raise _refused(Reason.MALFORMED_KEY)
    public_id, secret, checksum = parts.groups()
    if checksum != _checksum(public_id + secret):
        raise _refused(Reason.MALFORMED_KEY)
    key = ApiKey.objects.filter(public_id=public_id).select_related("owner").first()
    if key is None:
        raise _refused(Reason.UNKNOWN_KEY, public_id)
    now, digest = timezone.now(), _sha256(secret)
    ends = [key.expires_at]
    if not hmac.compare_digest(key.secret_sha256, digest):
        if not hmac.compare_digest(key.old_secret_sha256, digest):
            raise _refused(Reason.WRONG_SECRET, public_id)
        ends.append(key.old_secret_ends_at)
    if key.revoked_at is not None:
        raise _refused(Reason.REVOKED_KEY, public_id)
    if key.owner is not None and not key.owner.is_active:
        raise _refused(Reason.OWNER_INACTIVE, public_id)
    seconds_left = min([(end - now).total_seconds() for end in ends if end is not None], default=TRUST_SECONDS)
    if seconds_left <= 0:
        has_expired = key.expires_at is not None and key.expires_at <= now
        raise _refused(Reason.EXPIRED_KEY if has_expired else Reason.WRONG_SECRET, public_id)
    return _Trusted(_caller(key), time.monotonic() + min(seconds_left, TRUST_SECONDS))


def _refused(reason: str, public_id: str = "") -> NotAuthenticated:
    """The same answer whatever the reason, which is counted."""
    error = NotAuthenticated("The API key is not valid.")
    error.reason, error.about = reason, f"key:{public_id}" if public_id else ""
    return error


def _caller(key: ApiKey) -> Caller:
    limit = None
    if key.requests_per_second is not None:
        limit = Limit(key.requests_per_second, key.burst or key.requests_per_second)
    groups = frozenset(key.groups) if key.groups else None
    return Caller(key.name, frozenset(key.scopes), groups, limit, key_id=key.public_id)


def record_use() -> int:
    """Write down that the keys seen since the last call were used today (UTC); how many rows that changed.

    Called by a thread of its own (catalog/background.py), so that no request waits for it. A key has one write a day
    and process.
    """
    today = timezone.now().date()
    used = set(_used)
    new = {key_id for key_id in used if _recorded.get(key_id) != today}
    changed = 0
    if new:
        earlier = Q(last_used_on=None) | Q(last_used_on__lt=today)
        changed = ApiKey.objects.filter(earlier, public_id__in=new).update(last_used_on=today)
    _recorded.update(dict.fromkeys(new, today))
    _used.difference_update(used)
    return changed


# -- Texts


def _text(public_id: str, secret: str) -> str:
    return f"fh_{public_id}_{secret}{_checksum(public_id + secret)}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode(errors="surrogateescape")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
