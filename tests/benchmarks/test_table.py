"""The benchmarks can be started, and their table says what was measured and nothing where nothing was."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks import __main__ as table
from benchmarks import data, pushing

MODULES = sorted(path.stem for path in Path(benchmarks.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module: str) -> None:
    importlib.import_module(f"benchmarks.{module}")


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (
            table.Row("w", "{:.0f} rows/s", 50.0, 200.0, 10.0),
            ("w", "50 rows/s", "200 rows/s", "10 rows/s", "0.25", "5.00"),
        ),
        (table.Row("w", "{:.1f} ms", 3.0, bare=1.5), ("w", "3.0 ms", "1.5 ms", "", "2.00", "")),
        (table.Row("w", "{:.1f} ms", 3.0, feast=6.0), ("w", "3.0 ms", "", "6.0 ms", "", "0.50")),
        (table.Row("w", "{:.0f}", 2.0, feast=0.0), ("w", "2", "", "0", "", "")),
    ],
)
def test_a_line_has_its_figures_and_their_ratios(row: table.Row, cells: tuple[str, ...]) -> None:
    assert row.cells() == cells
    assert len(cells) == table.HEADER.splitlines()[0].count("|") - 1


def test_an_entity_is_pushed_once_and_always_with_the_same_row() -> None:
    entities = pushing.Entities()
    pushed = [data.pushed_rows(entities.take(count), count) for count in (1, 3, 2)]
    assert [[row[data.KEY] for row in rows] for rows in pushed] == [[0], [1, 2, 3], [4, 5]]
    assert entities.taken == 6
    assert pushed[1][1] == data.pushed_row(2)
    assert list(pushed[1][1]) == [data.KEY, "event_timestamp", *data.FEATURES]
