"""The catalog as immutable values: what serving plans with and ingestion works from.

One `Catalog` holds everything a reader needs, is read from the database in a few queries, and is kept by the
process until Redis names another catalog version.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from catalog.models import (
    CatalogState,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    OfflineDamage,
    Status,
    StoredSchema,
)
from catalog.schemas import from_stored, readable_schema
from engine.errors import OnlineStoreCold
from engine.on_request import Computation, computation_of
from engine.online.store import State
from engine.schema import Dtype, Field, GroupSchema

#: A group's primary key and one of its versions.
GroupVersion = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FeatureSnapshot:
    """A feature as readers see it: its group's `version`, the effective `status`, `replaced_by` as `group:name`.

    is_personal: whether reading its values needs `pii:read`.
    on_request: no row has it; its group's `computation` of it is carried out by whoever reads.
    """

    name: str
    group: str
    version: int
    dtype: Dtype
    status: Status
    replaced_by: str = ""
    deprecated_at: datetime | None = None
    sunset_at: datetime | None = None
    is_personal: bool = False
    on_request: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.group}:{self.name}"


@dataclass(frozen=True)
class GroupSnapshot:
    """A group as readers see it. `layouts` gives, for each schema id of the served version, its features in order.

    `damage` names a damaged offline file whose rows may be missing online; empty when all that were accepted are there.
    `computed` are the columns as they are defined, of a group that has request inputs.
    """

    name: str
    version: int
    entity: str
    status: Status
    ttl: timedelta | None
    features: Mapping[str, FeatureSnapshot]
    layouts: Mapping[int, tuple[str, ...]]
    damage: str = ""
    computed: GroupSchema | None = None

    def computation(self, features: Iterable[str]) -> Computation | None:
        """What computes these features on request; None when rows hold them all."""
        names = [name for name in features if self.features[name].on_request]
        return computation_of(self.computed, names) if self.computed and names else None

    def schema_ids_with(self, feature: str) -> frozenset[int]:
        """The schemas whose rows hold the feature."""
        return frozenset(number for number, names in self.layouts.items() if feature in names)


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """One version of a service and its features as (group, name), in order."""

    name: str
    version: int
    status: Status
    features: tuple[tuple[str, str], ...]


@dataclass
class Catalog:
    """Everything readers need. `published` is the raw state of Redis that this catalog was checked against."""

    state: State
    entities: Mapping[str, tuple[Field, ...]]
    groups: Mapping[str, GroupSnapshot]
    services: Mapping[tuple[str, int], ServiceSnapshot]
    published: bytes | None = None
    plans: dict[object, object] = field(default_factory=dict)

    @cached_property
    def groups_of(self) -> Mapping[str, tuple[GroupSnapshot, ...]]:
        """The groups of each entity, by name."""
        by_entity: dict[str, list[GroupSnapshot]] = {name: [] for name in self.entities}
        for group in self.groups.values():
            by_entity[group.entity].append(group)
        return {entity: tuple(groups) for entity, groups in by_entity.items()}


def load() -> Catalog:
    """Read the catalog from the database: its version first, so that a change in between shows as a newer one."""
    current = CatalogState.current()
    entities = {entity.name: entity.key_fields() for entity in Entity.objects.prefetch_related("join_keys")}
    layouts, damages, personal = _layouts(), _damages(), Feature.objects.personal()
    groups = FeatureGroup.objects.select_related("entity").prefetch_related(
        "features__replaced_by__group", "request_inputs"
    )
    return Catalog(
        State(current.version, current.epoch),
        entities,
        {group.name: _group(group, layouts, damages, personal) for group in groups},
        {(service.name, service.version): _service(service) for service in _services()},
    )


def _layouts() -> dict[GroupVersion, dict[int, tuple[str, ...]]]:
    layouts: dict[GroupVersion, dict[int, tuple[str, ...]]] = {}
    for stored in StoredSchema.objects.select_related("group"):
        of_version = layouts.setdefault((stored.group.pk, stored.version), {})
        of_version[stored.number] = from_stored(stored).feature_names
    return layouts


def _damages() -> dict[GroupVersion, str]:
    missing = OfflineDamage.objects.filter(is_missing_online=True)
    return {(damage.group_id, damage.group_version): Path(damage.path).name for damage in missing}


def _group(
    group: FeatureGroup,
    layouts: Mapping[GroupVersion, Mapping[int, tuple[str, ...]]],
    damages: Mapping[GroupVersion, str],
    personal: frozenset[int],
) -> GroupSnapshot:
    at = (group.pk, group.version)
    computed = readable_schema(group, group.features.all())
    on_request = {feature.name for feature in computed.on_request} if computed else set()
    features = {
        f.name: _feature(f, group, is_personal=f.pk in personal, on_request=f.name in on_request)
        for f in group.features.all()
    }
    return GroupSnapshot(
        group.name,
        group.version,
        group.entity.name,
        Status(group.status),
        group.ttl,
        features,
        layouts.get(at, {}),
        damages.get(at, ""),
        computed,
    )


def _feature(feature: Feature, group: FeatureGroup, *, is_personal: bool, on_request: bool) -> FeatureSnapshot:
    feature.group = group
    return FeatureSnapshot(
        feature.name,
        group.name,
        group.version,
        Dtype.parse(feature.dtype),
        feature.effective_status,
        str(feature.replaced_by) if feature.replaced_by else "",
        feature.deprecated_at or group.deprecated_at,
        feature.sunset_at,
        is_personal,
        on_request,
    )


def _services() -> list[FeatureService]:
    return list(FeatureService.objects.prefetch_related("chosen__feature__group"))


def _service(service: FeatureService) -> ServiceSnapshot:
    chosen = tuple((c.feature.group.name, c.feature.name) for c in service.chosen.all())
    return ServiceSnapshot(service.name, service.version, Status(service.status), chosen)


_lock = threading.Lock()
_current: Catalog | None = None


def current() -> Catalog:
    """The catalog that this process knows; read from the database when it knows none."""
    return _current or _replace(load())


def checked_against(published: bytes | None) -> Catalog:
    """The catalog for a state read from Redis: the known one, or the database's when Redis names another.

    Raises OnlineStoreCold when Redis is empty or holds the contents of another epoch.
    """
    if published is None:
        raise OnlineStoreCold("The online store is not filled: it is being rebuilt from the offline store.")
    known = _current
    if known is not None and known.published == published:
        return known
    with _lock:
        if _current is not None and _current.published == published:
            return _current  # another thread has read it while this one waited
        if not is_current(State.parse(published)):
            raise OnlineStoreCold("The online store holds old contents: it is being rebuilt from the offline store.")
        catalog = load()
        catalog.published = published
        return _replace(catalog)


def knows(published: bytes | None) -> bool:
    """Whether the known catalog is that of a state read from Redis, so that `checked_against` asks no database."""
    return published is not None and _current is not None and _current.published == published


def is_current(state: State | None) -> bool:
    """Whether a store of this state holds what the catalog expects there; False is a cold store."""
    return state is not None and state.epoch == CatalogState.read().epoch


def doubt() -> None:
    """Ask the database when Redis next answers: it failed, so a change may have gone unpublished meanwhile.

    Until then requests are planned with the known catalog, since a database asked by each of them would be the next to
    fail.
    """
    if _current is not None:
        _current.published = None


def forget() -> None:
    """Know no catalog, as a process that has just begun."""
    global _current  # noqa: PLW0603  one catalog per process is what this module keeps
    _current = None


def _replace(catalog: Catalog) -> Catalog:
    global _current  # noqa: PLW0603  one catalog per process is what this module keeps
    _current = catalog
    return catalog
