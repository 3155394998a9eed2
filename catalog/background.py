"""What a web process counts while it answers, written down by a thread of its own, so that no request waits for it.

What was counted in the last seconds before a process is killed is lost; one that is told to stop writes it first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize

from django.db import DatabaseError, InterfaceError, connection

from catalog import keys, refusals, usage

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 5.0
#: Each writes what has come since it was last called, and keeps what it could not write.
WRITERS: tuple[Callable[[], object], ...] = (keys.record_use, refusals.record, usage.record)

_stopping = threading.Event()


def start() -> None:
    """Write every few seconds from now on, and once more when this process ends."""
    threading.Thread(target=_keep_writing, name="catalog.background", daemon=True).start()
    # A server's workers are processes of multiprocessing, in which atexit is not called.
    Finalize(None, _stop, exitpriority=10)


def write() -> None:
    """Write down all that was counted; a database that does not take it now is asked again the next time."""
    for writer in WRITERS:
        try:
            writer()
        except (DatabaseError, InterfaceError) as error:
            log.warning("what was counted is not written yet: %s", error)
            connection.close()


def _keep_writing() -> None:
    while not _stopping.wait(SECONDS_BETWEEN_WRITES):
        write()
        connection.close()  # a database that is restarted meanwhile is found again


def _stop() -> None:
    _stopping.set()
    write()
    connection.close()
