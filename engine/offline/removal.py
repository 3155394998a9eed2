"""Removing a whole table: out of every reader's sight in one step, then from the disk."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from engine.offline.storage import storage_errors
from engine.offline.table import OfflineTable, fsync_folder


def put_aside(table: OfflineTable) -> bool:
    """Take the table's folder out of its place, in one rename that outlives a power loss; whether there was one.

    Raises StorageFailed; the table is then where it was.
    """
    if not table.folder.exists():
        return False
    with storage_errors(table.folder):
        table.folder.rename(table.folder.with_name(f"{_beginning(table)}{uuid.uuid4().hex}"))
        fsync_folder(table.folder.parent)
    return True


def aside(table: OfflineTable) -> list[Path]:
    """The folders that `put_aside` took out of the table's place and that nobody has removed yet."""
    return sorted(table.folder.parent.glob(f"{_beginning(table)}*"))


def remove_aside(table: OfflineTable) -> None:
    """Remove what was put aside. Killed anywhere it goes on when it is called again. Raises StorageFailed."""
    with storage_errors(table.folder):
        for folder in aside(table):
            shutil.rmtree(folder)


def _beginning(table: OfflineTable) -> str:
    return f".{table.folder.name}-dropped-"
