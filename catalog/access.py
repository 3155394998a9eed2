"""API keys: how they are made, recognised and refused; and the rule that every route needs one.

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
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.http import HttpRequest
from django.utils import timezone
from rest_framework import authentication, permissions

from catalog.models import ApiKey
from engine.errors import InvalidInput, NotAllowed, NotAuthenticated, NotFound

if TYPE_CHECKING:  # DRF loads this module while it loads its own views
    from rest_framework.request import Request
    from rest_framework.views import APIView

READ, WRITE = "read", "write"
SCOPES = (READ, WRITE)
LONGEST_NAME = 100  # as the column has it, which PostgreSQL holds us to

_ALPHABET = string.digits + string.ascii_letters
_SECRET_LENGTH = 40
_CHECKSUM_LENGTH = 6
_KEY = re.compile(f"fh_([0-9A-Za-z]{{8}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})")
#: How long a process trusts what it learned of a key: a revoked one stops working within this time.
TRUST_SECONDS = 5.0
_TRUSTED_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from: a key or a person, and what it may do. `key_id` is the key's public id."""

    name: str
    scopes: frozenset[str]
    is_authenticated: bool = True
    is_active: bool = True
    key_id: str = ""

    def __str__(self) -> str:
        return self.name


ANONYMOUS_READER = Caller("anonymous", frozenset({READ}))


def create_key(*, name: str, scopes: Iterable[str], owner: User | None = None) -> tuple[ApiKey, str]:
    """A new key and its text, which is not kept; raises InvalidInput for a wrong name, an unknown scope or none."""
    if len(name) > LONGEST_NAME or "\0" in name:
        raise InvalidInput(f"A key's name has up to {LONGEST_NAME} characters without U+0000; got {name[:200]!r}.")
    chosen = sorted(set(scopes))
    if not chosen or set(chosen) - set(SCOPES):
        raise InvalidInput(f"Scopes are {' and '.join(SCOPES)}; got {', '.join(chosen) or 'none'}.")
    public_id, secret = _random(8), _random(_SECRET_LENGTH)
    key = ApiKey.objects.create(
        name=name, public_id=public_id, secret_sha256=_sha256(secret), scopes=chosen, owner=owner
    )
    return key, f"fh_{public_id}_{secret}{_checksum(public_id + secret)}"


def revoke_key(public_id: str) -> ApiKey:
    """End a key; every process refuses it within TRUST_SECONDS. Raises NotFound."""
    key = ApiKey.objects.filter(public_id=public_id).first()
    if key is None:
        raise NotFound(f"There is no key with the id {public_id!r}.")
    key.revoked_at = key.revoked_at or timezone.now()
    key.save(update_fields=["revoked_at"])
    _trusted.clear()
    return key


def caller_of(text: str) -> Caller:
    """Whom a key's text belongs to; raises NotAuthenticated, saying the same whatever is wrong with it."""
    digest = _sha256(text)
    known = _trusted.get(digest)
    if known and known[1] > time.monotonic():
        return known[0]
    caller = _look_up(text)
    with _lock:
        if len(_trusted) >= _TRUSTED_AT_MOST:
            _trusted.clear()
        _trusted[digest] = (caller, time.monotonic() + TRUST_SECONDS)
    return caller


_trusted: dict[str, tuple[Caller, float]] = {}
_lock = threading.Lock()


def _look_up(text: str) -> Caller:
    refused = NotAuthenticated("The API key is not valid.")
    parts = _KEY.fullmatch(text)
    if parts is None:
        raise refused
    public_id, secret, checksum = parts.groups()
    if checksum != _checksum(public_id + secret):
        raise refused
    key = ApiKey.objects.filter(public_id=public_id, revoked_at=None).select_related("owner").first()
    if key is None or not hmac.compare_digest(key.secret_sha256, _sha256(secret)):
        raise refused
    if key.owner is not None and not key.owner.is_active:
        raise refused
    return Caller(key.name, frozenset(key.scopes), key_id=key.public_id)


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


class ApiKeyAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer fh_...` or `Api-Key fh_...`; with anonymous reads on, loopback needs none to read."""

    def authenticate(self, request: Request | HttpRequest) -> tuple[Caller, None] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return (ANONYMOUS_READER, None) if _may_read_anonymously(request) else None
        scheme, _, text = header.partition(" ")
        if scheme.lower() not in ("bearer", "api-key"):
            raise NotAuthenticated("Authorization is `Bearer <key>` or `Api-Key <key>`.")
        return caller_of(text.strip()), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _may_read_anonymously(request: Request | HttpRequest) -> bool:
    # A browser that is logged in is itself, not anonymous: the session is tried next.
    if not settings.FEATUREHUB_ANONYMOUS_READS or settings.SESSION_COOKIE_NAME in request.COOKIES:
        return False
    # A proxy on this machine brings everybody's requests from loopback.
    if "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META:
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


class HasScope(permissions.BasePermission):
    """A view names the scope that each of its methods needs in `scopes`; a method that it does not name needs write."""

    def has_permission(self, request: Request | HttpRequest, view: APIView) -> bool:
        user: Caller | AbstractBaseUser | AnonymousUser = request.user
        if not user or not user.is_authenticated:
            raise NotAuthenticated("This needs an API key: `Authorization: Bearer fh_...`.")
        needed = needed_scope(view, request.method or "")
        if needed not in scopes_of(user):
            if user is ANONYMOUS_READER:
                raise NotAuthenticated("Reading needs no key here, this does: `Authorization: Bearer fh_...`.")
            raise NotAllowed(f"This needs the scope {needed!r}; {_name(user)} does not have it.")
        return True


def needed_scope(view: APIView, method: str) -> str:
    """What a method of a view needs: HEAD what GET does; a method that the view does not have is told so to readers."""
    scopes: dict[str, str] = getattr(view, "scopes", {})
    if method == "OPTIONS" or not hasattr(view, method.lower()):
        return READ
    return scopes.get("GET" if method == "HEAD" else method, WRITE)


def scopes_of(user: Caller | AbstractBaseUser | AnonymousUser) -> frozenset[str]:
    """What a caller may do: a key its scopes, a logged-in person reads, staff writes too."""
    if isinstance(user, Caller):
        return user.scopes
    return frozenset(SCOPES) if getattr(user, "is_staff", False) else frozenset({READ})


def principal_of(user: Caller | AbstractBaseUser | AnonymousUser) -> str:
    """Who a caller is, whatever others are called: `key:<public id>` or `user:<number>`."""
    return f"key:{user.key_id}" if isinstance(user, Caller) else f"user:{user.pk}"


def _name(user: Caller | AbstractBaseUser | AnonymousUser) -> str:
    return str(user) if isinstance(user, Caller) else user.get_username()
