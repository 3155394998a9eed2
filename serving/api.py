"""Feature vectors over HTTP: one entity as a flat object, many as columns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.access import READ
from catalog.api import json_response
from catalog.bodies import read_object, require_keys
from catalog.snapshot import FeatureSnapshot
from engine.errors import InvalidInput
from serving import vectors
from serving.lookup import read_entity
from serving.vectors import MakePlan, Vectors, rfc3339

INCLUDES = ("statuses", "event_timestamps")


class EntityVectorView(APIView):
    """`GET /features/<entity>/<id>`: a flat object of the asked features, in the order asked."""

    scopes = {"GET": READ}

    def get(self, request: Request, entity: str, id: str) -> HttpResponse:
        query = _query(request)
        found, labels = read_entity(entity, id, features=query.get("features"), service=query.get("feature_service"))
        values = found.json_values(int64_as_string=query.get("int64") == "string")[0]
        flat = dict(zip(labels, values, strict=True))
        answer = _with_meta(entity, id, flat, found, labels) if query.get("include") == "meta" else flat
        return json_response(answer, headers=deprecation_headers(found.plan.deprecated))


def _query(request: Request) -> dict[str, str]:
    known = {"features": None, "feature_service": None, "include": ("meta",), "int64": ("string", "number")}
    query = {name: request.GET[name] for name in request.GET}
    if unknown := [name for name in query if name not in known]:
        raise InvalidInput(f"Unknown parameter {', '.join(unknown)}; there are {', '.join(known)}.")
    for name, choices in known.items():
        if choices and name in query and query[name] not in choices:
            raise InvalidInput(f"{name} is {' or '.join(choices)}; got {query[name]!r}.")
    if "features" in query and "feature_service" in query:
        raise InvalidInput("Ask for features or for a feature_service, not for both.")
    return query


def _with_meta(entity: str, id: str, flat: dict[str, object], found: Vectors, labels: list[str]) -> dict[str, Any]:
    now = time.time()
    columns = zip(labels, found.plan.features, found.statuses[0], found.event_us[0], strict=True)
    return {
        "entity": entity,
        "id": id,
        "features": flat,
        "meta": {
            label: {
                "status": status,
                "event_timestamp": None if event_us is None else rfc3339(event_us),
                "age_seconds": None if event_us is None else round(now - event_us / 1e6, 6),
                "group": feature.group,
                "version": feature.version,
            }
            for label, feature, status, event_us in columns
        },
    }


class VectorsView(APIView):
    """`POST /api/v1/vectors`: many entities, features of one service or of a list."""

    scopes = {"POST": READ}

    def post(self, request: Request) -> HttpResponse:
        asked = parse_request(read_object(request))
        found = vectors.read(asked.make_plan, asked.entities)
        as_string = request.GET.get("int64") == "string"
        answer: dict[str, Any] = {
            "feature_names": found.plan.feature_names,
            "entities": asked.entities,
            "values": found.json_values(int64_as_string=as_string),
        }
        if "statuses" in asked.include:
            answer["statuses"] = found.statuses
        if "event_timestamps" in asked.include:
            answer["event_timestamps"] = [[us and rfc3339(us) for us in row] for row in found.event_us]
        return json_response(answer, headers=deprecation_headers(found.plan.deprecated))


class VectorsRequest:
    """A parsed body of `POST /api/v1/vectors`."""

    def __init__(self, make_plan: MakePlan, entities: dict[str, list[object]], include: list[str]) -> None:
        self.make_plan, self.entities, self.include = make_plan, entities, include


def parse_request(body: dict[str, Any]) -> VectorsRequest:
    """What a body asks for; raises InvalidInput naming the key that is wrong."""
    require_keys(body, required={"entities"}, optional={"feature_service", "features", "include"})
    service, features = body.get("feature_service"), body.get("features")
    if (service is None) == (features is None):
        raise InvalidInput("Ask for one of feature_service and features.")
    include = body.get("include", [])
    if not isinstance(include, list) or set(map(str, include)) - set(INCLUDES):
        raise InvalidInput(f"include is a list of {' and '.join(INCLUDES)}.")
    entities = body["entities"]
    if not isinstance(entities, dict) or not all(isinstance(column, list) for column in entities.values()):
        raise InvalidInput('entities is an object of columns, one per join key: {"customer_id": ["C1", "C2"]}.')
    return VectorsRequest(_make_plan(service, features), entities, include)


def _make_plan(service: object, features: object) -> MakePlan:
    if isinstance(service, str):
        return vectors.of_service(service)
    if service is not None:
        raise InvalidInput("feature_service is a name, or name@version.")
    if not isinstance(features, list) or not features or not all(isinstance(name, str) for name in features):
        raise InvalidInput("features is a list of at least one feature name.")
    return vectors.of_features(features)


def deprecation_headers(deprecated: Sequence[FeatureSnapshot]) -> dict[str, str]:
    """RFC 9745 `Deprecation`, RFC 8594 `Sunset` (the earliest of each) and the names with their replacements."""
    if not deprecated:
        return {}
    headers = {
        "X-FeatureHub-Deprecated": ", ".join(
            f"{f.full_name};use={f.replaced_by}" if f.replaced_by else f.full_name for f in deprecated
        )
    }
    if dates := [f.deprecated_at for f in deprecated if f.deprecated_at]:
        headers["Deprecation"] = f"@{int(min(dates).timestamp())}"
    if sunsets := [f.sunset_at for f in deprecated if f.sunset_at]:
        headers["Sunset"] = http_date(min(sunsets))
    return headers


def http_date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)
