"""The stored rows of one group, as they lie in the offline table."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from catalog import snapshot, stores
from engine.errors import unknown_name
from engine.offline.table import read_file
from engine.schema import DELETED, EVENT_TIMESTAMP, VERSION_ORDER


def rows_of_group(name: str, *, start: datetime | None = None, end: datetime | None = None) -> pl.DataFrame | None:
    """The rows of a group's served version between two event times (inclusive), in version order; None without any.

    Columns: join keys, event_timestamp, features. Rows pushed before the call are among them; tombstones are not.
    Raises UnknownName, and CorruptData for a file that fails its checksums.
    """
    catalog = snapshot.load()
    group = catalog.groups.get(name)
    if group is None:
        raise unknown_name("feature group", name, catalog.groups)
    stores.history_wanted.send(rows_of_group, groups=[name])
    columns = [key.name for key in catalog.entities[group.entity]] + [EVENT_TIMESTAMP, *group.features]
    wanted = [*columns, *(name for name in VERSION_ORDER if name not in columns), DELETED]
    files = stores.offline(name, group.version).files()
    batches = [pl.DataFrame(batch) for path in files for batch in read_file(path, wanted)]
    if not batches:
        return None
    rows = pl.concat(batches, how="diagonal").filter(~pl.col(DELETED))
    if start is not None:
        rows = rows.filter(pl.col(EVENT_TIMESTAMP) >= start)
    if end is not None:
        rows = rows.filter(pl.col(EVENT_TIMESTAMP) <= end)
    missing = [
        pl.lit(None, f.dtype.polars).alias(f.name) for f in group.features.values() if f.name not in rows.columns
    ]
    return rows.with_columns(missing).sort(VERSION_ORDER).select(columns)
