"""Who is hit when a feature, a group or a service changes its status."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from catalog import usage
from catalog.access import AnyCaller, seen
from catalog.lifecycle import Thing
from catalog.models import Feature, FeatureGroup, FeatureService, Owner, Status, TrainingDataset
from catalog.schemas import derived_from


def impact_of(thing: Thing, caller: AnyCaller) -> dict[str, Any]:
    """The services that read it, the features that are computed from it, the training datasets that have it, who asked
    in the last 30 days, and the owners of all. Services and datasets out of the caller's reach are counted as `hidden`,
    and their owners named, so that nobody is hit unheard."""
    features = _features_of(thing)
    reading = FeatureService.objects.exclude(status=Status.ARCHIVED).filter(chosen__feature__in=features).distinct()
    if isinstance(thing, FeatureService):
        reading = reading.filter(pk=thing.pk)
    services = list(seen(caller, reading))
    names = frozenset(map(str, features.select_related("group")))
    made = TrainingDataset.objects.filter(name__in=TrainingDataset.reading(names))
    datasets = list(seen(caller, made).order_by("name").values_list("name", flat=True))
    return {
        "services": [str(service) for service in services],
        "computed_features": list(map(str, derived_from(thing))) if isinstance(thing, Feature) else [],
        "training_datasets": datasets,
        "hidden": reading.count() - len(services) + made.count() - len(datasets),
        "readers": [
            {"name": reader.name, "requests": reader.requests, "last_day": reader.last_day.isoformat()}
            for reader in usage.readers(features)
        ],
        "owners": sorted(_owners(thing, features, reading)),
    }


def _features_of(thing: Thing) -> QuerySet[Feature]:
    if isinstance(thing, FeatureGroup):
        return thing.features.all()
    if isinstance(thing, FeatureService):
        return thing.features.all()
    return Feature.objects.filter(pk=thing.pk)


def _owners(thing: Thing, features: QuerySet[Feature], services: QuerySet[FeatureService]) -> set[str]:
    """Who answers for the thing, its features, their groups, or a service that reads them."""
    ids = {thing.owner_id}
    for owner, of_group in features.values_list("owner", "group__owner"):
        ids.add(owner or of_group)
    ids.update(services.values_list("owner", flat=True))
    return set(Owner.objects.filter(Q(pk__in=ids - {None})).values_list("name", flat=True))
