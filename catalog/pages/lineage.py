"""Lineage in five layers: where values come from and what comes of them, as a drawing, a list and Mermaid text.

The layers are source, group, feature, consumer (feature services and training datasets) and reader (the keys and people
that asked of late). A layer shows at most MOST things and says how many more there are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from catalog import usage
from catalog.access import AnyCaller, seen
from catalog.models import Entity, Feature, FeatureGroup, FeatureService, ServiceFeature, TrainingDataset
from catalog.pages.addresses import page_of
from catalog.pages.viewing import page, show
from engine.errors import FeaturehubError
from engine.expressions import references_of

TITLES = {
    "source": "Sources",
    "group": "Groups",
    "feature": "Features",
    "consumer": "Services and datasets",
    "reader": "Readers, 30 days",
}
LAYERS = tuple(TITLES)
MOST = 24

_WIDTH, _GAP_X, _HEIGHT, _GAP_Y, _TOP = 168, 52, 40, 10, 28
_LONGEST = 22


@dataclass(frozen=True, slots=True)
class Node:
    """One thing. `key` tells it from others, `address` is its page's, where it has one."""

    key: str
    layer: str
    kind: str
    label: str
    address: str = ""
    is_here: bool = False

    @property
    def short(self) -> str:
        return self.label if len(self.label) <= _LONGEST else f"{self.label[: _LONGEST - 1]}…"


@dataclass(frozen=True, slots=True)
class Placed:
    """A node and where it is drawn; x and y of its upper left corner."""

    node: Node
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Line:
    """An edge as drawn: between the keys of two nodes, and the path of its curve."""

    start: str
    end: str
    path: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Nodes and directed edges between their keys; `hidden` says how many more a layer has."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    hidden: Mapping[str, int]

    @property
    def layers(self) -> list[tuple[str, list[Node], int]]:
        """(title, nodes, how many more) of each layer."""
        return [
            (TITLES[layer], [node for node in self.nodes if node.layer == layer], self.hidden.get(layer, 0))
            for layer in LAYERS
        ]

    @property
    def width(self) -> int:
        return len(LAYERS) * _WIDTH + (len(LAYERS) - 1) * _GAP_X

    @property
    def height(self) -> int:
        tallest = max((len(nodes) + (hidden > 0) for _, nodes, hidden in self.layers), default=0)
        return _TOP + max(tallest, 1) * (_HEIGHT + _GAP_Y)

    @property
    def titles(self) -> list[tuple[int, str]]:
        return [(column * (_WIDTH + _GAP_X), title) for column, title in enumerate(TITLES.values())]

    @property
    def placed(self) -> list[Placed]:
        """Every node at its place: the layers side by side, each from the top."""
        return [
            Placed(node, column * (_WIDTH + _GAP_X), _TOP + row * (_HEIGHT + _GAP_Y))
            for column, (_, nodes, _) in enumerate(self.layers)
            for row, node in enumerate(nodes)
        ]

    @property
    def lines(self) -> list[Line]:
        at = {placed.node.key: placed for placed in self.placed}
        return [Line(start, end, _curve(at[start], at[end])) for start, end in self.edges if start in at and end in at]

    @property
    def remarks(self) -> list[tuple[int, int, int]]:
        """Where a layer says how many more it has: x, y, how many."""
        return [
            (column * (_WIDTH + _GAP_X), _TOP + len(nodes) * (_HEIGHT + _GAP_Y) + 18, hidden)
            for column, (_, nodes, hidden) in enumerate(self.layers)
            if hidden
        ]

    @property
    def summary(self) -> str:
        """The drawing in words."""
        counts = [f"{len(nodes) + hidden} {title.lower()}" for title, nodes, hidden in self.layers]
        return f"Lineage from left to right: {', '.join(counts)}."

    @property
    def mermaid(self) -> str:
        """The same as the text of a Mermaid flowchart."""
        number = {node.key: f"n{count}" for count, node in enumerate(self.nodes)}
        lines = ["flowchart LR"]
        lines += [f'  {number[node.key]}["{_quoted(node.kind)}: {_quoted(node.label)}"]' for node in self.nodes]
        lines += [f"  {number[start]} --> {number[end]}" for start, end in self.edges if {start, end} <= number.keys()]
        return "\n".join(lines)

    @property
    def table(self) -> list[tuple[str, Node, list[Node], list[Node]]]:
        """The twin of the drawing: (layer, node, what it comes from, what comes of it)."""
        known = {node.key: node for node in self.nodes}
        before: dict[str, list[Node]] = defaultdict(list)
        after: dict[str, list[Node]] = defaultdict(list)
        for start, end in self.edges:
            if {start, end} <= known.keys():
                before[end].append(known[start])
                after[start].append(known[end])
        return [(TITLES[node.layer], node, before[node.key], after[node.key]) for node in self.nodes]


def _quoted(text: str) -> str:
    """Text that ends no label of Mermaid's."""
    return re.sub(r'["\[\]<>&#;\n]', " ", text)


def _curve(start: Placed, end: Placed) -> str:
    y1, y2 = start.y + _HEIGHT // 2, end.y + _HEIGHT // 2
    if start.x == end.x:  # of one layer: around the side
        x = start.x + _WIDTH
        return f"M{x} {y1}C{x + 30} {y1} {x + 30} {y2} {x} {y2}"
    x1, x2 = start.x + _WIDTH, end.x
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"


