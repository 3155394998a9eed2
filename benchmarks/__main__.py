"""`make bench`: every measurement in processes of its own, ours and the others in turn, medians of `--rounds`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import data, feast, serving

Figures = dict[str, Any]

HEADER = "| work | ours | bare limit | Feast | ours / bare | ours / Feast |\n|---|---|---|---|---|---|"
WITHOUT_FEAST = "Feast is not installed in .venv-feast, so its column is empty."
#: What is joined has so many times the rows that are ingested; its entities are those, or these few with long series.
HISTORY = 5
DEEP_ENTITIES = 5_000
#: What Feast's default store may take of memory over the few entities; it has ended at more than 20 GB, too.
MOST_MEMORY = 16_000_000_000
JOINS = (
    "Joins read a Parquet spine and write a Parquet file, each in a process of its own. Ours looks whether each file is"
    " the one that was hashed, which the first process does, hashes the rows that it makes and answers a manifest."
    " Feast joins on DuckDB, and on its default store, Dask."
)
WITHOUT_WRK = "wrk is not installed, so serving over HTTP was not measured (Debian: apt-get install wrk)."
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
    for part, said in {"training": JOINS, "pushing": PUSHES}.items():
        if part in (options.only or PARTS):
            print(f"\n{said}")
    if not feast.is_installed():
        print(f"\n{WITHOUT_FEAST}")
    if not serving.is_installed():
        print(f"\n{WITHOUT_WRK}")


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


@dataclass(eq=False)
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
        return [self.home(f"{number}", source, spine) for number in range(3 * self.options.rounds)]

    def home(self, name: str, *files: Path) -> Path:
        home = self.folder / name
        home.mkdir()
        for file in files:
            (home / file.name).hardlink_to(file)
        return home

    @cached_property
    def ingestions(self) -> dict[str, list[Figures]]:
        """Ours, the same without statistics, and bare, in turn; the first home holds the rows from then on."""
        measured: dict[str, list[Figures]] = {"ours": [], "plain": [], "bare": []}
        for home, kind in zip(self.homes, cycle(measured)):
            measured[kind].append(_measure("ingestion", kind, home))
        return measured

    @cache  # noqa: B019  a bench lives as long as its process
    def history(self, entities: int) -> Path:
        """A home that holds the rows of a join, with the spines of both sizes."""
        files = self.folder / f"history-{entities}"
        files.mkdir()
        data.write_rows(files / "rows.parquet", rows=HISTORY * self.options.rows, entities=entities, logged=True)
        for rows in (self.options.spine, 10 * self.options.spine):
            data.write_spine(files / f"spine-{rows}.parquet", rows=rows, entities=entities)
        home = self.home(f"joined-{entities}", *files.iterdir())
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
    ours, plain, bare = bench.ingestions.values()
    work = f"ingest {bench.options.rows:,} rows x 10 features, {bench.options.entities:,} entities"
    yield Row(work, "{:,.0f} rows/s", *(one[0]["rows"] / _middle(one, "seconds") for one in (ours, bare)))
    yield _memory(ours, bare)
    yield Row(
        "the same time; bare: without statistics", "{:.2f} s", _middle(ours, "seconds"), _middle(plain, "seconds")
    )


def _memory(ours: list[Figures], bare: list[Figures]) -> Row:
    return Row("peak memory of that", "{:,.0f} MB", _middle(ours, "megabytes"), _middle(bare, "megabytes"))


def _reading(bench: Bench) -> Iterator[Row]:
    for count, figure in _measure("reading", bench.ingested, bench.options.entities).items():
        work = f"read {count} vector{'s' * (count != '1')} of 10 features in process"
        yield Row(work, "{:.2f} ms", figure["ours"], figure["bare"])


def _training(bench: Bench) -> Iterator[Row]:
    wide, spine = bench.options.entities, bench.options.spine
    yield from _join(bench, wide, spine)
    yield from _join(bench, wide, 10 * spine)
    yield from _default_store(bench, wide, 10 * spine)
    yield from _join(bench, DEEP_ENTITIES, spine)
    yield from _default_store(bench, DEEP_ENTITIES, spine)


def _join(bench: Bench, entities: int, spine: int) -> Iterator[Row]:
    """A join of ours beside the one on the time alone, the one that decides ties, and Feast's on DuckDB."""
    home, name = bench.history(entities), f"spine-{spine}.parquet"
    measured: dict[str, list[Figures]] = {"ours": [], "known_at": [], "bare": [], "bare_ties": [], "feast": []}
    for _ in range(bench.options.rounds):
        for kind in ("ours", "known_at", "bare", "bare_ties"):
            measured[kind].append(_measure("training", kind, home, home / name))
        if feast.is_installed():
            measured["feast"].append(_feast_join("duckdb", home, name))
    yield Row(_work(bench, entities, spine), "{:.2f} s", *_middles(measured, "seconds", "ours", "bare", "feast"))
    yield Row("the same, bare with ties decided", "{:.2f} s", *_middles(measured, "seconds", "ours", "bare_ties"))
    yield Row("the same once more in each process", "{:.2f} s", *_middles(measured, "again", "ours", "bare_ties"))
    yield Row("peak memory of that", "{:,.0f} MB", *_middles(measured, "megabytes", "ours", "bare_ties", "feast"))
    yield Row("ours with known_at, bare: without", "{:.2f} s", *_middles(measured, "seconds", "known_at", "ours"))


