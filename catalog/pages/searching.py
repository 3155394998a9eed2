"""Finding features: what a query means, which features it finds in which order, and what each facet counts.

The features that match are read as a few columns, whatever the query; facets are counted and pages cut here. What is
decided by a group, a tag or an owner is worked out once for each, not once for each feature: ten thousand features cost
a few hundredths of a second, as many queries as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import compress, repeat
from operator import and_
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, F, IntegerField, Q, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable
from django.http import QueryDict
from django.utils import timezone

from catalog import freshness, statistics, usage
from catalog.access import AnyCaller, seen
from catalog.models import Feature, FeatureGroup, FeatureUse, Owner, Status
from catalog.models.status import effective_status
from catalog.pages.paging import PER_PAGE, Listed, cut

#: More of a query than this is not looked at, and the page says so.
LONGEST = 200
MOST_WORDS = 8
#: Values of a facet that are shown; those that are chosen always are.
MOST_VALUES = 12

#: Of more features their tags are read as those of all.
MOST_NAMED = 500

NOBODY = "nobody"


def page_number(given: QueryDict) -> int:
    """Which page of a list an address asks for, from 1; what it says wrongly is as if it did not."""
    text = given.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 7 else 1


#: By the name of its parameter: what people read.
FACETS = {
    "status": "Status",
    "entity": "Entity",
    "group": "Group",
    "owner": "Owner",
    "tag": "Tag",
    "dtype": "Type",
    "freshness": "Freshness",
    "moved": "Distribution moved",
}
_ORDER = {Status.ACTIVE: 0, Status.DEPRECATED: 1, Status.DRAFT: 2, Status.ARCHIVED: 3}
SORTS = {"relevance": "Best match", "name": "Name", "reads": "Most read", "group": "Group"}


@dataclass(frozen=True, slots=True)
class Query:
    """A search as its address says it: text, the chosen values of each facet, an order and a page."""

    q: str = ""
    chosen: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sort: str = "relevance"
    page: int = 1
    was_cut: bool = False

    @classmethod
    def of(cls, given: QueryDict) -> Query:
        """What the parameters say; what they say wrongly is as if they did not."""
        text = given.get("q", "").replace("\0", " ").strip()
        chosen = {facet: frozenset(value for value in given.getlist(facet) if value) for facet in FACETS}
        sort = given.get("sort", "")
        return cls(
            text[:LONGEST],
            {facet: values for facet, values in chosen.items() if values},
            sort if sort in SORTS else "relevance",
            page_number(given),
            len(text) > LONGEST,
        )

    @property
    def words(self) -> list[str]:
        return self.q.split()[:MOST_WORDS]

    def parameters(self) -> str:
        """The query as the end of an address, without its page."""
        pairs = [("q", self.q)] if self.q else []
        pairs += [(facet, value) for facet, values in self.chosen.items() for value in sorted(values)]
        return urlencode(pairs + ([("sort", self.sort)] if self.sort != "relevance" else []))

    def without(self, facet: str, value: str) -> Query:
        """The same search with one value less."""
        left = self.chosen[facet] - {value}
        chosen = {name: values for name, values in self.chosen.items() if name != facet}
        return replace(self, chosen=chosen | ({facet: left} if left else {}), page=1)


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a facet: how many features it would leave, and whether it is chosen."""

    value: str
    count: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Facet:
    name: str
    title: str
    choices: Sequence[Choice]
    hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Listed):
    """A page of the features that were found, in order, with the `reads` of the last 30 days by primary key."""

    query: Query
    reads: Mapping[int, int]
    facets: Sequence[Facet]


def find(query: Query, caller: AnyCaller) -> Found:
    """What the caller may see of what a query finds."""
    table = _table(query.words, caller)
    passes = {facet: table.facets[facet].passes(values) for facet, values in query.chosen.items()}
    left = list(compress(range(len(table.pks)), _all(passes.values())))
    reads = _reads(table.pks[at] for at in left) if query.sort == "reads" else {}
    left.sort(key=table.order(query.sort, reads))
    page, part = cut(len(left), query.page)
    shown = [table.pks[at] for at in left[part]]
    query, facets = replace(query, page=page), [_facet(name, table, query, passes) for name in FACETS]
    found, reads = features_of(shown), reads or _reads(shown)
    return Found(rows=found, total=len(left), page=page, query=query, reads=reads, facets=facets)


