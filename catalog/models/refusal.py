"""What was refused, how often; and failed logins, which have a limit."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Reason(models.TextChoices):
    """Why a request or a login was refused; the answer does not tell what is wrong with a key."""

    NO_KEY = "no_key", "no key"
    MALFORMED_KEY = "malformed_key", "not a key at all, or a mistyped one"
    UNKNOWN_KEY = "unknown_key", "a key that was never made"
    WRONG_SECRET = "wrong_secret", "a known key with another secret, or with one that was rotated away"
    REVOKED_KEY = "revoked_key", "a revoked key"
    EXPIRED_KEY = "expired_key", "an expired key"
    OWNER_INACTIVE = "owner_inactive", "a key of somebody who is deactivated"
    SCOPE = "scope", "a key or a person without the right"
    GROUP = "group", "the right, but not for these feature groups"
    PII = "pii", "values about persons without pii:read"
    RATE = "rate", "a key that asks faster than its limit"
    SESSION = "session", "a session without the CSRF token"
    PAGE = "page", "a page of the admin"
    LOGIN = "login", "a failed login"
    LOGIN_LOCKED = "login_locked", "a login after too many failed ones"


class Refusal(models.Model):
    """How often something was refused for one reason on one UTC day; written some seconds late."""

    day = models.DateField()
    reason = models.CharField(max_length=20, choices=Reason)
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["-day", "reason"]
        constraints = [
            models.UniqueConstraint(fields=["day", "reason"], name="refusal_is_one_a_day"),
            models.CheckConstraint(condition=Q(reason__in=Reason.values), name="refusal_reason_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.reason}"


class FailedLogin(models.Model):
    """Failed logins of one name from one address, counted since `since`; catalog/logins.py says what they lead to.

    name: a login that exists; empty for all that do not, since people type passwords into the wrong field.
    """

    name = models.CharField(max_length=150, blank=True)
    address = models.CharField(max_length=45)
    failures = models.PositiveIntegerField(default=0)
    since = models.DateTimeField()

    class Meta:
        ordering = ["-since"]
        constraints = [models.UniqueConstraint(fields=["name", "address"], name="failedlogin_is_one_a_pair")]

    def __str__(self) -> str:
        return f"{self.name or 'unknown names'} from {self.address}"
