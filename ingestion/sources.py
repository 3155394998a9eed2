"""Source files: which ones a path means, whether they may be read, and their rows as Arrow batches.

A path of a definition lies below a source root (catalog/source_roots.py); an operator's own path
(`manage.py ingest --from`) may be any regular file.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from engine.arrow_errors import without_values
from engine.errors import InvalidSource
from engine.parquet import open_parquet

ROWS_PER_BATCH = 131_072
CSV_BLOCK_BYTES = 8 << 20
_CSV_ENDINGS = (".csv", ".csv.gz")
#: Where Arrow quotes a row that has too few or too many fields.
Progress = Callable[[int], None]
_ENDINGS = (*_CSV_ENDINGS, ".parquet")


@dataclass(frozen=True, slots=True)
class Content:
    """One file as it was when its hash was taken."""

    path: Path
    size: int
    modified_ns: int
    inode: int
    sha256: str

    @property
    def is_text(self) -> bool:
        """Whether its columns come as text, to be conformed value by value."""
        return self.path.name.endswith(_CSV_ENDINGS)


def inspect(path: Path) -> Content:
    """A readable source file with its size and SHA-256; raises InvalidSource saying what is wrong with it."""
    if not path.name.endswith(_ENDINGS):
        raise InvalidSource(f"{path} is not a source file: its name ends in {', '.join(_ENDINGS)}.")
    with _opened(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidSource(f"{path} is not a regular file.")
        if status.st_size == 0:
            raise InvalidSource(f"{path} is empty: not even a header.")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Content(path, status.st_size, status.st_mtime_ns, status.st_ino, digest)


def _opened(path: Path) -> io.BufferedReader:
    try:
        return open(os.path.realpath(path), "rb", opener=_open_at_once)
    except OSError as error:
        raise InvalidSource(f"{path} cannot be opened: {error.strerror}.") from error


def _open_at_once(path: str, flags: int) -> int:
    """Opening a pipe that nobody writes to would wait for ever without O_NONBLOCK."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def column_names(content: Content) -> list[str]:
    """The columns of a source file, in order, repetitions kept."""
    with _read_errors(content):
        if content.is_text:
            return _csv_header(content)
        with open_parquet(content.path) as file:
            return list(file.schema_arrow.names)


def read(content: Content, progress: Progress = lambda _: None) -> Iterator[pa.RecordBatch]:
    """The rows in batches of at most ROWS_PER_BATCH; CSV columns all as strings, an empty unquoted field as null.

    `progress` is told how much of a Parquet file has been read, as its share of the rows in bytes; of a CSV nobody
    knows, since its reader is far ahead of its rows. Raises InvalidSource for a file that cannot be read to its end or
    that changed while it was read.
    """
    with _read_errors(content):
        yield from _read_csv(content) if content.is_text else _read_parquet(content, progress)
        status = os.stat(content.path)
    if (status.st_size, status.st_mtime_ns, status.st_ino) != (content.size, content.modified_ns, content.inode):
        raise InvalidSource(f"{content.path} changed while it was read; nothing of it was kept.")


class _read_errors:
    """Names the file in whatever Arrow or the system says while it is read."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)):
            raise InvalidSource(f"{self.content.path} cannot be read: {without_values(str(error))}") from error


def _csv_stream(content: Content) -> pa.NativeFile:
    compression = "gzip" if content.path.name.endswith(".gz") else None
    return pa.input_stream(str(content.path), compression=compression)


def _csv_header(content: Content) -> list[str]:
    with csv.open_csv(_csv_stream(content), read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES)) as reader:
        return list(reader.schema.names)


def _read_csv(content: Content) -> Iterator[pa.RecordBatch]:
    options = csv.ConvertOptions(
        column_types={name: pa.string() for name in _csv_header(content)},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with csv.open_csv(
        _csv_stream(content),
        read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=options,
    ) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, ROWS_PER_BATCH):
                yield batch.slice(start, ROWS_PER_BATCH)


def _read_parquet(content: Content, progress: Progress) -> Iterator[pa.RecordBatch]:
    rows = 0
    with open_parquet(content.path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
            rows += batch.num_rows
            progress(content.size * rows // file.metadata.num_rows)
            yield batch
