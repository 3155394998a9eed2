"""Rejected rows as people read them: by the rule that they broke, in words, with the first rows side by side."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from catalog.access import READ_PII, REGISTRY, WRITE, AnyCaller, allowed
from catalog.models import Feature, FeatureGroup, JoinKey
from catalog.pages import wording
from catalog.pages.lineage import reads_of
from engine.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from ingestion.models import QuarantinedRule

#: Rows of a rule that are shown in a list, and on a page of its own all that the database has of it.
FEW_ROWS = 3
ALL_ROWS = 20
#: A value longer than this is cut; the whole of it is in its title.
LONGEST_CELL = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a rejected row. `is_absent`: it is null, or the row does not have the column."""

    text: str
    is_broken: bool
    is_absent: bool = False

    @property
    def is_cut(self) -> bool:
        return len(self.text) > LONGEST_CELL


@dataclass(frozen=True, slots=True)
class Rows:
    """Rejected rows side by side, the columns that the rule is about first.

    rows:   each row's number in its run, and its cells in the order of `columns`.
    others: those that are too long to be taken apart, each with its number.
    """

    columns: list[tuple[str, bool]]
    rows: list[tuple[int, list[Cell]]]
    others: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a rule of a group over all runs that are meant: its rows, those that wait, those that are being replayed, and
    how many runs they came with."""

    rows: int
    waiting: int
    replaying: int
    runs: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that rows of a group broke on a column. `record` is what the newest run among those meant kept of it.

    about:  the columns of a raw row that the rule is about.
    asks:   what the feature asks now, which may be something else by now.
    rows:   None where the values are about persons and the caller may not read such.
    mend:   where the rule is mended; empty for who may not.
    """

    record: QuarantinedRule
    counts: Counts
    words: str
    about: tuple[str, ...]
    asks: list[str]
    rows: Rows | None
    may_write: bool
    mend: str

    @property
    def group(self) -> FeatureGroup:
        return self.record.run.group

    @property
    def column(self) -> str:
        """The rule's column as the source names it."""
        return _source_name(self.record)

    @property
    def title(self) -> str:
        return f"{self.column} {self.words}"


def broken_of(
    records: Sequence[QuarantinedRule],
    caller: AnyCaller,
    *,
    counts: Mapping[int, Counts] | None = None,
    rows: int = FEW_ROWS,
) -> list[Broken]:
    """Each of some records, read `with_state` and with their runs' groups; `counts` by their ids when they stand for
    more than themselves. The same number of queries for any number of them."""
    groups = {record.run.group.pk: record.run.group for record in records}
    features, keys = _features(records), _keys(groups)
    personal = FeatureGroup.personal(groups) if groups else frozenset()
    hidden = {pk for pk in personal if not allowed(caller, READ_PII, groups[pk])}
    found = []
    for record in records:
        feature = features.get((record.run.group.pk, record.column))
        about = _columns_about(record, feature)
        found.append(
            Broken(
                record,
                (counts or {}).get(record.pk) or _counts_of(record),
                words_of(record.rule, record.detail),
                about,
                wording.rules_of(feature) if feature else [],
                None
                if record.run.group.pk in hidden
                else rows_of(record.samples[:rows], about, keys[record.run.group.pk]),
                allowed(caller, WRITE, record.run.group),
                _mend(record, feature, caller),
            )
        )
    return found


def shows_rows(caller: AnyCaller, group: FeatureGroup) -> bool:
    """Whether a caller may see values of rejected rows of a group: as the API has it."""
    return not group.holds_personal() or allowed(caller, READ_PII, group)


def _counts_of(record: QuarantinedRule) -> Counts:
    replaying = record.row_count if record.state == "replaying" else 0
    return Counts(record.row_count, record.pending_rows, replaying, 1)


def _features(records: Iterable[QuarantinedRule]) -> dict[tuple[int, str], Feature]:
    wanted = {(record.run.group.pk, record.column) for record in records}
    of_groups = Feature.objects.filter(
        group__in={group for group, _ in wanted}, name__in={column for _, column in wanted}
    )
    return {(feature.group_id, feature.name): feature for feature in of_groups.select_related("group")}


