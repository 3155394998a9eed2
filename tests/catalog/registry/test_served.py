"""What the registry changes is served: by the next request, whoever changes it at the same time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.catalog.registry.conftest import Answer, Asking
from tests.serving.conftest import Hub, committed_hub, push_row

__all__ = ["committed_hub"]

pytestmark = pytest.mark.database

TICKETS = "features/support/tickets"


def value_of(hub: Hub, *names: str) -> Any:
    return hub.vectors(features=list(names), entities={"customer_id": ["C1"]})


@pytest.fixture
def asking(committed_hub: Hub) -> Asking:
    return Asking(Client(), committed_hub.key)


def test_what_is_made_is_listed_and_served_in_the_next_request(committed_hub: Hub, asking: Asking) -> None:
    hub = committed_hub
    assert value_of(hub, "support:calls").status_code == 400
    body = {"group": "support", "name": "calls", "dtype": "int64", "description": "Calls so far."}
    assert asking.post("features", body).status == 201
    assert "calls" in [feature["name"] for feature in json.loads(hub.get("/features").content)["features"]]
    assert json.loads(value_of(hub, "support:calls").content)["values"] == [[None]]
    push_row("support", timezone.now().isoformat(), customer_id="C1", tickets=3, segment="calm", calls=7)
    assert json.loads(value_of(hub, "support:calls", "support:tickets").content)["values"] == [[7, 3]]
    made = asking.post("feature-services", {"name": "care", "features": ["support:calls"]})
    assert made.status == 201
    found = hub.vectors(feature_service="care", entities={"customer_id": ["C1"]})
    assert json.loads(found.content)["values"] == [[7]]


def test_a_deprecation_is_in_the_headers_of_the_next_read(committed_hub: Hub, asking: Asking) -> None:
    hub = committed_hub
    assert "Deprecation" not in value_of(hub, "support:tickets").headers
    sunset = (timezone.now() + timedelta(days=30)).replace(microsecond=0)
    asked = {"reason": "Old.", "replaced_by": "support:segment", "sunset": sunset.isoformat()}
    assert asking.post(f"{TICKETS}/deprecate?dry_run=true", asked).status == 200
    assert "Deprecation" not in value_of(hub, "support:tickets").headers
    done = asking.post(f"{TICKETS}/deprecate", asked)
    read = value_of(hub, "support:tickets")
    assert read.status_code == 200
    assert read.headers["Deprecation"].startswith("@")
    assert read.headers["Sunset"] == sunset.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert read.headers["X-FeatureHub-Deprecated"] == "support:tickets;use=support:segment"
    assert done.document["deprecated_at"] is not None
    assert asking.post(f"{TICKETS}/activate").status == 200
    assert "Deprecation" not in value_of(hub, "support:tickets").headers


def test_who_has_read_a_feature_keeps_it_from_being_archived(committed_hub: Hub, asking: Asking) -> None:
    from catalog import usage

    hub = committed_hub
    value_of(hub, "support:tickets")
    usage.record()
    answer = asking.post(f"{TICKETS}/archive")
    assert (answer.status, answer.document["code"]) == (409, "still_read")
    assert "the key 'tests'" in answer.document["detail"]
    rating = "features/shop_ratings/rating"
    assert asking.post(f"{rating}/archive").status == 200
    refused = hub.vectors(features=["shop_ratings:rating"], entities={"country": ["DE"], "shop_number": [1]})
    assert refused.status_code == 410


def raced(asking: Asking, bodies: list[dict[str, Any]], path: str, etag: str) -> list[Answer]:
    """Changes of one version that start together, each on a connection of its own."""
    from django.db import connections

    start = Barrier(len(bodies))

    def change(body: dict[str, Any]) -> Answer:
        start.wait(timeout=10)
        try:
            return Asking(Client(), asking.key).patch(path, body, **{"If-Match": etag})
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(change, bodies))


def test_of_two_changes_of_one_version_that_race_one_is_refused(committed_hub: Hub, asking: Asking) -> None:
    from catalog.models import Feature

    for attempt in range(5):
        read = asking.get(TICKETS)
        bodies = [{"description": f"{attempt} {who}"} for who in ("ada", "bob")]
        answers = raced(asking, bodies, TICKETS, read.etag)
        assert sorted(answer.status for answer in answers) == [200, 412]
        (done,) = [answer for answer in answers if answer.status == 200]
        (stale,) = [answer for answer in answers if answer.status == 412]
        assert stale.etag == done.etag == asking.get(TICKETS).etag
        assert Feature.objects.get(group__name="support", name="tickets").description == done.document["description"]


def test_changes_of_several_things_that_race_are_all_made(committed_hub: Hub, asking: Asking) -> None:
    from django.db import connections

    start = Barrier(4)

    def make(number: int) -> int:
        start.wait(timeout=10)
        try:
            body = {"group": "support", "name": f"more_{number}", "dtype": "int64"}
            return Asking(Client(), asking.key).post("features", body).status
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [201] * 4
    from catalog.models import Feature

    made = Feature.objects.filter(group__name="support", name__startswith="more_")
    assert sorted(made.values_list("position", flat=True)) == [2, 3, 4, 5]
