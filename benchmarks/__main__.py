"""`make bench`: every measurement in processes of its own, ours and the others in turn, medians of `--rounds`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import data, feast

Figures = dict[str, Any]

HEADER = "| work | ours | bare limit | Feast | ours / bare | ours / Feast |\n|---|---|---|---|---|---|"
WITHOUT_FEAST = "Feast is not installed in .venv-feast, so its column is empty."
#: The rows of one entity are many in the second join.
DEEP_ENTITIES = 5_000
DECIDED = "the same, bare with ties decided"
PUSHES = (
    "A push of ours is answered when it is in the log on the disk (SQLite, synchronous=FULL) and online; its worker"
    " writes it to the offline table meanwhile. Feast's is in a Redis that keeps no file, and nowhere else. The bare"
    " limit is one committed insert and one MSET, nothing checked."
)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="featurehub-bench-") as folder:
        bench = Bench(Path(folder), options)
        print(HEADER)
        for part in options.only or PARTS:
            for row in PARTS[part](bench):
                print(f"| {' | '.join(row.cells())} |", flush=True)
    if "pushing" in (options.only or PARTS):
        print(f"\n{PUSHES}")
    if not feast.is_installed():
        print(f"\n{WITHOUT_FEAST}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts and not all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=500_000)
    parser.add_argument("--spine", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: figures in one unit, which `form` writes; None where nothing was measured."""

    work: str
    form: str
    ours: float
    bare: float | None = None
    feast: float | None = None

    def cells(self) -> tuple[str, ...]:
        others = (self.bare, self.feast)
        figures = ("" if figure is None else self.form.format(figure) for figure in (self.ours, *others))
        ratios = ("" if not other else f"{self.ours / other:.2f}" for other in others)
        return (self.work, *figures, *ratios)


@dataclass
class Bench:
    """One run of the benchmarks in a folder that goes away with it."""

    folder: Path
    options: argparse.Namespace

    @cached_property
    def homes(self) -> list[Path]:
        """A home for each ingestion, with the same source and spine."""
        source, spine = self.folder / "rows.parquet", self.folder / "spine.parquet"
        data.write_rows(source, rows=self.options.rows, entities=self.options.entities)
        data.write_spine(spine, rows=self.options.spine, entities=self.options.entities)
        return [self.home(f"{number}", source, spine) for number in range(2 * self.options.rounds)]

    def home(self, name: str, *files: Path) -> Path:
        home = self.folder / name
        home.mkdir()
        for file in files:
            (home / file.name).hardlink_to(file)
        return home

    @cached_property
    def ingestions(self) -> tuple[list[Figures], list[Figures]]:
        """Ours and bare; the first home holds the rows from then on."""
        ours = [_measure("ingestion", "ours", home) for home in self.homes[::2]]
        return ours, [_measure("ingestion", "bare", home) for home in self.homes[1::2]]

    @cached_property
    def deep(self) -> Path:
        """A home that holds as many rows of few entities."""
        files = self.folder / "few"
        files.mkdir()
        source, spine = files / "rows.parquet", files / "spine.parquet"
        data.write_rows(source, rows=self.options.rows, entities=DEEP_ENTITIES)
        data.write_spine(spine, rows=self.options.spine, entities=DEEP_ENTITIES)
        home = self.home("deep", source, spine)
        _measure("ingestion", "ours", home)
        return home

    @property
    def ingested(self) -> Path:
        """A home that holds the rows."""
        assert self.ingestions
        return self.homes[0]


