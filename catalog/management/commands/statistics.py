"""`manage.py statistics GROUP`: what the values of its features were like last, and whether they have moved."""

from __future__ import annotations

from django.core.management.base import CommandParser

from catalog import statistics
from catalog.commands import FeaturehubCommand
from catalog.models import FeatureGroup
from catalog.statistics import Described
from engine.errors import unknown_name

HEADER = ("feature", "rows", "nulls", "distinct", "min", "p50", "max", "mean", "std", "psi")
#: Of a text or a top value so much is shown.
WIDEST = 24


class Command(FeaturehubCommand):
    help = "Statistics of a group's features: of the last run that added rows, against the 7 days before."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group")

    def run(self, **options: object) -> int | None:
        name = str(options["group"])
        group = FeatureGroup.objects.filter(name=name).first()
        if group is None:
            raise unknown_name("feature group", name, FeatureGroup.objects.values_list("name", flat=True))
        described = statistics.described(list(group.features.select_related("group").order_by("position", "pk")))
        if options["json"]:
            self.print_json([one.told() for one in described])
            return None
        rows = [HEADER, *map(_cells, described)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(HEADER))]
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            self.stdout.write("  ".join(cells).rstrip())
        return None


def _cells(one: Described) -> tuple[str, ...]:
    if one.latest is None:
        return (one.feature.name, *["-"] * (len(HEADER) - 1))
    told = one.told()
    latest = told["latest"]
    middle = latest["quantiles"].get("p50")
    if middle is None and latest["top"]:
        middle = latest["top"][0]["value"]  # the most frequent one
    psi = "-" if told["psi"] is None else f"{told['psi']:.2f}{' moved' if told['moved'] else ''}"
    nulls = f"{latest['nulls'] / latest['count']:.1%}" if latest["count"] else "-"
    figures = (latest["distinct"], latest["min"], middle, latest["max"], latest["mean"], latest["std"])
    return (one.feature.name, f"{latest['count']:,}", nulls, *map(_cell, figures), psi)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    return str(value)[:WIDEST]
