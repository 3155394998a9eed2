"""`make bench`: every measurement in a process of its own, ours and bare in turn, medians of `--rounds`, one table."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import data

Figures = dict[str, Any]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="featurehub-bench-") as folder:
        print("| work | ours | bare limit | ratio |\n|---|---|---|---|")
        for row in _rows(Path(folder), options):
            print(f"| {' | '.join(row)} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=500_000)
    parser.add_argument("--spine", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _rows(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    source, spine = folder / "rows.parquet", folder / "spine.parquet"
    data.write_rows(source, rows=options.rows, entities=options.entities)
    data.write_spine(spine, rows=options.spine, entities=options.entities)
    homes = [_home(folder, f"{number}", source, spine) for number in range(2 * options.rounds)]
    ours = [_measure("ingestion", "ours", home) for home in homes[::2]]
    bare = [_measure("ingestion", "bare", home) for home in homes[1::2]]
    yield _rate(f"ingest {options.rows:,} rows x 10 features, {options.entities:,} entities", ours, bare)
    yield _memory("peak memory of that", ours, bare)
    yield from _reading(homes[0], options.entities)
    ours = [_measure("training", "ours", homes[0]) for _ in range(options.rounds)]
    bare = [_measure("training", "bare", homes[0]) for _ in range(options.rounds)]
    yield _time(f"join {options.spine:,} spine rows with {options.rows:,} rows", ours, bare)
    yield _memory("peak memory of that", ours, bare)


def _home(folder: Path, name: str, *files: Path) -> Path:
    home = folder / name
    home.mkdir()
    for file in files:
        (home / file.name).hardlink_to(file)
    return home


def _measure(what: str, *arguments: object) -> Figures:
    command = [sys.executable, "-m", f"benchmarks.{what}", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def _middle(measured: list[Figures], figure: str) -> float:
    return median(one[figure] for one in measured)


def _rate(work: str, ours: list[Figures], bare: list[Figures]) -> tuple[str, ...]:
    mine, limit = (one[0]["rows"] / _middle(one, "seconds") for one in (ours, bare))
    return work, f"{mine:,.0f} rows/s", f"{limit:,.0f} rows/s", f"{mine / limit:.2f}"


def _memory(work: str, ours: list[Figures], bare: list[Figures]) -> tuple[str, ...]:
    mine, limit = (_middle(one, "megabytes") for one in (ours, bare))
    return work, f"{mine:,.0f} MB", f"{limit:,.0f} MB", f"{mine / limit:.2f}"


def _time(work: str, ours: list[Figures], bare: list[Figures]) -> tuple[str, ...]:
    mine, limit = (_middle(one, "seconds") for one in (ours, bare))
    return work, f"{mine:.2f} s", f"{limit:.2f} s", f"{mine / limit:.2f}"


def _reading(home: Path, entities: int) -> Iterator[tuple[str, ...]]:
    for count, figure in _measure("reading", home, entities).items():
        ours, bare = figure["ours"], figure["bare"]
        work = f"read {count} vector{'s' * (count != '1')} of 10 features in process"
        yield work, f"{ours:.2f} ms", f"{bare:.2f} ms", f"{ours / bare:.2f}"


if __name__ == "__main__":
    main()
