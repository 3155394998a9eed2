"""Bringing the newest rows of the offline table online, by the table's versions, and refilling a cold store.

The online store follows a position over Delta versions, which are arrival order: late events are never missed. It is
kept twice: in Redis beside the rows, where it is true of whatever Redis holds (engine/online/filling.py), and in the
database, where it shows a Redis that went back in time. All of it may be repeated or run beside pushes, since the store
keeps the row that is newest in version order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial, reduce

import polars as pl
from django.db import transaction
from django.db.models import F, QuerySet
from redis.lock import Lock

from catalog import stores, suppression
from catalog.models import CatalogState, FeatureGroup
from catalog.models.state import new_epoch
from catalog.snapshot import is_current
from catalog.writable import Layouts, layouts_of
from engine import faults
from engine.entity_key import encode_keys
from engine.errors import CorruptData, Unavailable
from engine.offline.table import read_file
from engine.online import codec
from engine.online.filling import Filling
from engine.online.server import Server, may_have_evicted
from engine.online.store import NOTHING, OnlineStore, State
from engine.schema import SCHEMA, VERSION_ORDER
from ingestion import damage
from ingestion.erasure import online as erased_online
from ingestion.models import OnlineCursor, PushBatch
from ingestion.push_rows import rows_of
from ingestion.tables import require_kept

log = logging.getLogger(__name__)

#: How long a rebuild may be silent before another process takes it up. So long, too, the store stays cold when its
#: process was killed, or when Redis was restarted from its file, with the lock in it, under a rebuild.
REBUILD_LOCK_SECONDS = 20.0
#: How long work that is under way may be silent: well below a run's lease and the lock above.
SECONDS_BETWEEN_SIGNS = 5.0
#: How much of the push log is in memory at a time: rows (one more batch may come on top), and batches.
LOG_ROWS = 10_000
LOG_BATCHES = 500


def materialize(group: FeatureGroup, *, full: bool = False, progress: Callable[[int], None] | None = None) -> int:
    """Upsert what arrived offline since the cursor (or everything, with `full`); how many rows were read.

    Raises Unavailable when Redis does not answer, and CorruptData for a damaged table; the cursor then stays and the
    next call starts there again.
    """
    return _follow(group, full=full, progress=progress or (lambda _: None))


def _follow(group: FeatureGroup, *, full: bool = False, with_log: bool = False, progress: Callable[[int], None]) -> int:
    """`materialize`, and before it what the push log holds beyond the table."""
    cursor, _ = OnlineCursor.objects.get_or_create(group=group, group_version=group.version)
    filling = Filling(stores.online(), group.name, group.version)
    after = NOTHING if full else min(cursor.delta_version, filling.found)
    if with_log:
        _upsert_log(filling, group, partial(progress, 0))
    # After the cursors and the log: a pushed row that the log no longer held is in it.
    until = require_kept(stores.offline(group.name, group.version), cursor.delta_version)
    rows = _upsert_files(filling, group, files_after(group, after, until), progress)
    faults.hit("materialize.before_position")
    filling.reach(until, after=after)
    faults.hit("materialize.before_cursor")
    cursor.advance(until)
    if with_log:
        erased_online.sweep(group)
    if after == NOTHING:
        damage.is_whole_online(group)
    return rows


def _upsert_log(filling: Filling, group: FeatureGroup, still: Callable[[], None]) -> None:
    """Upsert the rows of the group that are not in its table yet; `still` says now and then that it is at it."""
    with ThreadPoolExecutor(max_workers=1) as sender:
        for frame in frames_of_log(group):
            still()
            encoded = _encoded(stores.online(), group, _without_erased(group, frame), layouts_of(group))
            _arrive(sender.submit(filling.upsert, encoded), still)


def undrained(group: FeatureGroup) -> QuerySet[PushBatch]:
    """What the push log holds of the group's version that is not known to be in its table yet."""
    return PushBatch.objects.filter(group=group, group_version=group.version, drain__landed_at=None)


def frames_of_log(group: FeatureGroup) -> Iterator[pl.DataFrame]:
    """The rows of these batches, some batches at a time: a log that has waited long is larger than the memory."""
    for numbers in _some_at_a_time(undrained(group).order_by("pk").values_list("pk", "row_count")):
        yield pl.concat([rows_of(batch) for batch in PushBatch.objects.filter(pk__in=numbers)], how="diagonal")


