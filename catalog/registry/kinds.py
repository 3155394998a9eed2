"""The kinds of things that the registry has: where each is found, and how one of them is named in an address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.db.models import Model, QuerySet

from catalog.access import READ, AnyCaller, allowed, seen
from catalog.definitions.exporting import rows_of
from catalog.models import DataSource, Entity, Feature, FeatureGroup, FeatureService, Owner, Status, Tag
from engine.errors import NotFound, Problem, near_names

BASE = "/api/v1/registry"
#: Beyond this a number is no version of a service.
_VERSION_DIGITS = 9
#: No name is longer.
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `path` is the word in addresses, `key` the list of a definitions file that things of it stand in.

    order: what tells one from another, and the order of lists.
    """

    path: str
    noun: str
    model: type[Model]
    order: tuple[str, ...] = ("name",)
    key: str = ""

    def rows(self) -> QuerySet[Any]:
        """All of the kind, read with what an answer shows, in the order of lists."""
        return _ROWS.get(self.model, _as_defined)(self.model).order_by(*self.order)


ENTITIES = Kind("entities", "entity", Entity, key="entities")
FEATURE_GROUPS = Kind("feature-groups", "feature group", FeatureGroup, key="feature_groups")
FEATURES = Kind("features", "feature", Feature, order=("group__name", "name"))
FEATURE_SERVICES = Kind(
    "feature-services", "feature service", FeatureService, order=("name", "version"), key="feature_services"
)
DATA_SOURCES = Kind("data-sources", "data source", DataSource)
OWNERS = Kind("owners", "owner", Owner, key="owners")
TAGS = Kind("tags", "tag", Tag)
KINDS = (ENTITIES, FEATURE_GROUPS, FEATURES, FEATURE_SERVICES, DATA_SOURCES, OWNERS, TAGS)
OF_MODEL = {kind.model: kind for kind in KINDS}


def _as_defined(model: type[Model]) -> QuerySet[Any]:
    return rows_of(model)


def _sources(_: type[Model]) -> QuerySet[Any]:
    return DataSource.objects.select_related("group")


def _tags(_: type[Model]) -> QuerySet[Any]:
    return Tag.objects.all()


_ROWS: dict[type[Model], Any] = {DataSource: _sources, Tag: _tags}


def name_of(row: Any) -> str:
    """What a thing is called: a feature `group:name`, a service `name@version`."""
    return str(row) if isinstance(row, Feature | FeatureService) else row.name


def address_of(row: Any) -> str:
    """The path of a thing."""
    kind = OF_MODEL[type(row)]
    return f"{BASE}/{kind.path}/{quote(name_of(row), safe='@').replace('%3A', '/')}"


def find(kind: Kind, names: Sequence[str], caller: AnyCaller, action: str = READ) -> Any:
    """The thing that an address names, for a caller who may read it or do `action` with it.

    `name` of a service is its highest active version, or else its highest. Raises NotFound, with near names among those
    that the caller may read: what is out of reach is not there.
    """
    row = named(kind, names)
    if row is not None and (allowed(caller, READ, row) or allowed(caller, action, row)):
        return row
    wanted = ":".join(names)
    near = near_seen(kind, wanted, caller)
    raise NotFound(
        f"There is no {kind.noun} named {wanted[:_LONGEST]!r}.", [Problem("", "unknown name", near)] if near else []
    )


def near_seen(kind: Kind, name: str, caller: AnyCaller) -> tuple[str, ...]:
    """Names of a kind that look like one, of things that the caller may read."""
    if len(name) > _LONGEST:
        return ()
    between = "@" if kind is FEATURE_SERVICES else ":"
    told = seen(caller, kind.model._default_manager.order_by(*kind.order)).values_list(*kind.order)
    return near_names(name, [between.join(map(str, values)) for values in told])


def named(kind: Kind, names: Sequence[str]) -> Any:
    """The thing of these names, whoever asks; None when there is none."""
    if any("\0" in name for name in names):  # PostgreSQL takes no NUL in a text
        return None
    rows = kind.rows()
    if kind is not FEATURE_SERVICES:
        return rows.filter(**dict(zip(kind.order, names, strict=True))).first()
    name, at, version = names[0].partition("@")
    if at:
        is_number = version.isascii() and version.isdecimal() and len(version) <= _VERSION_DIGITS
        return rows.filter(name=name, version=version).first() if is_number else None
    versions = list(rows.filter(name=name))
    active = [service for service in versions if service.status == Status.ACTIVE]
    return next(reversed(active or versions), None)
