"""Raw rows on their way in, in the form in which they came."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import polars as pl
import pyarrow as pa

from engine.conform import Conformed, conform_rows, conform_table, conform_values
from engine.schema import GroupSchema

#: How rows came: as JSON objects, as the texts of a CSV, or as typed columns (Parquet, Arrow).
Form = Literal["json", "text", "typed"]
Rows: TypeAlias = Sequence[Mapping[str, object]] | pa.Table | pa.RecordBatch


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Raw rows in one form; `origins` has a row for each (pipeline.ORIGIN) when they have come before.

    Deleted ones are tombstones of their entities: of them the keys and times count.
    """

    rows: Rows
    form: Form
    origins: pl.DataFrame | None = None
    is_deleted: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def conformed(self, schema: GroupSchema, *, now: datetime, max_skew: timedelta) -> Conformed:
        """The rows typed as their form asks; raises InvalidRows for columns that the schema does not have."""
        if isinstance(self.rows, pa.Table | pa.RecordBatch):
            return conform_table(self.rows, schema, now=now, max_skew=max_skew, text=self.form == "text")
        return conform_rows(self.rows, schema, now=now, max_skew=max_skew)

    def take(self, positions: Sequence[int]) -> RawBatch:
        """The rows at these positions, in their order."""
        if isinstance(self.rows, pa.Table | pa.RecordBatch):
            rows: Rows = self.rows.take(pa.array(positions, pa.int64()))
        else:
            rows = [self.rows[position] for position in positions]
        return replace(self, rows=rows, origins=None if self.origins is None else self.origins[list(positions)])

    def fitted(self, names: Sequence[str]) -> RawBatch:
        """The rows with exactly these columns: null where they had none of the name, without those of no name."""
        if not isinstance(self.rows, pa.Table | pa.RecordBatch):
            known = set(names)
            return replace(self, rows=[{n: v for n, v in row.items() if n in known} for row in self.rows])
        have = set(self.rows.schema.names)
        columns = [self.rows[name] if name in have else pa.nulls(len(self)) for name in names]
        return replace(self, rows=pa.table(columns, names=list(names)))

    def mended(self, values: Mapping[str, object], schema: GroupSchema) -> RawBatch:
        """This one row with JSON values laid over it, each as its form would have brought it.

        Raises InvalidRows naming each value that its column does not take.
        """
        typed = conform_values(values, schema)
        if not isinstance(self.rows, pa.Table | pa.RecordBatch):
            return replace(self, rows=[{**self.rows[0], **values}])
        columns = dict(zip(self.rows.schema.names, self.rows.columns, strict=True))
        for name, value in typed.items():
            columns[name] = pa.array([_as_text(values[name])], pa.string()) if self.form == "text" else value.to_arrow()
        return replace(self, rows=pa.table(columns))


def _as_text(value: object) -> str | None:
    """A JSON value as a field of a CSV."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
