"""`manage.py upkeep [GROUP]`: put small offline files together, and remove those that nobody needs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from catalog.models import TrainingDataset
from engine.errors import FeaturehubError
from ingestion import upkeep


class Command(FeaturehubCommand):
    help = "Put small files of the offline tables together and remove those that nobody needs, as beat does too."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group", nargs="?", help="One group; every one by default.")

    def run(self, **options: Any) -> int | None:
        done, failed, kept_files = [], 0, TrainingDataset.kept_files()
        for group in upkeep.groups(options["group"]):
            try:
                kept = upkeep.upkeep(group, kept_files=kept_files)
            except FeaturehubError as error:
                self.stderr.write(f"{group.name}: {error}")
                failed += 1
                continue
            done.append({"group": group.name, "compacted": kept.compacted, "removed": len(kept.removed)})
            if not options["json"]:
                self.stdout.write(f"{group.name}: {kept.compacted:,} files put together, {len(kept.removed):,} removed")
        left = [] if options["group"] else upkeep.remove_left_datasets()
        if options["json"]:
            self.print_json({"groups": done, "failed": failed, "datasets_removed": len(left)})
        elif left:
            self.stdout.write(f"{len(left):,} folders left of training datasets removed")
        return 1 if failed else None