def features_of(ids: Sequence[int]) -> list[Feature]:
    """Features in the order of their primary keys, with what a line about each shows."""
    found = Feature.objects.select_related("owner", "group__owner", "group__entity").in_bulk(ids)
    return [found[pk] for pk in ids if pk in found]


def matching(words: Sequence[str], caller: AnyCaller) -> QuerySet[Feature]:
    """The features that the caller may see in which every word is found, each with its `rank`: the lower the better."""
    features = seen(caller, Feature.objects.order_by())
    rank: Combinable = Value(0, IntegerField())
    for word in words:
        tagged = _tagged(word)
        named = Q(name__icontains=word) | Q(group__name__icontains=word)
        owned = Q(owner__name__icontains=word) | Q(owner=None, group__owner__name__icontains=word)
        features = features.filter(named | tagged | Q(description__icontains=word) | owned)
        rank = rank + Case(
            When(name__iexact=word, then=0),
            When(name__istartswith=word, then=1),
            When(name__icontains=word, then=2),
            When(group__name__icontains=word, then=3),
            When(tagged, then=4),
            When(description__icontains=word, then=5),
            default=6,
            output_field=IntegerField(),
        )
    return features.annotate(rank=rank)


def _tagged(word: str) -> Q:
    own = Feature.tags.through.objects.filter(tag__name__icontains=word).values("feature")
    of_group = FeatureGroup.tags.through.objects.filter(tag__name__icontains=word).values("featuregroup")
    return Q(pk__in=own) | Q(group__in=of_group)


@dataclass(frozen=True, slots=True)
class _Column:
    """One facet of all rows: a key for each, and the values that a key stands for; many rows have the same key."""

    keys: Sequence[Hashable]
    values: Callable[[Any], tuple[str, ...]]

    def passes(self, chosen: frozenset[str]) -> list[bool]:
        """Of each row, whether it has one of the chosen values."""
        known = {key: not chosen.isdisjoint(self.values(key)) for key in set(self.keys)}
        return [known[key] for key in self.keys]

    def counts(self, selected: Iterable[bool]) -> Counter[str]:
        """How many of the selected rows have each value."""
        found: Counter[str] = Counter()
        for key, count in Counter(compress(self.keys, selected)).items():
            for value in set(self.values(key)):
                found[value] += count
        return found


def _all(passes: Iterable[Sequence[bool]]) -> Iterable[bool]:
    """Of each row, whether it passes everywhere; of all where there is nothing to pass."""
    selected: Iterable[bool] = repeat(True)
    for one in passes:
        selected = map(and_, selected, one)
    return selected


@dataclass(frozen=True, slots=True)
class _Table:
    """The features that match, column by column."""

    pks: Sequence[int]
    names: Sequence[str]
    ranks: Sequence[int]
    groups: Sequence[str]
    facets: Mapping[str, _Column]

    def order(self, sort: str, reads: Mapping[int, int]) -> Callable[[int], Any]:
        """What a row, by its place, is sorted by."""
        names, groups = self.names, self.groups
        if sort == "name":
            return lambda at: (names[at], groups[at])
        if sort == "group":
            return lambda at: (groups[at], names[at])
        if sort == "reads":
            return lambda at: (-reads.get(self.pks[at], 0), names[at], groups[at])
        status = self.facets["status"]
        places = {key: _ORDER[Status(status.values(key)[0])] for key in set(status.keys)}
        return lambda at: (self.ranks[at], places[status.keys[at]], names[at], groups[at])


@dataclass(frozen=True, slots=True)
class _Group:
    """What its features have of a group."""

    name: str
    entity: str
    owner: str
    status: str
    freshness: str
    tags: tuple[str, ...]


