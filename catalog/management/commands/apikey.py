"""`manage.py apikey create|list|rotate|revoke`: keys for programs."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta
from getpass import getuser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser
from django.utils import timezone

from catalog import keys
from catalog.actions import SCOPES
from catalog.commands import FeaturehubCommand
from catalog.definitions.durations import read_duration
from catalog.models import ApiKey
from engine.errors import NotFound

KEPT_FOR = "1d"


def duration(text: str) -> timedelta:
    """A duration as definitions write it, or `0`."""
    if text in ("0", "0s"):
        return timedelta(0)
    try:
        read = read_duration(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    if read is None:
        raise ArgumentTypeError("leave it away for none")
    return read


class Command(FeaturehubCommand):
    help = "Make, list, rotate and revoke API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="Make a key; its text is shown once.")
        create.add_argument("name")
        create.add_argument("--scope", dest="scopes", action="append", choices=SCOPES, required=True)
        create.add_argument(
            "--group", dest="groups", action="append", default=[], help="Limit it to this group; may be repeated."
        )
        create.add_argument("--owner", help="The login of who answers for it; it ends with that person.")
        create.add_argument("--expires", type=duration, metavar="90d", help="It is refused after that time.")
        create.add_argument("--rate", type=int, metavar="N", help="Requests per second on average; no limit if absent.")
        create.add_argument("--burst", type=int, metavar="N", help="Requests at once; a second's if absent.")
        actions.add_parser("list", help="Every key, without its secret.")
        rotate = actions.add_parser("rotate", help="Give a key a new secret; its text is shown once.")
        rotate.add_argument("public_id")
        rotate.add_argument(
            "--keep-old",
            type=duration,
            default=KEPT_FOR,
            metavar="12h",
            help=f"How long the old text works too; {KEPT_FOR} if absent, 0 for not at all.",
        )
        actions.add_parser("revoke", help="End a key.").add_argument("public_id")

    def run(self, **options: Any) -> int | None:
        answer = getattr(self, options["action"])(**options)
        if options["json"]:
            self.print_json(answer)
        return None

    def create(
        self,
        *,
        name: str,
        scopes: list[str],
        groups: list[str],
        owner: str | None,
        expires: timedelta | None,
        rate: int | None,
        burst: int | None,
        json: bool,
        **_: Any,
    ) -> dict[str, Any]:
        key, text = keys.create_key(
            name=name,
            scopes=scopes,
            groups=groups,
            owner=None if owner is None else _person(owner),
            expires_at=None if expires is None else timezone.now() + expires,
            requests_per_second=rate,
            burst=burst,
            by=getuser(),
        )
        return self._with_text(key, text, json=json)

    def rotate(self, *, public_id: str, keep_old: timedelta, json: bool, **_: Any) -> dict[str, Any]:
        key, text = keys.rotate_key(public_id, old_ends_at=timezone.now() + keep_old, by=getuser())
        if not json:
            self.stderr.write(f"The old text of {key.name} works until {key.old_secret_ends_at:%Y-%m-%d %H:%M:%S} UTC.")
        return self._with_text(key, text, json=json)

    def _with_text(self, key: ApiKey, text: str, *, json: bool) -> dict[str, Any]:
        if not json:
            self.stdout.write(text)
            self.stderr.write("Keep it now: only its hash is stored.")
        return summary(key) | {"key": text}

    def list(self, *, json: bool, **_: Any) -> list[dict[str, Any]]:
        known = [summary(key) for key in ApiKey.objects.select_related("owner")]
        if not json:
            for key in known:
                reach = ",".join(key["groups"]) or "every group"
                used = f"used {key['last_used_on'] or 'never'}"
                columns = f"{key['id']}  {key['name']:<24}  {','.join(key['scopes']):<11}"
                self.stdout.write(f"{columns}  {_state(key):<18}  {used:<15}  {reach}")
        return known

    def revoke(self, *, public_id: str, json: bool, **_: Any) -> dict[str, Any]:
        key = keys.revoke_key(public_id, by=getuser())
        if not json:
            self.stdout.write(f"{key.public_id} ({key.name}) is revoked.")
        return summary(key)


def _person(login: str) -> User:
    person = User.objects.filter(username=login).first()
    if person is None:
        raise NotFound(f"Nobody has the login {login!r}.")
    return person


def _state(key: dict[str, Any]) -> str:
    if key["state"] == "valid":
        return "active"
    ended: Any = key["revoked_at"] or key["expires_at"]
    return f"{key['state']} {ended:%Y-%m-%d}"


def summary(key: ApiKey) -> dict[str, Any]:
    """A key as programs read it; nothing in it opens anything."""
    return {
        "id": key.public_id,
        "name": key.name,
        "scopes": key.scopes,
        "groups": key.groups,
        "owner": key.owner.get_username() if key.owner else None,
        "state": key.state(timezone.now()),
        "requests_per_second": key.requests_per_second,
        "burst": key.burst,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "rotated_at": key.rotated_at,
        "old_secret_ends_at": key.old_secret_ends_at,
        "revoked_at": key.revoked_at,
        "last_used_on": key.last_used_on,
    }
