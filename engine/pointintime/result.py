"""The table that a point-in-time join answers, whichever engine found the values: its columns, batches and file.

Every engine answers each group's features as one stream in the spine's order. The spine's own columns are put beside
them here, as they are read a second time: they keep their exact types, and no engine carries a wide row along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InvalidSpine, Problem, RunFailed
from engine.offline.storage import storage_errors
from engine.pointintime.rule import (
    RESERVED_PREFIX,
    STATUS_SUFFIX,
    GroupHistory,
    OnRequest,
    output_names,
    with_statuses,
)
from engine.pointintime.spine import BATCH_ROWS, Spine, check_spine, request_values
from engine.schema import Dtype
from engine.status import NOT_FOUND

#: Called with each batch of the result in order, and with None whenever the join came further: after each group at
#: least.
Follow = Callable[[pa.RecordBatch | None], None]

_END = pa.record_batch([], names=[])
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a join: what the engine's streams bring (`joined`), and what is answered (`result`).

    They are the same unless some features are computed from what was joined.
    """

    joined: pa.Schema
    result: pa.Schema
    on_request: tuple[OnRequest, ...]


def prepared(
    spine: pa.Table | str | Path,
    groups: Sequence[GroupHistory],
    *,
    event_timestamp: str,
    statuses: bool,
    order: Sequence[str] | None,
    on_request: Sequence[OnRequest] = (),
) -> tuple[Spine, Shape]:
    """The spine, seen to be one that the groups can be joined onto, and the join's shape; raises InvalidSpine."""
    joined = {feature.output: feature.dtype for group in groups for feature in group.features}
    outputs = [feature.output for group in groups for feature in group.features]
    outputs = [name for name in outputs if not name.startswith(RESERVED_PREFIX)]
    outputs += [output for one in on_request for _, output in one.outputs]
    dtypes = joined | {output: dtype for one in on_request for output, dtype in one.dtypes().items()}
    opened = Spine.of(spine, event_timestamp)
    keys = [key for group in groups for key in group.keys]
    sent = [field for one in on_request for field in one.computation.request_inputs]
    check_spine(opened, keys, with_statuses(outputs, statuses), sent)
    result = _schema(opened.schema, {name: dtypes[name] for name in _ordered(outputs, order)}, statuses)
    return opened, Shape(_schema(opened.schema, joined, statuses) if on_request else result, result, tuple(on_request))


def _ordered(outputs: Sequence[str], order: Sequence[str] | None) -> Sequence[str]:
    """The outputs in `order`; ValueError when that is not a permutation of them."""
    if order is None:
        return outputs
    if sorted(order) != sorted(outputs):
        raise ValueError(f"`order` must name each of {outputs} once, not {order}.")
    return order


def _schema(spine: pa.Schema, outputs: Mapping[str, Dtype], statuses: bool) -> pa.Schema:
    kinds = [dtype.arrow for dtype in outputs.values()] + [pa.string()] * len(outputs) * statuses
    names = with_statuses(list(outputs), statuses)
    added = [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]
    return pa.schema([*spine, *added], metadata=spine.metadata)


def refuse_never_received(first_received: Iterable[tuple[str, int | None]], newest: int) -> None:
    """InvalidSpine naming each group whose first row was received after the spine's newest time, `newest`.

    first_received: each group with its earliest created_timestamp in microseconds; None when it has no rows.
    """
    problems = []
    for group, first in first_received:
        if first is not None and first > newest:
            detail = (
                f"known_at: the first row of group {group} was received at {_instant(first)}, after the "
                f"newest spine row ({_instant(newest)}), so no feature was known; leave known_at out or use later rows."
            )
            problems.append(Problem("/known_at", detail))
    if problems:
        raise InvalidSpine("The spine cannot be joined as the features were known.", problems)


def _instant(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + microseconds * MICROSECOND).isoformat().replace("+00:00", "Z")


def absent(group: GroupHistory, statuses: bool, rows: int) -> Iterator[pa.RecordBatch]:
    """The output columns of a group without rows, for `rows` spine rows."""
    names = output_names(group.features, statuses)
    for start in range(0, rows, BATCH_ROWS):
        size = min(BATCH_ROWS, rows - start)
        columns = [pa.nulls(size, feature.dtype.arrow) for feature in group.features]
        missing = [pa.repeat(NOT_FOUND, size)] * (len(names) - len(columns))
        yield pa.record_batch([*columns, *missing], names)


def composed(
    streams: Iterable[Iterator[pa.RecordBatch]], shape: Shape, *, output: Path | None, follow: Follow
) -> pa.Table | int:
    """The streams' columns side by side, and what is computed from them, as a table, or as the file `output`; then the
    answer is its number of rows.
    """
    batches = _side_by_side(streams, shape.joined)
    if shape.on_request:
        batches = (_with_computed(batch, shape) for batch in batches)
    batches = _followed(batches, follow)
    if output is None:
        return pa.Table.from_batches(batches, shape.result)
    return write_file(batches, shape.result, output)


def _with_computed(batch: pa.RecordBatch, shape: Shape) -> pa.RecordBatch:
    """The result's columns of joined rows."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for one in shape.on_request:
        sent = [request_values(batch, field).values.alias(field.name) for field in one.computation.request_inputs]
        stored = zip(one.stored, one.computation.stored, strict=True)
        joined = [pl.Series(pl.from_arrow(batch[output])).alias(field.name) for output, field in stored]
        computed = one.computation.compute(pl.DataFrame([*sent, *joined]))
        for name, output in one.outputs:
            columns[output] = computed[name].values.to_arrow()
            columns[output + STATUS_SUFFIX] = computed[name].statuses().to_arrow()
    return pa.record_batch([columns[field.name].cast(field.type) for field in shape.result], schema=shape.result)


def _side_by_side(streams: Iterable[Iterator[pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """One stream with all columns of `streams` (equally many rows each, batches of any size), as `schema` says."""
    filled = [(batch for batch in stream if batch.num_rows) for stream in streams]
    heads = [next(stream, _END) for stream in filled]
    while size := min(head.num_rows for head in heads):
        columns = {name: part for head in heads for name, part in zip(head.schema.names, head.columns, strict=True)}
        yield pa.record_batch([columns[field.name].slice(0, size).cast(field.type) for field in schema], schema=schema)
        rests = [head.slice(size) for head in heads]
        heads = [rest if rest.num_rows else next(stream, _END) for rest, stream in zip(rests, filled, strict=True)]
    if any(head.num_rows for head in heads):
        raise RunFailed("The spine changed while it was joined: its number of rows is not what it was.")


def _followed(batches: Iterable[pa.RecordBatch], follow: Follow) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        follow(batch)
        yield batch


def write_file(batches: Iterable[pa.RecordBatch], schema: pa.Schema, output: Path) -> int:
    """Write a Parquet file with page checksums and answer its rows; under another name until it is whole.

    Raises StorageFull and StorageFailed; no part of the file stays then.
    """
    rows, part = 0, output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        texts = [field.name for field in schema if pa.types.is_string(field.type)]  # on numbers a dictionary is slow
        how = {"compression": "zstd", "use_dictionary": texts, "write_page_checksum": True}
        with storage_errors(output.parent):
            # One batch is being written while the next one is made: a tenth of a join.
            with pq.ParquetWriter(part, schema, **how) as writer, ThreadPoolExecutor(1) as pen:
                written: Future[None] | None = None
                for batch in batches:
                    if written is not None:
                        written.result()
                    written = pen.submit(writer.write_batch, batch)
                    rows += batch.num_rows
                if written is not None:
                    written.result()
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return rows
