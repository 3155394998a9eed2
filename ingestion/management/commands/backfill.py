"""`manage.py backfill GROUP`: a group's version computed over the history of an older one."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ingestion.backfill import queue_backfill
from ingestion.ingest import execute
from ingestion.management.commands.ingest import RunCommand
from ingestion.push import find_group


class Command(RunCommand):
    help = (
        "Compute a group's version over the rows of an older one. Exits 0, 1 when it failed, 3 with rows quarantined."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group")
        parser.add_argument("--from-version", type=int, help="The older version; the newest with rows by default.")
        parser.add_argument(
            "--engine", choices=["polars", "spark"], default="polars", help="What computes: polars or spark."
        )

    def run(self, **options: Any) -> int | None:
        group, on_spark = find_group(options["group"]), options["engine"] == "spark"
        run = queue_backfill(group, from_version=options["from_version"], on_spark=on_spark, by="command")
        return self.tell(execute(run, progress=self.progress()), as_json=options["json"])
