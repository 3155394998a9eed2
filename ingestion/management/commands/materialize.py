"""`manage.py materialize GROUP`: bring the online store up to the offline table."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from ingestion import drain
from ingestion.materialize import ensure_warm, materialize
from ingestion.push import find_group


class Command(FeaturehubCommand):
    help = "Bring rows that arrived offline into the online store; with --full all of them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group")
        parser.add_argument("--full", action="store_true", help="Read the whole table, not only what is new.")

    def run(self, **options: Any) -> int | None:
        group = find_group(options["group"])
        drain.drain(group)
        ensure_warm()
        rows = materialize(group, full=options["full"])
        if options["json"]:
            self.print_json({"group": group.name, "rows": rows})
        else:
            self.stdout.write(f"{group.name}: {rows:,} offline rows brought online")
        return None
