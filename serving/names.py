"""What callers name: features bare or as `group:name`, services as `name` or `name@2`, entities and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from catalog.models import Status
from catalog.snapshot import Catalog, FeatureSnapshot, GroupSnapshot, ServiceSnapshot
from engine.errors import (
    AmbiguousName,
    FeatureArchived,
    FeatureNotActive,
    NotFound,
    Problem,
    UnknownName,
    near_names,
    unknown_name,
)


def find_features(names: Sequence[str], groups: Iterable[GroupSnapshot], *, where: str) -> list[FeatureSnapshot]:
    """The features that `names` mean among `groups`, in order.

    Raises UnknownName listing every name that is none, with near names, and AmbiguousName listing the choices of
    every bare name that stands in several groups.
    """
    groups = list(groups)
    by_name: dict[str, list[FeatureSnapshot]] = {}
    for group in groups:
        for feature in group.features.values():
            by_name.setdefault(feature.name, []).append(feature)
            by_name.setdefault(feature.full_name, []).append(feature)
    unknown = [name for name in dict.fromkeys(names) if name not in by_name]
    if unknown:
        raise UnknownName(
            f"{where} has no feature named {', '.join(map(repr, unknown))}.",
            [Problem(name, "unknown feature", near_names(name, by_name)) for name in unknown],
        )
    if clashes := {name: by_name[name] for name in names if len(by_name[name]) > 1}:
        raise AmbiguousName(
            f"{', '.join(map(repr, clashes))} stands in several groups; name it as group:name.",
            [Problem(name, "choose one", tuple(f.full_name for f in found)) for name, found in clashes.items()],
        )
    return [by_name[name][0] for name in names]


def require_servable(features: Iterable[FeatureSnapshot]) -> None:
    """Raises FeatureArchived or FeatureNotActive naming every such feature; deprecated ones are served."""
    features = list(features)
    if archived := [f for f in features if f.status == Status.ARCHIVED]:
        problems = [Problem(f.full_name, "archived", (f.replaced_by,) if f.replaced_by else ()) for f in archived]
        raise FeatureArchived(f"Archived: {', '.join(f.full_name for f in archived)}.", problems)
    if drafts := [f.full_name for f in features if f.status == Status.DRAFT]:
        raise FeatureNotActive(f"Draft, so not served yet: {', '.join(drafts)}.")


def find_service(name: str, catalog: Catalog) -> ServiceSnapshot:
    """The service that `name` (its highest active version) or `name@2` means; raises NotFound-like errors by name."""
    bare, _, version = name.partition("@")
    versions = [service for service in catalog.services.values() if service.name == bare]
    if not versions:
        raise unknown_name("feature service", bare, {service.name for service in catalog.services.values()})
    if version:
        chosen = [service for service in versions if str(service.version) == version]
    else:
        chosen = [service for service in versions if service.status in (Status.ACTIVE, Status.DEPRECATED)] or versions
    if not chosen:
        have = ", ".join(f"{bare}@{service.version}" for service in versions)
        raise UnknownName(f"There is no version {version!r} of {bare}; there is {have}.")
    service = max(chosen, key=lambda service: service.version)
    if service.status == Status.ARCHIVED:
        raise FeatureArchived(f"The service {service.name}@{service.version} is archived.")
    if service.status == Status.DRAFT:
        raise FeatureNotActive(f"The service {service.name}@{service.version} is a draft, so it is not served yet.")
    return service


def entity_or_group(name: str, catalog: Catalog) -> tuple[str, tuple[GroupSnapshot, ...]]:
    """The entity and groups that the first part of a lookup means: an entity's name first, else a group's."""
    if name in catalog.entities:
        return name, catalog.groups_of[name]
    if group := catalog.groups.get(name):
        return group.entity, (group,)
    near = near_names(name, [*catalog.entities, *catalog.groups])
    raise NotFound(f"There is no entity or group named {name!r}.", [Problem("", "unknown entity", near)])