def _some_at_a_time(batches: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """The numbers of (number, rows) in lists of at most LOG_BATCHES, ended by the one that makes LOG_ROWS."""
    numbers: list[int] = []
    rows = 0
    for number, count in batches:
        numbers.append(number)
        rows += count
        if rows >= LOG_ROWS or len(numbers) == LOG_BATCHES:
            yield numbers
            numbers, rows = [], 0
    if numbers:
        yield numbers


def files_after(group: FeatureGroup, after: int, until: int) -> Iterable[str]:
    """Files that hold every row that arrived in versions after `after` up to `until`; raises CorruptData."""
    table = stores.offline(group.name, group.version)
    added = None if after == NOTHING else table.files_added(after, until)
    return table.whole(table.entries(until)) if added is None and until > NOTHING else added or []


def _upsert_files(filling: Filling, group: FeatureGroup, files: Iterable[str], progress: Callable[[int], None]) -> int:
    """Upsert the rows of files; one batch is on its way to Redis while the next one is read and encoded."""
    store, rows = stores.online(), 0
    with ThreadPoolExecutor(max_workers=1) as sender:
        on_its_way: Future[None] | None = None
        for frame in frames_of(files):
            # The layouts are asked for after the rows, which may name a schema that was new a moment ago.
            encoded = _encoded(store, group, _without_erased(group, frame), layouts_of(group))
            _arrive(on_its_way, partial(progress, rows))
            on_its_way = sender.submit(filling.upsert, encoded)
            rows += frame.height
            progress(rows)
        _arrive(on_its_way, partial(progress, rows))
    return rows


def _without_erased(group: FeatureGroup, frame: pl.DataFrame) -> pl.DataFrame:
    """A file that an erasure has replaced may still be read by who began before it; nothing of it comes online."""
    erased = suppression.of_entity(group.entity)
    return erased.kept(frame).rows if erased else frame


def _arrive(on_its_way: Future[None] | None, still: Callable[[], None]) -> None:
    """Wait for a batch, saying now and then that it is `still` on its way: a paced one may take minutes."""
    if on_its_way is not None:
        while wait([on_its_way], timeout=SECONDS_BETWEEN_SIGNS).not_done:
            still()
        on_its_way.result()


def frames_of(files: Iterable[str]) -> Iterator[pl.DataFrame]:
    """The rows of offline files, a batch at a time."""
    for path in files:
        for batch in read_file(path):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)  # noqa: S101  what Polars makes of a record batch
            yield frame


def upsert_frame(group: FeatureGroup, frame: pl.DataFrame, layouts: Layouts) -> int:
    """Bring offline rows of the group's current version online; how many were newer than what was there."""
    store = stores.online()
    return store.upsert(_encoded(store, group, frame, layouts))


def _encoded(
    store: OnlineStore, group: FeatureGroup, frame: pl.DataFrame, layouts: Layouts
) -> list[tuple[bytes, bytes]]:
    """The (key, value) of each row that is the newest among its neighbours."""
    keys = [key.name for key in group.entity.join_keys.all()]
    return encoded_rows(store, group, newest_of_neighbours(frame, keys), layouts)


def encoded_rows(
    store: OnlineStore, group: FeatureGroup, frame: pl.DataFrame, layouts: Layouts
) -> list[tuple[bytes, bytes]]:
    """The (key, value) that each row has online; raises CorruptData for a schema that is not among `layouts`."""
    encoded: list[tuple[bytes, bytes]] = []
    keys = [key.name for key in group.entity.join_keys.all()]
    prefix = store.row_prefix(group.name, group.version).decode()
    for schema_id, rows in _by_schema(frame):
        if schema_id not in layouts:
            raise CorruptData(f"Offline rows of {group} name schema {schema_id}, which the catalog does not have.")
        entity_keys = encode_keys([rows[name] for name in keys])
        redis_keys = [f"{prefix}{key}}}".encode() for key in entity_keys]
        encoded += zip(redis_keys, codec.encode_rows(rows, layouts[schema_id]), strict=True)
    return encoded