def _measure(what: str, *arguments: object) -> Figures:
    command = [sys.executable, "-m", f"benchmarks.{what}", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def _middle(measured: list[Figures], figure: str) -> float:
    return median(one[figure] for one in measured)


def _ingestion(bench: Bench) -> Iterator[Row]:
    ours, bare = bench.ingestions
    work = f"ingest {bench.options.rows:,} rows x 10 features, {bench.options.entities:,} entities"
    yield Row(work, "{:,.0f} rows/s", *(one[0]["rows"] / _middle(one, "seconds") for one in (ours, bare)))
    yield _memory(ours, bare)


def _memory(ours: list[Figures], bare: list[Figures]) -> Row:
    return Row("peak memory of that", "{:,.0f} MB", _middle(ours, "megabytes"), _middle(bare, "megabytes"))


def _reading(bench: Bench) -> Iterator[Row]:
    for count, figure in _measure("reading", bench.ingested, bench.options.entities).items():
        work = f"read {count} vector{'s' * (count != '1')} of 10 features in process"
        yield Row(work, "{:.2f} ms", figure["ours"], figure["bare"])


def _training(bench: Bench) -> Iterator[Row]:
    ours, bare, bare_ties = _joins(bench, bench.ingested)
    work = f"join {bench.options.spine:,} spine rows with {bench.options.rows:,} rows"
    yield Row(work, "{:.2f} s", _middle(ours, "seconds"), _middle(bare, "seconds"))
    yield _memory(ours, bare)
    yield Row(DECIDED, "{:.2f} s", _middle(ours, "seconds"), _middle(bare_ties, "seconds"))
    ours, bare, bare_ties = _joins(bench, bench.deep)
    work = f"join {bench.options.spine:,} spine rows with {bench.options.rows:,} rows of {DEEP_ENTITIES:,} entities"
    yield Row(work, "{:.2f} s", _middle(ours, "seconds"), _middle(bare, "seconds"))
    yield Row(DECIDED, "{:.2f} s", _middle(ours, "seconds"), _middle(bare_ties, "seconds"))


def _joins(bench: Bench, home: Path) -> list[list[Figures]]:
    """Ours, the plain join and the one that decides ties, in turn."""
    kinds = ("ours", "bare", "bare_ties")
    rounds = [[_measure("training", kind, home) for kind in kinds] for _ in range(bench.options.rounds)]
    return [list(figures) for figures in zip(*rounds, strict=True)]


def _pushing(bench: Bench) -> Iterator[Row]:
    figures = _measure("pushing", bench.home("pushing"), bench.options.rounds)
    for rows, figure in figures["in_process"].items():
        yield Row(f"push {_rows(int(rows))} in process", "{:.1f} ms", figure["ours"], figure["bare"])
    for measured in figures["over_http"]:
        rows, connections = measured["rows"], measured["connections"]
        work = f"push {_rows(rows)} over HTTP, {connections} connection{'s' * (connections > 1)}"
        for name, what, form in OF_ONE_ROW if rows == 1 else OF_MANY_ROWS:
            yield Row(work + what, form, measured["ours"][name], feast=measured.get("feast", {}).get(name))
        if any(measured[side]["refused"] for side in ("ours", "feast") if side in measured):
            refused = measured.get("feast", {}).get("refused")
            yield Row(f"{work}: refused and sent again", "{:,.0f}", measured["ours"]["refused"], feast=refused)


def _rebuilding(bench: Bench) -> Iterator[Row]:
    figures = _measure("rebuilding", bench.ingested, bench.options.entities)
    yield Row(f"rebuild {figures['keys']:,} keys online, unpaced", "{:.1f} s", figures["seconds"])
    pace = f"beside a rebuild at {figures['rows_per_second']:,} rows/s"
    for name, when in {"idle": "at rest", "unpaced": "beside an unpaced rebuild", "paced": pace}.items():
        yield Row(f"read 1 vector {when}: 99th percentile", "{:.2f} ms", figures[name]["p99"])


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count > 1)}"


#: Of a load: a figure's name, what the table calls it, and how it is written.
OF_ONE_ROW = (
    ("p50_ms", ": median", "{:.1f} ms"),
    ("p99_ms", ": 99th percentile", "{:.1f} ms"),
    ("requests_per_second", "", "{:,.0f} requests/s"),
)
OF_MANY_ROWS = (("rows_per_second", "", "{:,.0f} rows/s"),)

PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "ingestion": _ingestion,
    "reading": _reading,
    "training": _training,
    "pushing": _pushing,
    "rebuilding": _rebuilding,
}

if __name__ == "__main__":
    main()
