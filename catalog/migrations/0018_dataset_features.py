"""The features of training datasets beside their manifests, which are long, and an index that sums up reads."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


def note_features(apps, schema_editor) -> None:
    """What TrainingDataset._note_features would have noted of each."""
    TrainingDataset = apps.get_model("catalog", "TrainingDataset")
    DatasetFeature = apps.get_model("catalog", "DatasetFeature")
    Feature = apps.get_model("catalog", "Feature")
    ServiceFeature = apps.get_model("catalog", "ServiceFeature")

    def names_of(dataset) -> set[tuple[str, str]]:
        if dataset.manifest:
            return {(part["group"], one["name"]) for part in dataset.manifest["groups"] for one in part["features"]}
        if dataset.service:
            name, _, version = dataset.service.partition("@")
            chosen = ServiceFeature.objects.filter(service__name=name)
            chosen = chosen.filter(service__version=version) if version else chosen
            return set(chosen.values_list("feature__group__name", "feature__name"))
        asked = {tuple(name.split(":", 1)) for name in dataset.features if ":" in name}
        bare = [name for name in dataset.features if ":" not in name]
        return asked | set(Feature.objects.filter(name__in=bare).values_list("group__name", "name"))

    for dataset in TrainingDataset.objects.order_by("pk").iterator(chunk_size=20):
        DatasetFeature.objects.bulk_create(
            DatasetFeature(dataset=dataset, group=group, name=name) for group, name in sorted(names_of(dataset))
        )


class Migration(migrations.Migration):
    dependencies = [("catalog", "0017_run_indexes")]

    operations = [
        migrations.CreateModel(
            name="DatasetFeature",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("group", models.CharField(max_length=63)),
                ("name", models.CharField(max_length=63)),
                (
                    "dataset",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="noted", to="catalog.trainingdataset"
                    ),
                ),
            ],
            options={
                "ordering": ["group", "name"],
                "indexes": [models.Index(fields=["group", "name", "dataset"], name="datasetfeature_by_name")],
                "constraints": [
                    models.UniqueConstraint(fields=["dataset", "group", "name"], name="datasetfeature_is_unique")
                ],
            },
        ),
        migrations.RemoveIndex(model_name="featureuse", name="featureuse_by_day"),
        migrations.AddIndex(
            model_name="featureuse",
            index=models.Index(fields=["day", "feature", "requests"], name="featureuse_by_day_summed"),
        ),
        migrations.RunPython(note_features, migrations.RunPython.noop),
    ]
