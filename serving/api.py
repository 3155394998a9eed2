"""Feature vectors over HTTP: one entity as a flat object, many as columns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, cast

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework import renderers, serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import usage
from catalog.access import READ
from catalog.api import to_json
from catalog.bodies import read_object, require_keys
from catalog.openapi import documented, in_path, in_query
from catalog.snapshot import FeatureSnapshot
from engine.errors import InvalidInput, Problem, near_names
from engine.status import STATUSES
from serving import arrow, vectors
from serving.answer import JSON, Answer
from serving.lookup import key_columns, reading_entity
from serving.rights import for_caller
from serving.steps import Steps, carried_out
from serving.vectors import MakePlan, Vectors, rfc3339

INCLUDES = ("statuses", "event_timestamps")
AS_ARROW = (200, arrow.MEDIA_TYPE)
INT64 = ("string", "number")
INT64_PARAMETER = in_query("int64", "`string`: int64 values as texts, for numbers that end at 2^53.", enum=INT64)


class ArrowRenderer(renderers.BaseRenderer):
    """Stands for the Arrow stream while DRF looks what the caller accepts; the view writes it itself."""

    media_type = arrow.MEDIA_TYPE
    format = "arrow"


class EntityVectorView(APIView):
    """`GET /features/<entity>/<id>`: a flat object of the asked features, in the order asked; Arrow by `Accept`."""

    scopes = {"GET": READ}
    renderer_classes = [renderers.JSONRenderer, ArrowRenderer]

    @documented(
        "entity_vector",
        answers={200: {"type": "object", "additionalProperties": True}, AS_ARROW: OpenApiTypes.BINARY},
        problems=[400, 404, 409, 410, 503],
        parameters=[
            in_path("entity", "An entity, or else a group."),
            in_path(
                "id", "The join key values joined by commas; `~c`, `~s`, `~t` stand for a comma, a slash, a tilde."
            ),
            in_query(
                "features", "Names joined by commas, bare or group:name; by default all that are served and stored."
            ),
            in_query("feature_service", "Instead of features: a service, as name or name@version."),
            in_query("include", "`meta`: with the status, time and age of each value.", enum=["meta"]),
            INT64_PARAMETER,
        ],
    )
    def get(self, request: Request, entity: str, id: str) -> HttpResponse:
        return carried_out(self.answer(request, entity, id)).to_django()

    def answer(self, request: Request, entity: str, id: str) -> Steps[Answer]:
        """The same for the short way (hot_path.py)."""
        query = _query(request)
        found, labels = yield from reading_entity(
            entity,
            id,
            features=query.get("features"),
            service=query.get("feature_service"),
            caller=request.user,
        )
        usage.count(found.plan.feature_names, request.user)
        headers = deprecation_headers(found.plan.deprecated)
        if isinstance(request.accepted_renderer, ArrowRenderer):
            include = INCLUDES if "include" in query else ()
            body = arrow.stream(found, key_columns(id, found.plan), include=include)
            return Answer(body, arrow.MEDIA_TYPE, headers)
        values = found.json_values(int64_as_string=query.get("int64") == "string")[0]
        flat = dict(zip(labels, values, strict=True))
        document = _with_meta(entity, id, flat, found, labels) if query.get("include") == "meta" else flat
        return Answer(to_json(document), JSON, headers)


def _query(request: Request) -> dict[str, str]:
    query = _parameters(request, {"features": (), "feature_service": (), "include": ("meta",), "int64": INT64})
    if "features" in query and "feature_service" in query:
        raise InvalidInput("Ask for features or for a feature_service, not for both.")
    return query


def _parameters(request: Request, known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The query's parameters; raises InvalidInput for an unknown or repeated one, or a value that is no choice."""
    if not request.META.get("QUERY_STRING"):
        return {}
    if unknown := [name for name in request.GET if name not in known]:
        problems = [Problem(name, "unknown parameter", near_names(name, known)) for name in unknown]
        raise InvalidInput(f"Unknown parameter {', '.join(unknown)}; there are {', '.join(known)}.", problems)
    for name, values in request.GET.lists():
        if len(values) > 1:
            raise InvalidInput(f"{name} stands {len(values)} times in the address; once is right.")
        if known[name] and values[0] not in known[name]:
            raise InvalidInput(f"{name} is {' or '.join(known[name])}; got {values[0]!r}.")
    return {name: request.GET[name] for name in request.GET}


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


class VectorsBodySerializer(serializers.Serializer[Any]):
    feature_service = serializers.CharField(required=False, help_text="name or name@version; this or features.")
    features = serializers.ListField(child=serializers.CharField(), required=False)
    entities = serializers.DictField(
        child=serializers.ListField(child=serializers.JSONField()),
        help_text="One list of values per join key, all of one length.",
    )
    request = serializers.DictField(
        child=serializers.ListField(child=serializers.JSONField(allow_null=True)),
        required=False,
        help_text="For features that are computed on request: one list per request input, a value per entity.",
    )
    include = serializers.ListField(child=serializers.ChoiceField(INCLUDES), required=False)


