"""Sample rows of a group for people: the newest of its offline table, as text, without what the caller may not see."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from catalog import snapshot, stores
from catalog.access import READ, READ_PII, AnyCaller, allowed
from catalog.models import PII, FeatureGroup
from catalog.schemas import request_needs
from catalog.snapshot import GroupSnapshot
from engine.entity_key import KeyValue
from engine.errors import CorruptData
from engine.instants import microseconds, rfc3339
from engine.offline.newest import newest_rows
from engine.schema import EVENT_TIMESTAMP, SCHEMA, Dtype

log = logging.getLogger(__name__)

#: Rows that a page shows.
ROWS = 50
#: Characters and items of a value that are shown; how long it is as a whole is said.
LONGEST_TEXT = 80
MOST_ITEMS = 4
#: Suggestions, and how much may be read to find them.
SUGGESTED = 5
SUGGESTION_BYTES = 4 << 20
_NUMBERS = ("int64", "float64")
#: How a spreadsheet recognises a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

CellKind = Literal["value", "null", "empty", "absent", "hidden"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a sample. `kind` says what it is in the group; `is_hidden`: its values need `pii:read`."""

    name: str
    kind: Literal["key", "time", "feature", "input"]
    dtype: Dtype
    is_hidden: bool = False

    @property
    def is_number(self) -> bool:
        return self.dtype.kind in _NUMBERS and self.kind != "key"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as it is shown; `length` says how long it is where it is cut, `full` has more of it then."""

    kind: CellKind
    text: str = ""
    length: str = ""
    full: str = ""
    is_number: bool = False
    is_time: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest rows, the latest first; `values` as Python has them, None also where they are hidden."""

    columns: tuple[Column, ...]
    values: tuple[tuple[Any, ...], ...]
    cells: tuple[tuple[Cell, ...], ...]
    as_of: datetime | None
    is_exact: bool
    looked_at: int

    @property
    def hidden(self) -> list[str]:
        return [column.name for column in self.columns if column.is_hidden]

    def as_csv(self) -> str:
        """The rows as CSV with their full values. Null is an empty field, `""` a text without characters; what a
        spreadsheet would compute begins with an apostrophe, and hidden columns are empty."""
        header = [f"{column.name} (hidden)" if column.is_hidden else column.name for column in self.columns]
        return "".join(map(_csv_line, [header, *self.values]))


def newest(group: FeatureGroup, caller: AnyCaller, *, feature: str = "") -> Sample:
    """At most ROWS newest rows of a group: keys, event time, features and inputs; or only one `feature` of it.

    What is tagged `pii` is hidden from a caller without `pii:read` on the group: a feature by its own tag or its
    group's, the join keys by their entity's, the inputs with any of these. Raises CorruptData for an unreadable file.
    """
    columns = _columns(group, caller, feature)
    read = [column.name for column in columns if not column.is_hidden]
    found = newest_rows(stores.offline(group.name, group.version), read, at_most=ROWS)
    served = snapshot.current().groups.get(group.name)
    rows = [] if found.rows is None else found.rows.to_dicts()
    return Sample(
        columns,
        tuple(tuple(row.get(column.name) for column in columns) for row in rows),
        tuple(tuple(_cell(column, row, served) for column in columns) for row in rows),
        found.as_of,
        found.is_exact,
        found.looked_at,
    )


def recent_ids(group: FeatureGroup, caller: AnyCaller) -> list[list[KeyValue]]:
    """The join key values of some entities that have new rows; none where the keys are personal and the caller may not
    see them, or the caller may not read the group."""
    keys = [key.name for key in group.entity.join_keys.all()]
    if not allowed(caller, READ, group) or keys_are_hidden(group, caller):
        return []
    table = stores.offline(group.name, group.version)
    try:
        found = newest_rows(table, keys, at_most=4 * SUGGESTED, bytes_at_most=SUGGESTION_BYTES)
    except CorruptData as error:  # a look-up and the snippets are of use without a suggestion
        log.error("no ids of %s can be suggested: %s", group, error)
        return []
    if found.rows is None:
        return []
    distinct = found.rows.select(keys).unique(maintain_order=True).head(SUGGESTED)
    return [list(row) for row in distinct.rows()]


