"""Which files of an offline table were seen to be whole: hashed once, and again after a change or a day.

The ledger `_whole.json` in the table's folder is shared by all processes, so that the first join of a process need not
hash again what another one did. It is a memory and no truth: without it, or where it cannot be written, files are
hashed once more.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.errors import CorruptData
from engine.offline.files import require_whole
from engine.offline.log import LoggedFile

LEDGER = "_whole.json"
#: Seconds after which a file is hashed again, though nothing says that it changed: disks lose bits in silence.
TRUSTED_FOR = 24 * 3600

log = logging.getLogger(__name__)

#: What a file was when it was hashed (inode, size, times of change in ns, SHA-256), and when that was (s since 1970).
Seen = tuple[list[int | str | None], float]


def whole_paths(folder: Path, files: Iterable[LoggedFile]) -> Iterator[str]:
    """The path of each of these files of a table, one after the other, as it was committed.

    Raises CorruptData naming the first file that is missing, of another size or of another SHA-256.
    """
    seen, now, hashed = _read(folder), time.time(), 0
    try:
        for file in files:
            path = folder / file.name
            state = _state(path, file)
            if file.name not in seen or seen[file.name][0] != state:
                require_whole(str(path), file)
                seen[file.name] = (state, now)
                hashed += 1
            yield str(path)
    finally:
        if hashed:
            _write(folder, seen)


def _state(path: Path, file: LoggedFile) -> list[int | str | None]:
    try:
        stat = path.stat()
    except OSError as error:
        raise CorruptData(f"Offline file {path} is missing: {error.strerror}.") from error
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, file.sha256]


def _read(folder: Path) -> dict[str, Seen]:
    """What was seen within the last day; nothing where the ledger is not there or was cut short by a power loss."""
    try:
        ledger: dict[str, Seen] = json.loads((folder / LEDGER).read_bytes())
        return {name: (state, at) for name, (state, at) in ledger.items() if 0 <= time.time() - at < TRUSTED_FOR}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read, so files are hashed again: %s", folder / LEDGER, error)
        return {}


def _write(folder: Path, seen: dict[str, Seen]) -> None:
    """Put the ledger in its place at once; of two processes that do so the later wins, and a file is hashed again."""
    new = folder / f".{LEDGER}.{uuid.uuid4().hex}"
    try:
        new.write_text(json.dumps(seen))
        os.replace(new, folder / LEDGER)
    except OSError as error:
        log.warning("%s cannot be written, so files are hashed again: %s", folder / LEDGER, error)
        with suppress(OSError):  # where nothing can be written, nothing can be removed, and nothing is there
            new.unlink(missing_ok=True)
