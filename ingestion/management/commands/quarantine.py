"""`manage.py quarantine`: rejected rows, listed by rule or shown one by one, replayed or discarded."""

from __future__ import annotations

from itertools import islice
from typing import Any

from django.core.management.base import CommandParser

from catalog.bodies import parse_object
from catalog.models import FeatureGroup, Run
from catalog.writable import group_named
from engine.errors import InvalidInput, NotFound
from ingestion.ingest import execute
from ingestion.management.commands.ingest import RunCommand
from ingestion.management.commands.runs import find_run
from ingestion.models import QuarantineState
from ingestion.quarantine import payloads_of
from ingestion.settle import Selection, discard, queue_replay, rules_of


class Command(RunCommand):
    help = "List rejected rows by rule, show them, replay them after a rule or a row was mended, or discard them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["list", "show", "replay", "discard"])
        parser.add_argument("group")
        parser.add_argument("--run", default="", help="Only rows of this run: its id, or its beginning.")
        parser.add_argument("--column", default="", help="Only rows with a bad value in this column.")
        parser.add_argument("--rule", default="", help="Only rows that broke this rule.")
        parser.add_argument("--row", type=int, help="Only this row of the run, by its number from 0.")
        parser.add_argument("--state", choices=QuarantineState.values, help="List only in this state.")
        parser.add_argument("--limit", type=int, default=20, help="List or show so many at most (20).")
        parser.add_argument("--values", default="{}", help="Of replay: JSON that is laid over the one row.")
        parser.add_argument("--reason", default="", help="Of discard: why the rows are not wanted.")

    def run(self, **options: Any) -> int | None:
        group = group_named(options["group"])
        run = find_run(options["run"]).pk if options["run"] else None
        selection = Selection(run, options["column"], options["rule"], options["row"], state=options["state"] or "")
        action = {"list": self.list, "show": self.show, "replay": self.replay, "discard": self.discard}
        return action[options["action"]](group, selection, options)

    def list(self, group: FeatureGroup, selection: Selection, options: dict[str, Any]) -> None:
        shown = rules_of(group, selection)[: options["limit"]]
        if options["json"]:
            self.print_json([rule.summary() for rule in shown])
            return
        for rule in shown:
            self.stdout.write(
                f"{str(rule.run_id)[:8]}  {rule.run.created_at:%Y-%m-%d %H:%M:%S}  {rule.state:<10}  "
                f"{rule.pending_rows:,} of {rule.row_count:,} rows wait  {rule.column} {rule.rule}: {rule.detail}"
            )

    def show(self, group: FeatureGroup, selection: Selection, options: dict[str, Any]) -> None:
        if selection.run is None:
            raise InvalidInput("Rows are shown of one run: name it with --run.")
        run = Run.objects.select_related("group").filter(pk=selection.run, group=group).first()
        if run is None:
            raise NotFound(f"{group.name} has no run {selection.run}.")
        wanted = {"column": selection.column or None, "rule": selection.rule or None, "row": selection.row}
        chosen = (row for row in payloads_of(run) if all(value in (None, row[name]) for name, value in wanted.items()))
        shown = list(islice(chosen, options["limit"]))
        if options["json"]:
            self.print_json(shown)
            return
        for row in shown:
            self.stdout.write(f"{row['row']}  {row['column']} {row['rule']}: {row['detail']}\n  {row['payload']}")

    def replay(self, group: FeatureGroup, selection: Selection, options: dict[str, Any]) -> int:
        values = parse_object(options["values"].encode())
        run = queue_replay(group, selection, values=values, by="command")
        return self.tell(execute(run, progress=self.progress()), as_json=options["json"])

    def discard(self, group: FeatureGroup, selection: Selection, options: dict[str, Any]) -> None:
        count = discard(group, selection, reason=options["reason"], by="command")
        if options["json"]:
            self.print_json({"discarded": count})
        else:
            self.stdout.write(f"{group.name}: discarded {count:,} rows")
