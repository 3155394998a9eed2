"""Which entities were erased, as writers ask: read from the database once, then kept while no other one is erased.

Whether the list is the current one is told by `CatalogState.erasures`, which a push reads anyway.
"""

from __future__ import annotations

from collections import Counter

import polars as pl
from django.db.models import F

from catalog.models import CatalogState, Entity, Erasure
from engine.suppression import Kept, Limit, Suppression

_known: tuple[str, dict[int, Suppression]] = ("", {})


def of_entity(entity: Entity, erasures: str | None = None) -> Suppression | None:
    """The erased ones of an entity; None without any. `erasures` is the state's, when the caller has just read it."""
    global _known  # noqa: PLW0603  one list per process is what this module keeps
    token = CatalogState.read().erasures if erasures is None else erasures
    if not token:
        return None
    known = _known
    if known[0] != token:
        known = _known = (token, _read())
    return known[1].get(entity.pk)


def _read() -> dict[int, Suppression]:
    entities: dict[int, Entity] = {}
    erased: dict[int, dict[bytes, dict[bytes, Limit]]] = {}
    for erasure in Erasure.objects.select_related("entity", "run").prefetch_related("entity__join_keys"):
        entities[erasure.entity_id] = erasure.entity
        limits = erased.setdefault(erasure.entity_id, {}).setdefault(bytes.fromhex(erasure.salt), {})
        # The newest of one key comes first, and goes furthest.
        limits.setdefault(bytes.fromhex(erasure.key_hash), Limit(erasure.until, erasure.run.acceptance_id))
    return {
        pk: Suppression(entity.name, tuple(key.name for key in entity.key_fields()), erased[pk])
        for pk, entity in entities.items()
    }


def kept(entity: Entity, rows: pl.DataFrame, erasures: str | None = None) -> Kept:
    """The rows of the entity's groups but those of erased ones, which are counted in their receipts."""
    suppression = of_entity(entity, erasures)
    if suppression is None:
        return Kept(rows)
    left = suppression.kept(rows)
    count(entity, left.suppressed)
    return left


def count(entity: Entity, suppressed: Counter[bytes]) -> None:
    """Count rows that came and were not taken, at the newest erasure of each hash."""
    for hashed, rows in suppressed.items():
        newest = Erasure.objects.filter(entity=entity, key_hash=hashed.hex()).first()
        if newest is not None:
            Erasure.objects.filter(pk=newest.pk).update(rows_suppressed=F("rows_suppressed") + rows)
