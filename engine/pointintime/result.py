"""The table that a point-in-time join answers, whichever engine found the values: its columns, batches and file.

Every engine answers each group's features as one stream in the spine's order. The spine's own columns are put beside
them here, as they are read a second time: they keep their exact types, and no engine carries a wide row along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InvalidSpine, Problem, RunFailed
from engine.offline.storage import storage_errors
from engine.pointintime.rule import GroupHistory, HistoryFeature, output_names
from engine.pointintime.spine import BATCH_ROWS, Spine, check_spine
from engine.status import NOT_FOUND

#: Called with each batch of the result in order, and with None whenever the join came further: after each group at
#: least.
Follow = Callable[[pa.RecordBatch | None], None]

_END = pa.record_batch([], names=[])
MICROSECOND = timedelta(microseconds=1)


def prepared(
    spine: pa.Table | str | Path,
    groups: Sequence[GroupHistory],
    *,
    event_timestamp: str,
    statuses: bool,
    order: Sequence[str] | None,
) -> tuple[Spine, pa.Schema]:
    """The spine, seen to be one that the groups can be joined onto, and the result's schema; raises InvalidSpine."""
    features = _ordered([feature for group in groups for feature in group.features], order)
    opened = Spine.of(spine, event_timestamp)
    check_spine(opened, [key for group in groups for key in group.keys], output_names(features, statuses))
    return opened, _result_schema(opened.schema, features, statuses)


def _ordered(features: Sequence[HistoryFeature], order: Sequence[str] | None) -> tuple[HistoryFeature, ...]:
    """The features by output name in `order`; ValueError when that is not a permutation of their names."""
    if order is None:
        return tuple(features)
    if sorted(order) != sorted(feature.output for feature in features):
        raise ValueError(f"`order` must name each of {[feature.output for feature in features]} once, not {order}.")
    return tuple(sorted(features, key=lambda feature: order.index(feature.output)))


def _result_schema(spine: pa.Schema, features: tuple[HistoryFeature, ...], statuses: bool) -> pa.Schema:
    kinds = [feature.dtype.arrow for feature in features] + [pa.string()] * len(features) * statuses
    added = [pa.field(name, kind) for name, kind in zip(output_names(features, statuses), kinds, strict=True)]
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
    streams: Iterable[Iterator[pa.RecordBatch]], schema: pa.Schema, *, output: Path | None, follow: Follow
) -> pa.Table | int:
    """The streams' columns side by side as a table, or as the file `output`; then the answer is its number of rows."""
    batches = _followed(_side_by_side(streams, schema), follow)
    if output is None:
        return pa.Table.from_batches(batches, schema)
    return write_file(batches, schema, output)


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
            with pq.ParquetWriter(part, schema, **how) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return rows