def _default_store(bench: Bench, entities: int, spine: int) -> Iterator[Row]:
    """Feast's join with its default store: the rows that come out, and what it takes."""
    if not feast.is_installed():
        return
    home, name = bench.history(entities), f"spine-{spine}.parquet"
    try:
        done = _feast_join("dask", home, name)
    except subprocess.CalledProcessError as error:
        if "MemoryError" not in error.stderr:
            raise
        told = f"rows that come out before it is out of memory at {MOST_MEMORY / 1e9:.0f} GB"
        yield Row(f"that on Feast's default store: {told}", "{:,.0f}", spine, feast=0)
        return
    yield Row("that on Feast's default store: rows that come out", "{:,.0f}", spine, feast=done["rows"])
    ours = _measure("training", "ours", home, home / name)
    for figure, what, form in (("seconds", "time", "{:.2f} s"), ("megabytes", "peak memory", "{:,.0f} MB")):
        yield Row(f"that on Feast's default store: {what}", form, ours[figure], feast=done[figure])


def _work(bench: Bench, entities: int, spine: int) -> str:
    return f"join {spine:,} spine rows with {HISTORY * bench.options.rows:,} rows of {entities:,} entities"


def _middles(measured: dict[str, list[Figures]], figure: str, *kinds: str) -> list[float | None]:
    return [_middle(measured[kind], figure) if measured[kind] else None for kind in kinds]


def _feast_join(store: str, home: Path, spine: str) -> Figures:
    """In Feast's own environment; CalledProcessError with what it said when it fails, as beyond MOST_MEMORY."""
    command = [str(feast.ENVIRONMENT / "bin" / "python"), "-m", "benchmarks.feast_joining", store, str(home), spine]
    quiet = {**os.environ, "FEAST_USAGE": "False", "FEAST_TELEMETRY": "False", "PYTHONWARNINGS": "ignore"}
    limits = {"preexec_fn": partial(resource.setrlimit, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=quiet, **limits)
    return json.loads(done.stdout.splitlines()[-1])


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


def _serving(bench: Bench) -> Iterator[Row]:
    if not serving.is_installed():
        return
    figures = _measure("serving", bench.home("serving"), bench.options.rounds)["works"]
    found = serving.works(figures)
    for (work, entities), sides in found.items():
        asked = f"{SERVED[work]}, {entities} entit{'y' if entities == 1 else 'ies'} x 10"
        limits = sides | {side: found["list", entities][side] for side in ("bare", "django")}
        for name, what, form in OF_READS:
            ours, bare, others = (limits.get(side, {}).get(name) for side in ("ours", "bare", "feast"))
            yield Row(asked + what, form, ours, bare, others)
        yield Row(
            f"{asked}; bare: a Django view", "{:,.0f}/s", *(limits[s][OF_READS[0][0]] for s in ("ours", "django"))
        )


def _rebuilding(bench: Bench) -> Iterator[Row]:
    figures = _measure("rebuilding", bench.ingested, bench.options.entities)
    yield Row(f"rebuild {figures['keys']:,} keys online, unpaced", "{:.1f} s", figures["seconds"])
    pace = f"beside a rebuild at {figures['rows_per_second']:,} rows/s"
    for name, when in {"idle": "at rest", "unpaced": "beside an unpaced rebuild", "paced": pace}.items():
        yield Row(f"read 1 vector {when}: 99th percentile", "{:.2f} ms", figures[name]["p99"])


def _catalog(bench: Bench) -> Iterator[Row]:
    figures = _measure("catalog", bench.home("catalog"))
    for page, figure in figures["pages"].items():
        work = f"catalog of {figures['features']:,} features, {page}"
        yield Row(f"{work}: median", "{:.0f} ms", figure["p50_ms"])
        yield Row(f"{work}: 95th percentile", "{:.0f} ms", figure["p95_ms"])
        yield Row(f"{work}: queries of the database", "{:.0f}", figure["queries"])


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count > 1)}"


#: Of a load: a figure's name, what the table calls it, and how it is written.
OF_ONE_ROW = (
    ("p50_ms", ": median", "{:.1f} ms"),
    ("p99_ms", ": 99th percentile", "{:.1f} ms"),
    ("requests_per_second", "", "{:,.0f} requests/s"),
)
#: What a request names, and a figure of requests: its name, what the table calls it, how it is written.
SERVED = {"list": "read by list", "service": "read by service", "path": "read by path"}
OF_READS = (
    ("requests_per_second", "", "{:,.0f}/s"),
    ("p50_ms", ": median", "{:.2f} ms"),
    ("p99_ms", ": 99th percentile", "{:.2f} ms"),
)
OF_MANY_ROWS = (("rows_per_second", "", "{:,.0f} rows/s"),)

PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "ingestion": _ingestion,
    "reading": _reading,
    "serving": _serving,
    "training": _training,
    "pushing": _pushing,
    "rebuilding": _rebuilding,
    "catalog": _catalog,
}

if __name__ == "__main__":
    main()