def _keys(groups: Iterable[int]) -> Mapping[int, list[str]]:
    """The names of the join keys of each group."""
    keys: defaultdict[int, list[str]] = defaultdict(list)
    named = JoinKey.objects.filter(entity__groups__in=list(groups)).order_by("position")
    for group, name in named.values_list("entity__groups", "name"):
        keys[group].append(name)
    return keys


def _columns_about(record: QuarantinedRule, feature: Feature | None) -> tuple[str, ...]:
    """The column of the rule as the source names it; of a computed feature the columns that it is computed from."""
    reads = tuple(sorted(reads_of(feature))) if feature else ()
    return reads or (_source_name(record),)


def _source_name(record: QuarantinedRule) -> str:
    group = record.run.group
    names = {EVENT_TIMESTAMP: group.event_timestamp, CREATED_TIMESTAMP: group.created_timestamp}
    return names.get(record.column) or record.column


def _mend(record: QuarantinedRule, feature: Feature | None, caller: AnyCaller) -> str:
    """The feature's page in the admin, for who may log in there and change it."""
    if feature is None or not getattr(caller, "is_staff", False) or not allowed(caller, REGISTRY, record.run.group):
        return ""
    return reverse("admin:catalog_feature_change", args=[feature.pk])


# -- In words

_FIXED = {
    "not_null": "never null",
    "unique": "unique within a run",
    "finite": "neither NaN nor infinite",
    "missing": "present in every row",
    "type": "of its type",
    "future": "not in the future",
    "transformation": "computed without a lost value",
}
#: What a rule says of the rows that broke it, and what it asks.
_TURNED = (
    ("is below the minimum ", "at least "),
    ("is above the maximum ", "at most "),
    ("is not one of ", "one of "),
    ("has fewer than ", "no shorter than "),
)


def words_of(rule: str, detail: str) -> str:
    """What a rule asks, after the name of its column; from what was said of the rows, since it may be another by now.

    >>> words_of("min_value", "is below the minimum 0"), words_of("not_null", "is null")
    ('at least 0', 'never null')
    >>> words_of("regex", "does not match '[a-z]+' from end to end"), words_of("odd_rule", "is odd")
    ("matching '[a-z]+' as a whole", 'breaks odd rule')
    """
    for said, asks in _TURNED:
        if detail.startswith(said):
            return asks + detail.removeprefix(said)
    if rule == "regex":
        return f"matching {detail.removeprefix('does not match ').removesuffix(' from end to end')} as a whole"
    if rule == "length":
        return "of a length within its bounds"
    return _FIXED.get(rule) or f"breaks {rule.replace('_', ' ')}"


# -- Side by side


def rows_of(samples: Iterable[Mapping[str, Any]], about: Sequence[str], keys: Sequence[str] = ()) -> Rows:
    """Samples as a table, the join keys after the columns that the rule is about; a payload that was cut stays text."""
    taken: list[tuple[int, dict[str, Any]]] = []
    others: list[tuple[int, str]] = []
    for sample in samples:
        payload = payload_of(sample["payload"])
        if payload is None:
            others.append((sample["row"], sample["payload"]))
        else:
            taken.append((sample["row"], payload))
    names = list(dict.fromkeys(name for _, payload in taken for name in payload))
    # A column that is missing altogether is what the rule is about, too.
    first = [name for name in dict.fromkeys([*about, *keys]) if taken and (name in about or name in names)]
    columns = first + [name for name in names if name not in first]
    cells = [(number, [_cell(payload.get(name), name in about) for name in columns]) for number, payload in taken]
    return Rows([(name, name in about) for name in columns], cells, others)


def payload_of(text: str) -> dict[str, Any] | None:
    """A row as it was kept for people; None when the text was cut and cannot be read."""
    try:
        payload = json.loads(text)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def _cell(value: object, is_broken: bool) -> Cell:
    return Cell("null", is_broken, True) if value is None else Cell(text_of(value), is_broken)


def text_of(value: object) -> str:
    """A value of a payload as people write it: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
