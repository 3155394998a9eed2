"""What conforming, transforming and validating say about rows that break a rule: one value for all three."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, slots=True, eq=False)
class Violation:
    """The rows of one frame whose value in `column` breaks `rule`.

    detail: a sentence that is true of each of them.
    rows:   their positions in the frame from 0, UInt32, ascending, each once.
    """

    column: str
    rule: str
    detail: str
    rows: pl.Series
