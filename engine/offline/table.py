"""One group version's history: a Delta table of Parquet files that we write, checksum and fsync ourselves.

A file is written first and becomes part of the table only by a commit, so a killed writer leaves at most a
file that nobody reads. A commit carries an application transaction id, checked on the very snapshot that is
committed on: the same id lands once, however often and from however many processes it is tried. Measured
behind this: deltalake does not fsync, and does not refuse a repeated transaction id (docs/formats/offline.md).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from engine.errors import CorruptData, Unavailable
from engine.parquet import open_parquet
from engine.schema import ACCEPTED, EVENT_TIMESTAMP, SCHEMA, VERSION_ORDER

COMMIT_ATTEMPTS = 20
ROWS_PER_GROUP = 131_072
READ_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file written and fsynced beside the table, not yet part of it."""

    name: str
    rows: int
    size: int
    event_range: tuple[datetime, datetime] | None


@dataclass(frozen=True, slots=True)
class Landing:
    """What a commit found or did: the table's version then, and whether the transaction is in it with these files.

    Not `ours`: another attempt of the same transaction landed first, and these files are nobody's.
    """

    version: int
    ours: bool


class OfflineTable:
    """The Delta table in `folder`; made by the first commit, empty until then."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def open(self, version: int | None = None) -> DeltaTable | None:
        """A handle on the newest (or the given) version; None when the table has no commit yet."""
        try:
            return DeltaTable(self.folder, version=version)
        except TableNotFoundError:
            return None

    @property
    def version(self) -> int:
        """The newest Delta version; -1 before the first commit."""
        table = self.open()
        return -1 if table is None else table.version()

    def has_landed(self, transaction: str) -> bool:
        """Whether a commit with this application transaction id is part of the table."""
        table = self.open()
        if table is None or table.transaction_version(transaction) is None:
            return False
        self._fsync_landed(table, transaction)  # who is told so may forget its own copy of the rows
        return True

    def write_file(self, frame: pl.DataFrame, schema: pa.Schema, *, name: str, sort_by: Sequence[str]) -> DataFile:
        """Write `frame` (at least one row) as `<name>.parquet` sorted by (keys, version), fsynced.

        `schema` is the file's Arrow schema: frame columns are put in its order and cast to it exactly. A name is
        used once, by one attempt: a paused writer that wakes must not touch what its successor committed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        table = frame.select(schema.names).sort(*sort_by, *VERSION_ORDER).to_arrow().cast(schema)
        path = self.folder / f"{name}.parquet"
        with open(path, "xb") as file:
            pq.write_table(
                table,
                file,
                row_group_size=ROWS_PER_GROUP,
                write_page_checksum=True,
                use_dictionary=[field.name for field in schema if _repeats(field)],
            )
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        events = pc.min_max(table[EVENT_TIMESTAMP])
        return DataFile(path.name, table.num_rows, size, (events["min"].as_py(), events["max"].as_py()))

    def commit(self, files: Sequence[DataFile], schema: pa.Schema, *, transaction: str) -> Landing:
        """Make `files` part of the table in one version, once per `transaction`.

        Columns that the table lacks are added first: deltalake would otherwise drop them at the next compaction.
        Raises Unavailable when other writers won every attempt.
        """
        fsync_folder(self.folder)
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                table, opened_at = self._open_with(schema)
                if table.transaction_version(transaction) is None:
                    self._append(table, files, transaction)
                    self._fsync_log(opened_at, table.version())
                    return Landing(table.version(), ours=True)
                landed = self._fsync_landed(table, transaction)
                return Landing(table.version(), ours=self._may_hold(landed, files))
            except CommitFailedError:
                time.sleep(0.01 * attempt)
        raise Unavailable(f"Other writers won {COMMIT_ATTEMPTS} commits in a row on {self.folder}; try again.")

    def _open_with(self, schema: pa.Schema) -> tuple[DeltaTable, int]:
        """The table with every column of `schema`, and the version that it had before (0 when it was made here)."""
        table = self.open() or self._create(schema)
        opened_at = table.version()
        have = {field.name for field in table.schema().fields}
        if missing := [field for field in schema if field.name not in have]:
            table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
            table.update_incremental()
        return table, opened_at

    def _create(self, schema: pa.Schema) -> DeltaTable:
        table = DeltaTable.create(self.folder, schema=schema, mode="ignore")
        for folder in (self.folder, *self.folder.parents[:2]):  # `<group>/v<version>` may be new, `_delta_log` is
            fsync_folder(folder)
        return table

    def _append(self, table: DeltaTable, files: Sequence[DataFile], transaction: str) -> None:
        now_ms = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(f.name, f.size, {}, now_ms, True, _statistics(f)) for f in files
        ]
        properties = CommitProperties(app_transactions=[Transaction(transaction, 1, now_ms)])
        table.create_write_transaction(actions, "append", table.schema(), commit_properties=properties)
        table.update_incremental()

    def _fsync_log(self, first: int, last: int) -> None:
        """Make these versions survive a power loss; `first` may be another's, killed before it did so itself."""
        log = self.folder / "_delta_log"
        written = [path for path in log.iterdir() if path.name[:20].isdigit() and first <= int(path.name[:20]) <= last]
        if any(".checkpoint" in path.name for path in written):
            written.append(log / "_last_checkpoint")
        for path in written:
            _fsync(path)
        fsync_folder(log)

    def _fsync_landed(self, table: DeltaTable, transaction: str) -> int:
        """The same from the version of `transaction` on, which it returns: its writer may have been killed between
        commit and fsync. An earlier version when that log is no longer kept."""
        version = last = table.version()
        while version > 0 and (actions := self._actions(version)) is not None and not _names(actions, transaction):
            version -= 1
        self._fsync_log(version, last)
        return version

    def _may_hold(self, version: int, files: Sequence[DataFile]) -> bool:
        """Whether a version added one of these files, or can no longer be asked: then they are better kept."""
        actions = self._actions(version)
        added = {action["add"]["path"] for action in actions or () if "add" in action}
        return not added or not added.isdisjoint(file.name for file in files)

    def discard(self, files: Sequence[DataFile]) -> None:
        """Remove files that no commit made part of the table."""
        for file in files:
            (self.folder / file.name).unlink(missing_ok=True)

    def _actions(self, version: int) -> list[dict[str, Any]] | None:
        """The actions of one version; None when its log is no longer kept."""
        try:
            text = (self.folder / "_delta_log" / f"{version:020}.json").read_text()
        except FileNotFoundError:
            return None
        return [json.loads(line) for line in text.splitlines()]

    def files(self, version: int | None = None) -> list[str]:
        """The paths of every file of the newest (or the given) version, sorted by name."""
        table = self.open(version)
        return [] if table is None else sorted(str(self.folder / Path(uri).name) for uri in table.file_uris())

    def files_added(self, after: int, until: int) -> list[str] | None:
        """Files whose rows arrived in versions after `after` up to `until`, oldest first.

        Compaction adds none (its rows had arrived before). None when the log of one of these versions, or a
        file it names, is no longer kept: then the caller reads the whole table.
        """
        paths: list[str] = []
        for version in range(after + 1, until + 1):
            actions = self._actions(version)
            if actions is None:
                return None
            paths += [str(self.folder / a["add"]["path"]) for a in actions if "add" in a and a["add"]["dataChange"]]
        return paths if all(os.path.exists(path) for path in paths) else None


