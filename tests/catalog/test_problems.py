"""Every error is one shape, whatever went wrong and wherever; every answer has a request id."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import include, path
from pytest_django import Settings
from rest_framework import exceptions
from rest_framework.views import APIView

from engine import errors

pytestmark = pytest.mark.django_db

KEYS = ["type", "title", "status", "detail", "instance", "code", "errors"]
SECRET = "SELECT password FROM users"


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError(SECRET)


def deny(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied(SECRET)


def suspect(request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation(SECRET)


def lose_the_database(request: HttpRequest) -> HttpResponse:
    raise OperationalError(SECRET)


class FailingView(APIView):
    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []
    error: Exception = RuntimeError(SECRET)

    def get(self, request: HttpRequest) -> HttpResponse:
        raise self.error


def failing(error: Exception) -> Callable[..., HttpResponse]:
    return FailingView.as_view(error=error)


#: A URL conf of its own: the hub's routes and views that fail.
urlpatterns = [
    path("django/fails", fail),
    path("django/denies", deny),
    path("django/suspects", suspect),
    path("django/has_no_database", lose_the_database),
    path("drf/has_no_database", failing(OperationalError(SECRET))),
    path("drf/has_no_connection", failing(InterfaceError(SECRET))),
    path("drf/has_a_full_disk", failing(OperationalError("database or disk is full"))),
    path("drf/has_a_full_server", failing(OperationalError(f"could not write: No space left on device {SECRET}"))),
    path("drf/has_a_lock", failing(OperationalError("database is locked"))),
    path("drf/has_a_long_lock", failing(OperationalError("canceling statement due to lock timeout"))),
    path("drf/has_a_nul", failing(DataError(SECRET))),
    path("drf/fails", failing(RuntimeError(SECRET))),
    path("drf/denies", failing(PermissionDenied(SECRET))),
    path("drf/suspects", failing(SuspiciousOperation(SECRET))),
    path("drf/misses", failing(Http404())),
    path("drf/throttles", failing(exceptions.APIException("slow down", "throttled"))),
    path("drf/is_down", failing(errors.Unavailable("away"))),
    path("", include("featurehub.urls")),
]
handler400 = "catalog.problems.bad_request"
handler403 = "catalog.problems.permission_denied"
handler404 = "catalog.problems.page_not_found"
handler500 = "catalog.problems.server_error"


@pytest.fixture
def client(settings: Settings) -> Client:
    settings.ROOT_URLCONF = __name__
    return Client(raise_request_exception=False)


def problem_of(response: HttpResponse, status: int) -> Any:
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert re.fullmatch(r"[0-9a-f]{32}", response["X-Request-ID"])
    problem = json.loads(response.content)
    assert list(problem) == KEYS
    assert problem["status"] == status
    assert problem["type"] == f"urn:featurehub:problem:{problem['code']}"
    assert SECRET not in response.content.decode()
    return problem


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("/django/fails", 500, "server_error"),
        ("/django/denies", 403, "not_allowed"),
        ("/django/suspects", 400, "bad_request"),
        ("/drf/fails", 500, "server_error"),
        ("/drf/denies", 403, "not_allowed"),
        ("/drf/suspects", 400, "bad_request"),
        ("/drf/misses", 404, "not_found"),
        ("/drf/throttles", 500, "throttled"),
        ("/drf/is_down", 503, "unavailable"),
        ("/nowhere", 404, "not_found"),
        ("/api/v1/nowhere/", 404, "not_found"),
        ("/groups", 401, "not_authenticated"),
    ],
)
def test_whatever_fails_is_a_problem_that_tells_nothing_of_the_inside(
    client: Client, address: str, status: int, code: str
) -> None:
    problem = problem_of(client.get(address, headers={"Accept": "text/html, */*"}), status)
    assert (problem["code"], problem["instance"]) == (code, address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/django/has_no_database", "does not answer"),
        ("/drf/has_no_database", "does not answer"),
        ("/drf/has_no_connection", "does not answer"),
        ("/drf/has_a_full_disk", "disk is full"),
        ("/drf/has_a_full_server", "disk is full"),
        ("/drf/has_a_lock", "is busy"),
        ("/drf/has_a_long_lock", "is busy"),
    ],
)
def test_a_database_that_fails_is_503_on_pages_too_and_says_why(client: Client, address: str, said: str) -> None:
    response = client.get(address)
    problem = problem_of(response, 503)
    assert (problem["code"], response["Retry-After"]) == ("unavailable", "1")
    assert said in problem["detail"]


def test_a_value_that_the_database_cannot_hold_is_the_senders_error(client: Client) -> None:
    assert problem_of(client.get("/drf/has_a_nul"), 400)["code"] == "invalid_input"


def test_a_wrong_method_is_a_problem_that_lists_the_right_ones(client: Client) -> None:
    response = client.post("/health")
    assert problem_of(response, 405)["code"] == "method_not_allowed"
    assert response["Allow"] == "GET, HEAD, OPTIONS"


def test_an_answer_in_a_form_that_we_do_not_have_is_406(client: Client) -> None:
    assert problem_of(client.get("/health", headers={"Accept": "image/png"}), 406)["code"] == "not_acceptable"


@pytest.mark.parametrize("host", ["evil.example", "a b", ""])
def test_a_host_that_is_not_ours_is_refused_on_every_route(client: Client, host: str) -> None:
    for address in ("/health", "/groups", "/nowhere", "/"):
        assert problem_of(client.get(address, headers={"Host": host}), 400)["code"] == "bad_request"


def test_a_store_that_is_down_says_when_to_try_again(client: Client) -> None:
    assert client.get("/drf/is_down")["Retry-After"] == "1"
    assert not client.get("/drf/fails").has_header("Retry-After")


@pytest.mark.parametrize("given", ["a", "abc-1.2_3", "A" * 128])
def test_a_sensible_request_id_is_echoed(client: Client, given: str) -> None:
    assert client.get("/health", headers={"X-Request-ID": given})["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "A" * 129, "ä", "<script>", "a\tb", "a,b"])
def test_another_request_id_is_replaced(client: Client, given: str) -> None:
    made = client.get("/health", headers={"X-Request-ID": given})["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("address", ["/drf/fails", "/django/fails"])
def test_the_request_id_finds_the_log_entry(client: Client, address: str, caplog: pytest.LogCaptureFixture) -> None:
    client.get(address, headers={"X-Request-ID": "find-me"})
    assert [r for r in caplog.records if "find-me" in r.getMessage() and address in r.getMessage()]
    assert SECRET in caplog.text


def every_error(of: type[errors.FeaturehubError] = errors.FeaturehubError) -> list[type[errors.FeaturehubError]]:
    return [of, *(kind for child in of.__subclasses__() for kind in every_error(child))]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_each_of_our_errors_has_its_status_its_code_and_its_problems(kind: type[errors.FeaturehubError]) -> None:
    from catalog.problems import exception_handler

    error = kind("It is wrong.")
    error.problems = (errors.Problem("/a", "bad", ("b", "c")),)
    response = exception_handler(error, {"request": RequestFactory().get("/somewhere")})
    assert response.status_code == kind.status
    assert json.loads(response.content) == {
        "type": f"urn:featurehub:problem:{kind.code}",
        "title": kind.code.replace("_", " ").capitalize(),
        "status": kind.status,
        "detail": "It is wrong.",
        "instance": "/somewhere",
        "code": kind.code,
        "errors": [{"pointer": "/a", "detail": "bad", "did_you_mean": ["b", "c"]}],
    }


def test_the_tree_of_errors_lists_every_error_with_its_status() -> None:
    drawn = Path(errors.__file__).read_text().split('"""')[1]
    for kind in every_error():
        assert re.search(rf"\b{kind.__name__}\b", drawn), kind
