"""`manage.py vector ENTITY ID`: one entity's features, as a model would get them now."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from catalog.bodies import parse_json
from catalog.commands import FeaturehubCommand
from engine.errors import InvalidInput
from serving.lookup import reading_entity
from serving.steps import carried_out
from serving.vectors import rfc3339


def _object(text: str) -> dict[str, Any]:
    document = parse_json(text.encode())
    if not isinstance(document, dict):
        raise InvalidInput(f"--request is a JSON object of values by request input; got {text}.")
    return document


class Command(FeaturehubCommand):
    help = "One feature vector from the online store, with the status and time of each value."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("entity")
        parser.add_argument("id")
        asked = parser.add_mutually_exclusive_group()
        asked.add_argument("--features", help="Names, separated by commas; all that are served by default.")
        asked.add_argument("--service", help="A feature service, as name or name@version.")

        parser.add_argument("--request", help='Values for features that are computed on request: {"cart_value": 19.9}.')

    def run(self, **options: Any) -> int | None:
        steps = reading_entity(
            options["entity"],
            options["id"],
            features=options["features"],
            service=options["service"],
            request=_object(options["request"]) if options["request"] is not None else None,
        )
        found, labels = carried_out(steps)
        values = found.json_values()[0]
        if options["json"]:
            self.print_json(dict(zip(labels, values, strict=True)))
            return None
        width = max(map(len, labels), default=0)
        for label, value, status, event_us in zip(labels, values, found.statuses[0], found.event_us[0], strict=True):
            when = rfc3339(event_us) if event_us is not None else "-"
            self.stdout.write(f"{label:<{width}}  {'-' if value is None else value!s:<24}  {status:<16}  {when}")
        return None
