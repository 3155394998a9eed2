"""The newest rows of an offline table, without reading all of it: for people who want to see what lies there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from engine.errors import CorruptData
from engine.instants import EPOCH
from engine.offline.table import READ_ROWS, OfflineTable
from engine.parquet import open_parquet
from engine.schema import DELETED, EVENT_TIMESTAMP, SCHEMA, VERSION_ORDER

#: Bytes of values, unpacked, that one look may read, and files that it may open.
BYTES_AT_MOST = 32 << 20
FILES_AT_MOST = 16
#: Some writers' statistics are cut to the millisecond.
_STATISTICS_CUT = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Newest:
    """The latest rows in version order, the latest first.

    rows:      the wanted columns that the files have, the version's and SCHEMA; None without any row.
    as_of:     when the newest commit was made (UTC); None for a table without one.
    is_exact:  whether no row that was not looked at can be later than these.
    looked_at: how many rows were, in `files` files.
    """

    rows: pl.DataFrame | None
    as_of: datetime | None
    is_exact: bool = True
    looked_at: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A file, or a row group of one by its number, with the latest event in it; None where nothing says."""

    file: str
    number: int
    latest: datetime | None


def newest_rows(
    table: OfflineTable, columns: Sequence[str], *, at_most: int, bytes_at_most: int = BYTES_AT_MOST
) -> Newest:
    """At most `at_most` rows of the newest version that are no tombstones, by their place in the version order.

    Files and row groups are read by the latest event that their statistics name, until no other can hold a later one,
    or `bytes_at_most` bytes or FILES_AT_MOST files were read. Page checksums are verified, whole files are not hashed:
    raises CorruptData naming a file that cannot be read.
    """
    opened = table.open()
    if opened is None:
        return Newest(None, None)
    look = _Look(list(dict.fromkeys([*columns, *VERSION_ORDER, SCHEMA, DELETED])), at_most, bytes_at_most)
    is_exact = True
    for file in _by_latest(_files(opened)):
        if look.is_beyond(file.latest):
            break
        if look.is_over():
            is_exact = False
            break
        look.take_file(table.folder / file.file)
    committed = next((commit.get("timestamp") for commit in opened.history(1)), None)
    as_of = EPOCH + timedelta(milliseconds=committed) if committed is not None else None
    return Newest(look.rows, as_of, is_exact and not look.was_cut, look.looked_at, look.files)


@dataclass
class _Look:
    """What was found so far, and how much may still be read."""

    columns: list[str]
    at_most: int
    bytes_left: int
    rows: pl.DataFrame | None = None
    looked_at: int = 0
    files: int = 0
    was_cut: bool = field(default=False)

    def is_over(self) -> bool:
        return self.files == FILES_AT_MOST or self.bytes_left <= 0

    def is_beyond(self, latest: datetime | None) -> bool:
        """Whether rows up to `latest` cannot be among the newest any more."""
        if self.rows is None or self.rows.height < self.at_most or latest is None:
            return False
        oldest: datetime = self.rows[EVENT_TIMESTAMP][-1]
        return latest + _STATISTICS_CUT < oldest

    def take_file(self, path: Path) -> None:
        self.files += 1
        try:
            with open_parquet(path) as file:
                for part in _by_latest(_row_groups(file)):
                    if self.is_beyond(part.latest):
                        return
                    self._take_row_group(file, part.number)
                    if self.was_cut:
                        return
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise CorruptData(f"Offline file {path} cannot be read: {error}") from error

    def _take_row_group(self, file: pq.ParquetFile, number: int) -> None:
        have = set(file.schema_arrow.names)
        wanted = [name for name in self.columns if name in have]
        per_row = _bytes_per_row(file.metadata.row_group(number), wanted)
        size = max(1, min(READ_ROWS, self.bytes_left // per_row))
        for batch in self._until_over(file.iter_batches(size, row_groups=[number], columns=wanted), per_row):
            found = pl.DataFrame(batch).filter(~pl.col(DELETED))
            both = found if self.rows is None else pl.concat([self.rows, found], how="diagonal")
            self.rows = both.sort(VERSION_ORDER, descending=True).head(self.at_most)

    def _until_over(self, batches: Iterator[pa.RecordBatch], per_row: int) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self.bytes_left <= 0:
                self.was_cut = True
                return
            self.bytes_left -= batch.num_rows * per_row
            self.looked_at += batch.num_rows
            yield batch


def _by_latest(parts: Sequence[_Part]) -> list[_Part]:
    """The latest first; before all others those of which nothing is known."""
    return sorted(parts, key=lambda part: (part.latest is None, part.latest or EPOCH), reverse=True)


def _files(opened: DeltaTable) -> list[_Part]:
    actions = pa.table(opened.get_add_actions(flatten=True)).to_pylist()
    return [_Part(action["path"], 0, action.get(f"max.{EVENT_TIMESTAMP}")) for action in actions]


def _row_groups(file: pq.ParquetFile) -> list[_Part]:
    column = file.schema_arrow.names.index(EVENT_TIMESTAMP) if EVENT_TIMESTAMP in file.schema_arrow.names else None
    return [
        _Part("", number, _latest(file.metadata.row_group(number), column)) for number in range(file.num_row_groups)
    ]


def _latest(row_group: pq.RowGroupMetaData, column: int | None) -> datetime | None:
    """The statistics of a leaf column; its number is the field's, since only keys stand before it."""
    if column is None:
        return None
    told = row_group.column(column)
    if told.path_in_schema != EVENT_TIMESTAMP or told.statistics is None or not told.statistics.has_min_max:
        return None
    latest: datetime = told.statistics.max
    return latest


def _bytes_per_row(row_group: pq.RowGroupMetaData, wanted: Sequence[str]) -> int:
    """How much of the wanted columns a row takes, unpacked, on the average; at least 1."""
    columns = (row_group.column(number) for number in range(row_group.num_columns))
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.partition(".")[0] in wanted)
    return max(1, size // max(1, row_group.num_rows))
