"""One group version's history: a Delta table of Parquet files that we write, checksum and fsync ourselves.

A file is written first and becomes part of the table only by a commit, so a killed writer leaves at most a
file that nobody reads. A commit carries an application transaction id, checked on the very snapshot that is
committed on: the same id lands once, however often and from however many processes it is tried. Measured
behind this: deltalake does not fsync, and does not refuse a repeated transaction id (docs/formats/offline.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from engine.errors import CorruptData, Unavailable
from engine.offline.files import DataFile, add_action, now_ms, write_parquet
from engine.offline.log import Action, DeltaLog, LoggedFile
from engine.offline.storage import storage_errors
from engine.offline.whole import whole_paths
from engine.parquet import open_parquet
from engine.schema import EVENT_TIMESTAMP, VERSION_ORDER

COMMIT_ATTEMPTS = 20
READ_ROWS = 32_768
#: The application transaction id of compactions; the number beside it rises with each.
COMPACTION = "compaction"
#: How a table looks after itself. deltalake removes old versions of the log when it writes a checkpoint, which is each
#: hundredth commit: a commit every five seconds leaves 17,000 files a day, and listing them is part of every opening.
#: Transaction ids stand in each checkpoint: 100,000 of them make a commit take 0.3 s instead of 0.05 (measured).
CONFIGURATION = {
    "delta.logRetentionDuration": "interval 1 days",
    "delta.setTransactionRetentionDuration": "interval 7 days",
}

Result = TypeVar("Result")


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
        self.log = DeltaLog(self.folder)

    def open(self, version: int | None = None) -> DeltaTable | None:
        """A handle on the newest (or the given) version; None when the table has no commit yet.

        Raises CorruptData when its log is not whole.
        """
        try:
            return DeltaTable(self.folder, version=version)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise _damaged(self.folder, error) from error

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
        used once, by one attempt: a paused writer that wakes must not touch what its successor committed. Raises
        StorageFailed, and leaves no part of a file.
        """
        table = frame.select(schema.names).sort(*sort_by, *VERSION_ORDER).to_arrow().cast(schema)
        path = self.folder / f"{name}.parquet"
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            size, sha256 = write_parquet(table, path)
        events = pc.min_max(table[EVENT_TIMESTAMP])
        return DataFile(path.name, table.num_rows, size, sha256, (events["min"].as_py(), events["max"].as_py()))

    def commit(self, files: Sequence[DataFile], schema: pa.Schema, *, transaction: str) -> Landing:
        """Make `files` part of the table in one version, once per `transaction`.

        Columns that the table lacks are added first: deltalake would otherwise drop them at the next compaction.
        Raises Unavailable when other writers won every attempt, and StorageFailed when the disk refuses.
        """
        return self._until_won(lambda: self._commit(files, schema, transaction))

    def replace_files(self, old: Collection[str], files: Sequence[DataFile]) -> int | None:
        """Put `files` in the place of the files named `old`, whose rows they hold; the version that does so.

        None when one of `old` is no longer part of the table. Of two replacements of one file deltalake takes both,
        and doubles its rows (measured); so each carries the one transaction id that all share, and of two from one
        snapshot the second conflicts and looks again.
        """
        return self._until_won(lambda: self._replace_files(old, files))

    def shorten_log(self) -> None:
        """Write a checkpoint, and remove the log of versions before it that are older than its retention (a day).

        As deltalake does at each hundredth commit; a table that is written no more would keep its log for ever.
        Raises CorruptData and StorageFailed.
        """
        table = self.open()
        if table is None:
            return
        with storage_errors(self.folder):
            try:
                table.create_checkpoint()
                self._fsync_log(table.version(), table.version())
                table.cleanup_metadata()
            except DeltaError as error:
                raise _damaged(self.folder, error) from error

    def _until_won(self, attempt: Callable[[], Result]) -> Result:
        with storage_errors(self.folder):
            fsync_folder(self.folder)
            for number in range(COMMIT_ATTEMPTS):
                try:
                    return attempt()
                except CommitFailedError:
                    time.sleep(0.01 * number)
                except DeltaError as error:
                    raise _damaged(self.folder, error) from error
        raise Unavailable(f"Other writers won {COMMIT_ATTEMPTS} commits in a row on {self.folder}; try again.")

    def _commit(self, files: Sequence[DataFile], schema: pa.Schema, transaction: str) -> Landing:
        table, opened_at = self._open_with(schema)
        if table.transaction_version(transaction) is None:
            self._write_version(table, [add_action(f, data_change=True) for f in files], transaction, 1)
            self._fsync_log(opened_at, table.version())
            return Landing(table.version(), ours=True)
        landed = self._fsync_landed(table, transaction)
        return Landing(table.version(), ours=self._may_hold(landed, files))

    def _replace_files(self, old: Collection[str], files: Sequence[DataFile]) -> int | None:
        table = self.open()
        if table is None or not {Path(uri).name for uri in table.file_uris()}.issuperset(old):
            return None
        opened_at, number = table.version(), table.transaction_version(COMPACTION) or 0
        removed = [RemoveAction(name, False, now_ms()) for name in old]
        self._write_version(
            table, [*(add_action(f, data_change=False) for f in files), *removed], COMPACTION, number + 1
        )
        self._fsync_log(opened_at, table.version())
        return table.version()

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
        table = DeltaTable.create(self.folder, schema=schema, mode="ignore", configuration=CONFIGURATION)
        for folder in (self.folder, *self.folder.parents[:2]):  # `<group>/v<version>` may be new, `_delta_log` is
            fsync_folder(folder)
        return table

    def _write_version(
        self, table: DeltaTable, actions: list[AddAction | RemoveAction], transaction: str, number: int
    ) -> None:
        properties = CommitProperties(app_transactions=[Transaction(transaction, number, now_ms())])
        table.create_write_transaction(actions, "append", table.schema(), commit_properties=properties)
        table.update_incremental()

    def _fsync_log(self, first: int, last: int) -> None:
        """Make these versions survive a power loss; `first` may be another's, killed before it did so itself."""
        log = self.log.folder
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
        while version > 0 and (actions := self.log.actions(version)) is not None and not _names(actions, transaction):
            version -= 1
        self._fsync_log(version, last)
        return version

    def _may_hold(self, version: int, files: Sequence[DataFile]) -> bool:
        """Whether a version added one of these files, or can no longer be asked: then they are better kept."""
        actions = self.log.actions(version)
        added = {action["add"]["path"] for action in actions or () if "add" in action}
        return not added or not added.isdisjoint(file.name for file in files)

    def discard(self, files: Sequence[DataFile]) -> None:
        """Remove files that no commit made part of the table."""
        for file in files:
            (self.folder / file.name).unlink(missing_ok=True)

    def discard_named(self, beginning: str, *, keep: Collection[str] = ()) -> None:
        """Remove files whose names begin so, which no commit made part of the table, but for those to keep."""
        for path in self.folder.glob(f"{beginning}*.parquet"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def entries(self, version: int | None = None) -> list[LoggedFile]:
        """Every file of the newest (or the given) version as the log describes it, sorted by name.

        Raises CorruptData naming what of the log is missing or damaged.
        """
        table = self.open(version)
        if table is None:
            return []
        named = sorted(Path(uri).name for uri in table.file_uris())
        logged = self.log.contents(table.version()).files
        if named != sorted(logged):
            raise CorruptData(f"The log of the offline table {self.folder} does not say twice what its files are.")
        return [logged[name] for name in named]

    def files(self, version: int | None = None) -> list[str]:
        """The paths of every file of the newest (or the given) version, sorted by name.

        Each is what was committed: raises CorruptData naming the first one that is missing, of another size or of
        another SHA-256.
        """
        return list(self.whole(self.entries(version)))

    def whole(self, files: Iterable[LoggedFile]) -> Iterator[str]:
        """The paths of files that are as they were committed (whole.py); raises CorruptData naming the first other."""
        return whole_paths(self.folder, files)

    def files_added(self, after: int, until: int) -> list[str] | None:
        """Files whose rows arrived in versions after `after` up to `until`, oldest first.

        Compaction adds none (its rows had arrived before). None when the log of one of these versions, or a
        file it names, is no longer kept: then the caller reads the whole table. Raises CorruptData as `files` does.
        """
        added: list[LoggedFile] = []
        for version in range(after + 1, until + 1):
            actions = self.log.actions(version)
            if actions is None:
                return None
            added += [LoggedFile.of(a["add"]) for a in actions if "add" in a and a["add"]["dataChange"]]
        if not all((self.folder / file.name).exists() for file in added):
            return None
        return list(self.whole(added))


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


def _damaged(folder: Path, error: DeltaError) -> CorruptData:
    reason = str(error).partition("\n")[0][:300]
    return CorruptData(f"The log of the offline table {folder} is damaged: {reason}")


def fsync_folder(folder: Path) -> None:
    """Make the names of files created in `folder` survive a power loss."""
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(actions: Sequence[Action], transaction: str) -> bool:
    return any(action["txn"]["appId"] == transaction for action in actions if "txn" in action)
