"""What the OpenAPI document says of the registry: answers as serializers, bodies as the definitions that they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_filters import ChoiceFilter
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, inline_serializer
from pydantic import BaseModel
from pydantic.json_schema import model_json_schema
from rest_framework import serializers

from catalog.definitions import document
from catalog.models import (
    DataSource,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    FeatureType,
    Owner,
    ReviewAnswer,
    Status,
    Tag,
)
from catalog.openapi import documented, in_path, in_query
from catalog.registry.bodies import Comment, Deprecation, NewFeature, NewSource, Note, Reason
from catalog.registry.filters import filters_of
from catalog.registry.kinds import FEATURE_SERVICES, FEATURES, Kind
from catalog.registry.pages import DEFAULT_LIMIT, MAX_LIMIT

Describe = Callable[[Any], Any]
_REFERENCE = "#/components/schemas/{model}Definition"
_DRY_RUN = in_query("dry_run", "`true`: only what would happen.", enum=["true", "false"])


class DefinitionSchema(OpenApiSerializerExtension):
    """A definition as the schema that reads it; what it is made of stands beside it, each under its own name."""

    target_class = "pydantic.BaseModel"
    match_subclasses = True
    priority = 1  # above the one of drf-spectacular, which is of another version of OpenAPI

    def get_name(self, auto_schema: Any, direction: str) -> str:
        return f"{self.target.__name__}Definition"

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema = schema_of(self.target)
        for name, part in schema.pop("$defs", {}).items():
            component = ResolvedComponent(
                name=f"{name}Definition", type=ResolvedComponent.SCHEMA, object=name, schema=part
            )
            auto_schema.registry.register_on_missing(component)
        return schema


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of what a model reads, in the words of OpenAPI 3.0."""
    plain: dict[str, Any] = _as_openapi(model_json_schema(model, ref_template=_REFERENCE, mode="validation"))
    return plain


def _as_openapi(schema: Any) -> Any:
    """OpenAPI 3.0 knows no type `null`, no constant, and nothing beside a reference."""
    if isinstance(schema, list):
        return [_as_openapi(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _as_openapi(value) for key, value in schema.items()}
    if "properties" in plain:
        return plain | {"properties": {key: _without_title(value) for key, value in plain["properties"].items()}}
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    if "anyOf" in plain and {"type": "null"} in plain["anyOf"]:
        (one,) = [choice for choice in plain.pop("anyOf") if choice != {"type": "null"}]
        plain |= ({"allOf": [one]} if "$ref" in one else one) | {"nullable": True}
    elif "$ref" in plain and len(plain) > 1:
        plain["allOf"] = [{"$ref": plain.pop("$ref")}]
    if isinstance(plain.get("default", ""), dict | type(None)):
        del plain["default"]
    return plain


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}


def _partial(model: type[BaseModel]) -> dict[str, Any]:
    """The same with every key optional: null is a key's default."""
    schema = schema_of(model)
    required = schema.pop("required", [])
    schema.pop("$defs", None)
    properties = {
        key: value if key in required or "$ref" in value else value | {"nullable": True}
        for key, value in schema["properties"].items()
    }
    return schema | {"title": f"Changes of a {model.__name__}", "properties": properties}


# -- Answers


class _TimesSerializer(serializers.Serializer[Any]):
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class _DescribedSerializer(_TimesSerializer):
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    owner = serializers.CharField(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField())


class ColumnSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    dtype = serializers.CharField()


class RegisteredEntitySerializer(_DescribedSerializer):
    join_keys = ColumnSerializer(many=True)


class RegisteredFeatureGroupSerializer(_DescribedSerializer):
    entity = serializers.CharField()
    version = serializers.IntegerField()
    status = serializers.ChoiceField(Status.values)
    ttl = serializers.CharField(allow_null=True)
    freshness = serializers.CharField(allow_null=True)
    event_timestamp = serializers.CharField()
    created_timestamp = serializers.CharField(allow_null=True)
    inputs = ColumnSerializer(many=True)
    request_inputs = ColumnSerializer(many=True)
    features = serializers.ListField(
        child=serializers.DictField(), help_text="As a definitions file has them, in their order."
    )
    source = serializers.DictField(allow_null=True)  # type: ignore[assignment]  # a field, as which DRF takes it
    schedule = serializers.DictField(allow_null=True)
    needs_review = serializers.BooleanField(help_text="Drafts become active only when somebody else approved them.")
    deprecated_at = serializers.DateTimeField(allow_null=True)


