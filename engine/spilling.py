"""A DuckDB of one call: bounded memory, a folder of its own to spill into, nothing fetched, its errors as ours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from engine.errors import RunFailed


@contextmanager
def connected(
    temp_directory: Path, *, what: str, memory_limit: str, threads: int | None = None, keeps_order: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of this call alone (a connection shared by threads fails); its spilled bytes are gone afterwards.

    what:         whose work it is, at the beginning of a sentence, for the error.
    memory_limit: DuckDB's own, 150 MB at the least; the process stays up to some 450 MB above it.
    keeps_order:  whether rows keep the order in which they were inserted, which costs memory.

    Raises RunFailed when DuckDB cannot finish: a file that cannot be read, no memory or no disk left.
    """
    temp_directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spill-", dir=temp_directory) as folder:
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
            reason = str(error).partition("\n")[0]  # what follows is advice on DuckDB's own settings
            raise RunFailed(f"{what} (memory limit {memory_limit}) did not finish: {reason}") from error
