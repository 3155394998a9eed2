"""`manage.py runs`: the newest runs; `runs cancel ID` and `runs retry ID`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog import runs
from catalog.commands import FeaturehubCommand
from catalog.models import Run, RunState
from engine.errors import NotFound


class Command(FeaturehubCommand):
    help = "List the newest runs, end one before it lands, or queue one again that failed, died or was cancelled."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["list", "cancel", "retry"], default="list")
        parser.add_argument("id", nargs="?", default="", help="Of cancel and retry: the run's id, or its beginning.")
        parser.add_argument("--group", help="List only runs of this group.")
        parser.add_argument("--state", choices=RunState.values, help="List only runs in this state.")
        parser.add_argument("--limit", type=int, default=20, help="List so many at most (20).")

    def run(self, **options: Any) -> int | None:
        if options["action"] == "list":
            chosen = {"group__name": options["group"], "state": options["state"]}
            found = Run.objects.select_related("group", "dataset").filter(**{k: v for k, v in chosen.items() if v})
            shown = list(found[: options["limit"]])
        else:
            shown = [find_run(options["id"])]
            (runs.cancel if options["action"] == "cancel" else runs.retry)(shown[0], by="command")
        if options["json"]:
            self.print_json([run.summary() for run in shown])
        else:
            self.print_runs(shown)
        return None

    def print_runs(self, shown: list[Run]) -> None:
        for run in shown:
            said = run.error.splitlines()[0] if run.error else run.message
            self.stdout.write(
                f"{str(run.pk)[:8]}  {run.created_at:%Y-%m-%d %H:%M:%S}  {run.kind:<11}  {run.state:<9}  "
                f"{run.subject}  {run.rows_accepted:,} rows  {said}".rstrip()
            )


def find_run(text: str) -> Run:
    """The one run whose id begins with `text`; raises NotFound, naming several when there are several."""
    begins = text.lower().replace("-", "")
    found = [run for run in Run.objects.select_related("group") if run.pk.hex.startswith(begins)]
    if len(found) != 1:
        several = ", ".join(str(run.pk) for run in found[:5])
        raise NotFound(f"{text} is the beginning of several runs: {several}." if found else f"There is no run {text}.")
    return found[0]
