"""`manage.py train SERVICE`: a training dataset, each spine row with the features as they were at its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from engine.schema import EVENT_TIMESTAMP
from serving.progress import Progress
from serving.spines import columns_of
from serving.training import Asked, Engine, plan, require_engine, write


class Command(FeaturehubCommand):
    help = "Join a spine (join keys and event timestamps) with a service's features into a Parquet file."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", help="A feature service, as name or name@version.")
        parser.add_argument("--spine", type=Path, required=True, help="A Parquet or CSV file.")
        parser.add_argument("--out", type=Path, required=True, help="The Parquet file to write.")
        parser.add_argument("--timestamp", default=EVENT_TIMESTAMP, help="The spine's event timestamp column.")
        parser.add_argument("--known-at", action="store_true", help="Use only what had been received by then.")
        parser.add_argument("--statuses", action="store_true", help="Add <feature>__status columns.")
        parser.add_argument("--engine", choices=get_args(Engine), default="duckdb", help="What joins: duckdb or spark.")

    def run(self, **options: Any) -> int | None:
        require_engine(options["engine"])
        recipe = plan(
            Asked(service=options["service"]),
            columns_of(options["spine"]),
            event_timestamp=options["timestamp"],
            known_at=options["known_at"],
            statuses=options["statuses"],
        )
        shown = Progress(self, options["service"])
        made = write(recipe, options["spine"], options["out"], follow=shown, engine=options["engine"]).made
        shown.end()
        if options["json"]:
            self.print_json({"rows": made.rows, "path": str(options["out"])})
        else:
            self.stdout.write(f"{made.rows:,} rows written to {options['out']}")
        return None
