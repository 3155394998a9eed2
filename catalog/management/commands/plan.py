"""`manage.py plan`: what applying definitions files would change; with `--drift`, what was changed since they were."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.color import Style

from catalog import definitions
from catalog.commands import FeaturehubCommand


class Command(FeaturehubCommand):
    help = (
        "Show what applying definitions files would change: + new, ~ changed, - left out. Exit 0, 1 with problems. "
        "With --drift of the files that were last applied, which the hub has kept: exit 1 when there is any difference."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="*", metavar="FILE", help="Definitions files, read as one; - is stdin.")
        parser.add_argument("--drift", action="store_true", help="Of what was last applied; takes no files.")

    def run(self, **options: Any) -> int | None:
        if bool(options["files"]) == options["drift"]:
            raise CommandError("Give files, or --drift without any.", returncode=2)
        found = definitions.drift() if options["drift"] else definitions.plan(options["files"])
        if options["json"]:
            self.print_json(found.as_json())
        elif options["drift"] and not found.changes:
            self.stdout.write("No drift: the catalog is what was last applied.")
        else:
            self.stdout.write(described(found, self.style))
        return 1 if options["drift"] and found.changes else None


def described(plan: definitions.Plan, style: Style) -> str:
    """The plan for people, a line for each object, field and effect; coloured where the style is."""
    if not plan.changes:
        return "No difference."
    colour = {"+": style.SUCCESS, "~": style.WARNING, "-": style.ERROR}
    lines = []
    for change in plan.changes:
        lines.append(colour[change.sign](f"{change.sign} {change.kind} {change.name}"))
        lines += [f"    {field}" for field in change.fields if change.sign == "~"]
        lines += [f"    ({effect})" for effect in change.effects]
    return "\n".join(lines)
