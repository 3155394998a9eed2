"""Removing files that no version needs any more: what a compaction replaced, and what a killed writer left.

deltalake's own vacuum removes files that were never committed only by their age on disk, and writes two versions for
each call. This one writes none: a file that is gone from the newest version is gone for every reader of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from engine.offline.log import Contents
from engine.offline.table import OfflineTable

#: How long a file is kept after it was replaced (a reader may have begun before), or written and not committed (its
#: writer may still do so). At least twice as long as the longest read and the longest run.
RETENTION = timedelta(hours=24)


def vacuum(
    table: OfflineTable,
    *,
    now: datetime,
    followed_to: int,
    unfinished: Sequence[str] = (),
    keep_files: Collection[str] = (),
) -> list[str]:
    """Remove the data files that nobody needs; their names.

    followed_to:   the version up to which the online store has followed the table: what came later is kept.
    unfinished:    beginnings of the names of files that are still to be committed.
    keep_files:    names of files that are still read as they were, whatever the table has in their place by now.

    Raises CorruptData when the log does not tell what the table is: then nothing is removed.
    """
    version = table.version
    if version < 0:
        return []
    contents = table.log.contents(version)
    needed = {file.name for file in table.entries()} | set(keep_files)
    needed |= _not_followed(table, followed_to, version)
    removable = [
        path
        for path in sorted(table.folder.glob("*.parquet"))
        if path.name not in needed
        and not path.name.startswith(tuple(unfinished))
        and now.timestamp() - unused_since(contents, path.name, path.stat().st_mtime) > RETENTION.total_seconds()
    ]
    for path in removable:
        path.unlink(missing_ok=True)
    return [path.name for path in removable]


def _not_followed(table: OfflineTable, followed_to: int, version: int) -> set[str]:
    """The files that arrived after `followed_to`, as far as the log still tells."""
    kept = [actions for v in range(followed_to + 1, version + 1) if (actions := table.log.actions(v)) is not None]
    return {action["add"]["path"] for actions in kept for action in actions if "add" in action}


def unused_since(contents: Contents, name: str, written: float) -> float:
    """Seconds since 1970: when the file was replaced, or written when no version tells of it (any more)."""
    return contents.removed.get(name, written * 1000) / 1000