class RegisteredFeatureSerializer(_DescribedSerializer):
    group = serializers.CharField()
    dtype = serializers.CharField()
    type = serializers.ChoiceField(FeatureType.values)
    status = serializers.ChoiceField(Status.values, allow_null=True, help_text="Null: that of its group.")
    effective_status = serializers.ChoiceField(Status.values, help_text="Its own and its group's together.")
    deprecation_reason = serializers.CharField(allow_null=True)
    replaced_by = serializers.CharField(allow_null=True, help_text="group:name")
    sunset = serializers.DateTimeField(allow_null=True)
    deprecated_at = serializers.DateTimeField(allow_null=True)
    transformation = serializers.DictField(allow_null=True)
    validation = serializers.DictField()


class RegisteredFeatureServiceSerializer(_DescribedSerializer):
    version = serializers.IntegerField()
    status = serializers.ChoiceField(Status.values)
    features = serializers.ListField(child=serializers.CharField(), help_text="group:name, in the service's order.")


class RegisteredDataSourceSerializer(_TimesSerializer):
    name = serializers.CharField()
    kind = serializers.ChoiceField(DataSource.Kind.values)
    path = serializers.CharField()
    group = serializers.CharField(allow_null=True, help_text="The feature group whose rows come from it.")


class RegisteredOwnerSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    email = serializers.CharField(allow_null=True)
    members = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()


class RegisteredTagSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()


class FieldChangeSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    old = serializers.JSONField(allow_null=True)
    new = serializers.JSONField(allow_null=True)


class ChangeSerializer(serializers.Serializer[Any]):
    sign = serializers.ChoiceField(["+", "~", "-"])
    kind = serializers.CharField()
    name = serializers.CharField()
    fields = FieldChangeSerializer(many=True)  # type: ignore[assignment]  # a field, as which DRF takes it
    effects = serializers.ListField(child=serializers.CharField(), help_text="In words.")


class PlanSerializer(serializers.Serializer[Any]):
    """What would change."""

    changes = ChangeSerializer(many=True)


class ReaderSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    requests = serializers.IntegerField(help_text="In the last 30 days.")
    last_day = serializers.DateField()


class ImpactSerializer(serializers.Serializer[Any]):
    """Who would be hit."""

    to = serializers.ChoiceField(Status.values, allow_null=True, help_text="Null: there is nothing to undo.")
    services = serializers.ListField(child=serializers.CharField(), help_text="name@version")
    computed_features = serializers.ListField(
        child=serializers.CharField(), help_text="group:name of the features that are computed from a feature."
    )
    training_datasets = serializers.ListField(child=serializers.CharField())
    hidden = serializers.IntegerField(help_text="Services and training datasets that the caller may not see.")
    readers = ReaderSerializer(many=True)
    owners = serializers.ListField(child=serializers.CharField())
    refused = serializers.CharField(allow_null=True, help_text="Why it would be refused.")

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.ChoiceField(Status.values), **super().get_fields()}


class HistogramSerializer(serializers.Serializer[Any]):
    edges = serializers.ListField(child=serializers.JSONField(), help_text="Numbers, or times; one more than counts.")
    counts = serializers.ListField(child=serializers.IntegerField())
    below = serializers.IntegerField(help_text="Values below the first edge.")
    above = serializers.IntegerField(help_text="Values above the last edge.")


class TopValueSerializer(serializers.Serializer[Any]):
    value = serializers.JSONField()
    count = serializers.IntegerField()