def _by_schema(frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of each schema id; most often all are of one, which costs no grouping."""
    numbers = set(frame[SCHEMA].to_list())
    for number in numbers:
        yield number, frame if len(numbers) == 1 else frame.filter(pl.col(SCHEMA) == number)


def newest_of_neighbours(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The frame without the rows that the next row makes superfluous: of the same entity and later in version order.

    In a file sorted by (keys, version) that leaves the newest row of each entity; in any other order it drops less,
    never a newest row.
    """
    if frame.height < 2:
        return frame
    same = pl.all_horizontal([pl.col(key).eq(pl.col(key).shift(-1)) for key in keys])
    later = reduce(
        lambda rest, name: (pl.col(name).shift(-1) > pl.col(name)) | ((pl.col(name).shift(-1) == pl.col(name)) & rest),
        reversed(VERSION_ORDER),
        pl.lit(True),
    )
    return frame.filter(~(same & later).fill_null(False))


def rebuild(progress: Callable[[str, int], None] | None = None) -> bool:
    """Fill the online store with what it lacks of the push log and the offline tables, then open it for reading.

    What it lacks is told by the positions in Redis: everything where it has none, or when it evicted rows. Begins with
    a new epoch and without a state, so that readers are told that the store is cold until it ends. False when another
    process is at it already. Raises Unavailable when Redis fails meanwhile; the store then stays cold.
    """
    with stores.online().exclusive("rebuild", seconds=REBUILD_LOCK_SECONDS) as lock:
        if lock is None:
            return False
        # Closed on both sides of the new epoch. Before it, since a state of another epoch than the database's is told
        # of no change in the catalog any more; after it, since an earlier rebuild may have opened the store in between.
        stores.online().close_for_reading()
        epoch = new_epoch()
        CatalogState.current()
        CatalogState.objects.filter(pk=1).update(epoch=epoch)
        faults.hit("rebuild.after_epoch")
        stores.online().close_for_reading()
        stores.online().begin_filling(epoch)
        faults.hit("rebuild.after_close")
        servers = stores.online().servers()
        full = may_have_evicted(servers, stores.online().known_servers())
        for group in FeatureGroup.objects.select_related("entity"):
            _hold(lock)
            report = partial(_report, group.name, lock, progress)
            try:
                _follow(group, full=full, with_log=True, progress=report)
            except CorruptData as error:  # of this group alone: the others are opened
                damage.hold_back(group, error, progress=partial(_hold, lock))
        faults.hit("rebuild.before_open")
        _hold(lock)  # gone when Redis was wiped meanwhile: the store must not be opened then
        _require_whole(servers)
        _open_for_reading(epoch)
        return True


def _require_whole(before: Sequence[Server]) -> None:
    """Raises Unavailable when Redis lost rows while it was filled; else it is known from now on as it is."""
    servers = stores.online().servers()
    if _left_behind() or may_have_evicted(servers, before):
        raise Unavailable("Redis lost rows while the online store was being filled; it is filled again.")
    if servers:
        stores.online().note_servers(servers)


def _report(group: str, lock: Lock, progress: Callable[[str, int], None] | None, rows: int) -> None:
    _hold(lock)
    if progress:
        progress(group, rows)


def _hold(lock: Lock) -> None:
    stores.online().extend(lock, seconds=REBUILD_LOCK_SECONDS)


def _open_for_reading(epoch: str) -> None:
    with transaction.atomic():
        current = CatalogState.objects.select_for_update().get(pk=1)
        if current.epoch == epoch:
            stores.online().open_for_reading(State(current.version, epoch))


def is_cold() -> bool:
    """Whether Redis does not hold the contents that the catalog expects. Raises Unavailable."""
    return not is_current(stores.online().state())


def ensure_warm() -> None:
    """Fill the online store if it is cold or has lost rows, and nobody is at it. Raises Unavailable."""
    if what := _what_it_lacks():
        # A new hub has nothing to fill.
        log.log(
            logging.WARNING if OnlineCursor.objects.exists() else logging.DEBUG, "the online store is filled: %s", what
        )
        rebuild()


def _what_it_lacks() -> str:
    """Why the store cannot be trusted, in words; empty when it can. Raises Unavailable."""
    if is_cold():
        return "it is empty, or holds old contents"
    servers = stores.online().servers()
    stores.online().carry_positions(servers, list(OnlineCursor.objects.values_list("group__name", "group_version")))
    if behind := _left_behind():
        return f"Redis went back in time and lacks rows of {', '.join(behind)}"
    return _what_was_evicted(servers)


def _what_was_evicted(servers: Sequence[Server]) -> str:
    for server in servers:
        if server.evicts_rows:
            _warn_of_policy(server.policy)
    known = stores.online().known_servers()
    if may_have_evicted(servers, known):
        policies = ", ".join(sorted({server.policy for server in servers}))
        return f"Redis has evicted keys, or may have (maxmemory-policy {policies})"
    if servers and set(servers) != set(known):
        stores.online().note_servers(servers)
    return ""


@cache
def _warn_of_policy(policy: str) -> None:
    """Once in a process."""
    log.error("Redis evicts rows when its memory is short (maxmemory-policy %s): set it to noeviction", policy)


def _left_behind() -> list[str]:
    """The groups whose position in Redis is below the one that it had reached as the database knows.

    Not those that are held back: their readers are refused until a scrub brings them online anew.
    """
    followed = OnlineCursor.objects.filter(group__in=damage.followed_groups())
    known = followed.filter(group_version=F("group__version")).order_by("group__name")
    cursors = list(known.values_list("group__name", "group_version", "delta_version"))
    positions = stores.online().positions([(name, version) for name, version, _ in cursors])
    return [name for (name, _, reached), at in zip(cursors, positions, strict=True) if at < reached]
