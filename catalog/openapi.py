"""The OpenAPI document of the API, and what all of its operations share: how a caller is known, what a problem is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerView
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from catalog.access import READ, HasScope
from catalog.problems import CONTENT_TYPE

ViewMethod = TypeVar("ViewMethod", bound=Callable[..., Any])
Endpoint = tuple[str, str, str, Any]

#: What a problem says, by its HTTP status.
PROBLEMS = {
    400: "Something in the request cannot be used as it is.",
    401: "No API key, or one that is not valid.",
    403: "The key does not have the scope that this needs, or not for the groups that were asked.",
    404: "What the address names does not exist.",
    409: "The state of the catalog does not allow it.",
    410: "An archived feature was asked for.",
    412: "It was changed since the version that `If-Match` names; `etag` and `present` are what it is now.",
    413: "More than one request may ask for or send.",
    415: "A body of a type or an encoding that the route does not read.",
    422: "Rows, a source or a definition that break the types or the rules of what they are for.",
    428: "A change without `If-Match`.",
    429: "The key asks faster than its limit; `Retry-After` says when to try again.",
    503: "A store does not answer, or is being rebuilt; `Retry-After` says when to try again.",
}


class ProblemErrorSerializer(serializers.Serializer[Any]):
    """One thing that is wrong."""

    pointer = serializers.CharField(help_text="Where: a JSON pointer or a name.")
    detail = serializers.CharField()
    did_you_mean = serializers.ListField(child=serializers.CharField(), help_text="Near names, nearest first.")


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, as RFC 9457 has it."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(help_text="The path that was asked.")
    code = serializers.CharField(help_text="Stable, for programs.")
    errors = ProblemErrorSerializer(many=True)  # type: ignore[assignment]  # a field, as which DRF takes it


def documented(
    operation_id: str,
    *,
    answers: Mapping[int | tuple[int, str], Any],
    problems: Sequence[int] = (),
    parameters: Sequence[OpenApiParameter] = (),
    body: Any = None,
    is_open: bool = False,
) -> Callable[[ViewMethod], ViewMethod]:
    """What a view's method takes and answers, for the document; the method itself is not changed.

    `answers` are JSON, or of the media type that stands beside the status. `problems` are the statuses
    beside 401, 403 and 429, which every operation has unless it `is_open` to all.
    """
    statuses = sorted({*problems, *(() if is_open else (401, 403, 429))})
    told = {(status, CONTENT_TYPE): OpenApiResponse(ProblemSerializer, PROBLEMS[status]) for status in statuses}
    return extend_schema(
        operation_id=operation_id,
        parameters=list(parameters),
        request=body,
        responses={**{_answer(of): shape for of, shape in answers.items()}, **told},
    )


def _answer(of: int | tuple[int, str]) -> tuple[int, str]:
    return (of, "application/json") if isinstance(of, int) else of


def in_path(name: str, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.PATH, description=description)


def in_query(name: str, description: str, *, enum: Sequence[str] | None = None) -> OpenApiParameter:
    return OpenApiParameter(
        name, OpenApiTypes.STR, OpenApiParameter.QUERY, description=description, enum=list(enum) if enum else None
    )


def in_header(name: str, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, description=description)


class ApiKeyScheme(OpenApiAuthenticationExtension):
    target_class = "catalog.access.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer fh_...`."}


def without_trailing_slash(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The addresses as callers write them: a slash at the end may stand there, and need not."""
    return [(path.rstrip("/"), *rest) for path, *rest in endpoints]


class OpenApiView(SpectacularJSONAPIView):
    """`GET /api/v1/openapi.json`."""

    scopes = {"GET": READ}
    permission_classes = [HasScope]


class DocsView(SpectacularSwaggerView):
    """`GET /api/docs/`: the document as a page on which requests can be tried."""

    scopes = {"GET": READ}
    permission_classes = [HasScope]
    url_name = "openapi"

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The page without the header by which it would let windows of other sites hold on to it, for OAuth."""
        response: Response = super().get(request, *args, **kwargs)
        del response.headers["Cross-Origin-Opener-Policy"]
        return response