class StatisticsSerializer(serializers.Serializer[Any]):
    """What the values of some rows are like; null or empty is what does not apply, or may not be told."""

    count = serializers.IntegerField(help_text="Rows, nulls among them.")
    nulls = serializers.IntegerField()
    described = serializers.IntegerField(help_text="How many values the rest is about.")
    measure = serializers.ChoiceField(
        ["number", "timestamp", "length", "category", "none"], help_text="length: that of lists."
    )
    max = serializers.JSONField(allow_null=True)
    mean = serializers.JSONField(allow_null=True)
    std = serializers.FloatField(allow_null=True, help_text="Of timestamps in seconds.")
    quantiles = serializers.DictField(help_text="p1, p5, p25, p50, p75, p95, p99.")
    histogram = HistogramSerializer(allow_null=True)
    top = TopValueSerializer(many=True)
    distinct = serializers.IntegerField(allow_null=True, help_text="How many different values; above 1,024 about.")
    is_exact = serializers.BooleanField(help_text="False: quantiles, histogram and top values are those of a sample.")

    def get_fields(self) -> dict[str, Any]:
        return {"min": serializers.JSONField(allow_null=True), **super().get_fields()}


class LatestStatisticsSerializer(StatisticsSerializer):
    """Of the last run that added rows, or of what was pushed on the last day with pushes."""

    run = serializers.UUIDField(allow_null=True)
    day = serializers.DateField(allow_null=True)
    computed_at = serializers.DateTimeField()


class BaselineStatisticsSerializer(StatisticsSerializer):
    """Of the days before that, put together; its histogram has the edges of the latest."""

    days = serializers.IntegerField()


class FeatureStatisticsSerializer(serializers.Serializer[Any]):
    feature = serializers.CharField(help_text="group:name")
    dtype = serializers.CharField()
    latest = LatestStatisticsSerializer(allow_null=True)
    baseline = BaselineStatisticsSerializer(allow_null=True)
    psi = serializers.FloatField(allow_null=True, help_text="The population stability index of the two.")
    moved = serializers.BooleanField(help_text="Whether it is above 0.2.")


