"""Training datasets: what was asked, the run that makes it, and the manifest of what it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db import models, transaction

from catalog.models.feature import Feature
from catalog.models.group import FeatureGroup
from catalog.models.naming import NAME_LENGTH, name_constraint, name_field
from catalog.models.run import Run, RunState
from catalog.models.service import FeatureService


class TrainingDataset(models.Model):
    """A spine joined with features, kept. It is there once `run` has succeeded: then it has a manifest and a file.

    features: as they were asked for; empty when `service` was.
    split:    as serving/splits.py writes it; None: all rows are one.
    file:     the name of its Parquet file in its folder.
    manifest: as serving/manifest.py writes it.
    """

    name = name_field(unique=True)
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="dataset")
    service = models.CharField(max_length=80, blank=True)
    features = models.JSONField(default=list, blank=True)
    event_timestamp = models.CharField(max_length=255)
    known_at = models.BooleanField(default=False)
    statuses = models.BooleanField(default=False)
    split = models.JSONField(null=True, blank=True)
    manifest = models.JSONField(null=True, blank=True)
    file = models.CharField(max_length=64, blank=True)
    size_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [name_constraint("trainingdataset")]

    def __str__(self) -> str:
        return self.name

    @property
    def rows(self) -> int | None:
        """How many rows it has; None until it is there."""
        return self.manifest["result"]["rows"] if self.manifest else None

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Also notes which features it has, by which it is found; see DatasetFeature."""
        with transaction.atomic():
            super().save(*args, update_fields=update_fields, **kwargs)
            if update_fields is None or "manifest" in update_fields:
                self._note_features()

    def _note_features(self) -> None:
        known, wanted = {str(one) for one in DatasetFeature.objects.filter(dataset=self)}, self._features()
        if known != wanted:
            DatasetFeature.objects.filter(dataset=self).delete()
            DatasetFeature.objects.bulk_create(DatasetFeature.of(self, name) for name in sorted(wanted))

    def feature_names(self) -> frozenset[str]:
        """Every feature that it has, as `group:name`; before it is there those that were asked for, of a bare name that
        several groups have all."""
        return frozenset(str(one) for one in self.noted.all())

    def _features(self) -> frozenset[str]:
        if self.manifest:
            parts = self.manifest["groups"]
            return frozenset(f"{part['group']}:{feature['name']}" for part in parts for feature in part["features"])
        if self.service:
            name, _, version = self.service.partition("@")
            services = FeatureService.objects.filter(name=name, **({"version": version} if version else {}))
            return frozenset(name for service in services for name in service.feature_names())
        bare = [name for name in self.features if ":" not in name]
        found = Feature.objects.filter(name__in=bare).select_related("group")
        return frozenset(self.features) - frozenset(bare) | frozenset(map(str, found))

    def group_names(self) -> frozenset[str]:
        """The groups that it reads."""
        return frozenset(one.group for one in self.noted.all())

    def null_rates(self) -> dict[str, float]:
        """The share of null values of each feature; empty until it is there, or without rows."""
        if not self.manifest or not self.rows:
            return {}
        return {name: self.manifest["result"]["nulls"][name] / self.rows for name in self.manifest["outputs"]}

    def summary(self) -> dict[str, Any]:
        """The dataset as programs read it: over HTTP and `manage.py datasets --json`."""
        run = self.run
        return {
            "name": self.name,
            "state": run.state,
            "run": str(run.pk),
            "progress": run.progress,
            "error": {"code": run.error_code, "detail": run.error} if run.error else None,
            "rows": self.rows,
            "size_bytes": self.size_bytes,
            "null_rates": self.null_rates(),
            "manifest": self.manifest,
            "created_at": self.created_at,
        }

    @classmethod
    def kept_files(cls) -> dict[tuple[str, int], set[str]]:
        """The files that datasets were made of, so that each can be made again, by group and version.

        Reads every manifest once, some at a time.
        """
        kept: dict[tuple[str, int], set[str]] = {}
        for _, part in cls._parts():
            kept.setdefault((part["group"], part["version"]), set()).update(file["name"] for file in part["files"])
        return kept

    @classmethod
    def made_of(cls, group: str, version: int) -> list[str]:
        """The names of the datasets whose manifest names files of a group version."""
        of_version = (name for name, part in cls._parts() if (part["group"], part["version"]) == (group, version))
        return sorted(set(of_version))

    @classmethod
    def reading(cls, features: frozenset[str]) -> dict[str, list[str]]:
        """The names of the datasets that have, or are asked to have, one of the features, each with which of them; all
        of a feature as `group:name`, in the order of names. One query."""
        noted = DatasetFeature.objects.filter(group__in={name.partition(":")[0] for name in features})
        found: dict[str, list[str]] = {}
        for dataset, group, name in noted.values_list("dataset__name", "group", "name").order_by("dataset__name", "pk"):
            if f"{group}:{name}" in features:
                found.setdefault(dataset, []).append(f"{group}:{name}")
        return found

    @classmethod
    def _parts(cls) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each part of each manifest, with the name of its dataset."""
        manifests = cls.objects.exclude(manifest=None).order_by("pk").values_list("name", "manifest")
        for name, manifest in manifests.iterator(chunk_size=20):
            parts: list[dict[str, Any]] = manifest["groups"]
            for part in parts:
                yield name, part

    @classmethod
    def being_made_of(cls, group: FeatureGroup) -> list[str]:
        """The names of the datasets that a worker is making now and that read the group, whatever version of it."""
        own = set(group.features.values_list("name", flat=True))
        readers = FeatureService.objects.filter(chosen__feature__group=group)
        services = set(readers.values_list("name", flat=True))
        return [
            dataset.name
            for dataset in cls.objects.filter(run__state=RunState.RUNNING).order_by("name")
            if dataset.service.partition("@")[0] in services
            or any(asked in own or asked.startswith(f"{group.name}:") for asked in dataset.features)
        ]


class DatasetFeature(models.Model):
    """One feature of a training dataset, as it was called then; datasets are found by it, since manifests are long."""

    dataset = models.ForeignKey(TrainingDataset, on_delete=models.CASCADE, related_name="noted")
    group = models.CharField(max_length=NAME_LENGTH)
    name = models.CharField(max_length=NAME_LENGTH)

    class Meta:
        ordering = ["group", "name"]
        indexes = [models.Index(fields=["group", "name", "dataset"], name="datasetfeature_by_name")]
        constraints = [models.UniqueConstraint(fields=["dataset", "group", "name"], name="datasetfeature_is_unique")]

    def __str__(self) -> str:
        return f"{self.group}:{self.name}"

    @classmethod
    def of(cls, dataset: TrainingDataset, full_name: str) -> DatasetFeature:
        group, _, name = full_name.partition(":")
        return cls(dataset=dataset, group=group, name=name)