def keys_are_hidden(group: FeatureGroup, caller: AnyCaller) -> bool:
    """Whether the ids of the group's entity are personal, and the caller may not see those that others sent."""
    return group.entity.tags.filter(name=PII).exists() and not allowed(caller, READ_PII, group)


def _columns(group: FeatureGroup, caller: AnyCaller, only: str) -> tuple[Column, ...]:
    may_see = allowed(caller, READ_PII, group)
    hides_keys = not may_see and group.entity.tags.filter(name=PII).exists()
    hides_inputs = not may_see and group.holds_personal()
    features = group.features.order_by("position", "pk")
    personal = frozenset() if may_see else features.personal()
    on_request = request_needs(group)
    keys = [Column(key.name, "key", key.dtype, hides_keys) for key in group.entity.key_fields()]
    time = Column(EVENT_TIMESTAMP, "time", Dtype("timestamp"))
    stored = [
        Column(feature.name, "feature", Dtype.parse(feature.dtype), feature.pk in personal)
        for feature in features
        if feature.name not in on_request and only in ("", feature.name)
    ]
    inputs = [
        Column(field.name, "input", field.dtype, hides_inputs)
        for field in (column.field() for column in group.inputs.all())
        if not only
    ]
    return (*keys, time, *stored, *inputs)


def _cell(column: Column, row: dict[str, Any], served: GroupSnapshot | None) -> Cell:
    if column.is_hidden:
        return Cell("hidden")
    value = row.get(column.name)
    if value is None:
        is_absent = column.kind == "feature" and served is not None and not _has(served, row[SCHEMA], column.name)
        return Cell("absent" if is_absent else "null")
    return shown(value, column.dtype, is_key=column.kind == "key")


def _has(group: GroupSnapshot, schema: int, feature: str) -> bool:
    return feature in group.layouts.get(schema, (feature,))


def shown(value: Any, dtype: Dtype, *, is_key: bool = False) -> Cell:
    """A value that is not null as people read it: thousands apart, times in UTC, what is long cut."""
    if dtype.kind in ("embedding", "list"):
        return _list(value, dtype)
    if dtype.kind == "string":
        return _text(value)
    if dtype.kind == "timestamp":
        told = rfc3339(microseconds(value)) if isinstance(value, datetime) else str(value)
        return Cell("value", told.replace("T", " ").removesuffix("Z"), full=told, is_time=True)
    if dtype.kind == "bool":
        return Cell("value", "true" if value else "false")
    if is_key:
        return Cell("value", str(value))
    return Cell("value", _number(value), full=repr(value), is_number=True)


def _text(value: str) -> Cell:
    if not value:
        return Cell("empty")
    if len(value) <= LONGEST_TEXT:
        return Cell("value", printable(value))
    return Cell("value", f"{printable(value[:LONGEST_TEXT])}…", f"{len(value):,} characters", printable(value[:1_000]))


def _list(items: Sequence[Any], dtype: Dtype) -> Cell:
    texts = [_item(item) for item in items[:MOST_ITEMS]]
    if len(items) <= MOST_ITEMS:
        return Cell("value", f"[{', '.join(texts)}]", full="")
    noun = "texts" if dtype.item == "string" else "numbers"
    return Cell("value", f"[{', '.join(texts)}, …]", f"{len(items):,} {noun}")


def _item(item: Any) -> str:
    if item is None:
        return "null"
    if isinstance(item, str):
        return f'"{printable(item[:20])}{"…" if len(item) > 20 else ""}"'
    return _number(item)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    exact = repr(value)
    return exact if len(exact) <= 12 and "e" not in exact and abs(value) < 1000 else f"{value:,.7g}"


def printable(text: str) -> str:
    """The text with characters that no page may hold, or that show nothing, as their pictures.

    >>> printable("a\\0b\\n")
    'a␀b␊'
    """
    return "".join(chr(0x2400 + ord(c)) if c < " " else "␡" if c == "\x7f" else c for c in text)


def _csv_line(values: Iterable[Any]) -> str:
    return ",".join(map(_csv, values)) + "\n"


def _csv(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return rfc3339(microseconds(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return _quoted(json.dumps(value, ensure_ascii=False))
    if isinstance(value, str):
        return _quoted(f"'{value}" if value.startswith(_FORMULA) else value)
    return repr(value)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
