"""`manage.py demo`: load the demo's data; again: nothing twice."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from catalog.models import Run
from engine.errors import unknown_name
from featurehub import demo


class Command(FeaturehubCommand):
    help = "Load 69,659 real purchases of a music shop as features of its customers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--follower", default="", help="The login of a person who follows the stories of the demo.")

    def run(self, **options: Any) -> int | None:
        follower = self._follower(options["follower"]) if options["follower"] else None
        loaded = demo.load(self.show_progress if sys.stderr.isatty() else None, follower=follower)
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

    def _follower(self, username: str) -> User:
        known = User.objects.filter(is_active=True)
        found = known.filter(username=username).first()
        if found is None:
            raise unknown_name("person", username, known.values_list("username", flat=True))
        return found

    def show_progress(self, run: Run) -> None:
        self.stderr.write(f"\r{run.group.name}: {run.rows_read:,} rows", ending="")
