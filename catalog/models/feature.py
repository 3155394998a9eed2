"""Features: one typed, served column of a group, with what people need to know to trust it."""

from __future__ import annotations

from django.db import models
from django.db.models import Case, Q, Value, When
from simple_history.models import HistoricalRecords

from catalog.models.group import FeatureGroup, validate_dtype
from catalog.models.naming import column_constraint, name_constraint, name_field
from catalog.models.owner import PII, Documented
from catalog.models.status import Status, effective_status
from engine.schema import Dtype, FeatureColumn, Transformation
from engine.validation import Validation


class FeatureType(models.TextChoices):
    """What a value means to people; how it is stored is its dtype."""

    NUMERICAL = "numerical"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    TEXT = "text"
    EMBEDDING = "embedding"


class OnViolation(models.TextChoices):
    QUARANTINE = "quarantine"
    SET_NULL = "set_null"
    WARN = "warn"


_TYPE_OF_KIND = {
    "int64": FeatureType.NUMERICAL,
    "float64": FeatureType.NUMERICAL,
    "bool": FeatureType.BOOLEAN,
    "string": FeatureType.CATEGORICAL,
    "timestamp": FeatureType.TIMESTAMP,
    "embedding": FeatureType.EMBEDDING,
    "list": FeatureType.NUMERICAL,
}


#: The status of a feature and its group together, as catalog.models.status.effective_status decides it.
EFFECTIVE_STATUS = Case(
    *(
        When(Q(status=status) | Q(group__status=status), then=Value(status.value))
        for status in (Status.ARCHIVED, Status.DRAFT, Status.DEPRECATED)
    ),
    default=Value(Status.ACTIVE.value),
    output_field=models.CharField(),
)


def default_type(dtype: Dtype) -> str:
    """The type of a feature that names none."""
    return FeatureType.TEXT if dtype.item == "string" else _TYPE_OF_KIND[dtype.kind]


class Features(models.QuerySet["Feature"]):
    def personal(self) -> frozenset[int]:
        """The primary keys of those whose values are about persons: they bear the tag `pii`, or their group does."""
        return frozenset(self.filter(Q(tags__name=PII) | Q(group__tags__name=PII)).values_list("pk", flat=True))


class Feature(Documented):
    """One feature. An empty status follows the group's; see `effective_status`.

    `expression`, `function` and `local` exclude each other; all empty: the value comes from the source as it is.
    """

    group = models.ForeignKey(FeatureGroup, on_delete=models.CASCADE, related_name="features")
    name = name_field()
    position = models.PositiveSmallIntegerField(default=0)
    dtype = models.CharField(max_length=32, validators=[validate_dtype])
    type = models.CharField(max_length=16, choices=FeatureType)
    status = models.CharField(
        max_length=10, choices=Status, blank=True, default="", help_text="Empty: the status of the group."
    )
    expression = models.TextField(blank=True, help_text="A scalar SQL expression over inputs and features.")
    function = models.CharField(max_length=255, blank=True, help_text="Dotted path of a function; see arguments.")
    arguments = models.JSONField(default=list, blank=True, help_text="The columns given to the function.")
    rowwise = models.BooleanField(default=False, help_text="Call the function once a row rather than once a batch.")
    local = models.CharField(
        max_length=255,
        blank=True,
        editable=False,
        help_text="Computed by a Python object of the process that registered it; the server cannot ingest it.",
    )
    validation = models.JSONField(
        default=dict,
        blank=True,
        help_text="not_null, min_value, max_value, allowed_values, unique, regex, min_length, max_length; "
        "on_violation: quarantine, set_null or warn.",
    )
    replaced_by = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="replaces")
    deprecated_at = models.DateTimeField(null=True, blank=True)
    deprecation_reason = models.TextField(blank=True)
    sunset_at = models.DateTimeField(null=True, blank=True, help_text="Announced to readers; nothing happens then.")

    objects = Features.as_manager()
    history = HistoricalRecords(m2m_fields=["tags"])

    class Meta:
        ordering = ["group__name", "position", "pk"]
        constraints = [
            name_constraint("feature"),
            column_constraint("feature"),
            models.UniqueConstraint(fields=["group", "name"], name="feature_name_is_unique"),
            models.CheckConstraint(condition=Q(status__in=["", *Status.values]), name="feature_status_is_known"),
            models.CheckConstraint(condition=Q(type__in=FeatureType.values), name="feature_type_is_known"),
            models.CheckConstraint(
                condition=Q(expression="", function="") | Q(expression="", local="") | Q(function="", local=""),
                name="feature_has_one_transformation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.group.name}:{self.name}"

    @property
    def effective_status(self) -> Status:
        return effective_status(self.status, self.group.status)

    def transformation(self) -> Transformation | None:
        """How the value is computed; None when it comes from the source as it is."""
        if not (self.expression or self.function or self.local):
            return None
        return Transformation(self.expression, self.function, tuple(self.arguments), self.rowwise, self.local)

    def column(self) -> FeatureColumn:
        """The feature as ingestion sees it."""
        rules = dict(self.validation)
        if rules.get("allowed_values") is not None:
            rules["allowed_values"] = tuple(rules["allowed_values"])
        return FeatureColumn(self.name, Dtype.parse(self.dtype), self.transformation(), Validation(**rules))

    def clean(self) -> None:
        from catalog.schemas import validate_feature

        validate_feature(self)