def _table(words: Sequence[str], caller: AnyCaller) -> _Table:
    columns = ("pk", "name", F("rank"), "group_id", "owner_id", "status", "dtype")
    rows: list[Any] = list(matching(words, caller).values_list(*columns))
    pks, names, ranks, group_ids, owner_ids, statuses, dtypes = zip(*rows, strict=True) if rows else ((),) * 7
    groups, tags = _groups(), _tags(Feature.tags.through, "feature_id", pks)
    moved = set(statistics.moved_features(Feature.objects.all()).values_list("feature", flat=True))
    owners = dict(Owner.objects.values_list("pk", "name").order_by())
    facets = {
        "status": _Column(
            list(zip(statuses, group_ids, strict=True)),
            lambda key: (effective_status(key[0], groups[key[1]].status).value,),
        ),
        "entity": _Column(group_ids, lambda key: (groups[key].entity,)),
        "group": _Column(group_ids, lambda key: (groups[key].name,)),
        "owner": _Column(
            list(zip(owner_ids, group_ids, strict=True)),
            lambda key: (owners.get(key[0], "") or groups[key[1]].owner or NOBODY,),
        ),
        "tag": _Column(
            [(tags.get(pk, ()), group) for pk, group in zip(pks, group_ids, strict=True)],
            lambda key: (*key[0], *groups[key[1]].tags),
        ),
        "dtype": _Column(dtypes, lambda key: (key,)),
        "freshness": _Column(group_ids, lambda key: (groups[key].freshness,)),
        "moved": _Column([pk in moved for pk in pks], lambda key: ("yes" if key else "no",)),
    }
    return _Table(pks, names, ranks, [groups[pk].name for pk in group_ids], facets)


def _groups() -> Mapping[int, _Group]:
    """Every group, by its primary key."""
    tags, every = _tags(FeatureGroup.tags.through, "featuregroup_id"), FeatureGroup.objects.order_by()
    fresh = dict.fromkeys(freshness.with_age(every).values_list("pk", flat=True), "fresh")
    fresh |= dict.fromkeys(freshness.stale(every).values_list("pk", flat=True), "stale")
    return {
        pk: _Group(name, entity, owner or "", status, fresh.get(pk, "no rows"), tags.get(pk, ()))
        for pk, name, entity, owner, status in every.values_list("pk", "name", "entity__name", "owner__name", "status")
    }


def _tags(through: Any, of: str, wanted: Sequence[int] | None = None) -> Mapping[int, tuple[str, ...]]:
    """The names of the tags of all things of a kind, or of a few."""
    pairs = through.objects.values_list(of, "tag__name").order_by()
    if wanted is not None and len(wanted) <= MOST_NAMED:
        pairs = pairs.filter(**{f"{of}__in": wanted})
    found: dict[int, tuple[str, ...]] = {}
    for pk, name in pairs:
        found[pk] = (*found.get(pk, ()), name)
    return found


def _facet(name: str, table: _Table, query: Query, passes: Mapping[str, Sequence[bool]]) -> Facet:
    """Counted among what the other facets leave, so that a second value of the same facet adds what it says."""
    counts = table.facets[name].counts(_all(passed for facet, passed in passes.items() if facet != name))
    chosen = query.chosen.get(name, frozenset())
    values = sorted({*counts, *chosen}, key=lambda value: (value not in chosen, -counts[value], value))
    shown = values[: max(MOST_VALUES, len(chosen))]
    choices = [Choice(value, counts[value], value in chosen) for value in shown]
    return Facet(name, FACETS[name], choices, len(values) - len(shown))


def _reads(ids: Iterable[int]) -> dict[int, int]:
    """How often each of some features was read in the last days."""
    wanted = set(ids)
    uses = reads_by_feature() if len(wanted) > PER_PAGE else reads_by_feature().filter(feature__in=wanted)
    return {pk: reads for pk, reads in uses if pk in wanted}


def reads_by_feature() -> QuerySet[Any, Any]:
    """(feature, requests) of the last days."""
    # Grouped by a sum, since SQLite would rather walk through an index on features, and so through all years.
    uses = FeatureUse.objects.filter(day__gte=since()).order_by().annotate(of=F("feature_id") + 0).values("of")
    return uses.annotate(reads=Sum("requests")).values_list("of", "reads")


def since() -> date:
    """The first day that counts as of late."""
    return timezone.now().date() - timedelta(days=usage.DAYS)
