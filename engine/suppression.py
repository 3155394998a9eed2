"""Keeping erased entities out: their rows are told by a keyed hash, so that nobody keeps their ids for it.

The hash is BLAKE2b with a secret key (RFC 7693, section 2.9: a keyed hash is a MAC by itself): without that key, ids
cannot be tried against it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from engine.entity_key import encode_keys
from engine.schema import ACCEPTED, EVENT_TIMESTAMP, TIMESTAMP_POLARS

SALT_BYTES = 32


def key_hash(salt: bytes, entity: str, key: str) -> bytes:
    """The keyed hash of an entity key (entity_key.py, as text) of the entity of that name: 32 bytes."""
    return hashlib.blake2b(f"{entity}\0{key}".encode(), key=salt, digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Limit:
    """Up to where rows are erased: of an event at or before `until`, or of an acceptance up to `accepted`."""

    until: datetime
    accepted: int

    def covers(self) -> pl.Expr:
        """Whether a row is erased, over stored rows."""
        return self.covers_event() | (pl.col(ACCEPTED) <= self.accepted)

    def covers_event(self) -> pl.Expr:
        """The same over rows that are just being accepted."""
        return pl.col(EVENT_TIMESTAMP) <= pl.lit(self.until, dtype=TIMESTAMP_POLARS)

    def covers_row(self, event_us: int, accepted: int) -> bool:
        """The same of one row, by its event time in microseconds since 1970."""
        until_us = int(self.until.timestamp()) * 1_000_000 + self.until.microsecond
        return event_us <= until_us or accepted <= self.accepted


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows without those of erased entities, and how many of these there were by the hash of their key."""

    rows: pl.DataFrame
    suppressed: Counter[bytes] = field(default_factory=Counter)


@dataclass(frozen=True)
class Suppression:
    """The erased ones of one entity.

    keys:   its join keys, in order.
    erased: by salt and hash, up to where.
    """

    entity: str
    keys: tuple[str, ...]
    erased: Mapping[bytes, Mapping[bytes, Limit]]

    def limit_of(self, key: str) -> tuple[bytes, Limit] | None:
        """The hash and the limit of an entity key; None when it was not erased."""
        for salt, limits in self.erased.items():
            hashed = key_hash(salt, self.entity, key)
            if limit := limits.get(hashed):
                return hashed, limit
        return None

    def kept(self, rows: pl.DataFrame) -> Kept:
        """The rows but the erased ones, in their order. One hash for each different key of the batch."""
        if rows.is_empty():
            return Kept(rows)
        texts = encode_keys([rows[name] for name in self.keys])
        found = [(text, *erased) for text in texts.unique().to_list() if (erased := self.limit_of(text))]
        kept, suppressed = rows, Counter[bytes]()
        if found:
            rows = rows.with_columns(texts.alias("_entity_key"))
            for text, hashed, limit in found:
                covers = limit.covers() if ACCEPTED in rows.columns else limit.covers_event()
                left = rows.filter(~((pl.col("_entity_key") == text) & covers))
                suppressed[hashed] += rows.height - left.height
                rows = left
            kept = rows.drop("_entity_key")
        return Kept(kept, suppressed)
