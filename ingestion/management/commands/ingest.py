"""`manage.py ingest GROUP`: one run over what is new in the group's source, with its progress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from catalog.models import Run
from ingestion.ingest import Progress, ingest
from ingestion.push import find_group

SOME_QUARANTINED = 3


class RunCommand(FeaturehubCommand):
    """A command that carries out a run, and tells what became of it."""

    def tell(self, run: Run, *, as_json: bool) -> int:
        """Print an ended run; the command's exit code."""
        if as_json:
            self.print_json(run.summary())
        else:
            self.print_run(run)
        return SOME_QUARANTINED if run.rows_quarantined else 0

    def progress(self) -> Progress | None:
        return self.show_progress if sys.stderr.isatty() else None

    def show_progress(self, run: Run) -> None:
        share = f"{run.bytes_read / run.bytes_total:4.0%}" if run.bytes_total else ""
        self.stderr.write(f"\r{run.group.name}: {run.rows_read:,} rows {share}", ending="")

    def print_run(self, run: Run) -> None:
        if sys.stderr.isatty():
            self.stderr.write("")
        self.stdout.write(
            f"{run.group.name}: read {run.rows_read:,}, accepted {run.rows_accepted:,}, "
            f"quarantined {run.rows_quarantined:,} in {run.duration_seconds:.1f} s"
        )
        if run.message:
            self.stdout.write(run.message)
        for rule in run.quarantined.all():
            self.stdout.write(f"  quarantined {rule.row_count:,}: {rule.column} {rule.rule}: {rule.detail}")
        if run.rows_suppressed:
            self.stdout.write(f"  not taken {run.rows_suppressed:,}: of entities that were erased")
        for warning in run.warnings:
            self.stdout.write(f"  kept {warning['rows']:,}: {warning['column']} {warning['rule']}: {warning['detail']}")


class Command(RunCommand):
    help = "Ingest what is new in a group's source. Exits 0, 1 when it failed, 3 when some rows were quarantined."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group")
        parser.add_argument("--from", dest="path", type=Path, help="Read this file instead of the group's source.")
        parser.add_argument(
            "--on-error",
            choices=["quarantine", "reject"],
            default="quarantine",
            help="Keep bad rows apart (default), or fail the run when there is one.",
        )

    def run(self, **options: Any) -> int | None:
        run = ingest(
            find_group(options["group"]),
            paths=[options["path"]] if options["path"] else None,
            on_error=options["on_error"],
            by="command",
            progress=self.progress(),
        )
        return self.tell(run, as_json=options["json"])
