"""Files of a table without some of their rows: written beside the table, to be put in the places of the old ones."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import polars as pl
import pyarrow.parquet as pq

from engine.offline.files import DataFile
from engine.offline.table import OfflineTable, read_file


def count_rows(path: str, unwanted: pl.Expr, columns: Sequence[str]) -> int:
    """How many rows of a file are unwanted, told by these columns; raises CorruptData naming the file."""
    return sum(pl.DataFrame(batch).filter(unwanted).height for batch in read_file(path, columns))


def write_without(table: OfflineTable, path: str, unwanted: pl.Expr, *, sort_by: Sequence[str]) -> DataFile | None:
    """The other rows of a file as a new one, with its columns; None when there are none. Raises StorageFailed."""
    rows = pl.concat([pl.DataFrame(batch).filter(~unwanted) for batch in read_file(path)])
    if rows.is_empty():
        return None
    return table.write_file(rows, pq.read_schema(path), name=f"erase-{uuid.uuid4()}", sort_by=sort_by)
