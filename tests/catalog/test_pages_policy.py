"""Every page sends the strict policy and keeps to it, takes only what it is made for, and sends who is unknown to the
login and back."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.catalog.pages import LISTS, addresses_of, browser, inline_in, make_world, text_of

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}


@pytest.fixture
def world() -> dict[str, Any]:
    return make_world()


def every_page(world: dict[str, Any]) -> dict[str, str]:
    pages = LISTS | addresses_of(world, "seen")
    changes = {
        f"{verb} {kind}": f"{pages[kind]}{verb}/"
        for kind in ("feature", "group")
        for verb in ("activate", "deprecate", "archive", "undo", "request-review")
    }
    return pages | changes | {"not there": "/catalog/groups/nothing/", "login": "/login/"}


def test_no_page_has_what_its_policy_forbids(world: dict[str, Any]) -> None:
    ada, asked = browser("ada", is_superuser=True, is_staff=True), 0
    for name, address in every_page(world).items():
        response = Client().get(address) if name == "login" else ada.get(address)
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy, address
        assert "unsafe" not in policy, address
        assert "frame-ancestors 'none'" in policy, address
        assert inline_in(response.content.decode()) == [], address
        asked += 1
    assert asked > 25


def test_what_is_inline_is_found() -> None:
    html = '<p onclick="x()" style="a"></p><style></style><script>1</script><script src="a.js"></script>'
    html += '<a href="javascript:1">'
    assert inline_in(html) == ["<p onclick>", "<p style>", "<style>", "<script>", "<a href=javascript:>"]


def test_pages_are_not_posted_to(world: dict[str, Any]) -> None:
    ada = browser("ada", is_superuser=True)
    for name, address in (LISTS | addresses_of(world, "seen")).items():
        if name == "inbox":
            continue
        for method in ("post", "put", "patch", "delete"):
            response = getattr(ada, method)(address)
            assert response.status_code == 405, (method, address)
            assert response["Allow"] == "GET, HEAD"


def test_pages_are_kept_by_no_cache_that_others_share(world: dict[str, Any]) -> None:
    response = browser("ada", is_superuser=True).get("/")
    assert "private" in response["Cache-Control"]
    assert {"Cookie", "HX-Request"} <= {name.strip() for name in response["Vary"].split(",")}


def login(client: Client, address: str, **sent: str) -> Any:
    return client.post(address, {"username": "ada", "password": "of-a-test-only", **sent})


@pytest.fixture
def ada(world: dict[str, Any]) -> User:
    return User.objects.create_user("ada", password="of-a-test-only", is_superuser=True)


def test_who_is_unknown_logs_in_and_comes_to_where_they_wanted(ada: User) -> None:
    client = Client()
    asked = client.get("/catalog/features/?q=spend&tag=a")
    assert (asked.status_code, asked["Location"]) == (302, "/login/?next=/catalog/features/%3Fq%3Dspend%26tag%3Da")
    assert 'value="/catalog/features/?q=spend&amp;tag=a"' in text_of(client.get(asked["Location"]))
    assert login(client, asked["Location"])["Location"] == "/catalog/features/?q=spend&tag=a"
    assert text_of(client.get("/catalog/features/"))


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example/", "http:///evil.example", "\\\\evil.example", "javascript:alert(1)"],
)
def test_a_login_sends_nobody_to_another_host(ada: User, elsewhere: str) -> None:
    client = Client()
    assert login(client, "/login/", next=elsewhere)["Location"] == "/"
    already = client.get("/login/", {"next": elsewhere})
    assert (already.status_code, already["Location"]) == (302, "/")


def test_a_wrong_password_says_so_and_keeps_where_they_wanted_to_go(ada: User) -> None:
    page = text_of(Client().post("/login/", {"username": "ada", "password": "no", "next": "/catalog/groups/"}))
    assert 'value="/catalog/groups/"' in page
    assert 'role="alert"' in page


def test_a_part_of_a_page_is_not_answered_with_a_login_form(world: dict[str, Any]) -> None:
    response = Client().get("/catalog/find/?q=a", headers=HTMX)
    assert (response.status_code, response.content) == (204, b"")
    assert response["HX-Redirect"] == "/login/?next=/catalog/find/%3Fq%3Da"


def test_a_logout_is_posted_and_ends_the_session(ada: User) -> None:
    client = Client()
    login(client, "/login/")
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/")["Location"] == "/"
    assert client.get("/")["Location"].startswith("/login/")


@pytest.mark.parametrize(
    "path", ["/login/", "/logout/", "/catalog/inbox/", "/catalog/groups/customer_purchases/follow/"]
)
def test_what_is_posted_without_the_token_is_refused(ada: User, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    if path != "/login/":
        client.force_login(ada)
    assert client.post(path, {"username": "ada", "password": "of-a-test-only"}).status_code == 403
