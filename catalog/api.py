"""The catalog over HTTP: groups, features and their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson
from django.db.models import Count, QuerySet
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.access import READ, reach, require
from catalog.models import Feature, FeatureGroup, FeatureType, Status
from catalog.openapi import documented, in_path
from catalog.schemas import request_needs
from engine.errors import AmbiguousName, NotFound, Problem, near_names
from engine.schema import Field


def to_json(document: object) -> bytes:
    """The body of a JSON answer: int64 as JSON integers, datetimes as RFC 3339 with `Z`."""
    return orjson.dumps(document, option=orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY)


def json_response(document: object, *, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """A JSON answer."""
    return HttpResponse(to_json(document), status=status, content_type="application/json", headers=headers or {})


class GroupSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    entity = serializers.CharField()
    description = serializers.CharField()
    num_features = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class GroupsSerializer(serializers.Serializer[Any]):
    groups = GroupSerializer(many=True)


class GroupsView(APIView):
    """`GET /groups`: every feature group that the caller may read, by name."""

    scopes = {"GET": READ}

    @documented("list_groups", answers={200: GroupsSerializer})
    def get(self, request: Request) -> HttpResponse:
        groups = FeatureGroup.objects.select_related("entity").annotate(num_features=Count("features"))
        if (readable := reach(request.user, READ)) is not None:
            groups = groups.filter(name__in=readable)
        return json_response({"groups": [_group(group) for group in groups]})


def _group(group: Any) -> dict[str, Any]:
    return {
        "name": group.name,
        "entity": group.entity.name,
        "description": group.description,
        "num_features": group.num_features,
        "created_at": group.created_at,
    }


class FeatureSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    group = serializers.CharField()
    description = serializers.CharField()
    type = serializers.ChoiceField(FeatureType.values)
    dtype = serializers.CharField(help_text="int64, float64, bool, string, timestamp, embedding(dim) or list<item>.")
    entity = serializers.CharField()
    status = serializers.ChoiceField(Status.values)
    owner = serializers.CharField(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField())
    version = serializers.IntegerField(help_text="The version of its group.")
    on_request = serializers.BooleanField(help_text="Computed when it is asked for, from values sent with the request.")
    request_inputs = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()),
        help_text="What a request has to send for it: name and dtype of each; empty for one that is stored.",
    )


class FeaturesSerializer(serializers.Serializer[Any]):
    features = FeatureSerializer(many=True)


class FeatureMetadataSerializer(FeatureSerializer):
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    transformation = serializers.DictField(allow_null=True, help_text="How it is computed, as definitions say it.")
    validation = serializers.DictField(allow_null=True)
    replaced_by = serializers.CharField(allow_null=True, help_text="group:name")
    deprecated_at = serializers.DateTimeField(allow_null=True)
    deprecation_reason = serializers.CharField(allow_null=True)
    sunset_at = serializers.DateTimeField(allow_null=True)


class FeaturesView(APIView):
    """`GET /features`: every feature that the caller may read, by group."""

    scopes = {"GET": READ}

    @documented("list_features", answers={200: FeaturesSerializer})
    def get(self, request: Request) -> HttpResponse:
        known = _features()
        if (readable := reach(request.user, READ)) is not None:
            known = known.filter(group__name__in=readable)
        listed = []
        for _, of_group in groupby(known, key=attrgetter("group_id")):
            features = list(of_group)
            needs = request_needs(features[0].group, features)
            listed += [feature_summary(feature, needs) for feature in features]
        return json_response({"features": listed})


def _features() -> QuerySet[Feature]:
    related = ("group__entity", "owner", "group__owner", "replaced_by__group")
    return Feature.objects.select_related(*related).prefetch_related("tags", "group__request_inputs")


def feature_summary(feature: Feature, needs: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """A feature as `/features` lists it; its owner is its group's where it has none of its own.

    `needs` are the request inputs of its group's features that are computed on request.
    """
    owner = feature.owner or feature.group.owner
    return {
        "name": feature.name,
        "group": feature.group.name,
        "description": feature.description,
        "type": feature.type,
        "dtype": feature.dtype,
        "entity": feature.group.entity.name,
        "status": feature.effective_status,
        "owner": owner.name if owner else None,
        "tags": [tag.name for tag in feature.tags.all()],
        "version": feature.group.version,
        "on_request": feature.name in needs,
        "request_inputs": [{"name": f.name, "dtype": str(f.dtype)} for f in needs.get(feature.name, ())],
    }


class FeatureMetadataView(APIView):
    """One feature; the first part of the path is an entity or a group, the second a name or `group:name`."""

    scopes = {"GET": READ}

    @documented(
        "feature_metadata",
        answers={200: FeatureMetadataSerializer},
        problems=[400, 404],
        parameters=[in_path("entity", "An entity or a group."), in_path("feature", "A name, or group:name.")],
    )
    def get(self, request: Request, entity: str, feature: str) -> HttpResponse:
        found = find_feature(entity, feature)
        require(request.user, READ, found)
        return json_response(feature_metadata(found))


def find_feature(entity: str, name: str) -> Feature:
    """The feature of an entity (or of a group of that name); raises NotFound with near names, or AmbiguousName."""
    known = _features() if "\0" not in entity else _features().none()  # PostgreSQL takes no NUL in a text
    candidates = known.filter(group__entity__name=entity) or known.filter(group__name=entity)
    group, _, bare = name.rpartition(":")
    found = [f for f in candidates if f.name == bare and group in ("", f.group.name)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = tuple(str(feature) for feature in found)
        raise AmbiguousName(f"{name!r} stands in several groups of {entity}.", [Problem(name, "choose one", choices)])
    near = near_names(bare, [feature.name for feature in candidates])
    raise NotFound(f"{entity!r} has no feature named {name!r}.", [Problem(name, "unknown feature", near)])


def feature_metadata(feature: Feature) -> dict[str, Any]:
    """Everything that people read about a feature."""
    return feature_summary(feature, request_needs(feature.group)) | {
        "created_at": feature.created_at,
        "updated_at": feature.updated_at,
        "transformation": transformation_metadata(feature),
        "validation": feature.validation or None,
        "replaced_by": str(feature.replaced_by) if feature.replaced_by else None,
        "deprecated_at": feature.deprecated_at,
        "deprecation_reason": feature.deprecation_reason or None,
        "sunset_at": feature.sunset_at,
    }


def transformation_metadata(feature: Feature) -> dict[str, Any] | None:
    """How a feature is computed, in the words of a definitions file."""
    if feature.expression:
        return {"expression": feature.expression}
    if feature.function:
        return {"function": feature.function, "arguments": feature.arguments, "rowwise": feature.rowwise}
    return {"local": feature.local} if feature.local else None
