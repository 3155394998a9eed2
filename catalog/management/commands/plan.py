"""`manage.py plan`: what applying definitions files would change."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.core.management.color import Style

from catalog import definitions
from catalog.commands import FeaturehubCommand


class Command(FeaturehubCommand):
    help = "Show what applying definitions files would change: + new, ~ changed, - left out. Exit 0, 1 with problems."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="Definitions files, read as one; - is stdin.")

    def run(self, **options: Any) -> None:
        found = definitions.plan(options["files"])
        if options["json"]:
            self.print_json(found.as_json())
        else:
            self.stdout.write(described(found, self.style))


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