class ReviewSerializer(serializers.Serializer[Any]):
    """A review that somebody asked for."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(["feature", "feature group", "feature service"])
    name = serializers.CharField()
    state = serializers.ChoiceField(["open", *ReviewAnswer.values])
    note = serializers.CharField(allow_blank=True)
    asked_by = serializers.CharField()
    asked_at = serializers.DateTimeField()
    answered_by = serializers.CharField(allow_null=True)
    answered_at = serializers.DateTimeField(allow_null=True)
    comment = serializers.CharField(allow_blank=True)
    is_of_present_definition = serializers.BooleanField(help_text="False: the definition was changed since.")


_ANSWERS: dict[type[Any], type[serializers.Serializer[Any]]] = {
    Entity: RegisteredEntitySerializer,
    FeatureGroup: RegisteredFeatureGroupSerializer,
    Feature: RegisteredFeatureSerializer,
    FeatureService: RegisteredFeatureServiceSerializer,
    DataSource: RegisteredDataSourceSerializer,
    Owner: RegisteredOwnerSerializer,
    Tag: RegisteredTagSerializer,
}
_BODIES: dict[type[Any], type[BaseModel]] = {
    Entity: document.Entity,
    FeatureGroup: document.FeatureGroup,
    Feature: NewFeature,
    FeatureService: document.FeatureService,
    DataSource: NewSource,
    Owner: document.Owner,
}
_ETAG = OpenApiParameter(
    "ETag", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[200, 201], description="The version of the thing."
)
_LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[201], description="Where it is."
)


def _names(kind: Kind) -> list[OpenApiParameter]:
    if kind is FEATURES:
        return [in_path("group_name", "A feature group."), in_path("name", "The name of a feature in it.")]
    if kind is FEATURE_SERVICES:
        return [in_path("name", "A name (its highest active version), or name@version.")]
    return [in_path("name", f"The name of the {kind.noun}.")]


def _or(kind: Kind, name: str, dry: type[serializers.Serializer[Any]]) -> PolymorphicProxySerializer:
    """The thing, or for a dry run what would come of it."""
    answer = _ANSWERS[kind.model]
    return PolymorphicProxySerializer(
        component_name=f"{answer.__name__.removesuffix('Serializer')}Or{name}",
        serializers=[answer, dry],
        resource_type_field_name=None,
    )


def _if_match(when: str = "") -> OpenApiParameter:
    return OpenApiParameter(
        "If-Match",
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        description=f"The ETag of the version that this is a change of{when}.",
    )


def a_list(kind: Kind) -> Describe:
    filters = [
        in_query(name, found.extra.get("help_text", ""), enum=_choices(found))
        for name, found in filters_of(kind).items()
    ]
    page = inline_serializer(
        f"{_ANSWERS[kind.model].__name__.removesuffix('Serializer')}Page",
        {
            "results": _ANSWERS[kind.model](many=True),
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
        },
    )
    return documented(
        f"registry_list_{kind.path.replace('-', '_')}",
        answers={200: page},
        problems=[400],
        parameters=[
            *filters,
            in_query("limit", f"How many on a page: 1 to {MAX_LIMIT}, {DEFAULT_LIMIT} by default."),
            in_query("cursor", "A page, as `next` and `previous` name it."),
        ],
    )


def _choices(found: Any) -> list[str] | None:
    return [value for value, _ in found.extra["choices"]] if isinstance(found, ChoiceFilter) else None


def a_creation(kind: Kind) -> Describe:
    return documented(
        f"registry_create_{_id(kind)}",
        answers={201: _ANSWERS[kind.model], 200: PlanSerializer},
        problems=[400, 409, 413, 415, 422],
        parameters=[_DRY_RUN, _ETAG, _LOCATION],
        body=_BODIES[kind.model],
    )


def a_thing(kind: Kind) -> Describe:
    return documented(
        f"registry_show_{_id(kind)}",
        answers={200: _ANSWERS[kind.model]},
        problems=[404],
        parameters=[*_names(kind), _ETAG],
    )


def statistics_of_a_feature() -> Describe:
    return documented(
        "registry_show_feature_statistics",
        answers={200: FeatureStatisticsSerializer},
        problems=[404],
        parameters=_names(FEATURES),
    )


def a_change(kind: Kind) -> Describe:
    return documented(
        f"registry_change_{_id(kind)}",
        answers={200: _or(kind, "Plan", PlanSerializer)},
        problems=[400, 404, 409, 412, 413, 415, 422, 428],
        parameters=[*_names(kind), _if_match("; needed unless it is a dry run"), _DRY_RUN, _ETAG],
        body={"application/json": _partial(_BODIES[kind.model])},
    )


def a_transition(kind: Kind, verb: str) -> Describe:
    body = Deprecation if verb == "deprecate" and kind is FEATURES else Reason
    return documented(
        f"registry_{verb}_{_id(kind)}",
        answers={200: _or(kind, "Impact", ImpactSerializer)},
        problems=[400, 404, 409, 412, 413, 415, 422],
        parameters=[*_names(kind), _if_match(), _DRY_RUN, _ETAG],
        body=body,
    )


def a_reviewing(kind: Kind, act: str) -> Describe:
    return documented(
        f"registry_{act.replace('-', '_')}_{_id(kind)}",
        answers={200: ReviewSerializer},
        problems=[400, 404, 409, 412, 413, 415, 422],
        parameters=[*_names(kind), _if_match()],
        body=Note if act == "request-review" else Comment,
    )


REVIEWS = documented(
    "registry_list_reviews",
    answers={
        200: inline_serializer(
            "ReviewPage",
            {
                "results": ReviewSerializer(many=True),
                "next": serializers.URLField(allow_null=True),
                "previous": serializers.URLField(allow_null=True),
            },
        )
    },
    problems=[400],
    parameters=[
        in_query("state", "Only reviews in this state.", enum=["open", *ReviewAnswer.values]),
        in_query("limit", f"How many on a page: 1 to {MAX_LIMIT}, {DEFAULT_LIMIT} by default."),
        in_query("cursor", "A page, as `next` and `previous` name it."),
    ],
)


def _id(kind: Kind) -> str:
    return kind.noun.replace(" ", "_")
