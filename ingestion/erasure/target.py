"""Whom an erasure is about, and how each kind of stored row names it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import polars as pl

from catalog.models import Entity, Erasure, FeatureGroup
from engine.entity_key import KeyValue, decode_key, encode_key, to_id
from engine.errors import CorruptData
from engine.online.codec import decode_row
from engine.schema import ACCEPTED, EVENT_TIMESTAMP, Field
from engine.suppression import Limit


@dataclass(frozen=True, slots=True)
class Target:
    """One entity by its key values, and up to where its rows go."""

    entity: Entity
    keys: tuple[Field, ...]
    values: tuple[KeyValue, ...]
    limit: Limit

    @classmethod
    def of(cls, erasure: Erasure) -> Target:
        """Raises CorruptData for an erasure whose key is no entity key (one that has ended keeps none)."""
        values = decode_key(erasure.key.encode())
        if values is None:
            raise CorruptData(f"The erasure of {erasure.subject} does not tell any more whom it is about.")
        limit = Limit(erasure.until, erasure.run.acceptance_id)
        return cls(erasure.entity, erasure.entity.key_fields(), tuple(values), limit)

    @property
    def id(self) -> str:
        """As it stands in a path."""
        return to_id(self.values)

    @property
    def entity_key(self) -> bytes:
        return encode_key(self.values)

    @property
    def key_names(self) -> list[str]:
        return [key.name for key in self.keys]

    def groups(self) -> list[FeatureGroup]:
        """Every group of the entity, archived ones too."""
        return list(FeatureGroup.objects.select_related("entity").filter(entity=self.entity).order_by("name"))

    # How stored rows name it.

    @property
    def columns(self) -> list[str]:
        """The columns that `is_stored` looks at."""
        return [*self.key_names, EVENT_TIMESTAMP, ACCEPTED]

    def is_stored(self) -> pl.Expr:
        """Whether an offline row is to go. What came after the erasure, of an event after it, stays."""
        same = [pl.col(key.name) == pl.lit(value) for key, value in zip(self.keys, self.values, strict=True)]
        return reduce(pl.Expr.and_, same) & self.limit.covers()

    def is_in_spine(self) -> pl.Expr:
        """Whether a row of a spine is of the entity; its keys may be of other types than ours."""
        texts = [pl.col(name).cast(pl.String) == str(v) for name, v in zip(self.key_names, self.values, strict=True)]
        return reduce(pl.Expr.and_, texts).fill_null(value=False)

    def is_online(self, value: bytes) -> bool:
        """Whether an online row is to go; bytes that cannot be read are."""
        try:
            row = decode_row(value)
        except CorruptData:
            return True
        return self.limit.covers_row(row.event_us, row.accepted)

    def is_named_by(self, row: Mapping[str, object]) -> bool:
        """Whether a raw row, as it was sent, has these join keys: also in another type or spelling."""
        return all(_means(row.get(key.name), value) for key, value in zip(self.keys, self.values, strict=True))

    def is_in_payload(self, payload: str) -> bool:
        """The same of a row as JSON; of one that was cut short whether it has the texts of the keys."""
        try:
            row = json.loads(payload)
        except ValueError:
            return all(mention(str(value)).search(payload) for value in self.values)
        return isinstance(row, dict) and self.is_named_by(row)

    def needles(self) -> list[bytes]:
        """Bytes that each Arrow stream with a row of it has: most others are told apart by them alone."""
        return [v.encode() if isinstance(v, str) else v.to_bytes(8, "little", signed=True) for v in self.values]


def _means(given: object, value: KeyValue) -> bool:
    if given is None or isinstance(given, bool):
        return False
    if isinstance(value, str):
        return str(given) == value or str(given).strip() == value.strip()
    try:
        return int(str(given)) == value
    except ValueError:
        return _is_number(str(given), value)


def _is_number(text: str, value: int) -> bool:
    try:
        return float(text) == value
    except ValueError:
        return False


def mention(text: str) -> re.Pattern[str]:
    """Finds a text that stands by itself: `C1` in `row of C1.`, not in `C12`."""
    return re.compile(rf"(?<![0-9A-Za-z]){re.escape(text)}(?![0-9A-Za-z])")
