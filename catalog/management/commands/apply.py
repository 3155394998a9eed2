"""`manage.py apply`: make the catalog what definitions files say."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog import definitions
from catalog.commands import FeaturehubCommand
from catalog.management.commands.plan import described


class Command(FeaturehubCommand):
    help = "Make the catalog what definitions files say, all or nothing; what they do not name stays untouched."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="Definitions files, read as one; - is stdin.")
        parser.add_argument("--prune", action="store_true", help="Archive features that a named group no longer has.")

    def run(self, **options: Any) -> None:
        applied = definitions.apply(options["files"], prune=options["prune"])
        if options["json"]:
            self.print_json(applied.as_json())
        else:
            self.stdout.write(described(applied, self.style))
