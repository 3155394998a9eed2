"""The point-in-time join: ours by the whole version order, bare as an ASOF join in DuckDB's SQL, written by its COPY.

python -m benchmarks.training ours|bare|bare_ties HOME     (a home into which benchmarks.ingestion has ingested)

bare compares the event time alone and answers ties at random, bare_ties compares the whole version order.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from benchmarks import hub
from benchmarks.data import FEATURES, GROUP, KEY


def ours(home: Path) -> None:
    with hub.opened(home):
        import pandas  # noqa: F401  what pyarrow loads once in a process, a quarter of a second, is no part of a join

        from serving import spines
        from serving.training import Asked, plan, write

        asked = Asked(features=tuple(f"{GROUP}:{name}" for name in FEATURES))
        target = home / "ours.parquet"
        spine = home / "spine.parquet"
        taken = hub.seconds(lambda: write(plan(asked, spines.columns_of(spine)), spine, target))
        hub.report(seconds=taken, megabytes=hub.peak_megabytes())


def bare(home: Path) -> None:
    _measure(home, "s.event_timestamp >= h.event_timestamp")


def bare_ties(home: Path) -> None:
    numbers = ("epoch_us(h.event_timestamp)", "epoch_us(h.created_timestamp)", "h._accepted", "h._ordinal")
    last = 2**63 - 1
    _measure(home, f"{_struct('epoch_us(s.event_timestamp)', last, last, last)} >= {_struct(*numbers)}")


def _struct(*values: object) -> str:
    return "{" + ", ".join(f"'{place}': {value}" for place, value in enumerate(values)) + "}"


def _measure(home: Path, is_before: str) -> None:
    with hub.opened(home):
        from catalog import stores

        files = stores.offline(GROUP, 1).files()
        taken = hub.seconds(lambda: _join(files, home, is_before))
        hub.report(seconds=taken, megabytes=hub.peak_megabytes())


def _join(files: list[str], home: Path, is_before: str) -> None:
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
            ) TO '{home / "bare.parquet"}' (FORMAT parquet)
            """,
            [str(home / "spine.parquet"), files],
        )


if __name__ == "__main__":
    {"ours": ours, "bare": bare, "bare_ties": bare_ties}[sys.argv[1]](Path(sys.argv[2]))
