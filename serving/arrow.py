"""Vectors as an Arrow stream, for readers that take many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from engine.schema import TIMESTAMP_ARROW
from serving.vectors import Vectors

MEDIA_TYPE = "application/vnd.apache.arrow.stream"


def stream(found: Vectors, entities: Mapping[str, Sequence[object]], *, include: Sequence[str]) -> bytes:
    """One IPC stream: a row per entity; columns of the join keys, then `group:name` of each feature with its type.

    `include` adds `group:name__status` and `group:name__event_timestamp` columns behind them. int64 keeps 64 bits.
    """
    names = found.plan.feature_names
    columns = [(key.name, pa.array(entities[key.name], key.dtype.arrow)) for key in found.plan.keys]
    values = _columns(found.python_values(), len(names))
    kinds = [feature.dtype.arrow for feature in found.plan.features]
    columns += [(name, pa.array(v, kind)) for name, v, kind in zip(names, values, kinds, strict=True)]
    if "statuses" in include:
        columns += _named(names, "status", found.statuses, pa.string())
    if "event_timestamps" in include:
        columns += _named(names, "event_timestamp", found.event_us, TIMESTAMP_ARROW)
    table = pa.Table.from_arrays([column for _, column in columns], [name for name, _ in columns])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _named(
    names: Sequence[str], suffix: str, rows: Sequence[Sequence[object]], kind: pa.DataType
) -> list[tuple[str, pa.Array]]:
    columns = _columns(rows, len(names))
    return [(f"{name}__{suffix}", pa.array(column, kind)) for name, column in zip(names, columns, strict=True)]


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    return [[row[place] for row in rows] for place in range(width)]
