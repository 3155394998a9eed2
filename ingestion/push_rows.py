"""The rows of a push batch as the log keeps them: one Arrow stream with the columns of the offline table."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from engine.schema import GroupSchema
from ingestion.models import PushBatch


def to_bytes(rows: pl.DataFrame, schema: GroupSchema) -> bytes:
    """Offline rows as an Arrow IPC stream with exactly the types of the offline table."""
    table = rows.to_arrow().cast(schema.offline)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def rows_of(batch: PushBatch) -> pl.DataFrame:
    """The rows of a logged push."""
    frame = pl.from_arrow(pa.ipc.open_stream(bytes(batch.rows)).read_all())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  what Polars makes of a table
    return frame
