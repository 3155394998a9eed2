"""A group as writers work from it: read from the database once, then kept by the process while no definition changes.

A push would otherwise spend more on asking what its group is than on its rows. `CatalogState.definitions` is another
one after every change that a writer could notice, and a writer reads it again inside the transaction that accepts its
rows: what was computed under an older definition is never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from catalog.models import CatalogState, FeatureGroup
from catalog.schemas import current_schema, from_stored, transformer
from engine.errors import unknown_name
from engine.schema import Dtype, GroupSchema
from engine.transformations import Transformer

Layouts = Mapping[int, list[tuple[str, Dtype]]]


@dataclass(frozen=True)
class WritableGroup:
    """What a group was at `definitions`. `group` is shared by threads: for looking at, not for changing.

    layouts: for each schema id of the group's version, its features and dtypes in stored order.
    """

    definitions: str
    group: FeatureGroup
    schema: GroupSchema
    layouts: Layouts

    @cached_property
    def transformer(self) -> Transformer:
        """The compiled transformations; raises as `catalog.schemas.transformer` does."""
        return transformer(self.schema)


_known: dict[str, WritableGroup] = {}


def find(name: str) -> WritableGroup:
    """The group of that name as it is now.

    Raises UnknownName with near names, and InvalidDefinition when no row could be written under its definition.
    """
    definitions = CatalogState.read().definitions
    known = _known.get(name)
    if known is None or known.definitions != definitions:
        known = _known[name] = _read(name, definitions)
    return known


def _read(name: str, definitions: str) -> WritableGroup:
    group = group_named(name)
    return WritableGroup(definitions, group, current_schema(group), layouts_of(group))


def group_named(name: str) -> FeatureGroup:
    """The group of that name with its entity and source; raises UnknownName with near names."""
    known = FeatureGroup.objects.select_related("entity", "source").prefetch_related("entity__join_keys")
    group = known.filter(name=name).first() if "\0" not in name else None  # PostgreSQL takes no NUL in a text
    if group is None:
        raise unknown_name("feature group", name, FeatureGroup.objects.values_list("name", flat=True))
    return group


def layouts_of(group: FeatureGroup) -> Layouts:
    """For each schema id of the group's current version, its features and dtypes in stored order."""
    stored = group.schemas.filter(version=group.version).select_related("group")
    return {s.number: [(f.name, f.dtype) for f in from_stored(s).features] for s in stored}
