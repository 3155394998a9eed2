"""Reading feature vectors: one Redis command for any number of groups, no database, five honest answers.

Statuses (engine/status.py): PRESENT; NULL_VALUE, a stored null; NOT_FOUND, never written, deleted, or the row's schema
does not have the feature; OUTSIDE_MAX_AGE, older than the group's TTL, its value withheld; INVALID, bytes that cannot
be read. The TTL is inclusive and counted from the event timestamp. What is computed on request (serving/on_request.py)
is PRESENT, NULL_VALUE or INVALID and has no event timestamp.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from typing import Any

import polars as pl

from catalog import snapshot
from catalog.snapshot import Catalog, FeatureSnapshot
from engine.entity_key import encode_column
from engine.errors import CorruptData, FeaturehubError, InvalidInput, Problem, TooLarge, Unavailable, near_names
from engine.instants import rfc3339
from engine.online.codec import BIAS, NIL, TOMBSTONE, UNREADABLE, StoredValue, open_row
from engine.online.store import row_keys
from engine.schema import Dtype
from engine.status import INVALID, NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT, Status
from serving.names import find_features, find_service
from serving.on_request import Request, computed_columns, sent_values
from serving.plan import GroupRead, Pick, Plan, remembered
from serving.steps import Steps, carried_out

log = logging.getLogger(__name__)

MAX_ROWS = 1_000
MAX_VALUES = 100_000
#: Reads of one request: a catalog change during the first makes a second, and so on.
ATTEMPTS = 5

MakePlan = Callable[[Catalog], Plan]
Columns = Mapping[str, Sequence[object]] | Callable[[Plan], Mapping[str, Sequence[object]]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The years 1 to 9999: what a datetime can be.
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


@dataclass(frozen=True, slots=True)
class Vectors:
    """The answer to one read: a row per entity in the order asked, a column per feature of the plan.

    values:   as stored (timestamps in microseconds, embeddings as float32 bytes); see `python_values`.
    group_us: what `event_us` is made of, when it is asked for: a list of one time per entity for each of `plan.groups`.
    """

    plan: Plan
    values: Sequence[tuple[StoredValue, ...]]
    statuses: Sequence[tuple[Status, ...]]
    group_us: Sequence[Sequence[int | None]]

    @property
    def event_us(self) -> list[tuple[int | None, ...]]:
        """The event timestamp of the row that each value comes from, in microseconds; None without a row."""
        columns: list[Sequence[int | None]] = [(None,) * len(self.values)] * self.plan.width
        for group, times in zip(self.plan.groups, self.group_us, strict=True):
            for place in group.outputs:
                columns[place] = times
        return list(zip(*columns[: len(self.plan.features)], strict=True))

    def python_values(self) -> list[list[object]]:
        """The values as Python has them: aware datetimes, lists of floats."""
        return [[_python(v, f.dtype.kind) for v, f in zip(row, self.plan.features, strict=True)] for row in self.values]

    def json_values(self, *, int64_as_string: bool = False) -> Sequence[Sequence[object]]:
        """The values as JSON has them: RFC 3339 with `Z`, lists of numbers; int64 as strings when asked."""
        if self.plan.is_plain_json and not int64_as_string:
            return self.values
        makers = [_json_maker(feature.dtype, int64_as_string) for feature in self.plan.features]
        return [
            [maker(value) if maker and value is not None else value for value, maker in zip(row, makers, strict=True)]
            for row in self.values
        ]


def read(
    make_plan: MakePlan, columns: Columns, *, request: Request | None = None, now_us: int | None = None
) -> Vectors:
    """What `reading` comes to, in this thread."""
    return carried_out(reading(make_plan, columns, request=request, now_us=now_us))


def reading(
    make_plan: MakePlan, columns: Columns, *, request: Request | None = None, now_us: int | None = None
) -> Steps[Vectors]:
    """The vectors of the entities whose join key values are `columns`: one list per join key, all of one length,
    or a function of the plan that gives them. `request` has a list as long for each request input that the features
    are computed from; None where there is none.

    `make_plan` chooses the features from a catalog; it is asked again when Redis names a newer catalog than the
    process knew. Ages are counted up to `now_us`, microseconds since 1970: the time of the read by default. Raises
    InvalidInput for wrong keys and request inputs, TooLarge beyond MAX_ROWS or MAX_VALUES, Unavailable when Redis does
    not answer and OnlineStoreCold when it does not hold the store.
    """
    catalog = snapshot.current()
    for _ in range(ATTEMPTS):
        keys: list[bytes] = []
        refused: FeaturehubError | None = None
        sent: pl.DataFrame | None = None
        try:
            plan = make_plan(catalog)
            entities = columns(plan) if callable(columns) else columns
            keys = redis_keys(plan, entities)
            if plan.computed or request:
                sent = sent_values(plan, request, len(entities[plan.keys[0].name]))
        except FeaturehubError as error:
            refused = error  # it stands only if Redis says that this catalog is the current one
        try:
            state, values = yield keys
        except Unavailable:
            snapshot.doubt()
            raise
        checked = snapshot.checked_against(state)
        if checked is catalog:
            if refused is not None:
                raise refused
            now_us = time.time_ns() // 1000 if now_us is None else now_us
            return _decode(plan, values, now_us, sent)
        catalog = checked
    raise Unavailable("The catalog changed with every read of this request; try again.")


def of_features(names: Sequence[str]) -> MakePlan:
    """Plans for features named `group:name`, or bare where only one group has the name."""
    asked = ("features", *names)

    def choose(catalog: Catalog) -> list[FeatureSnapshot]:
        return find_features(names, catalog.groups.values(), where="The catalog")

    return lambda catalog: remembered(asked, catalog, choose)


def of_service(name: str) -> MakePlan:
    """Plans for a service, as `name` or `name@version`."""

    def choose(catalog: Catalog) -> list[FeatureSnapshot]:
        service = find_service(name, catalog)
        return [catalog.groups[group].features[feature] for group, feature in service.features]

    return lambda catalog: remembered(("service", name), catalog, choose)


def redis_keys(plan: Plan, columns: Mapping[str, Sequence[object]]) -> list[bytes]:
    """The keys of every entity and group, entity by entity."""
    parts = _key_parts(plan, columns)
    per_group = [_group_keys(group, parts) for group in plan.groups]
    return per_group[0] if len(per_group) == 1 else [key for keys in zip(*per_group, strict=True) for key in keys]


def _group_keys(group: GroupRead, parts: Sequence[list[bytes]]) -> list[bytes]:
    prefix, places = group.prefix, group.key_places
    if len(places) == 1:
        return row_keys(prefix, parts[places[0]])
    return row_keys(prefix, map(b"".join, zip(*(parts[place] for place in places), strict=True)))


def _key_parts(plan: Plan, columns: Mapping[str, Sequence[object]]) -> list[list[bytes]]:
    """What each join key's values add to the entity keys; raises InvalidInput, TooLarge."""
    if columns.keys() != plan.key_names:
        raise _wrong_keys(plan, columns)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        told = {key.name: len(columns[key.name]) for key in plan.keys}
        raise InvalidInput(f"The join key columns differ in length: {told}.")
    rows = max(lengths, default=0)
    if rows > MAX_ROWS or rows * plan.width > MAX_VALUES:
        raise TooLarge(f"One request reads at most {MAX_ROWS} entities and {MAX_VALUES} values; split it.")
    return [encode_column(columns[key.name], key, pointer=f"/entities/{key.name}") for key in plan.keys]


