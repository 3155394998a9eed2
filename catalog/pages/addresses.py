"""Where each thing's page is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.db.models import Model
from django.urls import reverse

from catalog.models import Entity, Feature, FeatureGroup, FeatureService, Owner, Run, TrainingDataset


def page_of(thing: Model) -> str:
    """The path of the page of a feature, group, entity, service, dataset or run; of an owner what is theirs."""
    return _PAGES[type(thing)](thing)


def features_with(**chosen: str) -> str:
    """The path of the list of features with a value of each of these facets."""
    return f"{reverse('catalog-features')}?{urlencode(chosen)}"


_PAGES: dict[type[Model], Callable[[Any], str]] = {
    Feature: lambda feature: reverse("catalog-feature", args=[feature.group.name, feature.name]),
    FeatureGroup: lambda group: reverse("catalog-group", args=[group.name]),
    Entity: lambda entity: reverse("catalog-entity", args=[entity.name]),
    FeatureService: lambda service: reverse("catalog-service", args=[str(service)]),
    TrainingDataset: lambda dataset: reverse("catalog-dataset", args=[dataset.name]),
    Run: lambda run: reverse("catalog-run", args=[run.pk]),
    Owner: lambda owner: features_with(owner=owner.name),
}
