"""Stored rows, history files and spines, as the tests of every engine write them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.pointintime.rule import GroupHistory, HistoryFeature
from engine.schema import Dtype, FeatureColumn, Field, GroupSchema
from tests.oracle import Row

STRING, INT64, FLOAT64 = Dtype.parse("string"), Dtype.parse("int64"), Dtype.parse("float64")
CUSTOMER = (Field("customer_id", STRING),)
DAY_ONE = datetime(2026, 11, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def day(number: float) -> datetime:
    """The start of the n-th day of November 2026; 1.5 is noon of the first."""
    return DAY_ONE + timedelta(days=number - 1)


def row(key: str, event_at: datetime, value: int | None, created: datetime | None = None, **more: Any) -> Row:
    """A stored row of a customer with one feature, `value`; received when it happened unless `created` says so."""
    stored = {"customer_id": key, "event_timestamp": event_at, "value": value}
    stored["created_timestamp"] = created or event_at
    return {**stored, "_accepted": 1, "_ordinal": 0, "_schema": 1, "_deleted": False, "_run": "run-1", **more}


class Histories:
    """Writes history files, each column as GroupSchema.offline has it; a group per call.

    statistics: whether the footers say from where to where columns go, which decides how DuckDB compares versions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = 0
        self.statistics = True

    def group(
        self,
        *files: list[Row],
        keys: tuple[Field, ...] = CUSTOMER,
        ttl: timedelta | None = None,
        schema_ids: frozenset[int] | None = None,
        features: Sequence[tuple[str, str, Dtype]] = (("value", "value", INT64),),
        lacking: frozenset[str] = frozenset(),
    ) -> GroupHistory:
        """A group stored as these files, features as (name, output, dtype); the first file lacks some columns."""
        columns = tuple(FeatureColumn(name, dtype) for name, dtype in {(name, dtype) for name, _, dtype in features})
        schema = GroupSchema("purchases", 1, 1, keys, columns).offline
        paths = []
        for place, rows in enumerate(files):
            table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)
            paths.append(self._write(table.drop_columns(list(lacking)) if place == 0 and lacking else table))
        wanted = tuple(HistoryFeature(name, output, dtype, schema_ids) for name, output, dtype in features)
        return GroupHistory("purchases", tuple(paths), keys, ttl, wanted)

    def _write(self, table: pa.Table) -> str:
        self.written += 1
        path = self.folder / f"part-{self.written}.parquet"
        pq.write_table(table, path, write_statistics=self.statistics, row_group_size=10)
        return str(path)


SPINE = pa.schema([("customer_id", pa.string()), ("event_timestamp", pa.timestamp("us", "UTC"))])


def spine_of(*rows: tuple[str, datetime]) -> pa.Table:
    """A spine of (customer, time) pairs."""
    return pa.Table.from_pylist([dict(zip(SPINE.names, row, strict=True)) for row in rows], SPINE)
