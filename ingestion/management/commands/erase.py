"""`manage.py erase ENTITY ID`: take every row of one entity out of every store; its receipt."""

from __future__ import annotations

from getpass import getuser
from typing import Any

from django.core.management.base import CommandError, CommandParser

from catalog.commands import FeaturehubCommand
from catalog.models import Erasure, RunState
from ingestion.erasure import receipt
from ingestion.erasure import run as erasing


class Command(FeaturehubCommand):
    help = "Erase one entity from every store and keep it from coming back; or show the receipts of erasures."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("entity")
        parser.add_argument("id", nargs="?", help="As in a path: join keys joined by commas. Without one: receipts.")
        parser.add_argument("--reason", default="", help="Why; kept in the receipt. Name nobody in it.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would go.")
        parser.add_argument("--receipt", action="store_true", help="Only show the receipts of this id.")

    def run(self, **options: Any) -> int | None:
        entity = erasing.find_entity(options["entity"])
        if options["id"] is None and options["dry_run"]:
            raise CommandError("--dry-run needs an id.", returncode=2)
        if options["dry_run"]:
            self._plan(erasing.plan(entity, options["id"]), as_json=options["json"])
            return None
        if options["id"] is None or options["receipt"]:
            known = erasing.find(entity, options["id"])
            if options["json"]:
                self.print_json([each.summary() for each in known])
            for each in known if not options["json"] else ():
                self._tell(each)
            return None
        erasure = erasing.queue(entity, options["id"], reason=options["reason"], by=getuser())
        erasing.execute(erasure.run)
        return self._done(Erasure.objects.select_related("entity", "run").get(pk=erasure.pk), as_json=options["json"])

    def _plan(self, found: dict[str, dict[str, receipt.Note]], *, as_json: bool) -> None:
        if as_json:
            self.print_json(found)
            return
        for line in receipt.lines(found) or ["nothing"]:
            self.stdout.write(f"would remove {line}")

    def _done(self, erasure: Erasure, *, as_json: bool) -> int:
        if as_json:
            self.print_json(erasure.summary())
        else:
            self._tell(erasure)
        return 0 if erasure.run.state in (RunState.SUCCEEDED, RunState.QUEUED) else 1

    def _tell(self, erasure: Erasure) -> None:
        state = f"gone {erasure.gone_at:%Y-%m-%d %H:%M:%S} UTC" if erasure.gone_at else _state(erasure)
        self.stdout.write(f"{erasure.subject}: {state}")
        asked = (
            f"  asked for by {erasure.run.requested_by or 'nobody named'}, {erasure.created_at:%Y-%m-%d %H:%M:%S} UTC"
        )
        self.stdout.write(asked + (f": {erasure.reason}" if erasure.reason else ""))
        for line in receipt.lines(erasure.receipt):
            self.stdout.write(f"  removed {line}")
        if erasure.rows_suppressed:
            self.stdout.write(f"  kept out since: {erasure.rows_suppressed:,} rows")
        if not erasure.gone_at:
            self.stdout.write(f"  {erasure.run.message or erasure.run.error}")


def _state(erasure: Erasure) -> str:
    """In a word: a queued run that an attempt has ended is waiting for something."""
    is_waiting = erasure.run.state == RunState.QUEUED and erasure.run.message
    return "waiting" if is_waiting else str(erasure.run.state)
