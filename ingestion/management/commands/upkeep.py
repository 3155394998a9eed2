"""`manage.py upkeep [GROUP]`: put small offline files together, and remove those that nobody needs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from engine.errors import FeaturehubError
from ingestion import upkeep


class Command(FeaturehubCommand):
    help = "Put small files of the offline tables together and remove those that nobody needs, as beat does too."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group", nargs="?", help="One group; every one by default.")

    def run(self, **options: Any) -> int | None:
        done, failed = [], 0
        for group in upkeep.groups(options["group"]):
            try:
                kept = upkeep.upkeep(group)
            except FeaturehubError as error:
                self.stderr.write(f"{group.name}: {error}")
                failed += 1
                continue
            done.append({"group": group.name, "compacted": kept.compacted, "removed": len(kept.removed)})
            if not options["json"]:
                self.stdout.write(f"{group.name}: {kept.compacted:,} files put together, {len(kept.removed):,} removed")
        if options["json"]:
            self.print_json({"groups": done, "failed": failed})
        return 1 if failed else None
