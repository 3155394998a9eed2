"""Bringing the newest rows of the offline table online, by the table's versions, and refilling a cold store.

The online store follows a cursor over Delta versions, which are arrival order: late events are never missed. All of it
may be repeated or run beside pushes, since the store keeps the row that is newest in version order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce

import polars as pl
from django.db import transaction
from redis.lock import Lock

from catalog import stores
from catalog.models import CatalogState, FeatureGroup
from catalog.models.state import new_epoch
from catalog.schemas import from_stored
from engine import faults
from engine.entity_key import encode_keys
from engine.errors import CorruptData
from engine.offline.table import read_file
from engine.online import codec
from engine.online.store import OnlineStore, State, redis_errors
from engine.schema import SCHEMA, VERSION_ORDER, Dtype
from ingestion import damage
from ingestion.models import OnlineCursor, PushBatch
from ingestion.push_rows import rows_of
from ingestion.tables import require_kept

log = logging.getLogger(__name__)

#: How long a rebuild may be silent before another process takes it up.
REBUILD_LOCK_SECONDS = 60.0

Layouts = dict[int, list[tuple[str, Dtype]]]


def materialize(group: FeatureGroup, *, full: bool = False, progress: Callable[[int], None] | None = None) -> int:
    """Upsert what arrived offline since the cursor (or everything, with `full`); how many rows were read.

    Raises Unavailable when Redis does not answer, and CorruptData for a damaged table; the cursor then stays and the
    next call starts there again.
    """
    table = stores.offline(group.name, group.version)
    cursor, _ = OnlineCursor.objects.get_or_create(group=group, group_version=group.version)
    until = require_kept(table, cursor.delta_version)
    added = None if full else table.files_added(cursor.delta_version, until)
    files = map(table.whole, table.entries(until)) if added is None and until >= 0 else added or []
    rows = _upsert_files(group, files, progress or (lambda _: None))
    faults.hit("materialize.before_cursor")
    cursor.advance(until)
    if full:
        damage.is_whole_online(group)
    return rows


def _upsert_files(group: FeatureGroup, files: Iterable[str], progress: Callable[[int], None]) -> int:
    """Upsert the rows of files; one batch is on its way to Redis while the next one is read and encoded."""
    store, rows = stores.online(), 0
    with ThreadPoolExecutor(max_workers=1) as sender:
        on_its_way: Future[int] | None = None
        for frame in _frames(files):
            encoded = _encoded(store, group, frame)
            if on_its_way is not None:
                on_its_way.result()
            on_its_way = sender.submit(store.upsert, encoded)
            rows += frame.height
            progress(rows)
        if on_its_way is not None:
            on_its_way.result()
    return rows


def _frames(files: Iterable[str]) -> Iterator[pl.DataFrame]:
    for path in files:
        for batch in read_file(path):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)  # noqa: S101  what Polars makes of a record batch
            yield frame


def upsert_frame(group: FeatureGroup, frame: pl.DataFrame) -> int:
    """Bring offline rows of the group's current version online; how many were newer than what was there."""
    store = stores.online()
    return store.upsert(_encoded(store, group, frame))


def _encoded(store: OnlineStore, group: FeatureGroup, frame: pl.DataFrame) -> list[tuple[bytes, bytes]]:
    """The (key, value) of each row that is the newest among its neighbours."""
    encoded: list[tuple[bytes, bytes]] = []
    keys = [key.name for key in group.entity.join_keys.all()]
    prefix = store.row_prefix(group.name, group.version).decode()
    layouts = layouts_of(group)
    newest = newest_of_neighbours(frame, keys)
    for (schema_id,), rows in newest.group_by([SCHEMA]):
        if schema_id not in layouts:
            raise CorruptData(f"Offline rows of {group} name schema {schema_id}, which the catalog does not have.")
        entity_keys = encode_keys([rows[name] for name in keys])
        redis_keys = [f"{prefix}{key}}}".encode() for key in entity_keys]
        encoded += zip(redis_keys, codec.encode_rows(rows, layouts[schema_id]), strict=True)
    return encoded


def layouts_of(group: FeatureGroup) -> Layouts:
    """For each schema id of the group's current version, its features and dtypes in stored order."""
    stored = group.schemas.filter(version=group.version).select_related("group")
    return {s.number: [(f.name, f.dtype) for f in from_stored(s).features] for s in stored}


def newest_of_neighbours(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The frame without the rows that the next row makes superfluous: of the same entity and later in version order.

    In a file sorted by (keys, version) that leaves the newest row of each entity; in any other order it drops less,
    never a newest row.
    """
    same = pl.all_horizontal([pl.col(key).eq(pl.col(key).shift(-1)) for key in keys])
    later = reduce(
        lambda rest, name: (pl.col(name).shift(-1) > pl.col(name)) | ((pl.col(name).shift(-1) == pl.col(name)) & rest),
        reversed(VERSION_ORDER),
        pl.lit(True),
    )
    return frame.filter(~(same & later).fill_null(False))


def rebuild(progress: Callable[[str, int], None] | None = None) -> bool:
    """Refill the online store from the push log and every group's offline table, then open it for reading.

    Begins with a new epoch, so that readers are told that the store is cold until it ends. A group whose offline table
    is damaged is left out: its readers are told so until it is whole online (ingestion/damage.py). False when another
    process is at it already. Raises Unavailable when Redis fails meanwhile; the store then stays cold.
    """
    with stores.online().exclusive("rebuild", seconds=REBUILD_LOCK_SECONDS) as lock:
        if lock is None:
            return False
        epoch = new_epoch()
        CatalogState.current()
        CatalogState.objects.filter(pk=1).update(epoch=epoch)
        faults.hit("rebuild.after_epoch")
        for group in FeatureGroup.objects.select_related("entity"):
            for batch in PushBatch.objects.filter(group=group, group_version=group.version, drain__landed_at=None):
                upsert_frame(group, rows_of(batch))
            try:
                materialize(group, full=True, progress=partial(_report, group.name, lock, progress))
            except CorruptData as error:  # of this group alone: the others are opened
                damage.hold_back(group, error, progress=partial(_hold, lock))
        faults.hit("rebuild.before_open")
        _hold(lock)  # gone when Redis was wiped meanwhile: the store must not be opened then
        _open_for_reading(epoch)
        return True


def _report(group: str, lock: Lock, progress: Callable[[str, int], None] | None, rows: int) -> None:
    _hold(lock)
    if progress:
        progress(group, rows)


def _hold(lock: Lock) -> None:
    with redis_errors():
        lock.extend(REBUILD_LOCK_SECONDS, replace_ttl=True)


def _open_for_reading(epoch: str) -> None:
    with transaction.atomic():
        current = CatalogState.objects.select_for_update().get(pk=1)
        if current.epoch == epoch:
            stores.online().open_for_reading(State(current.version, epoch))


def is_cold() -> bool:
    """Whether Redis does not hold the contents that the catalog expects. Raises Unavailable."""
    state = stores.online().state()
    return state is None or state.epoch != CatalogState.current().epoch


def ensure_warm() -> None:
    """Rebuild the online store if it is cold and nobody is at it."""
    if is_cold():
        log.log(
            logging.WARNING if OnlineCursor.objects.exists() else logging.DEBUG,  # a new hub has nothing to rebuild
            "the online store is cold: rebuilding it from the offline store",
        )
        rebuild()
