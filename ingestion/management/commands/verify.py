"""`manage.py verify [GROUP...]`: compare the online store with the offline store; exit 1 on a difference."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from catalog.commands import FeaturehubCommand
from engine.errors import FeaturehubError
from engine.online.comparison import Difference, Version
from ingestion import upkeep
from ingestion.verify import LIMIT, PATIENCE_SECONDS, Progress, Verification, moment, redis_key, verify


class Command(FeaturehubCommand):
    help = "Compare the online rows with the newest accepted ones and name each difference; changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("groups", nargs="*", metavar="GROUP", help="Only these groups; every one by default.")
        parser.add_argument("--limit", type=int, default=LIMIT, help=f"Differences to name, of each kind ({LIMIT}).")
        parser.add_argument(
            "--patience",
            type=float,
            default=PATIENCE_SECONDS,
            help=f"Seconds to wait for rows that are on their way online ({PATIENCE_SECONDS:g}).",
        )

    def run(self, **options: Any) -> int | None:
        names = options["groups"] or [None]
        groups = [group for name in dict.fromkeys(names) for group in upkeep.groups(name)]
        done: list[Verification] = []
        failed: list[dict[str, str]] = []
        for group in groups:
            try:
                done.append(
                    verify(
                        group,
                        limit=max(options["limit"], 0),
                        patience=options["patience"],
                        progress=self.progress(group.name),
                    )
                )
            except FeaturehubError as error:  # what is wrong with one group does not keep the others unseen
                self.stderr.write(f"{group.name}: {error}")
                failed.append({"group": group.name, "code": error.code, "detail": error.detail})
                continue
            if not options["json"]:
                self.print_verification(done[-1])
        if options["json"]:
            self.print_json({"groups": [each.summary() for each in done], "failed": failed})
        return 1 if failed or any(each.total for each in done) else None

    def progress(self, group: str) -> Progress:
        return self._show_progress(group) if sys.stderr.isatty() else lambda what, rows: None

    def _show_progress(self, group: str) -> Progress:
        return lambda what, rows: self.stderr.write(f"\r{group}: {rows:,} {what} rows", ending="")

    def print_verification(self, done: Verification) -> None:
        if sys.stderr.isatty():
            self.stderr.write("")
        self.stdout.write(f"{done.group}: {done.rows:,} online rows compared, {_differences(done.total)}")
        for kind, count in done.counts.items():
            named = [each for each in done.differences if each.kind == kind]
            self.stdout.write(f"  {kind} {count:,}")
            for each in named:
                self.stdout.write(f"    {_named(done, each)}")
            if named and count > len(named):
                self.stdout.write(f"    and {count - len(named):,} more")
        if done.total:
            self.print_advice(done)

    def print_advice(self, done: Verification) -> None:
        """What mends it."""
        if done.is_behind:
            self.stdout.write(
                f"  The online store follows the offline table up to version {done.followed_to} of "
                f"{done.table_version}: rows are still to come."
            )
        self.stdout.write(f"  manage.py materialize {done.group} --full brings every accepted row online again.")
        if {"ahead", "extra", "unreadable"} & done.counts.keys():
            self.stdout.write(
                "  No row replaces one that looks newer: first delete in Redis the keys that are named whole."
            )


def _differences(count: int) -> str:
    return f"{count:,} differences" if count > 1 else "1 difference" if count else "no difference"


def _named(done: Verification, difference: Difference) -> str:
    """One difference in a line; the Redis key where somebody may have to touch it, or where it has no id."""
    id = done.id_of(difference)
    name = f"{redis_key(difference)}" if id is None or difference.kind in ("ahead", "extra", "unreadable") else id
    shown = name if name.isprintable() else repr(name)
    return f"{shown}: expected {_told(difference.expected)}, found {_found(difference)}"


def _found(difference: Difference) -> str:
    if difference.kind == "unreadable" or (difference.kind == "extra" and difference.actual is None):
        return "what is no row"
    return "that version with other values" if difference.kind == "values" else _told(difference.actual)


def _told(version: Version | None) -> str:
    if version is None:
        return "nothing"
    deleted = ", deleted" if version.deleted else ""
    created, place = moment(version.created_us), f"{version.accepted}.{version.ordinal}"
    return f"{moment(version.event_us)} (created {created}, accepted {place}{deleted})"
