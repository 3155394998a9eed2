"""The stored rows of one group, as they lie in the offline table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl
import pyarrow as pa

from catalog import snapshot, stores
from engine.errors import Problem, UnknownName, near_names, unknown_name
from engine.offline.table import read_file
from engine.schema import DELETED, EVENT_TIMESTAMP, VERSION_ORDER


def rows_of_group(
    name: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame | None:
    """The rows of a group's served version between two event times (inclusive), in version order; None without any.

    Columns: join keys, event_timestamp, features (or these `columns`, inputs too). Rows pushed before the call are
    among them; tombstones are not. Raises UnknownName with near names, and CorruptData for a file that fails its
    checksums.
    """
    catalog = snapshot.load()
    group = catalog.groups.get(name)
    if group is None:
        raise unknown_name("feature group", name, catalog.groups)
    stores.history_wanted.send(rows_of_group, groups=[name])
    keys = [*(key.name for key in catalog.entities[group.entity]), EVENT_TIMESTAMP]
    stored = [feature.name for feature in group.features.values() if not feature.on_request]
    asked = [*keys, *(stored if columns is None else columns)]
    wanted = list(dict.fromkeys([*asked, *VERSION_ORDER, DELETED]))
    files = stores.offline(name, group.version).files()
    batches = [_between(batch, start, end) for path in files for batch in read_file(path, wanted)]
    if not batches:
        return None
    rows = pl.concat(batches, how="diagonal")
    known = [*rows.columns, *stored]
    if unknown := [column for column in asked if column not in known]:
        problems = [Problem(column, "unknown column", near_names(column, known)) for column in unknown]
        raise UnknownName(f"{name} has no column {', '.join(unknown)}.", problems)
    missing = [column for column in asked if column not in rows.columns]
    nulls = [pl.lit(None, group.features[column].dtype.polars).alias(column) for column in missing]
    return rows.with_columns(nulls).sort(VERSION_ORDER).select(asked)


def _between(batch: pa.RecordBatch, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    """The rows of a batch that are no tombstones and lie between the two, inclusive."""
    wanted = ~pl.col(DELETED)
    if start is not None:
        wanted &= pl.col(EVENT_TIMESTAMP) >= start
    if end is not None:
        wanted &= pl.col(EVENT_TIMESTAMP) <= end
    return pl.DataFrame(batch).filter(wanted)
