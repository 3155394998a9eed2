"""The settings' stores, opened once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from django.conf import settings
from django.dispatch import Signal

from engine.offline.table import OfflineTable
from engine.online.store import OnlineStore

#: Sent with `groups` (names) before their offline history is read: whoever holds rows that are not in it yet, as the
#: push log does, writes them now. It keeps reading and writing apart: serving sends it, ingestion hears it.
history_wanted = Signal()


@cache
def online() -> OnlineStore:
    """The online store; connects on first use, may be shared by threads."""
    return OnlineStore(
        settings.ONLINE_REDIS_URL,
        settings.FEATUREHUB_KEY_PREFIX,
        bulk_rows_per_second=settings.FEATUREHUB_BULK_ROWS_PER_SECOND,
    )


def offline(group: str, version: int) -> OfflineTable:
    """The offline table of one group version."""
    return OfflineTable(offline_root() / group / f"v{version}")


def offline_root() -> Path:
    """The folder of all offline tables."""
    return Path(settings.FEATUREHUB_OFFLINE_PATH)


def dataset_folder(name: str) -> Path:
    """Where the files of one training dataset are; no group's name begins with an underscore."""
    return offline_root() / "_datasets" / name


def quarantine_folder(group: str) -> Path:
    """Where the payloads of a group's rejected rows are kept, beside its tables."""
    return offline_root() / group / "quarantine"
