"""A process of a test as one that has just begun."""

from __future__ import annotations


def forget() -> None:
    """Drop what this process keeps of the stores, the catalog and the keys."""
    from catalog import keys, snapshot, stores  # pytest loads conftest files before it sets Django up

    if stores.online.cache_info().currsize:
        stores.online().close()
    stores.online.cache_clear()
    snapshot.forget()
    keys.forget()
