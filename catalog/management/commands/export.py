"""`manage.py export`: the catalog as a definitions file."""

from __future__ import annotations

from typing import Any

from catalog import definitions
from catalog.commands import FeaturehubCommand


class Command(FeaturehubCommand):
    help = "Print the whole catalog as a definitions file; --json prints the same as JSON."

    def run(self, **options: Any) -> None:
        if options["json"]:
            self.print_json(definitions.exported())
        else:
            self.stdout.write(definitions.export(), ending="")