def _wrong_keys(plan: Plan, columns: Mapping[str, Sequence[object]]) -> InvalidInput:
    wanted = [key.name for key in plan.keys]
    problems = [Problem(f"/entities/{name}", "this join key is missing") for name in wanted if name not in columns]
    problems += [
        Problem(f"/entities/{name}", "no asked feature has this join key", near_names(name, wanted))
        for name in columns
        if name not in wanted
    ]
    return InvalidInput(f"The asked features are found by {', '.join(wanted)}.", problems)


@dataclass(frozen=True, slots=True)
class Found:
    """What a group's rows gave, for each entity: a tuple of values, one of statuses, and the event time of its row."""

    values: list[tuple[StoredValue, ...]]
    statuses: list[tuple[Status, ...]]
    event_us: list[int | None]


def _decode(plan: Plan, values: Sequence[bytes | None], now_us: int, sent: pl.DataFrame | None) -> Vectors:
    groups = plan.groups
    found = [_read_rows(group, values[place :: len(groups)], now_us) for place, group in enumerate(groups)]
    times = [one.event_us for one in found]
    if sent is not None:
        return _completed(plan, found, times, sent)
    if len(found) == 1 and plan.arrange is None:
        return Vectors(plan, found[0].values, found[0].statuses, times)
    return Vectors(
        plan,
        _side_by_side([one.values for one in found], plan.arrange),
        _side_by_side([one.statuses for one in found], plan.arrange),
        times,
    )


def _completed(plan: Plan, found: Sequence[Found], times: Sequence[list[int | None]], sent: pl.DataFrame) -> Vectors:
    """What was read and what is computed on request from it; without what only that needed."""
    unread: list[Any] = [(None,) * sent.height] * plan.width
    values: list[Sequence[StoredValue]] = [*unread]
    statuses: list[Sequence[Status]] = [*unread]
    for group, of_group in zip(plan.groups, found, strict=True):
        _place(values, group, of_group.values)
        _place(statuses, group, of_group.statuses)
    for place, computed, told in computed_columns(plan, values, statuses, sent):
        values[place], statuses[place] = computed, told
    width = len(plan.features)
    return Vectors(plan, [*zip(*values[:width], strict=True)], [*zip(*statuses[:width], strict=True)], times)


