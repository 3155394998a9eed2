"""The online store's part of an erasure: the keys of the entity, in every version of every group."""

from __future__ import annotations

from collections.abc import Iterator

from catalog import stores, suppression
from catalog.models import FeatureGroup
from engine.errors import CorruptData
from engine.online.codec import decode_row
from engine.online.store import OnlineStore, row_key
from engine.suppression import Limit
from ingestion.erasure.receipt import Receipt
from ingestion.erasure.target import Target


def keys_of(group: FeatureGroup, target: Target) -> Iterator[tuple[str, bytes]]:
    """The Redis key of the entity in each version of the group, with what the version is called in a receipt."""
    for version in range(1, group.version + 1):
        prefix = stores.online().row_prefix(group.name, version)
        yield f"{group.name}/v{version}", row_key(prefix, target.entity_key)


def count_rows(group: FeatureGroup, target: Target) -> int:
    """How many of these keys hold a row that is to go. Raises Unavailable."""
    values = stores.online().read_bulk([key for _, key in keys_of(group, target)])
    return sum(value is not None and target.is_online(value) for value in values)


def erase(group: FeatureGroup, target: Target, receipt: Receipt) -> None:
    """Delete the entity's rows; one that came after the erasure stays. Raises Unavailable."""
    store = stores.online()
    for name, key in keys_of(group, target):
        (value,) = store.read_bulk([key])
        if value is not None and target.is_online(value):
            receipt.note("online", name, rows=1)
            store.remove_row(key, target.is_online)


def sweep(group: FeatureGroup) -> int:
    """Delete the rows of everybody who was erased from the group's version; how many.

    For a Redis that went back in time: what was deleted there is there again, and nobody keeps the ids. Goes over every
    key of the Redis database, hashing those of the group. Raises Unavailable.
    """
    erased = suppression.of_entity(group.entity)
    if erased is None:
        return 0
    store, removed = stores.online(), 0
    start = len(store.row_prefix(group.name, group.version))
    for keys in store.scan(group.name, group.version):
        for key in keys:
            found = erased.limit_of(key[start:-1].decode(errors="replace"))
            if found:
                removed += _remove(store, key, found[1])
    return removed


def _remove(store: OnlineStore, key: bytes, limit: Limit) -> bool:
    def is_unwanted(value: bytes) -> bool:
        try:
            row = decode_row(value)
        except CorruptData:
            return True
        return limit.covers_row(row.event_us, row.accepted)

    return store.remove_row(key, is_unwanted)
