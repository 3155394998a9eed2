"""Which rows of a dataset are for training and which for testing: by time or by entity, the same whenever it is asked.

Split by time, no row of the test set lies before one of the training set. Split by entity, no entity is in both: the
hash of its key decides, so an entity stays on its side in every dataset of one seed, however many are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa

from engine import instants
from engine.entity_key import encode_keys
from engine.errors import InvalidInput
from engine.pointintime.spine import as_key, as_microseconds
from engine.schema import Field

COLUMN = "split"
_NAMES = {2: ("train", "test"), 3: ("train", "validation", "test")}


@dataclass(frozen=True, slots=True)
class Split:
    """By time: rows before `at[0]` are the first part, and so on. By entity: `fractions` of all, summing to 1."""

    at: tuple[datetime, ...] = ()
    fractions: tuple[float, ...] = ()
    seed: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What the parts are called, in order."""
        return _NAMES[len(self.fractions) or len(self.at) + 1]

    @classmethod
    def from_json(cls, said: object) -> Self:
        """`{"at": [time, ...]}` or `{"fractions": [0.8, 0.2], "seed": "..."}`; raises InvalidInput saying so."""
        made = cls._read(said) if isinstance(said, Mapping) else None
        if made is None:
            raise InvalidInput(
                'split is {"at": [one or two RFC 3339 times in order]}, or {"fractions": [two or three numbers above 0 '
                f'that sum to 1], "seed": "a text"}}; got {said!r}.'
            )
        return made

    @classmethod
    def _read(cls, said: Mapping[str, Any]) -> Self | None:
        if said.keys() == {"at"} and isinstance(said["at"], list):
            at = [instants.read(text) if isinstance(text, str) else None for text in said["at"]]
            known = tuple(moment for moment in at if moment is not None)
            is_right = len(at) == len(known) in (1, 2) and list(known) == sorted(set(known))
            return cls(at=known) if is_right else None
        if "fractions" in said and said.keys() <= {"fractions", "seed"} and isinstance(said["fractions"], list):
            fractions, seed = said["fractions"], said.get("seed", "")
            are_numbers = all(isinstance(part, int | float) and part > 0 for part in fractions)
            is_right = len(fractions) in (2, 3) and are_numbers and abs(sum(fractions) - 1) < 1e-9
            return (
                cls(fractions=tuple(map(float, fractions)), seed=seed) if is_right and isinstance(seed, str) else None
            )
        return None

    def as_json(self) -> dict[str, Any]:
        if self.at:
            return {"at": [moment.isoformat() for moment in self.at]}
        return {"fractions": list(self.fractions), "seed": self.seed}

    def parts(self, batch: pa.RecordBatch, event_timestamp: str, keys: Sequence[Field]) -> pa.Array:
        """The part of each row of a spine, as text."""
        if self.at:
            times = as_microseconds(batch[event_timestamp]).to_numpy(zero_copy_only=False)
            places = np.searchsorted([instants.microseconds(moment) for moment in self.at], times, side="right")
        else:
            places = self._places_of_entities([as_key(batch[key.name], key.dtype) for key in keys])
        return pa.array(self.names).take(pa.array(places))

    def _places_of_entities(self, keys: Sequence[pa.Array]) -> np.ndarray[Any, Any]:
        encoded = encode_keys([pl.Series(values=pl.from_arrow(key)) for key in keys])
        bounds = [int(bound * 2**64) for bound in accumulate(self.fractions[:-1])]
        place_of = {key: _place(f"{self.seed}\n{key}", bounds) for key in encoded.unique()}
        return np.fromiter((place_of[key] for key in encoded), np.int64, len(encoded))


def _place(text: str, bounds: Sequence[int]) -> int:
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    return sum(number >= bound for bound in bounds)
