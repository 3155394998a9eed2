"""A process of a test as one that has just begun."""

from __future__ import annotations


def forget() -> None:
    """Drop what this process keeps of the stores, the catalog and the keys."""
    from catalog import (
        keys,
        rate_limits,
        refusals,
        snapshot,
        stores,
    )  # pytest loads conftest files before it sets Django up

    if stores.online.cache_info().currsize:
        stores.online().close()
    stores.online.cache_clear()
    snapshot.forget()
    keys.forget()
    refusals.forget()
    rate_limits.buckets.cache_clear()
