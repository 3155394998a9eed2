"""The columns that expressions are tried on, and what an expression gives for rows of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from engine.expressions import Compiled, compile_expression
from engine.schema import Dtype

MAX = 2**63 - 1
MIN = -(2**63)
NOON = datetime(2026, 1, 4, 12, 30, 15, 500_000, tzinfo=UTC)  # a Sunday

COLUMNS = {
    name: Dtype.parse(dtype)
    for name, dtype in {
        "a": "int64",
        "b": "int64",
        "x": "float64",
        "y": "float64",
        "s": "string",
        "u": "string",
        "p": "bool",
        "q": "bool",
        "t": "timestamp",
        "vector": "embedding(2)",
        "Total Spent": "float64",
    }.items()
}
ERROR = "error"


def frame_of(**values: Any) -> pl.DataFrame:
    """Columns of COLUMNS; those not given are null."""
    height = max((len(column) for column in values.values()), default=1)
    schema = {name: dtype.polars for name, dtype in COLUMNS.items()}
    return pl.DataFrame({name: values.get(name, [None] * height) for name in schema}, schema=schema)


def results(compiled: Compiled, frame: pl.DataFrame) -> list[Any]:
    error = pl.lit(False) if compiled.error is None else compiled.error
    found = frame.with_columns(compiled.value.alias("value"), error.alias("error"))
    assert found["value"].dtype == compiled.dtype.polars
    assert found["error"].null_count() == 0
    return [ERROR if failed else value for value, failed in found.select("value", "error").iter_rows()]


def result(text: str, **row: Any) -> Any:
    compiled = compile_expression(text, COLUMNS)
    return results(compiled, frame_of(**{name: [value] for name, value in row.items()}))[0]
