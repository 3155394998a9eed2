"""`manage.py apikey create|list|revoke`: keys for programs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog import access
from catalog.commands import FeaturehubCommand
from catalog.models import ApiKey


class Command(FeaturehubCommand):
    help = "Make, list and revoke API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="Make a key; its text is shown once.")
        create.add_argument("name")
        create.add_argument("--scope", dest="scopes", action="append", choices=access.SCOPES, required=True)
        actions.add_parser("list", help="Every key, without its secret.")
        actions.add_parser("revoke", help="End a key.").add_argument("public_id")

    def run(self, **options: Any) -> int | None:
        answer = getattr(self, options["action"])(**options)
        if options["json"]:
            self.print_json(answer)
        return None

    def create(self, *, name: str, scopes: list[str], json: bool, **_: Any) -> dict[str, Any]:
        key, text = access.create_key(name=name, scopes=scopes)
        if not json:
            self.stdout.write(text)
            self.stderr.write("Keep it now: only its hash is stored.")
        return {"id": key.public_id, "name": key.name, "scopes": key.scopes, "key": text}

    def list(self, *, json: bool, **_: Any) -> list[dict[str, Any]]:
        keys = [_summary(key) for key in ApiKey.objects.all()]
        if not json:
            for key in keys:
                state = f"revoked {key['revoked_at']:%Y-%m-%d}" if key["revoked_at"] else "active"
                self.stdout.write(f"{key['id']}  {key['name']:<24}  {','.join(key['scopes']):<11}  {state}")
        return keys

    def revoke(self, *, public_id: str, json: bool, **_: Any) -> dict[str, Any]:
        key = access.revoke_key(public_id)
        if not json:
            self.stdout.write(f"{key.public_id} ({key.name}) is revoked.")
        return _summary(key)


def _summary(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
