"""Feature groups: the typed columns of one entity that are computed together."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django_celery_beat.models import PeriodicTask
from simple_history.models import HistoricalRecords

from catalog.models.entity import Entity
from catalog.models.naming import column_constraint, name_constraint, name_field
from catalog.models.owner import PII, Documented
from catalog.models.source import DataSource
from catalog.models.status import Status
from engine.errors import InvalidDefinition
from engine.schema import Dtype, Field


def validate_dtype(text: str) -> None:
    try:
        Dtype.parse(text)
    except InvalidDefinition as error:
        raise ValidationError(error.detail) from error


class FeatureGroup(Documented):
    """A named, versioned set of features of one entity with one TTL.

    `version` is the one that is written and served: each version has a table and keys of its own. What may change
    in place and what needs a new version is decided in catalog/schemas.py.
    """

    name = name_field(unique=True)
    version = models.PositiveIntegerField(default=1)
    entity = models.ForeignKey(Entity, on_delete=models.PROTECT, related_name="groups")
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    ttl = models.DurationField(null=True, blank=True, help_text="Values older than this are withheld; empty: never.")
    freshness = models.DurationField(null=True, blank=True, help_text="Target age of the newest event.")
    event_timestamp = name_field(default="event_timestamp", help_text="The source's event timestamp column.")
    created_timestamp = name_field(
        blank=True, default="", help_text="The source's created timestamp column; empty: the time of arrival."
    )
    deprecated_at = models.DateTimeField(null=True, blank=True, editable=False)
    needs_review = models.BooleanField(
        default=False, help_text="A draft of the group becomes active only when somebody else has approved it."
    )
    source = models.OneToOneField(DataSource, on_delete=models.PROTECT, null=True, blank=True, related_name="group")
    schedule = models.OneToOneField(
        PeriodicTask, on_delete=models.SET_NULL, null=True, blank=True, related_name="feature_group"
    )

    history = HistoricalRecords(m2m_fields=["tags"])

    class Meta:
        ordering = ["name"]
        permissions = [("read_pii_featuregroup", "Can read values of features that are tagged pii")]
        constraints = [
            name_constraint("featuregroup"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="featuregroup_status_is_known"),
            models.CheckConstraint(condition=Q(version__gte=1), name="featuregroup_version_is_positive"),
            models.CheckConstraint(
                condition=Q(ttl__isnull=True) | Q(ttl__gt=timedelta(0)), name="featuregroup_ttl_is_positive"
            ),
            models.CheckConstraint(
                condition=Q(freshness__isnull=True) | Q(freshness__gt=timedelta(0)),
                name="featuregroup_freshness_is_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def holds_personal(self) -> bool:
        """Whether some of its rows' values are about persons, as the tag `pii` says: of the group about its inputs and
        features, of a feature about that one, of its entity about the join keys."""
        return self.pk in FeatureGroup.personal([self.pk])

    @classmethod
    def personal(cls, ids: Iterable[int]) -> frozenset[int]:
        """Those of some groups, by their ids, that hold values about persons, as `holds_personal` says of one."""
        is_tagged = Q(tags__name=PII) | Q(features__tags__name=PII) | Q(entity__tags__name=PII)
        return frozenset(cls.objects.filter(is_tagged, pk__in=ids).order_by().values_list("pk", flat=True).distinct())

    def clean(self) -> None:
        from catalog.schemas import validate_group

        validate_group(self)


class GroupColumn(models.Model):
    """A typed column of a group that is no feature."""

    group: models.ForeignKey[FeatureGroup, FeatureGroup]
    name = name_field()
    dtype = models.CharField(max_length=32, validators=[validate_dtype])
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.group.name}:{self.name}"

    def field(self) -> Field:
        return Field(self.name, Dtype.parse(self.dtype))


class GroupInput(GroupColumn):
    """A raw column that transformations read: kept offline, never served."""

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="inputs")

    history = HistoricalRecords()

    class Meta:
        ordering = ["position", "pk"]
        constraints = [
            name_constraint("groupinput"),
            column_constraint("groupinput"),
            models.UniqueConstraint(fields=["group", "name"], name="groupinput_name_is_unique"),
        ]


class RequestInput(GroupColumn):
    """A value that readers send with a request; features whose expressions read it are computed then, never stored."""

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="request_inputs")

    history = HistoricalRecords()

    class Meta:
        ordering = ["position", "pk"]
        constraints = [
            name_constraint("requestinput"),
            column_constraint("requestinput"),
            models.UniqueConstraint(fields=["group", "name"], name="requestinput_name_is_unique"),
        ]


class StoredSchema(models.Model):
    """What the rows written with one schema id hold; made by the first writer that needs it, never changed.

    `number` is the schema id, counted per group across its versions. `columns` is the definition that
    catalog/schemas.py writes and reads: join keys, timestamps, inputs and features in order, with dtypes and
    transformations.
    """

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="schemas")
    version = models.PositiveIntegerField()
    number = models.PositiveIntegerField()
    columns = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["group", "number"], name="storedschema_number_is_unique")]

    def __str__(self) -> str:
        return f"{self.group.name} v{self.version} schema {self.number}"
