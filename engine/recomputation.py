"""Reading a version's stored rows as raw ones of a newer version, so that these are computed from what was kept."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from engine.offline.log import LoggedFile
from engine.offline.table import OfflineTable, read_file
from engine.pipeline import ORIGIN
from engine.raw_batch import RawBatch
from engine.schema import ACCEPTED, CREATED_TIMESTAMP, DELETED, EVENT_TIMESTAMP, ORDINAL, GroupSchema


def read_older(table: OfflineTable, file: LoggedFile, schema: GroupSchema) -> Iterator[RawBatch]:
    """The rows of one file of the older version's table as raw ones of `schema`, each with the place of its coming.

    Raises CorruptData naming the file when it is not as it was committed.
    """
    given = [column.name for column in schema.given]
    wanted = [*schema.key_names, EVENT_TIMESTAMP, CREATED_TIMESTAMP, ACCEPTED, ORDINAL, DELETED, *given]
    for path in table.whole([file]):
        for batch in read_file(path, wanted):
            yield from _raw(batch, schema)


def _raw(batch: pa.RecordBatch, schema: GroupSchema) -> Iterator[RawBatch]:
    """First the rows that are there, then the tombstones."""
    frame = pl.DataFrame(batch)
    for deleted in (False, True):
        rows = frame.filter(pl.col(DELETED) == deleted)
        if rows.is_empty():
            continue
        stamps = [pl.col(ACCEPTED), pl.col(ORDINAL), pl.col(CREATED_TIMESTAMP)]
        origins = rows.select([stamp.alias(name) for stamp, name in zip(stamps, ORIGIN, strict=True)]).cast(ORIGIN)  # type: ignore[arg-type]
        renamed = rows.rename({EVENT_TIMESTAMP: schema.event_timestamp})
        if schema.created_timestamp:
            renamed = renamed.rename({CREATED_TIMESTAMP: schema.created_timestamp})
        raw = RawBatch(renamed.to_arrow(), "typed", origins, is_deleted=deleted)
        yield raw.fitted(schema.raw_names)
