"""Errors as RFC 9457 problem documents: the same shape from every route, whatever went wrong."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from engine.errors import FeaturehubError, NotAllowed, NotAuthenticated, NotFound

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"


def problem_of(error: FeaturehubError, *, instance: str = "") -> dict[str, Any]:
    """The problem document of one of our errors."""
    errors = [{"pointer": p.pointer, "detail": p.detail, "did_you_mean": list(p.did_you_mean)} for p in error.problems]
    return _problem(error.status, error.code, error.detail, instance=instance, errors=errors)


def _problem(status: int, code: str, detail: str, *, instance: str, errors: list[Any] | None = None) -> dict[str, Any]:
    title = code.replace("_", " ").capitalize()
    return {
        "type": f"urn:featurehub:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "errors": errors or [],
    }


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse | Response | None:
    """DRF's hook: ours, DRF's and Django's errors as problems; anything else is logged and answered 500 without detail."""
    path = context["request"].path
    if isinstance(error, FeaturehubError):
        return respond(problem_of(error, instance=path), _headers(error.status))
    if isinstance(error, Http404):
        return respond(problem_of(NotFound(str(error) or "There is nothing at this address."), instance=path))
    if isinstance(error, PermissionDenied):
        return respond(problem_of(NotAllowed("You may not do this."), instance=path))
    if isinstance(error, exceptions.APIException):
        return respond(_of_drf(error, path), _headers(error.status_code))
    log.exception("unhandled error on %s", path)
    return respond(server_problem(path))


def _of_drf(error: exceptions.APIException, path: str) -> dict[str, Any]:
    code = error.get_codes() if isinstance(error.detail, str) else error.default_code
    return _problem(error.status_code, str(code), str(error.detail), instance=path)


def _headers(status: int) -> dict[str, str]:
    if status == NotAuthenticated.status:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}


def server_problem(path: str) -> dict[str, Any]:
    return _problem(500, "server_error", "The server failed; the request id finds the log entry.", instance=path)


def respond(problem: dict[str, Any], headers: dict[str, str] | None = None) -> HttpResponse:
    """The HTTP answer that carries a problem document."""
    return HttpResponse(
        orjson.dumps(problem), status=problem["status"], content_type=CONTENT_TYPE, headers=headers or {}
    )


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(_problem(400, "bad_request", "The request cannot be read.", instance=request.path))


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(problem_of(NotAllowed("You may not do this."), instance=request.path))


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(problem_of(NotFound("There is nothing at this address."), instance=request.path))


def server_error(request: HttpRequest) -> HttpResponse:
    return respond(server_problem(request.path))
