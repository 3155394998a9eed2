"""Which features a training dataset has is noted when it is registered and made, and so found without its manifest."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from pytest_django import DjangoAssertNumQueries

from tests.factories import make_customer_group

pytestmark = [pytest.mark.django_db, pytest.mark.database]

SPENT, BOUGHT = "customer_purchases:avg_purchase_value", "customer_purchases:total_purchases"


def make(name: str, **fields: Any) -> Any:
    from catalog.models import Acceptance, Run, RunKind, TrainingDataset

    run = Run.objects.create(kind=RunKind.TRAIN, acceptance=Acceptance.take())
    return TrainingDataset.objects.create(name=name, run=run, event_timestamp="t", **fields)


def manifest(*features: str) -> dict[str, Any]:
    parts = [{"group": name.split(":")[0], "features": [{"name": name.split(":")[1]}]} for name in features]
    return {"groups": parts, "outputs": [], "result": {"rows": 0, "nulls": {}}}


@pytest.fixture
def datasets() -> dict[str, Any]:
    from catalog.models import Feature, FeatureService

    make_customer_group()
    make_customer_group("support", features={"total_purchases": "int64"})
    service = FeatureService.objects.create(name="churn")
    service.chosen.create(feature=Feature.objects.get(name="avg_purchase_value"), position=0)
    return {
        "named": make("named", features=[BOUGHT]),
        "bare": make("bare", features=["total_purchases"]),
        "served": make("served", service="churn@1"),
        "made": make("made", features=[BOUGHT], manifest=manifest(SPENT)),
    }


def test_what_was_asked_for_is_noted_and_then_what_was_made(datasets: dict[str, Any]) -> None:
    assert datasets["named"].feature_names() == {BOUGHT}
    assert datasets["bare"].feature_names() == {BOUGHT, "support:total_purchases"}
    assert datasets["served"].feature_names() == {SPENT}
    assert datasets["made"].feature_names() == {SPENT}
    dataset = datasets["bare"]
    dataset.manifest = manifest(SPENT, BOUGHT)
    dataset.save(update_fields=["size_bytes"])
    assert dataset.group_names() == {"customer_purchases", "support"}
    dataset.save(update_fields=["manifest"])
    assert (dataset.feature_names(), dataset.group_names()) == ({SPENT, BOUGHT}, {"customer_purchases"})


def test_who_has_a_feature_is_one_query(
    datasets: dict[str, Any], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    from catalog.models import TrainingDataset

    with django_assert_num_queries(1):
        found = TrainingDataset.reading(frozenset({BOUGHT, SPENT}))
    assert found == {"bare": [BOUGHT], "made": [SPENT], "named": [BOUGHT], "served": [SPENT]}
    assert TrainingDataset.reading(frozenset({"customer_purchases:customer_segment"})) == {}


def test_datasets_from_before_are_noted_alike(datasets: dict[str, Any]) -> None:
    from catalog.models import DatasetFeature

    noted = {(one.dataset_id, str(one)) for one in DatasetFeature.objects.all()}
    DatasetFeature.objects.all().delete()
    import_module("catalog.migrations.0018_dataset_features").note_features(apps, None)
    assert {(one.dataset_id, str(one)) for one in DatasetFeature.objects.all()} == noted
    assert len(noted) == 5
