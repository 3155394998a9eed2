"""Failed logins are counted by name and address, and beyond a limit further ones are refused for a while.

Five failures of a name from an address, twenty of names that do not exist, or fifty of whatever names from one address
(many names with one password each) within a quarter of an hour: further logins of that kind are refused, right ones
too, until it is over. Other addresses are not hit, so that nobody locks another out from afar. A login that succeeds
forgets the failures of its name and address.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AbstractBaseUser, User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import F, Sum
from django.http import HttpRequest
from django.utils import timezone
from unfold.forms import AuthenticationForm

from catalog import refusals
from catalog.models import FailedLogin, Reason

WINDOW = timedelta(minutes=15)
OF_A_NAME, OF_UNKNOWN_NAMES, OF_AN_ADDRESS = 5, 20, 50


def locked_until(name: str, address: str, *, now: datetime) -> datetime | None:
    """The moment from which logins of the name are taken from the address again; None when they are now."""
    known = _known_name(name)
    recent = FailedLogin.objects.filter(address=address, since__gt=now - WINDOW)
    of_name = recent.filter(name=known).first()
    if of_name is not None and of_name.failures >= (OF_A_NAME if known else OF_UNKNOWN_NAMES):
        return of_name.since + WINDOW
    if (recent.aggregate(all=Sum("failures"))["all"] or 0) >= OF_AN_ADDRESS:
        return recent.latest("since").since + WINDOW
    return None


def record_failure(name: str, address: str, *, now: datetime) -> None:
    """Count one more; a count that is older than the window begins again, and what is older than a day goes."""
    FailedLogin.objects.filter(since__lte=now - timedelta(days=1)).delete()
    with transaction.atomic():
        found, is_new = FailedLogin.objects.select_for_update().get_or_create(
            name=_known_name(name), address=address, defaults={"since": now, "failures": 1}
        )
        if is_new:
            return
        begun = found.since > now - WINDOW
        changes = {"failures": F("failures") + 1} if begun else {"failures": 1, "since": now}
        FailedLogin.objects.filter(pk=found.pk).update(**changes)


def _known_name(name: str) -> str:
    return name if "\0" not in name and User.objects.filter(username=name).exists() else ""


class LimitedBackend(ModelBackend):
    """Django's own check of a password, which is not asked while logins of the name are refused."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        address = refusals.address_of(request)
        if username is not None and locked_until(username, address, now=timezone.now()):
            raise PermissionDenied
        return super().authenticate(request, username=username, password=password, **kwargs)


class LoginForm(AuthenticationForm):
    """The admin's login; it says when there were too many failures, which a right password would not tell."""

    def get_invalid_login_error(self) -> ValidationError:
        now = timezone.now()
        until = locked_until(self.cleaned_data.get("username") or "", refusals.address_of(self.request), now=now)
        if until is None:
            return super().get_invalid_login_error()
        minutes = math.ceil((until - now) / timedelta(minutes=1))
        return ValidationError(f"Too many failed logins; try again in {minutes} min.", code="locked")


def connect() -> None:
    """Listen to logins."""
    user_login_failed.connect(_on_failure, dispatch_uid="catalog.logins")
    user_logged_in.connect(_on_success, dispatch_uid="catalog.logins")


def _on_failure(credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    name, address, now = str(credentials.get("username") or ""), refusals.address_of(request), timezone.now()
    if locked_until(name, address, now=now):  # what is refused unasked says nothing of a password
        refusals.count(Reason.LOGIN_LOCKED, request, about=_known_name(name))
        return
    record_failure(name, address, now=now)
    refusals.count(Reason.LOGIN, request, about=_known_name(name))


def _on_success(request: HttpRequest | None, user: AbstractBaseUser, **_: Any) -> None:
    FailedLogin.objects.filter(name=user.get_username(), address=refusals.address_of(request)).delete()
