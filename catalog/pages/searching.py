"""Finding features: what a query means, which features it finds in which order, and what each facet counts.

The features that match are read as rows of a few columns, whatever the query; facets are counted and pages cut here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, Exists, F, IntegerField, OuterRef, Q, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable
from django.http import QueryDict
from django.utils import timezone

from catalog import freshness, statistics, usage
from catalog.access import AnyCaller, seen
from catalog.models import Feature, FeatureGroup, FeatureUse, Status
from catalog.models.status import effective_status

#: More of a query than this is not looked at, and the page says so.
LONGEST = 200
MOST_WORDS = 8
PER_PAGE = 50
#: Values of a facet that are shown; those that are chosen always are.
MOST_VALUES = 12

NOBODY = "nobody"


def page_number(given: QueryDict) -> int:
    """Which page of a list an address asks for, from 1; what it says wrongly is as if it did not."""
    text = given.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 7 else 1


@dataclass(frozen=True, slots=True)
class Row:
    """What a query is about of one feature."""

    pk: int
    name: str
    rank: int
    group: str
    entity: str
    owner: str
    status: str
    dtype: str
    freshness: str
    moved: str
    tags: tuple[str, ...]

    def values(self, facet: str) -> tuple[str, ...]:
        """Its values under a facet."""
        return self.tags if facet == "tag" else (getattr(self, facet),)


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


@dataclass(frozen=True, slots=True)
class Found:
    """A page of what was found. `features` are in order, with `reads` of the last 30 days by primary key."""

    query: Query
    total: int
    features: Sequence[Feature]
    reads: Mapping[int, int]
    facets: Sequence[Facet]

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PER_PAGE))

    @property
    def first(self) -> int:
        return (self.query.page - 1) * PER_PAGE + 1 if self.total else 0

    @property
    def last(self) -> int:
        return min(self.query.page * PER_PAGE, self.total)


def find(query: Query, caller: AnyCaller) -> Found:
    """What the caller may see of what a query finds."""
    rows = _rows(query, caller)
    left = [row for row in rows if _has(row, query.chosen)]
    reads = _reads(row.pk for row in left) if query.sort == "reads" else {}
    left.sort(key=_key(query.sort, reads))
    query = replace(query, page=min(query.page, max(1, -(-len(left) // PER_PAGE))))
    shown = [row.pk for row in left[(query.page - 1) * PER_PAGE : query.page * PER_PAGE]]
    return Found(query, len(left), features_of(shown), reads or _reads(shown), [_facet(f, rows, query) for f in FACETS])


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
    own = Feature.tags.through.objects.filter(feature=OuterRef("pk"), tag__name__icontains=word)
    of_group = FeatureGroup.tags.through.objects.filter(featuregroup=OuterRef("group_id"), tag__name__icontains=word)
    return Q(Exists(own)) | Q(Exists(of_group))


def _rows(query: Query, caller: AnyCaller) -> list[Row]:
    tags, of_groups = _tags(Feature.tags.through, "feature_id"), _tags(FeatureGroup.tags.through, "featuregroup_id")
    fresh = {group.pk: "fresh" for group in freshness.with_age(FeatureGroup.objects.order_by())}
    fresh |= dict.fromkeys(freshness.stale(FeatureGroup.objects.order_by()).values_list("pk", flat=True), "stale")
    moved = set(statistics.moved_features(Feature.objects.all()).values_list("feature", flat=True))
    columns = (
        *("pk", "name", "rank", "group__name", "group__entity__name", "owner__name", "group__owner__name"),
        *("status", "group__status", "dtype", "group_id"),
    )
    return [
        Row(
            *(pk, name, rank, group, entity),
            own or of_group or NOBODY,
            effective_status(status, group_status).value,
            dtype,
            fresh.get(group_id, "no rows"),
            "yes" if pk in moved else "no",
            (*tags.get(pk, ()), *of_groups.get(group_id, ())),
        )
        for (pk, name, rank, group, entity, own, of_group, status, group_status, dtype, group_id) in matching(
            query.words, caller
        ).values_list(*columns)
    ]


def _tags(through: Any, of: str) -> Mapping[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for pk, name in through.objects.values_list(of, "tag__name").order_by():
        found[pk].append(name)
    return found


def _has(row: Row, chosen: Mapping[str, frozenset[str]]) -> bool:
    return all(not values.isdisjoint(row.values(facet)) for facet, values in chosen.items())


def _facet(name: str, rows: Iterable[Row], query: Query) -> Facet:
    """Counted among what the other facets leave, so that a second value of the same facet adds what it says."""
    others = {facet: values for facet, values in query.chosen.items() if facet != name}
    chosen = query.chosen.get(name, frozenset())
    counts = Counter(value for row in rows if _has(row, others) for value in set(row.values(name)))
    values = sorted({*counts, *chosen}, key=lambda value: (value not in chosen, -counts[value], value))
    shown = values[: max(MOST_VALUES, len(chosen))]
    choices = [Choice(value, counts[value], value in chosen) for value in shown]
    return Facet(name, FACETS[name], choices, len(values) - len(shown))


def _key(sort: str, reads: Mapping[int, int]) -> Callable[[Row], Any]:
    if sort == "name":
        return lambda row: (row.name, row.group)
    if sort == "group":
        return lambda row: (row.group, row.name)
    if sort == "reads":
        return lambda row: (-reads.get(row.pk, 0), row.name)
    return lambda row: (row.rank, _ORDER[Status(row.status)], row.name, row.group)


def _reads(ids: Iterable[int]) -> dict[int, int]:
    """How often each of some features was read in the last days."""
    wanted = set(ids)
    uses = reads_by_feature() if len(wanted) > PER_PAGE else reads_by_feature().filter(feature__in=wanted)
    return {pk: reads for pk, reads in uses if pk in wanted}


def reads_by_feature() -> QuerySet[Any, Any]:
    """(feature, requests) of the last days."""
    uses = FeatureUse.objects.filter(day__gte=since()).order_by().values("feature")
    return uses.annotate(reads=Sum(F("requests"))).values_list("feature", "reads")


def since() -> date:
    """The first day that counts as of late."""
    return timezone.now().date() - timedelta(days=usage.DAYS)
