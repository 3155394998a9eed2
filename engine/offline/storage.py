"""What a disk refuses, as errors of ours: no room left, or not to be written at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import StorageFailed, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns what the operating system says of writing below `folder` into StorageFull or StorageFailed."""
    try:
        yield
    except OSError as error:
        number = _number(error)
        if number in FULL:
            raise StorageFull(f"There is no room for {folder} ({os.strerror(number)}); nothing was added.") from error
        if number in REFUSED:
            detail = f"{folder} cannot be written ({os.strerror(number)}): is it there, mounted and writable?"
            raise StorageFailed(detail) from error
        raise


def _number(error: OSError) -> int:
    """The error's number; deltalake gives it in its text only."""
    said = re.search(r"os error (\d+)", str(error))
    return error.errno or (int(said[1]) if said else 0)
