"""A hub to read from: two groups of customers, one of shops with a composite key, one of products, and two services.

pytest loads this file before it sets Django up, so what has models is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from django.test import Client
from pytest_django import DjangoDbBlocker, Settings

from tests.forgetting import forget

if TYPE_CHECKING:
    from django.http import HttpResponse

NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = NOW - timedelta(days=1)
LAST_YEAR = NOW - timedelta(days=365)


@dataclass
class Hub:
    """A warm hub and a caller with a key that reads and writes."""

    key: str
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self.client.get(path, headers={"Authorization": f"Bearer {self.key}", **headers})

    def post(self, path: str, body: Any, **headers: str) -> HttpResponse:
        sent = {"Authorization": f"Bearer {self.key}", **headers}
        return self.client.post(path, body, content_type="application/json", headers=sent)

    def vectors(self, **body: Any) -> HttpResponse:
        return self.post("/api/v1/vectors", body)


def make_catalog() -> None:
    """Customers: purchases (90 days TTL) and support, which both have a `segment`; shops; products; churn@1 and @2."""
    from catalog.models import FeatureService, Status
    from tests.factories import add_feature, make_customer_group, make_entity

    purchases = make_customer_group(
        inputs={"total_spent": "float64"},
        features={"total": "int64", "segment": "string", "is_member": "bool", "last_seen": "timestamp"}
        | {"taste": "embedding(3)", "recent": "list<int64>"},
        ttl=timedelta(days=90),
        event_timestamp="event_timestamp",
    )
    add_feature(purchases, "average", "float64", expression="CASE WHEN total > 0 THEN total_spent / total ELSE 0 END")
    make_customer_group(
        "support", features={"tickets": "int64", "segment": "string"}, event_timestamp="event_timestamp"
    )
    make_entity("shop", {"country": "string", "shop_number": "int64"})
    make_entity("product", {"product_id": "int64"})
    make_group("shop_ratings", "shop", {"rating": "float64"})
    make_group("product_stock", "product", {"stock": "int64"})
    for version, names in ((1, ["total"]), (2, ["average", "total"])):
        service = FeatureService.objects.create(name="churn", version=version, status=Status.ACTIVE)
        for position, name in enumerate(names):
            service.chosen.create(feature=purchases.features.get(name=name), position=position)


def make_group(name: str, entity: str, features: dict[str, str]) -> None:
    from catalog.models import Entity, FeatureGroup, Status
    from tests.factories import add_feature

    group = FeatureGroup.objects.create(
        name=name, entity=Entity.objects.get(name=entity), status=Status.ACTIVE, event_timestamp="event_timestamp"
    )
    for feature, dtype in features.items():
        add_feature(group, feature, dtype)


def push_row(group: str, at: datetime | str = YESTERDAY, **values: Any) -> None:
    """Push one row, timed `at`."""
    from ingestion.push import find_group, push

    when = at if isinstance(at, str) else at.isoformat()
    push(find_group(group), [{"event_timestamp": when, **values}])


def push_rows_of_three_customers() -> None:
    """C1 has everything and a ticket; C2's values are null; C3's purchases are a year old, beyond the TTL."""
    full = {"total": 4, "total_spent": 100.0, "segment": "gold", "is_member": True, "last_seen": "2026-01-02T03:04:05Z"}
    push_row("customer_purchases", customer_id="C1", taste=[0.5, -1.0, 0.25], recent=[1, 2**60], **full)
    push_row("customer_purchases", customer_id="C2", total=None, total_spent=None, segment=None)
    push_row("customer_purchases", LAST_YEAR, customer_id="C3", total=1, total_spent=1.0, segment="bronze")
    push_row("support", customer_id="C1", tickets=2, segment="calm")


def open_stores() -> None:
    """Bring an empty online store into the state that readers trust."""
    from ingestion import materialize

    forget()
    materialize.ensure_warm()


def make_hub() -> Hub:
    from catalog.access import SCOPES, create_key

    make_catalog()
    push_rows_of_three_customers()
    return Hub(create_key(name="tests", scopes=SCOPES)[1])


@pytest.fixture(scope="module")
def made_hub(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    private_redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Hub, dict[bytes, bytes]]]:
    """The hub of a whole module, in a transaction that is rolled back at its end, and what Redis held then."""
    from django.db import transaction
    from django.test import override_settings

    client = redis.Redis.from_url(private_redis_url)
    client.flushall()
    offline = tmp_path_factory.mktemp("offline")
    with django_db_blocker.unblock(), override_settings(FEATUREHUB_OFFLINE_PATH=offline), transaction.atomic():
        open_stores()
        hub = make_hub()
        yield hub, {key: client.get(key) for key in client.scan_iter()}
        transaction.set_rollback(True)
        forget()
    client.flushall()
    client.close()


@pytest.fixture
def hub(
    made_hub: tuple[Hub, dict[bytes, bytes]], db: None, private_redis_url: str, settings: Settings, tmp_path: Path
) -> Hub:
    """The module's hub as it was made, whatever the test before did to it; its pushes are not drained yet."""
    made, contents = made_hub
    settings.FEATUREHUB_OFFLINE_PATH = tmp_path / "offline"
    client = redis.Redis.from_url(private_redis_url)
    client.flushall()
    client.mset(contents)
    client.close()
    forget()
    return Hub(made.key)


@pytest.fixture
def committed_hub(
    transactional_db: None, redis_clean: redis.Redis, settings: Settings, tmp_path: Path
) -> Iterator[Hub]:
    """The same, committed, so that other processes and connections see it and changes are published."""
    settings.FEATUREHUB_OFFLINE_PATH = tmp_path / "offline"
    open_stores()
    made = make_hub()
    yield made
    forget()


@pytest.fixture
def redis_client(private_redis_url: str) -> Iterator[redis.Redis]:
    """A client of the private server's database 0 that leaves it as it is."""
    with redis.Redis.from_url(private_redis_url) as client:
        yield client
