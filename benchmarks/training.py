"""The point-in-time join, a Parquet spine in and a Parquet file out: ours, and ASOF joins in DuckDB's SQL and COPY.

python -m benchmarks.training ours|known_at|bare|bare_ties HOME SPINE       (a home that benchmarks.ingestion filled)

known_at is ours with the features as they were known. bare compares the event time alone and answers ties at random,
bare_ties compares the whole version order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb

from benchmarks import hub
from benchmarks.data import FEATURES, GROUP, KEY


def ours(home: Path, spine: Path, *, known_at: bool = False) -> None:
    with hub.opened(home):
        import pandas  # noqa: F401  what pyarrow loads once in a process, a quarter of a second, is no part of a join

        from serving import spines
        from serving.training import Asked, plan, write

        asked = Asked(features=tuple(f"{GROUP}:{name}" for name in FEATURES))
        target = home / "ours.parquet"
        _report(lambda: write(plan(asked, spines.columns_of(spine), known_at=known_at), spine, target))


def bare(home: Path, spine: Path) -> None:
    _measure(home, spine, "s.event_timestamp >= h.event_timestamp")


def bare_ties(home: Path, spine: Path) -> None:
    numbers = ("epoch_us(h.event_timestamp)", "epoch_us(h.created_timestamp)", "h._accepted", "h._ordinal")
    last = 2**63 - 1
    _measure(home, spine, f"{_struct('epoch_us(s.event_timestamp)', last, last, last)} >= {_struct(*numbers)}")


def _struct(*values: object) -> str:
    return "{" + ", ".join(f"'{place}': {value}" for place, value in enumerate(values)) + "}"


def _measure(home: Path, spine: Path, is_before: str) -> None:
    with hub.opened(home):
        from catalog import stores

        files = stores.offline(GROUP, 1).files()
        _report(lambda: _join(files, spine, home / "bare.parquet", is_before))


def _report(join: Callable[[], object]) -> None:
    """The first join of a process, what it took of memory, and the same join once more."""
    first, megabytes = hub.seconds(join), hub.peak_megabytes()
    hub.report(seconds=first, megabytes=megabytes, again=hub.seconds(join))


def _join(files: list[str], spine: Path, target: Path, is_before: str) -> None:
    names = ", ".join(f"h.{name}" for name in FEATURES)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""
            COPY (
                WITH spine AS (SELECT *, row_number() OVER () AS n FROM read_parquet(?)),
                history AS (SELECT * FROM read_parquet(?) WHERE {KEY} IN (SELECT {KEY} FROM spine))
                SELECT s.{KEY}, s.event_timestamp, {names} FROM spine s
                ASOF LEFT JOIN history h ON s.{KEY} = h.{KEY} AND {is_before} ORDER BY s.n
            ) TO '{target}' (FORMAT parquet)
            """,
            [str(spine), files],
        )


if __name__ == "__main__":
    kinds = {"ours": ours, "known_at": partial(ours, known_at=True), "bare": bare, "bare_ties": bare_ties}
    kinds[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
