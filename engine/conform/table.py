"""The columns of a file, typed or all text: what fails the whole file, and which reader a column goes to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pyarrow as pa

from engine.conform import arrow
from engine.conform import text as text_columns
from engine.conform.columns import (
    MAX_CLOCK_SKEW,
    Column,
    Conformed,
    Target,
    check_columns,
    conformed,
    nulls,
    targets_of,
)
from engine.errors import InvalidRows, Problem
from engine.schema import Dtype, Field, GroupSchema


def conform_table(
    table: pa.Table | pa.RecordBatch,
    schema: GroupSchema,
    *,
    now: datetime,
    max_skew: timedelta = MAX_CLOCK_SKEW,
    text: bool = False,
) -> Conformed:
    """Type the columns of a file; `text` says that all are strings, as in a CSV, where null is an empty field.

    Raises InvalidRows, naming every column that is missing, unknown, repeated or of another type than declared.
    """
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    check_columns(table.column_names, schema)
    targets = targets_of(schema)
    problems = [one for target in targets if target.source for one in _problems(table[target.source], target, text)]
    if problems:
        raise InvalidRows("Some columns are not of the declared types.", problems)
    absent = pa.chunked_array([pa.nulls(table.num_rows)])
    columns = [_column(table[target.source] if target.source else absent, target, text) for target in targets]
    return conformed(targets, columns, now + max_skew)


def misfit(kind: pa.DataType, dtype: Dtype) -> str:
    """Why no column of this Arrow type is one of the dtype, as a sentence; empty when it may be."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return "" if arrow.is_admitted(kind, dtype) else _mismatch(kind, str(dtype))


def conform_column(values: pa.ChunkedArray, column: Field, *, text: bool = False) -> Column:
    """Values that stand beside the rows of a group, typed as those of a file are; null means null here, too.

    Raises InvalidRows when the column as a whole is none of the dtype.
    """
    target = Target(column.name, column.name, column.dtype, "value")
    if problems := list(_problems(values, target, text)):
        raise InvalidRows(f"The column {column.name} is not of the declared type.", problems)
    return _column(values, target, text)


def _problems(column: pa.ChunkedArray, target: Target, text: bool) -> Iterator[Problem]:
    """That the Arrow type cannot hold what is declared, or that the column is unsound."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (arrow.is_text(kind) if text else arrow.is_admitted(kind, target.dtype)):
        yield Problem(target.source, _mismatch(kind, "text" if text else str(target.dtype)))
    elif not arrow.is_sound(column):
        yield Problem(target.source, "the column's buffers are damaged, or a list or dictionary holds invalid UTF-8")


def _mismatch(kind: pa.DataType, declared: str) -> str:
    if declared == "timestamp" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return f"the column is {kind}, a naive time; a timestamp with a time zone is declared"
    return f"the column is {kind}, {declared} is declared"


def _column(column: pa.ChunkedArray, target: Target, text: bool) -> Column:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return Column(target.name, nulls(target.dtype, len(column)))
    return text_columns.read(target, column) if text else arrow.read(target, column)
