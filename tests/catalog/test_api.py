"""The catalog's routes in their exact shape, and the document that describes every route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import get_resolver

from featurehub.environment import PROJECT
from tests.catalog.permission_table import PAGES, ROUTES, routes
from tests.catalog.test_access import each_needing_a_key

pytestmark = pytest.mark.django_db

SUMMARY = ["name", "group", "description", "type", "dtype", "entity", "status", "owner", "tags", "version"]
SUMMARY += ["on_request", "request_inputs"]
MORE = ["created_at", "updated_at", "transformation", "validation", "replaced_by"]
DEPRECATION = ["deprecated_at", "deprecation_reason", "sunset_at"]


@pytest.fixture
def client() -> Iterator[Client]:
    """Somebody with a key that reads."""
    from catalog import access, keys

    keys.forget()
    yield Client(headers={"Authorization": f"Bearer {access.create_key(name='tests', scopes=['read'])[1]}"})
    keys.forget()


@pytest.fixture
def group() -> Any:
    from catalog.models import Owner, Tag
    from tests.factories import make_customer_group

    made = make_customer_group(description="Running totals.", owner=Owner.objects.create(name="growth"))
    total = made.features.get(name="total_purchases")
    total.owner, total.description = Owner.objects.create(name="shop"), "Purchases so far."
    total.save()
    total.tags.add(Tag.objects.create(name="money"), Tag.objects.create(name="core"))
    return made


def answer_of(response: HttpResponse, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == ("application/json" if status == 200 else "application/problem+json")
    return json.loads(response.content)


def is_instant(text: str) -> bool:
    return text.endswith("Z") and datetime.now(UTC) - datetime.fromisoformat(text) < timedelta(minutes=10)


@pytest.mark.parametrize("slash", ["", "/"])
def test_groups_are_listed_with_the_number_of_their_features(client: Client, group: Any, slash: str) -> None:
    answer = answer_of(client.get(f"/groups{slash}"))
    assert list(answer) == ["groups"]
    [listed] = answer["groups"]
    assert is_instant(listed.pop("created_at"))
    assert listed == {
        "name": "customer_purchases",
        "entity": "customer",
        "description": "Running totals.",
        "num_features": 3,
    }


@pytest.mark.parametrize("slash", ["", "/"])
def test_features_are_listed_in_their_groups_order(client: Client, group: Any, slash: str) -> None:
    answer = answer_of(client.get(f"/features{slash}"))
    assert list(answer) == ["features"]
    assert all(list(feature) == SUMMARY for feature in answer["features"])
    assert answer["features"][0] == {
        "name": "total_purchases",
        "group": "customer_purchases",
        "description": "Purchases so far.",
        "type": "numerical",
        "dtype": "int64",
        "entity": "customer",
        "status": "active",
        "owner": "shop",
        "tags": ["core", "money"],
        "version": 1,
        "on_request": False,
        "request_inputs": [],
    }
    names = [(f["name"], f["owner"], f["tags"]) for f in answer["features"][1:]]
    assert names == [("avg_purchase_value", "growth", []), ("customer_segment", "growth", [])]


def test_an_empty_catalog_lists_nothing(client: Client) -> None:
    assert answer_of(client.get("/groups")) == {"groups": []}
    assert answer_of(client.get("/features")) == {"features": []}


def test_lists_take_as_many_queries_for_many_things_as_for_few(
    client: Client, group: Any, django_assert_max_num_queries: Any
) -> None:
    from tests.factories import make_customer_group

    for number in range(4):
        make_customer_group(f"more_{number}")
    client.get("/groups")
    with django_assert_max_num_queries(1):
        assert len(answer_of(client.get("/groups"))["groups"]) == 5
    with django_assert_max_num_queries(3):
        assert len(answer_of(client.get("/features"))["features"]) == 15


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("entity", ["customer", "customer_purchases"])
@pytest.mark.parametrize("name", ["avg_purchase_value", "customer_purchases:avg_purchase_value"])
def test_metadata_says_how_a_feature_is_made(client: Client, group: Any, entity: str, name: str, slash: str) -> None:
    answer = answer_of(client.get(f"/features/{entity}/{name}/metadata{slash}"))
    assert list(answer) == [*SUMMARY, *MORE, *DEPRECATION]
    assert is_instant(answer["created_at"])
    assert is_instant(answer["updated_at"])
    assert answer["transformation"] == {
        "expression": "CASE WHEN total_purchases > 0 THEN total_spent / total_purchases ELSE 0 END"
    }
    assert [answer[name] for name in ("validation", "replaced_by", *DEPRECATION)] == [None] * 5


def test_metadata_says_what_a_value_must_satisfy(client: Client, group: Any) -> None:
    answer = answer_of(client.get("/features/customer/total_purchases/metadata"))
    assert answer["validation"] == {"not_null": True, "min_value": 0}
    assert answer["transformation"] is None


def test_metadata_of_a_deprecated_feature_says_since_when_why_and_what_instead(client: Client, group: Any) -> None:
    from catalog.lifecycle import change_status

    total, average = group.features.get(name="total_purchases"), group.features.get(name="avg_purchase_value")
    sunset = datetime(2030, 1, 31, tzinfo=UTC)
    change_status(total, "deprecated", reason="wrong", replaced_by=average, sunset=sunset)
    answer = answer_of(client.get("/features/customer/total_purchases/metadata"))
    assert (answer["status"], answer["replaced_by"]) == ("deprecated", "customer_purchases:avg_purchase_value")
    assert is_instant(answer["deprecated_at"])
    assert (answer["deprecation_reason"], answer["sunset_at"]) == ("wrong", "2030-01-31T00:00:00Z")


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/features/customer/total_purchase/metadata", ["total_purchases"]),
        ("/features/customer/other_group:total_purchases/metadata", ["total_purchases"]),
        ("/features/nobody/total_purchases/metadata", []),
    ],
)
def test_metadata_of_nothing_is_404_with_near_names(client: Client, group: Any, path: str, near: list[str]) -> None:
    answer = answer_of(client.get(path), 404)
    assert (answer["code"], answer["errors"][0]["did_you_mean"][:1]) == ("not_found", near)


def test_metadata_of_a_name_in_two_groups_is_400_with_the_choices(client: Client, group: Any) -> None:
    from tests.factories import make_customer_group

    make_customer_group("other")
    answer = answer_of(client.get("/features/customer/total_purchases/metadata"), 400)
    assert answer["code"] == "ambiguous_name"
    assert answer["errors"][0]["did_you_mean"] == ["customer_purchases:total_purchases", "other:total_purchases"]
    assert answer_of(client.get("/features/other/total_purchases/metadata"))["group"] == "other"


@each_needing_a_key
def test_no_route_redirects_with_or_without_a_slash(client: Client, path: str, method: str, scope: str) -> None:
    for address in (path.rstrip("/"), path.rstrip("/") + "/"):
        response = client.generic(method, address, b"{}", content_type="application/json")
        assert response.status_code not in (301, 302, 307, 308)
        told = json.loads(response.content).get("detail", "") if "json" in response["Content-Type"] else ""
        assert told != "There is nothing at this address."


def document_of(client: Client) -> Any:
    return json.loads(client.get("/api/v1/openapi.json").content)


def test_the_committed_openapi_document_is_the_one_of_this_code(client: Client, tmp_path: Path) -> None:
    """Valid, made without a warning, and what is answered."""
    written = tmp_path / "openapi.json"
    how = {"format": "openapi-json", "file": str(written), "validate": True, "fail_on_warn": True}
    call_command("spectacular", **how)
    committed = PROJECT / "docs" / "openapi.json"
    assert committed.read_text() == written.read_text(), "docs/openapi.json is out of date: `make openapi` writes it."
    assert document_of(client) == json.loads(committed.read_text())


def test_the_openapi_document_has_every_route_with_an_operation_id_of_its_own(client: Client) -> None:
    document = document_of(client)
    assert document["openapi"].startswith("3.")
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    undescribed = {"openapi", "api-docs"}
    assert len(described) == sum(len(needs) for name, (_, needs) in ROUTES.items() if name not in undescribed)
    assert not [path for path, _ in described if path.endswith("/")]
    ids = [o["operationId"] for operations in document["paths"].values() for o in operations.values()]
    assert sorted(ids) == sorted(set(ids))
    assert set(ids) >= {"health", "list_groups", "list_features", "entity_vector", "vectors", "ingest_row", "start_run"}


def test_every_operation_but_those_open_to_all_names_the_key_and_answers_problems(client: Client) -> None:
    document = document_of(client)
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    open_to_all = {address for address, needs in ROUTES.values() if needs.get("GET", "") is None}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in open_to_all:
                assert "security" not in operation
                continue
            assert {"apiKey": []} in operation["security"]
            for status in ("401", "403", "429"):
                told = operation["responses"][status]["content"]["application/problem+json"]
                assert told["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/groups", "Group"),
        ("/features", "Feature"),
        ("/features/customer/total_purchases/metadata", "FeatureMetadata"),
        ("/features/customer/nothing/metadata", "Problem"),
        ("/health", "Health"),
    ],
)
def test_what_is_described_is_what_is_answered(client: Client, group: Any, path: str, schema: str) -> None:
    described = document_of(client)["components"]["schemas"][schema]
    answer = json.loads(client.get(path).content)
    shown = next(iter(answer.values()))[0] if schema in ("Group", "Feature") else answer
    assert set(described["required"]) <= shown.keys() <= described["properties"].keys()


def test_the_docs_page_loads_everything_from_this_server(client: Client) -> None:
    for address in ("/api/docs", "/api/docs/"):
        response = client.get(address)
        assert response.status_code == 200
        page = response.content.decode()
        assert "/api/v1/openapi.json" in page
        assert "https://" not in page
        assert "http://" not in page


def test_the_table_of_routes_covers_the_api() -> None:
    assert set(routes(get_resolver().url_patterns)) == ROUTES.keys() | PAGES.keys()
