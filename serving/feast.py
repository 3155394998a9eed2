"""Reads as Feast's Python server answers them, so that a Feast client reads from the hub: `online_store: {type: remote,
path: <address>/feast}`. Shapes as of Feast 0.67.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import usage
from catalog.access import READ
from catalog.api import json_response
from catalog.bodies import read_object, require_keys
from catalog.openapi import documented
from catalog.snapshot import FeatureSnapshot
from engine.errors import InvalidInput
from engine.instants import rfc3339
from engine.status import PRESENT, STATUSES
from serving import vectors
from serving.api import deprecation_headers, entity_columns, make_plan
from serving.rights import for_caller
from serving.vectors import Vectors

#: What Feast says of a value that has no time.
NO_TIME = rfc3339(0)


class FeastBodySerializer(serializers.Serializer[Any]):
    features = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="group:name; or a service."
    )
    feature_service = serializers.CharField(required=False, allow_null=True)
    entities = serializers.DictField(child=serializers.ListField(child=serializers.JSONField()))
    full_feature_names = serializers.BooleanField(required=False, help_text="group__name in the answer.")


class FeastResultSerializer(serializers.Serializer[Any]):
    values = serializers.ListField(child=serializers.JSONField(allow_null=True))
    statuses = serializers.ListField(child=serializers.ChoiceField(STATUSES))
    event_timestamps = serializers.ListField(child=serializers.DateTimeField())


class FeastMetadataSerializer(serializers.Serializer[Any]):
    feature_names = serializers.ListField(child=serializers.CharField(), help_text="Join keys first.")


class FeastVectorsSerializer(serializers.Serializer[Any]):
    results = FeastResultSerializer(many=True, help_text="One for each of metadata.feature_names, a value per entity.")
    metadata = FeastMetadataSerializer()


class FeastVectorsView(APIView):
    """`POST /feast/get-online-features`: many entities, as columns."""

    scopes = {"POST": READ}

    @documented(
        "feast_vectors",
        answers={200: FeastVectorsSerializer},
        problems=[400, 409, 410, 413, 503],
        body=FeastBodySerializer,
    )
    def post(self, request: Request) -> HttpResponse:
        document = read_object(request)
        optional = {"features", "feature_service", "full_feature_names", "include_feature_view_version_metadata"}
        require_keys(document, required={"entities"}, optional=optional)
        entities = entity_columns(document["entities"])
        plans = make_plan(document.get("feature_service"), document.get("features") or None)
        found = vectors.read(for_caller(request.user, plans), entities)
        usage.count(found.plan.feature_names, request.user)
        answer = _as_feast(found, entities, full_names=bool(document.get("full_feature_names")))
        return json_response(answer, headers=deprecation_headers(found.plan.deprecated))


class FeastHealthView(APIView):
    """`GET /feast/health`: that the server answers, as Feast's clients ask; `/health` says how the stores are."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @documented("feast_health", answers={200: {"type": "object"}}, is_open=True)
    def get(self, request: Request) -> HttpResponse:
        return json_response({})


def _as_feast(found: Vectors, entities: dict[str, list[object]], *, full_names: bool) -> dict[str, Any]:
    """Join keys first, then each feature; a timestamp is in whole seconds of the epoch, as Feast's JSON has it."""
    keys, features = [key.name for key in found.plan.keys], found.plan.features
    results = [_result(entities[key], [PRESENT] * len(entities[key]), [None] * len(entities[key])) for key in keys]
    values = found.json_values()
    for place, feature in enumerate(features):
        of_feature: list[Any] = [row[place] for row in values]
        if feature.dtype.kind == "timestamp":
            of_feature = [None if row[place] is None else int(row[place]) // 1_000_000 for row in found.values]  # type: ignore[arg-type]
        results.append(
            _result(of_feature, [row[place] for row in found.statuses], [row[place] for row in found.event_us])
        )
    return {"results": results, "metadata": {"feature_names": [*keys, *_names(features, full_names=full_names)]}}


def _names(features: Sequence[FeatureSnapshot], *, full_names: bool) -> list[str]:
    names = {f.full_name: f"{f.group}__{f.name}" if full_names else f.name for f in features}
    if len(set(names.values())) < len(names):
        raise InvalidInput(f"Two of {', '.join(names)} share a name; ask with full_feature_names.")
    return [names[feature.full_name] for feature in features]


def _result(values: Sequence[Any], statuses: Sequence[Any], event_us: Sequence[Any]) -> dict[str, Any]:
    times = [NO_TIME if us is None else rfc3339(us) for us in event_us]
    return {"values": values, "statuses": statuses, "event_timestamps": times}
