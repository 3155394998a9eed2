"""Functions of an allow-listed module, as transformations call them: row by row, and on a whole batch."""

from __future__ import annotations

import time
from collections.abc import Mapping

import polars as pl


def initial(row: Mapping[str, str | None]) -> str | None:
    """The first letter of a tier; refuses the empty one."""
    return None if row["tier"] is None else row["tier"][0]


def thrice(rows: pl.DataFrame) -> pl.Series:
    """Three times what was bought."""
    return rows["bought"] * 3


def slowly(row: Mapping[str, int | None]) -> int | None:
    """What was bought, after a while: a file of a hundred rows takes a second."""
    time.sleep(0.01)
    return row["bought"]


def never(rows: pl.DataFrame) -> pl.Series:
    raise ZeroDivisionError(f"of {rows.height > 0}")
