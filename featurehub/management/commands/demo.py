"""`manage.py demo`: load the demo's data; again: nothing twice."""

from __future__ import annotations

import sys
from typing import Any

from catalog.commands import FeaturehubCommand
from catalog.models import Run
from featurehub import demo


class Command(FeaturehubCommand):
    help = "Load 69,659 real purchases of a music shop as features of its customers."

    def run(self, **options: Any) -> int | None:
        loaded = demo.load(progress=self.show_progress if sys.stderr.isatty() else None)
        run = loaded.run
        if options["json"]:
            self.print_json(run.summary() | {"shift_weeks": loaded.shift_weeks})
        elif run.message:
            self.stdout.write(f"{run.group.name}: {run.message}")
        else:
            self.stdout.write(
                f"{run.group.name}: {run.rows_accepted:,} rows of CDNOW, moved by {loaded.shift_weeks} weeks, "
                f"in {run.duration_seconds:.1f} s"
            )
        if loaded.stories and not options["json"]:
            told = ", ".join(dict.fromkeys(story.subject for story in loaded.stories))
            self.stdout.write(f"Stories (examples/cdnow/README.md): {told}")
        return None

    def show_progress(self, run: Run) -> None:
        self.stderr.write(f"\r{run.group.name}: {run.rows_read:,} rows", ending="")
