"""A catalog with two groups of customers, and callers with keys of several rights who ask the registry about it.

pytest loads this file before it sets Django up, so what has models is imported where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

if TYPE_CHECKING:
    from django.http import HttpResponse

BASE = "/api/v1/registry"


@dataclass
class Answer:
    """What a request to the registry was answered with."""

    status: int
    document: Any
    headers: Any

    @property
    def etag(self) -> str:
        return str(self.headers["ETag"])

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(pointer, detail) of each problem."""
        return [(error["pointer"], error["detail"]) for error in self.document["errors"]]


@dataclass
class Asking:
    """Somebody who asks the registry: a key's holder, or a person with a browser."""

    client: Client
    key: str = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        response: HttpResponse = self.client.generic(
            method, f"{BASE}/{path}", content, "application/json", headers=sent | headers
        )
        assert response.status_code < 500, response.content
        kind = "application/json" if response.status_code < 400 else "application/problem+json"
        assert response["Content-Type"] == kind
        return Answer(response.status_code, json.loads(response.content), response.headers)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("PATCH", path, body, **headers)

    def edit(self, path: str, body: Any) -> Answer:
        """A change of the version that is there now."""
        return self.patch(path, body, **{"If-Match": self.get(path).etag})

    def names(self, path: str) -> list[str]:
        """The names on the first page of a list."""
        return [named(thing) for thing in self.get(path).document["results"]]


def named(thing: dict[str, Any]) -> str:
    return f"{thing['group']}:{thing['name']}" if "dtype" in thing else thing["name"]


def holder(*scopes: str, name: str = "ci", groups: list[str] | None = None) -> Asking:
    """Somebody with a new key."""
    from catalog.keys import create_key

    return Asking(Client(), create_key(name=name, scopes=scopes, **({"groups": groups} if groups else {}))[1])


def person(name: str, **fields: Any) -> Asking:
    """Somebody who is logged in."""
    from django.contrib.auth.models import User

    browser = Client()
    browser.force_login(User.objects.create(username=name, **fields))
    return Asking(browser)


@pytest.fixture
def catalog(db: None) -> Any:
    """customer_purchases of growth with three features, support with one, and churn@1 that reads total_purchases."""
    from catalog.models import FeatureService, Owner
    from tests.factories import make_customer_group

    growth = Owner.objects.create(name="growth", email="growth@example.com")
    group = make_customer_group(owner=growth, description="Running totals.", source="customer_purchases.csv")
    make_customer_group("support", features={"tickets": "int64"})
    churn = FeatureService.objects.create(name="churn", version=1, status="active")
    churn.chosen.create(feature=group.features.get(name="total_purchases"), position=0)
    return group


@pytest.fixture
def ci(catalog: Any) -> Iterator[Asking]:
    """Somebody with a key that reads and changes definitions."""
    from catalog import keys

    keys.forget()
    yield holder("read", "registry")
    keys.forget()
