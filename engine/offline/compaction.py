"""Making few large files out of many small ones, by our own writer: sorted, with page checksums, fsynced.

deltalake's own compaction writes no page checksums and keeps no order. Which files go together is decided by their rows
in powers of ten: ten files of 10 to 99 rows become one of 100 to 999 or so. Thus a row is written again about once for
each power of ten, however many small files come, and a table keeps fewer than ten small files of each size.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from itertools import groupby

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine import faults
from engine.offline.files import DataFile
from engine.offline.log import LoggedFile
from engine.offline.table import OfflineTable, read_file

#: So many files of one size go together.
FILES_AT_LEAST = 10
#: What one new file may hold: both bound the memory of a compaction (some 10 bytes a value, three times).
ROWS_AT_MOST = 1_000_000
BYTES_AT_MOST = 32 << 20


def compact(table: OfflineTable, *, sort_by: Sequence[str]) -> int:
    """Put together the small files of the newest version, one commit for each new file; how many files are gone.

    Each file is checked before it is read: raises CorruptData naming a damaged one. Killed anywhere it leaves a file
    that nobody reads, or a commit that is whole. Raises Unavailable and StorageFailed as `OfflineTable.commit` does.
    """
    return sum(_put_together(table, files, sort_by) for files in batches(table.entries()))


def batches(entries: Sequence[LoggedFile]) -> Iterator[list[LoggedFile]]:
    """Which files become one: of one power of ten, FILES_AT_LEAST or more of it, within the bounds of one file."""
    by_size = sorted(entries, key=lambda file: (len(str(file.rows)), file.name))
    for _, group in groupby(by_size, key=lambda file: len(str(file.rows))):
        alike = list(group)
        if len(alike) >= FILES_AT_LEAST:
            yield from (batch for batch in _filled(alike) if len(batch) > 1)


def _filled(files: Sequence[LoggedFile]) -> Iterator[list[LoggedFile]]:
    batch: list[LoggedFile] = []
    for file in files:
        rows, size = sum(f.rows for f in batch) + file.rows, sum(f.size for f in batch) + file.size
        if batch and (rows > ROWS_AT_MOST or size > BYTES_AT_MOST):
            yield batch
            batch = []
        batch.append(file)
    yield batch


def _put_together(table: OfflineTable, files: Sequence[LoggedFile], sort_by: Sequence[str]) -> int:
    """Commit one file in the place of these; how many are gone: none when another process was quicker."""
    written = _write(table, files, sort_by)
    faults.hit("compact.before_delta_commit")
    version = table.replace_files([file.name for file in files], [written])
    faults.hit("compact.after_delta_commit")
    if version is None:
        table.discard([written])
        return 0
    return len(files)


def _write(table: OfflineTable, files: Sequence[LoggedFile], sort_by: Sequence[str]) -> DataFile:
    """One file of all rows. Files of several schemas have its columns together; `_schema` still tells each row's."""
    paths = list(table.whole(files))
    schema = pa.unify_schemas([pq.read_schema(path) for path in paths])
    frames = [pl.DataFrame(batch) for path in paths for batch in read_file(path)]
    rows = pl.concat(frames, how="diagonal")
    return table.write_file(rows, schema, name=f"compact-{uuid.uuid4()}", sort_by=sort_by)