class VectorsSerializer(serializers.Serializer[Any]):
    feature_names = serializers.ListField(child=serializers.CharField(), help_text="group:name, in the order asked.")
    entities = serializers.DictField(child=serializers.ListField(child=serializers.JSONField()))
    values = serializers.ListField(
        child=serializers.ListField(child=serializers.JSONField(allow_null=True)), help_text="A row per entity."
    )
    statuses = serializers.ListField(
        child=serializers.ListField(child=serializers.ChoiceField(STATUSES)), required=False
    )
    event_timestamps = serializers.ListField(
        child=serializers.ListField(child=serializers.DateTimeField(allow_null=True)), required=False
    )


class VectorsView(APIView):
    """`POST /api/v1/vectors`: many entities, features of one service or of a list; JSON, or Arrow by `Accept`."""

    scopes = {"POST": READ}
    renderer_classes = [renderers.JSONRenderer, ArrowRenderer]

    @documented(
        "vectors",
        answers={200: VectorsSerializer, AS_ARROW: OpenApiTypes.BINARY},
        problems=[400, 409, 410, 413, 503],
        parameters=[INT64_PARAMETER],
        body=VectorsBodySerializer,
    )
    def post(self, request: Request) -> HttpResponse:
        return carried_out(self.answer(request)).to_django()

    def answer(self, request: Request) -> Steps[Answer]:
        """The same for the short way (hot_path.py)."""
        as_string = _parameters(request, {"int64": INT64}).get("int64") == "string"
        asked = parse_request(read_object(request))
        plans = for_caller(request.user, asked.make_plan)
        found = yield from vectors.reading(plans, asked.entities, request=asked.request)
        usage.count(found.plan.feature_names, request.user)
        headers = deprecation_headers(found.plan.deprecated)
        if isinstance(request.accepted_renderer, ArrowRenderer):
            return Answer(arrow.stream(found, asked.entities, include=asked.include), arrow.MEDIA_TYPE, headers)
        return Answer(to_json(_columnar(found, asked, int64_as_string=as_string)), JSON, headers)


class VectorsRequest:
    """A parsed body of `POST /api/v1/vectors`."""

    def __init__(
        self,
        make_plan: MakePlan,
        entities: dict[str, list[object]],
        include: list[str],
        request: dict[str, list[object]] | None,
    ) -> None:
        self.make_plan, self.entities, self.include, self.request = make_plan, entities, include, request


def parse_request(body: dict[str, Any]) -> VectorsRequest:
    """What a body asks for; raises InvalidInput naming the key that is wrong."""
    require_keys(body, required={"entities"}, optional={"feature_service", "features", "include", "request"})
    service, features = body.get("feature_service"), body.get("features")
    if (service is None) == (features is None):
        raise InvalidInput("Ask for one of feature_service and features.")
    include = body.get("include", [])
    if not isinstance(include, list) or set(map(str, include)) - set(INCLUDES):
        raise InvalidInput(f"include is a list of {' and '.join(INCLUDES)}.")
    entities = entity_columns(body["entities"])
    request = body.get("request")
    if "request" in body and not _are_columns(request):
        raise InvalidInput('request is an object of columns, one per request input: {"cart_value": [19.9, null]}.')
    return VectorsRequest(make_plan(service, features), entities, include, request)


def entity_columns(document: object) -> dict[str, list[object]]:
    """A body's `entities`; raises InvalidInput for what is no object of columns."""
    if not _are_columns(document):
        raise InvalidInput('entities is an object of columns, one per join key: {"customer_id": ["C1", "C2"]}.')
    return cast(dict[str, list[object]], document)


def _are_columns(document: object) -> bool:
    return isinstance(document, dict) and {list}.issuperset(map(type, document.values()))


def _columnar(found: Vectors, asked: VectorsRequest, *, int64_as_string: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "feature_names": found.plan.feature_names,
        "entities": asked.entities,
        "values": found.json_values(int64_as_string=int64_as_string),
    }
    if "statuses" in asked.include:
        answer["statuses"] = found.statuses
    if "event_timestamps" in asked.include:
        answer["event_timestamps"] = [[None if us is None else rfc3339(us) for us in row] for row in found.event_us]
    return answer


def make_plan(service: object, features: object) -> MakePlan:
    """The plan of a body's service or feature list; raises InvalidInput for what is neither."""
    if isinstance(service, str):
        return vectors.of_service(service)
    if service is not None:
        raise InvalidInput("feature_service is a name, or name@version.")
    if not isinstance(features, list) or set(map(type, features)) != {str}:
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
