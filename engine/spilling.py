"""A DuckDB of one call: bounded memory, a folder of its own to spill into, nothing fetched, its errors as ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from engine.errors import FeaturehubError, RunFailed, StorageFull
from engine.offline.storage import FULL, storage_errors

#: What DuckDB says when it may not spill more (it allows itself nine tenths of what was free when it was opened), and
#: what it adds to "Could not write file" when others have taken the room meanwhile.
_NO_ROOM = ("max_temp_directory_size", *map(os.strerror, FULL))


@contextmanager
def connected(
    temp_directory: Path, *, what: str, memory_limit: str, threads: int | None = None, keeps_order: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of this call alone (a connection shared by threads fails); its spilled bytes are gone afterwards.

    what:         whose work it is, at the beginning of a sentence, for the error.
    memory_limit: DuckDB's own, 150 MB at the least for each thread; the process stays up to some 450 MB above it.
    keeps_order:  whether rows keep the order in which they were inserted, which costs memory.

    Raises StorageFull when there is no room to spill into, StorageFailed when nothing can be written there, and
    RunFailed when DuckDB cannot finish for another reason: a file that cannot be read, no memory left.
    """
    with storage_errors(temp_directory):
        temp_directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(temp_directory).free
        own = tempfile.TemporaryDirectory(prefix="spill-", dir=temp_directory)
    with own as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "preserve_insertion_order": keeps_order,
        }
        if threads is not None:
            config["threads"] = threads
        try:
            with duckdb.connect(":memory:", config=config) as connection:
                connection.execute("SET GLOBAL TimeZone = 'UTC'")
                connection.execute("SET enable_progress_bar = false")  # it would be written to standard output
                yield connection
        except duckdb.Error as error:
            raise _as_ours(error, f"{what} (memory limit {memory_limit})", temp_directory, free) from error


def _as_ours(error: duckdb.Error, what: str, folder: Path, free: int) -> FeaturehubError:
    if any(said in str(error) for said in _NO_ROOM):
        return StorageFull(
            f"{what} has no room left to spill into {folder}, where {free:,} bytes were free when it began; nothing of "
            "it was kept. Make room there, or let it spill to a larger disk, and try again."
        )
    reason = str(error).partition("\n")[0]  # what follows is advice on DuckDB's own settings
    return RunFailed(f"{what} did not finish: {reason}")
