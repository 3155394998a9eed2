"""Deny by default: every route against every kind of caller, and what counts as a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

pytestmark = [pytest.mark.django_db, pytest.mark.database]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SAFE = ("GET", "HEAD", "OPTIONS")
#: Every route outside the admin: an address of it, and the scope that each of its methods needs; None is open to all.
ROUTES: dict[str, tuple[str, dict[str, str | None]]] = {
    "home": ("/", {"GET": None}),
    "health": ("/health", {"GET": None}),
    "ready": ("/readyz", {"GET": None}),
    "live": ("/healthz", {"GET": None}),
    "metrics": ("/metrics", {"GET": "read"}),
    "groups": ("/groups", {"GET": "read"}),
    "features": ("/features", {"GET": "read"}),
    "feature-metadata": ("/features/customer/total/metadata", {"GET": "read"}),
    "entity-vector": ("/features/customer/C1", {"GET": "read"}),
    "vectors": ("/api/v1/vectors", {"POST": "read"}),
    "feast-vectors": ("/feast/get-online-features", {"POST": "read"}),
    "feast-health": ("/feast/health", {"GET": None}),
    "training-datasets": ("/api/v1/training-datasets", {"GET": "read", "POST": "write"}),
    "training-dataset": ("/api/v1/training-datasets/churn", {"GET": "read", "DELETE": "write"}),
    "training-dataset-data": ("/api/v1/training-datasets/churn/data", {"GET": "read"}),
    "ingest-row": ("/ingest/customer_purchases/C1", {"POST": "write"}),
    "group-rows": ("/api/v1/groups/customer_purchases/rows", {"POST": "write"}),
    "group-row": ("/api/v1/groups/customer_purchases/rows/C1", {"DELETE": "write"}),
    "feast-push": ("/feast/push", {"POST": "write"}),
    "group-runs": ("/api/v1/groups/customer_purchases/runs", {"POST": "write"}),
    "quarantine": ("/api/v1/groups/customer_purchases/quarantine", {"GET": "read"}),
    "quarantine-replay": ("/api/v1/groups/customer_purchases/quarantine/replay", {"POST": "write"}),
    "quarantine-discard": ("/api/v1/groups/customer_purchases/quarantine/discard", {"POST": "write"}),
    "run": ("/api/v1/runs/00000000-0000-0000-0000-000000000000", {"GET": "read"}),
    "openapi": ("/api/v1/openapi.json", {"GET": "read"}),
    "api-docs": ("/api/docs/", {"GET": "read"}),
}
NEEDING_A_KEY = [
    (name, path, method, scope) for name, (path, needs) in ROUTES.items() for method, scope in needs.items() if scope
]
each_needing_a_key = pytest.mark.parametrize(
    ("path", "method", "scope"), [n[1:] for n in NEEDING_A_KEY], ids=[n[0] for n in NEEDING_A_KEY]
)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """No key is trusted from a test before."""
    from catalog import access, snapshot

    access._trusted.clear()
    snapshot.forget()
    yield
    access._trusted.clear()
    snapshot.forget()


def routes(patterns: list[URLPattern | URLResolver], under: str = "") -> Iterator[str]:
    """The name of every route outside the admin, or its pattern when it has none."""
    for pattern in patterns:
        address = f"{under}{pattern.pattern}"
        if address.startswith("admin/"):
            continue
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, address)
        else:
            yield pattern.name or address


def make_key(*scopes: str, **fields: Any) -> str:
    from catalog.access import create_key

    return create_key(name=" and ".join(scopes), scopes=scopes, **fields)[1]


def call(path: str, method: str, key: str = "", *, client: Client | None = None) -> HttpResponse:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    asked = client or Client(raise_request_exception=False)
    return asked.generic(method, path, b"{}", content_type="application/json", headers=headers)


def assert_problem(response: HttpResponse, status: int, code: str) -> None:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert json.loads(response.content)["code"] == code


def test_every_route_is_in_the_table_above() -> None:
    assert sorted(routes(get_resolver().url_patterns)) == sorted(ROUTES)


@each_needing_a_key
def test_without_a_key_or_with_one_that_is_not_valid_every_route_is_401(path: str, method: str, scope: str) -> None:
    from catalog.access import revoke_key

    revoked = make_key("read", "write")
    assert call(path, method, revoked).status_code not in (401, 403)
    revoke_key(revoked.split("_")[1])
    for key in ("", "fh_nonsense", revoked):
        response = call(path, method, key)
        assert_problem(response, 401, "not_authenticated")
        assert response["WWW-Authenticate"] == "Bearer"


@each_needing_a_key
def test_a_key_opens_what_its_scope_is_for_and_nothing_else(path: str, method: str, scope: str) -> None:
    for held in ("read", "write"):
        response = call(path, method, make_key(held))
        if held == scope:
            assert response.status_code not in (401, 403), response.content
        else:
            assert_problem(response, 403, "not_allowed")
            assert f"'{scope}'" in json.loads(response.content)["detail"]


@each_needing_a_key
def test_a_session_reads_and_a_change_needs_staff_and_the_csrf_token(path: str, method: str, scope: str) -> None:
    for is_staff in (False, True):
        browser = Client(enforce_csrf_checks=True, raise_request_exception=False)
        browser.force_login(User.objects.create(username=f"staff {is_staff}", is_staff=is_staff))
        response = call(path, method, client=browser)
        if method in SAFE:
            assert response.status_code not in (401, 403)
        else:
            assert_problem(response, 403, "permission_denied")
            assert "CSRF" in json.loads(response.content)["detail"]
            token = "a" * 32
            browser.cookies["csrftoken"] = token
            passed = browser.generic(method, path, b"{}", "application/json", headers={"X-CSRFToken": token})
            assert (passed.status_code == 403) == (scope == "write" and not is_staff), passed.content


@pytest.mark.parametrize(("path", "needs"), ROUTES.values(), ids=ROUTES)
def test_a_method_that_a_route_does_not_have_is_405_to_whoever_may_read(
    path: str, needs: dict[str, str | None]
) -> None:
    for method in sorted(set(METHODS) - needs.keys()):
        if path == "/":
            continue  # Django's redirect takes every method
        if None not in needs.values():
            assert_problem(call(path, method), 401, "not_authenticated")
        response = call(path, method, make_key("read"))
        assert_problem(response, 405, "method_not_allowed")
        assert set(response["Allow"].replace(" ", "").split(",")) >= needs.keys()


@pytest.mark.parametrize("path", ["/health", "/groups", "/features", "/api/v1/openapi.json"])
def test_head_needs_what_get_needs(path: str) -> None:
    response = call(path, "HEAD", make_key("read"))
    assert response.status_code in (200, 503)
    assert response.content == b""


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),  # the checksum
        lambda key: key[:20] + ("a" if key[20] != "a" else "b") + key[21:],  # the secret
        lambda key: key.upper(),
        lambda key: key + "x",
        lambda key: key[:-1],
        lambda key: key.replace("fh_", "fx_"),
        lambda key: key.replace("_", "-"),
        lambda key: f"{key} {key}",
        lambda key: key + "\u00b2",
        lambda key: "fh_" + "\x00" * 8 + key[11:],
        lambda key: "fh_",
        lambda key: "fh_" + "x" * 1_000_000,
        lambda key: "é" * 1_000,
        lambda key: "",
    ],
)
def test_what_is_not_exactly_a_key_is_refused_without_a_query(
    spoil: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    spoiled = f"Bearer {spoil(make_key('read'))}"
    with django_assert_num_queries(0):
        response = Client().get("/groups", headers={"Authorization": spoiled})
    assert_problem(response, 401, "not_authenticated")


def test_another_secret_under_a_known_id_is_refused_though_its_checksum_is_right() -> None:
    from catalog.access import _checksum

    public_id, sealed = make_key("read")[3:].split("_")
    secret = sealed[:39] + ("a" if sealed[39] != "a" else "b")
    assert_problem(
        call("/groups", "GET", f"fh_{public_id}_{secret}{_checksum(public_id + secret)}"), 401, "not_authenticated"
    )


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Api-Key", "api-key", "Bearer ", "Api-Key   "])
def test_both_schemes_are_known_in_any_letters_and_spaces(scheme: str) -> None:
    assert Client().get("/groups", headers={"Authorization": f"{scheme} {make_key('read')}"}).status_code == 200


@pytest.mark.parametrize("header", ["Basic YTpi", "Token {key}", "{key}", "Bearer{key}", " ", "Bearer"])
def test_another_scheme_is_refused(header: str) -> None:
    response = Client().get("/groups", headers={"Authorization": header.format(key=make_key("read"))})
    assert_problem(response, 401, "not_authenticated")


def test_what_is_kept_of_a_key_does_not_open_anything() -> None:
    from catalog.models import ApiKey

    text = make_key("read")
    kept = ApiKey.objects.get()
    assert text.split("_")[2][:40] not in (kept.secret_sha256, str(kept))
    assert kept.secret_sha256 not in text
    assert_problem(call("/groups", "GET", f"fh_{kept.public_id}_{kept.secret_sha256}"), 401, "not_authenticated")


def test_a_key_ends_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog import access

    owner = User.objects.create(username="ada")
    key = make_key("read", owner=owner)
    assert call("/groups", "GET", key).status_code == 200
    User.objects.update(is_active=False)
    later = access.time.monotonic() + access.TRUST_SECONDS
    monkeypatch.setattr(access.time, "monotonic", lambda: later)
    assert_problem(call("/groups", "GET", key), 401, "not_authenticated")


def test_a_key_revoked_by_another_process_is_trusted_for_five_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog import access
    from catalog.models import ApiKey

    key = make_key("read")
    now = access.time.monotonic()
    monkeypatch.setattr(access.time, "monotonic", lambda: now)
    assert call("/groups", "GET", key).status_code == 200
    ApiKey.objects.update(revoked_at=timezone.now() - timedelta(seconds=1))
    assert call("/groups", "GET", key).status_code == 200
    now += 5.0
    assert_problem(call("/groups", "GET", key), 401, "not_authenticated")


def test_a_process_remembers_keys_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog import access

    monkeypatch.setattr(access, "_TRUSTED_AT_MOST", 2)
    for _ in range(5):
        assert call("/groups", "GET", make_key("read")).status_code == 200
        assert len(access._trusted) <= 2


@pytest.mark.parametrize("scopes", [[], ["admin"], ["read", "admin"]])
def test_a_key_has_at_least_one_scope_that_exists(scopes: list[str]) -> None:
    from catalog.models import ApiKey
    from engine.errors import InvalidInput

    with pytest.raises(InvalidInput, match="Scopes are read and write"):
        make_key(*scopes)
    assert not ApiKey.objects.exists()


def test_revoking_a_key_that_does_not_exist_says_so_and_revoking_twice_keeps_the_first_time() -> None:
    from catalog.access import revoke_key
    from engine.errors import NotFound

    public_id = make_key("read").split("_")[1]
    assert revoke_key(public_id).revoked_at == revoke_key(public_id).revoked_at
    with pytest.raises(NotFound, match="'nobody'"):
        revoke_key("nobody")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_with_anonymous_reads_on_this_machine_reads_without_a_key_and_writes_with_one(
    settings: Settings, address: str
) -> None:
    client = Client(REMOTE_ADDR=address)
    assert_problem(client.get("/groups"), 401, "not_authenticated")
    settings.FEATUREHUB_ANONYMOUS_READS = True
    assert client.get("/groups").status_code == 200
    for _, path, method, scope in NEEDING_A_KEY:
        if scope == "write":
            assert_problem(call(path, method, client=client), 401, "not_authenticated")
    assert_problem(call("/groups", "GET", "fh_wrong", client=client), 401, "not_authenticated")


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.7", "8.8.8.8", "fe80::1", "", "unix:", "localhost"])
def test_with_anonymous_reads_on_other_machines_still_need_a_key(settings: Settings, address: str) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    assert_problem(Client(REMOTE_ADDR=address).get("/groups"), 401, "not_authenticated")


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_proxy_on_this_machine_does_not_make_its_callers_local(settings: Settings, header: str) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    response = Client(REMOTE_ADDR="127.0.0.1").get("/groups", headers={header: "for=8.8.8.8"})
    assert_problem(response, 401, "not_authenticated")


def test_a_person_who_is_logged_in_is_not_anonymous(settings: Settings) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    browser = Client(REMOTE_ADDR="127.0.0.1")
    browser.force_login(User.objects.create(username="ada", is_staff=True))
    response = call("/ingest/nothing/C1", "POST", client=browser)
    assert json.loads(response.content)["code"] == "unknown_name"  # staff may write
