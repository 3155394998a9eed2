"""What counts as a key, how one ends, and who needs none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from tests.catalog.permission_table import METHODS, ROUTES

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NEEDING_A_KEY = [
    (name, path, method, scope) for name, (path, needs) in ROUTES.items() for method, scope in needs.items() if scope
]
each_needing_a_key = pytest.mark.parametrize(
    ("path", "method", "scope"), [n[1:] for n in NEEDING_A_KEY], ids=[n[0] for n in NEEDING_A_KEY]
)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """No key is trusted from a test before."""
    from catalog import keys, snapshot

    keys.forget()
    snapshot.forget()
    yield
    keys.forget()
    snapshot.forget()


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


@each_needing_a_key
def test_without_a_key_or_with_one_that_is_not_valid_every_route_is_401(path: str, method: str, scope: str) -> None:
    from catalog.access import revoke_key

    revoked = make_key("read", "write", "registry")
    assert call(path, method, revoked).status_code not in (401, 403)
    revoke_key(revoked.split("_")[1])
    for key in ("", "fh_nonsense", revoked):
        response = call(path, method, key)
        assert_problem(response, 401, "not_authenticated")
        assert response["WWW-Authenticate"] == "Bearer"


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
    from catalog.keys import _checksum

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
    from catalog import keys

    owner = User.objects.create(username="ada")
    key = make_key("read", owner=owner)
    assert call("/groups", "GET", key).status_code == 200
    User.objects.update(is_active=False)
    later = keys.time.monotonic() + keys.TRUST_SECONDS
    monkeypatch.setattr(keys.time, "monotonic", lambda: later)
    assert_problem(call("/groups", "GET", key), 401, "not_authenticated")


def test_a_key_revoked_by_another_process_is_trusted_for_five_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog import keys
    from catalog.models import ApiKey

    key = make_key("read")
    now = keys.time.monotonic()
    monkeypatch.setattr(keys.time, "monotonic", lambda: now)
    assert call("/groups", "GET", key).status_code == 200
    ApiKey.objects.update(revoked_at=timezone.now() - timedelta(seconds=1))
    assert call("/groups", "GET", key).status_code == 200
    now += 5.0
    assert_problem(call("/groups", "GET", key), 401, "not_authenticated")


def test_a_process_remembers_keys_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog import keys

    monkeypatch.setattr(keys, "_TRUSTED_AT_MOST", 2)
    for _ in range(5):
        assert call("/groups", "GET", make_key("read")).status_code == 200
        assert len(keys._trusted) <= 2


@pytest.mark.parametrize("scopes", [[], ["admin"], ["read", "admin"]])
def test_a_key_has_at_least_one_scope_that_exists(scopes: list[str]) -> None:
    from catalog.keys import create_key
    from catalog.models import ApiKey
    from engine.errors import InvalidInput

    with pytest.raises(InvalidInput, match="Scopes are read, pii:read, write, registry"):
        create_key(name="k", scopes=scopes)
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
    browser.force_login(User.objects.create(username="ada", is_staff=True, is_superuser=True))
    response = call("/ingest/nothing/C1", "POST", client=browser)
    assert json.loads(response.content)["code"] == "unknown_name"  # a superuser may write