def _place(columns: list[Any], group: GroupRead, rows: Sequence[tuple[Any, ...]]) -> None:
    """Put the columns of a group's rows where the plan has them."""
    for place, column in zip(group.outputs, zip(*rows, strict=True), strict=bool(rows)):
        columns[place] = column


def _side_by_side(of_groups: Sequence[list[tuple[Any, ...]]], arrange: Pick | None) -> list[tuple[Any, ...]]:
    """What each entity has in each group, as one row in the order of the plan's features."""
    rows = [tuple(chain.from_iterable(parts)) for parts in zip(*of_groups, strict=True)]
    return rows if arrange is None else list(map(arrange, rows))


def _read_rows(group: GroupRead, values: Sequence[bytes | None], now_us: int) -> Found:
    """What the rows of one group have for its asked features. All is done for many rows in one loop: a function or an
    object for each would take as long as the reading does."""
    layouts, present, width = group.layouts, group.present, len(group.present)
    oldest = FIRST_US if group.ttl_us is None else max(FIRST_US, now_us - group.ttl_us)
    served_from, served_to = oldest + BIAS, LAST_US + BIAS
    not_found, too_old, invalid = _alike(NOT_FOUND, width), _alike(OUTSIDE_MAX_AGE, width), _alike(INVALID, width)
    found = Found([(None,) * width] * len(values), [not_found] * len(values), [None] * len(values))
    rows, statuses, event_us = found.values, found.statuses, found.event_us
    for place, value in enumerate(values):
        if value is None:
            continue
        try:
            flags, biased_us, schema_id, body = open_row(value)
            layout = layouts[schema_id]
            if flags & TOMBSTONE or not served_from <= biased_us <= served_to:
                if _is_too_old(flags, biased_us - BIAS):
                    statuses[place], event_us[place] = too_old, biased_us - BIAS
                continue
            stored = layout.decode(body)
        except (CorruptData, KeyError, *UNREADABLE) as error:
            log.error("an online row under %s cannot be read: %r", group.prefix, error)
            statuses[place] = invalid
            continue
        event_us[place] = biased_us - BIAS
        # The byte is found in a tenth of the time, and most bodies do not have it.
        if layout.is_partial or (NIL in body and None in stored):
            rows[place], statuses[place] = _partly(layout.slots, stored)
        else:
            rows[place], statuses[place] = stored if layout.pick is None else layout.pick(stored), present
    return found


@cache
def _alike(status: Status, width: int) -> tuple[Status, ...]:
    return (status,) * width


def _is_too_old(flags: int, event_us: int) -> bool:
    """Whether a row that says nothing of now is one that is too old, and no tombstone; raises CorruptData."""
    if not FIRST_US <= event_us <= LAST_US:
        raise CorruptData(f"The event time {event_us} is outside the years 1 to 9999.")
    return not flags & TOMBSTONE


def _partly(
    slots: Sequence[int | None], stored: tuple[StoredValue, ...]
) -> tuple[tuple[StoredValue, ...], tuple[Status, ...]]:
    """The values and statuses of a row that lacks some of the slots, or has nulls in them."""
    values = tuple([None if slot is None else stored[slot] for slot in slots])
    told: list[Status] = [
        NOT_FOUND if slot is None else NULL_VALUE if value is None else PRESENT
        for slot, value in zip(slots, values, strict=True)
    ]
    return values, tuple(told)


def instant(event_us: int) -> datetime:
    """Microseconds since 1970 as an aware datetime; exact, which a float of seconds is not."""
    return _EPOCH + timedelta(microseconds=event_us)


def _floats(packed: bytes) -> list[float]:
    return list(struct.unpack_from(f"<{len(packed) // 4}f", packed))


def _python(value: StoredValue, kind: str) -> object:
    if value is None:
        return None
    if kind == "timestamp":
        return instant(value)  # type: ignore[arg-type]
    return _floats(value) if kind == "embedding" else value  # type: ignore[arg-type]


def _json_maker(dtype: Dtype, int64_as_string: bool) -> Callable[..., object] | None:
    if int64_as_string and dtype.kind == "int64":
        return str
    if int64_as_string and dtype.item == "int64":
        return _texts
    makers: dict[str, Callable[..., object]] = {"timestamp": rfc3339, "embedding": _floats}
    return makers.get(dtype.kind)


def _texts(numbers: list[int | None]) -> list[str | None]:
    return [None if number is None else str(number) for number in numbers]
