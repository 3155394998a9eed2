"""One Parquet file of an offline table: written with page checksums, described to the log, seen to be whole."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from engine.errors import CorruptData
from engine.offline.log import SHA256, LoggedFile
from engine.schema import ACCEPTED, EVENT_TIMESTAMP, SCHEMA

ROWS_PER_GROUP = 131_072


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file written and fsynced beside the table, not yet part of it."""

    name: str
    rows: int
    size: int
    sha256: str
    event_range: tuple[datetime, datetime] | None


def write_parquet(table: pa.Table, path: Path) -> tuple[int, str]:
    """Write and fsync a file that is not there yet; its size and SHA-256. No part of it stays when that fails."""
    with open(path, "x+b") as file:
        try:
            pq.write_table(
                table,
                file,
                row_group_size=ROWS_PER_GROUP,
                write_page_checksum=True,
                use_dictionary=[field.name for field in table.schema if _repeats(field)],
            )
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
        size = file.tell()
        file.seek(0)
        return size, hashlib.file_digest(file, "sha256").hexdigest()


def _repeats(field: pa.Field) -> bool:
    """Whether a dictionary is worth trying: on numbers and times it made writing 4 times slower and files larger."""
    return pa.types.is_string(field.type) or field.name in (ACCEPTED, SCHEMA)


def add_action(file: DataFile, *, data_change: bool) -> AddAction:
    """What a commit says of the file."""
    return AddAction(file.name, file.size, {}, now_ms(), data_change, _statistics(file))


def now_ms() -> int:
    """Now, in milliseconds since 1970, as the log has times."""
    return int(time.time() * 1000)


def _statistics(file: DataFile) -> str:
    """What readers may skip the file by, and its SHA-256. No key and no value: statistics outlive an erasure."""
    statistics: dict[str, object] = {"numRecords": file.rows, SHA256: file.sha256}
    if file.event_range:
        low, high = (time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for time in file.event_range)
        statistics |= {"minValues": {EVENT_TIMESTAMP: low}, "maxValues": {EVENT_TIMESTAMP: high}}
    return json.dumps(statistics)


def require_whole(path: str, file: LoggedFile) -> None:
    """Raises CorruptData when the file at `path` has not the size and the SHA-256 that it was committed with."""
    try:
        with open(path, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size != file.size:
                raise CorruptData(f"Offline file {path} has {size:,} bytes; {file.size:,} were committed.")
            if file.sha256 is not None and hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                raise CorruptData(f"Offline file {path} is damaged: its SHA-256 is not the one that was committed.")
    except OSError as error:
        raise CorruptData(f"Offline file {path} cannot be read: {error}") from error
