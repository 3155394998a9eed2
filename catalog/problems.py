"""Errors as RFC 9457 problem documents: the same shape from every route, whatever went wrong."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions

from catalog import refusals
from catalog.logged_paths import without_id
from catalog.models import Reason
from catalog.request_id import current_request_id
from catalog.tracebacks import said
from engine.errors import (
    FeaturehubError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    StaleEdit,
    TooManyRequests,
    Unavailable,
)

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"


def problem_of(error: FeaturehubError, *, instance: str = "") -> dict[str, Any]:
    """The problem document of one of our errors."""
    errors = [{"pointer": p.pointer, "detail": p.detail, "did_you_mean": list(p.did_you_mean)} for p in error.problems]
    problem = _problem(error.status, error.code, error.detail, instance=instance, errors=errors)
    if isinstance(error, StaleEdit) and error.etag:
        return problem | {"etag": error.etag, "present": error.present}
    return problem


def _problem(status: int, code: str, detail: str, *, instance: str, errors: list[Any] | None = None) -> dict[str, Any]:
    title = code.replace("_", " ").capitalize()
    return {
        "type": f"urn:featurehub:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": without_id(instance),  # a problem may end up in a log of the caller's
        "code": code,
        "errors": errors or [],
    }


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """DRF's hook: ours, DRF's and Django's errors as problems; anything else is logged and answered without detail."""
    path = context["request"].path
    if reason := _reason_of(error):
        refusals.count(reason, context["request"], about=getattr(error, "about", ""))
    if ours := _as_ours(error):
        return respond(problem_of(ours, instance=path), _headers_of(ours))
    if isinstance(error, exceptions.APIException):
        return respond(_of_drf(error, path), _headers(error.status_code))
    if isinstance(error, SuspiciousOperation):
        return respond(_unreadable(path))
    log.exception("request %s: unhandled error on %s", current_request_id(), without_id(path))
    return respond(server_problem(path))


def _reason_of(error: Exception) -> str:
    """Why a request was refused, for the counters; nothing for what is no refusal."""
    if isinstance(error, NotAuthenticated | NotAllowed | TooManyRequests):
        return error.reason or {NotAuthenticated: Reason.NO_KEY, TooManyRequests: Reason.RATE}.get(
            type(error), Reason.SCOPE
        )
    if isinstance(error, exceptions.PermissionDenied):
        return Reason.SESSION  # DRF's own, raised where a session lacks the CSRF token
    return Reason.PAGE if isinstance(error, PermissionDenied) else ""


def _as_ours(error: Exception) -> FeaturehubError | None:
    if isinstance(error, FeaturehubError):
        return error
    if isinstance(error, Http404):
        return NotFound(str(error) or "There is nothing at this address.")
    if isinstance(error, PermissionDenied):
        return NotAllowed("You may not do this.")
    return _of_database(error)


def _of_database(error: BaseException | None) -> FeaturehubError | None:
    """What the database's own errors come to; None for any other."""
    if isinstance(error, OperationalError | InterfaceError):
        log.error("request %s: the database does not answer: %s", current_request_id(), error)
        return Unavailable(_why_unavailable(str(error)))
    if isinstance(error, DataError):  # PostgreSQL holds no NUL and no text beyond its column's length
        log.error("request %s: the database does not take a value: %s", current_request_id(), said(error))
        return InvalidInput("The request has a value that the database cannot hold, such as a text with U+0000.")
    return None


def _why_unavailable(said: str) -> str:
    if "is full" in said or "No space left" in said:
        return "The database's disk is full: nothing can be written until it has space again."
    if "is locked" in said or "lock timeout" in said:
        return "The database is busy with other writes; try again."
    return "The database does not answer."


def _of_drf(error: exceptions.APIException, path: str) -> dict[str, Any]:
    code = error.get_codes() if isinstance(error.detail, str) else error.default_code
    return _problem(error.status_code, str(code), str(error.detail), instance=path)


def _headers_of(error: FeaturehubError) -> dict[str, str]:
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(error.retry_after_seconds)}
    if isinstance(error, StaleEdit) and error.etag:
        return {"ETag": error.etag}
    return _headers(error.status)


def _headers(status: int) -> dict[str, str]:
    if status == NotAuthenticated.status:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}


def server_problem(path: str) -> dict[str, Any]:
    return _problem(500, "server_error", "The server failed; the request id finds the log entry.", instance=path)


def respond(problem: dict[str, Any], headers: dict[str, str] | None = None) -> HttpResponse:
    """The HTTP answer that carries a problem document."""
    return HttpResponse(
        orjson.dumps(problem, option=orjson.OPT_UTC_Z),
        status=problem["status"],
        content_type=CONTENT_TYPE,
        headers=headers or {},
    )


# -- Django's hooks: a problem for programs, a page for whoever came by a link


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(_unreadable(request.path))


def _unreadable(path: str) -> dict[str, Any]:
    return _problem(400, "bad_request", "The request cannot be read.", instance=path)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    person = getattr(request, "user", None)
    refusals.count(Reason.PAGE, request, about=f"user:{person.pk}" if person and person.pk else "")
    return _told(request, NotAllowed("You may not do this."))


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's hook for a form without its token, as one is that was open when its sender logged in anew."""
    refusals.count(Reason.SESSION, request)
    return _told(request, NotAllowed("The form was open for too long, or came from elsewhere: load its page again."))


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _told(request, NotFound("There is nothing at this address."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's hook for whatever a page or a middleware raised, called while that is being handled."""
    if ours := _of_database(sys.exc_info()[1]):
        return _told(request, ours)
    log.error("request %s: the error on %s is logged beside this", current_request_id(), without_id(request.path))
    failed = FeaturehubError("The server failed; the request id finds the log entry.")
    return _told(request, failed) if _is_navigation(request) else respond(server_problem(request.path))


def _told(request: HttpRequest, error: FeaturehubError) -> HttpResponse:
    if _is_navigation(request):
        from catalog.pages.viewing import error_page, guarded  # the pages stand above the problems

        return guarded(error_page(request, error))
    return respond(problem_of(error, instance=request.path), _headers(error.status))


def _is_navigation(request: HttpRequest) -> bool:
    """Whether a browser asks for a page to show, or a page of ours for a part of itself; no program of a caller's sends
    these headers."""
    return request.headers.get("Sec-Fetch-Dest") == "document" or "HX-Request" in request.headers
