"""`manage.py scrub [GROUP]`: compare offline files with what was committed; exit 1 when one is damaged."""

from __future__ import annotations

from getpass import getuser
from typing import Any

from django.core.management.base import CommandError, CommandParser

from catalog.commands import FeaturehubCommand
from engine.offline.scrub import Damage
from ingestion import upkeep


class Command(FeaturehubCommand):
    help = "Compare every offline file with what was committed and name the damaged ones, as beat does daily."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group", nargs="?", help="One group; every one by default.")
        parser.add_argument(
            "--accept-loss", action="store_true", help="Go on without the damaged files of GROUP: their rows are lost."
        )

    def run(self, **options: Any) -> int | None:
        if options["accept_loss"]:
            self._accept_loss(options)
            return None
        found = {group.name: upkeep.scrub(group) for group in upkeep.groups(options["group"])}
        self._print(found, options, "damaged")
        return 1 if any(found.values()) else None

    def _accept_loss(self, options: dict[str, Any]) -> None:
        if options["group"] is None:
            raise CommandError("--accept-loss needs the GROUP whose loss is accepted.", returncode=2)
        (group,) = upkeep.groups(options["group"])
        self._print({group.name: upkeep.accept_loss(group, by=getuser())}, options, "given up")

    def _print(self, found: dict[str, list[Damage]], options: dict[str, Any], what: str) -> None:
        if options["json"]:
            files = [
                {"group": group, "path": d.path, "detail": d.detail} for group, each in found.items() for d in each
            ]
            self.print_json({"groups": list(found), "damaged": files})
            return
        for group, damages in found.items():
            self.stdout.write(f"{group}: {len(damages)} files {what}" if damages else f"{group}: whole")
            for damage in damages:
                self.stdout.write(f"  {damage.path}: {damage.detail}")