class _Drawing:
    """Nodes and edges as they are found; what is beyond MOST of a layer is only counted."""

    def __init__(self, here: Model) -> None:
        self.here = here
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], None] = {}
        self.hidden: dict[str, int] = {}

    def add(self, layer: str, kind: str, label: str, thing: Model | None = None, *, address: str = "") -> str:
        key = f"{kind}:{label}"
        label = label.rpartition(":")[2] if kind == "feature" else label
        if key in self.nodes:
            return key
        if sum(node.layer == layer for node in self.nodes.values()) >= MOST:
            self.hidden[layer] = self.hidden.get(layer, 0) + 1
            return key
        found = page_of(thing) if thing is not None else address
        self.nodes[key] = Node(key, layer, kind, label, found, is_here=thing is not None and thing == self.here)
        return key

    def lead(self, start: str, end: str) -> None:
        self.edges[start, end] = None

    def finished(self) -> Lineage:
        return Lineage(tuple(self.nodes.values()), tuple(self.edges), self.hidden)


def lineage_of(thing: Entity | FeatureGroup | Feature | FeatureService, caller: AnyCaller) -> Lineage:
    """What leads to a thing and what comes of it, as far as the caller may see it."""
    drawing = _Drawing(thing)
    features = list(_around(thing, caller).select_related("group__source", "group__entity").distinct())
    groups = {feature.group_id: feature.group for feature in features}
    if isinstance(thing, FeatureGroup):
        groups.setdefault(thing.pk, thing)
    for group in groups.values():
        key = drawing.add("group", "group", group.name, group)
        if group.source:
            source = drawing.add("source", group.source.kind, group.source.path, address=page_of(group))
        else:
            source = drawing.add("source", "push", f"pushes to {group.name}", address=page_of(group))
        drawing.lead(source, key)
    _add_features(drawing, features)
    _add_consumers(drawing, features, caller, only=thing if isinstance(thing, FeatureService) else None)
    return drawing.finished()


def _around(thing: Any, caller: AnyCaller) -> QuerySet[Feature]:
    """The features that a thing's lineage is drawn with: its own, for a feature with those that it is computed of."""
    visible = seen(caller, Feature.objects.order_by("group__name", "position", "pk"))
    if isinstance(thing, Entity):
        return visible.filter(group__entity=thing)
    if isinstance(thing, FeatureGroup):
        return visible.filter(group=thing)
    if isinstance(thing, FeatureService):
        return visible.filter(services=thing)
    siblings = {feature.name: feature for feature in thing.group.features.all()}
    names = {thing.name, *_upstream(thing, siblings), *(n for n, f in siblings.items() if thing.name in reads_of(f))}
    return visible.filter(group=thing.group, name__in=names)


def _upstream(feature: Feature, siblings: Mapping[str, Feature]) -> set[str]:
    found: set[str] = set()
    wanted = [feature.name]
    while wanted:
        for name in reads_of(siblings[wanted.pop()]):
            if name in siblings and name not in found:
                found.add(name)
                wanted.append(name)
    return found


def reads_of(feature: Feature) -> frozenset[str]:
    """The columns of its group that a feature is computed from; none when it comes from the source as it is."""
    if feature.function:
        return frozenset(feature.arguments)
    try:
        return references_of(feature.expression) if feature.expression else frozenset()
    except FeaturehubError:  # a definition that was broken since is shown as it stands, without its edges
        return frozenset()


def _add_features(drawing: _Drawing, features: Sequence[Feature]) -> None:
    names = {(feature.group_id, feature.name): feature for feature in features}
    for feature in features:
        key = drawing.add("feature", "feature", str(feature), feature)
        reads = [names[feature.group_id, name] for name in reads_of(feature) if (feature.group_id, name) in names]
        for read in reads:
            drawing.lead(f"feature:{read}", key)
        if not reads:
            drawing.lead(f"group:{feature.group.name}", key)


def _add_consumers(
    drawing: _Drawing, features: Sequence[Feature], caller: AnyCaller, *, only: FeatureService | None
) -> None:
    services = seen(caller, FeatureService.objects.exclude(status="archived") if only is None else _one(only))
    chosen = ServiceFeature.objects.filter(feature__in=features, service__in=services)
    for service, names in _together(chosen.select_related("service", "feature__group")):
        key = drawing.add("consumer", "service", str(service), service)
        for name in names:
            drawing.lead(f"feature:{name}", key)
    read_by = TrainingDataset.reading(frozenset(map(str, features)))
    for dataset in seen(caller, TrainingDataset.objects.filter(name__in=read_by).defer("manifest")):
        key = drawing.add("consumer", "dataset", dataset.name, dataset)
        if dataset.service and f"service:{dataset.service}" in drawing.nodes:
            drawing.lead(f"service:{dataset.service}", key)
            continue
        for name in read_by[dataset.name]:
            drawing.lead(f"feature:{name}", key)
    for reader, read in usage.readers_by_feature(features):
        key = drawing.add("reader", "reader", reader)
        for name in read:
            drawing.lead(f"feature:{name}", key)


def _one(service: FeatureService) -> QuerySet[FeatureService]:
    return FeatureService.objects.filter(pk=service.pk)


def _together(chosen: Iterable[ServiceFeature]) -> Iterable[tuple[FeatureService, list[str]]]:
    found: dict[int, tuple[FeatureService, list[str]]] = {}
    for one in chosen:
        found.setdefault(one.service_id, (one.service, []))[1].append(str(one.feature))
    return found.values()


@page
def lineage_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    """The lineage of one entity, which is chosen by its name; of the first when none is."""
    entities = list(seen(caller, Entity.objects.order_by("name")))
    wanted = request.GET.get("entity", "")
    chosen = next((entity for entity in entities if entity.name == wanted), entities[0] if entities else None)
    context = {
        "entities": entities,
        "chosen": chosen,
        "lineage": lineage_of(chosen, caller) if chosen else None,
        "title": "Lineage",
    }
    return show(request, caller, "catalog/lineage.html", context, here="catalog-lineage")
