"""`manage.py datasets`: the training datasets that the hub keeps; show, make, make again, drop one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from django.core.management.base import CommandParser

from catalog.bodies import parse_json
from catalog.commands import FeaturehubCommand
from catalog.models import TrainingDataset
from engine.errors import InvalidInput
from engine.schema import EVENT_TIMESTAMP
from serving import datasets
from serving.progress import Progress
from serving.splits import Split
from serving.training import Asked, Engine


class Command(FeaturehubCommand):
    help = "List the training datasets; make one, show its manifest, make it again from that, or drop it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["list", "make", "show", "rebuild", "drop"], default="list")
        parser.add_argument("name", nargs="?", default="", help="The dataset's name.")
        parser.add_argument("--service", default="", help="make: a feature service, as name or name@version.")
        parser.add_argument("--spine", type=Path, help="make: a Parquet or CSV file.")
        parser.add_argument("--timestamp", default=EVENT_TIMESTAMP, help="make: the spine's time column.")
        parser.add_argument("--known-at", action="store_true", help="make: only what had been received by then.")
        parser.add_argument("--statuses", action="store_true", help="make: add <feature>__status columns.")
        parser.add_argument("--split", help='make: as over HTTP, such as {"fractions": [0.8, 0.2]}.')
        parser.add_argument(
            "--engine", choices=get_args(Engine), default="duckdb", help="make, rebuild: what joins: duckdb or spark."
        )
        parser.add_argument("--out", type=Path, help="rebuild: the Parquet file to write.")

    def run(self, **options: Any) -> int | None:
        action, name = options["action"], options["name"]
        if action != "list" and not name:
            raise InvalidInput(f"{action} needs the name of a dataset.")
        if action == "list":
            self._list(as_json=options["json"])
        elif action == "make":
            self._make(**options)
        elif action == "rebuild":
            self._rebuild(datasets.find(name), options["out"], options["engine"])
        elif action == "drop":
            datasets.drop(datasets.find(name))
            self.stdout.write(f"{name} is forgotten.")
        else:
            self.print_json(datasets.find(name).summary())
        return None

    def _list(self, *, as_json: bool) -> None:
        known = list(TrainingDataset.objects.select_related("run"))
        if as_json:
            self.print_json([dataset.summary() for dataset in known])
            return
        for dataset in known:
            size = "" if dataset.rows is None else f"{dataset.rows:,} rows  {dataset.size_bytes or 0:,} bytes"
            asked = dataset.service or ", ".join(dataset.features)
            self.stdout.write(f"{dataset.name}  {dataset.run.state}  {asked}  {size}".rstrip())

    def _make(self, **options: Any) -> None:
        if not options["service"] or options["spine"] is None:
            raise InvalidInput("make needs --service and --spine.")
        dataset = datasets.register(
            options["name"],
            Asked(service=options["service"]),
            options["spine"],
            event_timestamp=options["timestamp"],
            known_at=options["known_at"],
            statuses=options["statuses"],
            split=Split.from_json(parse_json(options["split"].encode())) if options["split"] else None,
            engine=options["engine"],
            by="command",
        )
        shown = Progress(self, dataset.name)
        datasets.execute(dataset.run, progress=lambda run: shown.show(run.rows_accepted))
        shown.end()
        dataset.refresh_from_db()
        if options["json"]:
            self.print_json(dataset.summary())
        else:
            self.stdout.write(f"{dataset.name}: {dataset.rows:,} rows in {datasets.data_file(dataset)}")

    def _rebuild(self, dataset: TrainingDataset, output: Path | None, engine: Engine) -> None:
        if output is None:
            raise InvalidInput("rebuild needs --out, the Parquet file to write.")
        shown = Progress(self, dataset.name)
        made = datasets.rebuild(dataset, output, engine=engine, follow=shown).made
        shown.end()
        self.stdout.write(f"{made.rows:,} rows written to {output}, the same as before: {made.sha256[:16]}")
