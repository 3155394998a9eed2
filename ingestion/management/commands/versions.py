"""`manage.py versions GROUP`: the versions that rows are stored of; `versions GROUP drop N` drops one."""

from __future__ import annotations

from getpass import getuser
from typing import Any

from django.core.management.base import CommandError, CommandParser

from catalog.commands import FeaturehubCommand
from catalog.models import FeatureGroup
from catalog.writable import group_named
from ingestion import versions


class Command(FeaturehubCommand):
    help = "List the versions of a group that rows are stored of, or drop an old one from both stores."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group")
        parser.add_argument("action", nargs="?", choices=["list", "drop"], default="list")
        parser.add_argument("version", nargs="?", type=int, help="drop: the number of the version.")
        parser.add_argument("--dry-run", action="store_true", help="drop: only say what would go.")

    def run(self, **options: Any) -> int | None:
        group = group_named(options["group"])
        if options["action"] == "list":
            self._list(group, as_json=options["json"])
        elif options["version"] is None:
            raise CommandError("drop needs the number of a version.", returncode=2)
        else:
            self._drop(group, options["version"], dry_run=options["dry_run"], as_json=options["json"])
        return None

    def _list(self, group: FeatureGroup, *, as_json: bool) -> None:
        found = versions.stored_versions(group)
        if as_json:
            self.print_json([each.summary() for each in found])
            return
        for each in found:
            served = "  served" if each.is_served else ""
            computed = f"  computed into {', '.join(map(str, each.computed_into))}" if each.computed_into else ""
            self.stdout.write(f"{each.group} {each.version}  {each.size}{served}{computed}")

    def _drop(self, group: FeatureGroup, version: int, *, dry_run: bool, as_json: bool) -> None:
        done = versions.plan_drop(group, version) if dry_run else versions.drop_version(group, version, by=getuser())
        if as_json:
            self.print_json(done.summary() | {"dropped": not dry_run})
            return
        verb = "would drop" if dry_run else "dropped"
        self.stdout.write(f"{group.name} {version}: {verb} {done.version.size}, {done.online:,} online keys")
        if not done.version.computed_into:
            self.stdout.write("  No version was computed from it by a backfill: its history is kept nowhere else.")