def read_file(path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of one file in batches of READ_ROWS, page checksums verified; raises CorruptData naming the file.

    Columns that an older file lacks are left out.
    """
    try:
        with open_parquet(path) as file:
            have = set(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in columns if name in have]
            rows = 0
            for batch in file.iter_batches(batch_size=READ_ROWS, columns=wanted):
                rows += batch.num_rows
                yield batch
            if rows != file.metadata.num_rows:  # a damaged page header can end a column early, without an error
                raise CorruptData(f"Offline file {path} gave {rows} rows; its footer says {file.metadata.num_rows}.")
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise CorruptData(f"Offline file {path} cannot be read: {error}") from error


def _repeats(field: pa.Field) -> bool:
    """Whether a dictionary is worth trying: on numbers and times it made writing 4 times slower and files larger."""
    return pa.types.is_string(field.type) or field.name in (ACCEPTED, SCHEMA)


def fsync_folder(folder: Path) -> None:
    """Make the names of files created in `folder` survive a power loss."""
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(actions: Sequence[dict[str, Any]], transaction: str) -> bool:
    return any(action["txn"]["appId"] == transaction for action in actions if "txn" in action)


def _statistics(file: DataFile) -> str:
    """What readers may skip the file by. Keys and values are left out: statistics outlive an erasure."""
    statistics: dict[str, object] = {"numRecords": file.rows}
    if file.event_range:
        low, high = (time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for time in file.event_range)
        statistics |= {"minValues": {EVENT_TIMESTAMP: low}, "maxValues": {EVENT_TIMESTAMP: high}}
    return json.dumps(statistics)
