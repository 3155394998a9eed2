"""Status has effect, in the next request of every process: drafts, deprecated and archived features, groups, services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from pytest_django import Settings

from tests.serving.conftest import Hub
from tests.serving.test_entity_vector import answer_of

SUNSET = datetime(2030, 1, 31, tzinfo=UTC)


def feature(name: str, group: str = "customer_purchases") -> Any:
    from catalog.models import Feature

    return Feature.objects.get(group__name=group, name=name)


def group(name: str) -> Any:
    from catalog.models import FeatureGroup

    return FeatureGroup.objects.get(name=name)


def service(version: int) -> Any:
    from catalog.models import FeatureService

    return FeatureService.objects.get(name="churn", version=version)


def change(thing: Any, status: str, **how: Any) -> None:
    """Change a status and let this process ask the database, as nothing is published inside a test's transaction."""
    from catalog import snapshot
    from catalog.lifecycle import change_status

    change_status(thing, status, **how)
    snapshot.forget()


def draft(thing: Any) -> None:
    """Nothing becomes a draft again, so this is how one comes to be in the shared catalog."""
    from catalog import snapshot

    thing.status = "draft"
    thing.save()
    snapshot.forget()


def vectors(hub: Hub, *names: str) -> Any:
    return hub.vectors(features=list(names), entities={"customer_id": ["C1"]})


def test_a_draft_feature_is_refused_by_name_and_left_out_where_nobody_named_it(hub: Hub) -> None:
    draft(feature("average"))
    for response in (hub.get("/features/customer/C1?features=average,total"), vectors(hub, "average", "total")):
        answer = answer_of(response, 409)
        assert answer["code"] == "feature_not_active"
        assert "customer_purchases:average" in answer["detail"]
        assert "total" not in answer["detail"]
    answer = answer_of(hub.get("/features/customer_purchases/C1"))
    assert "average" not in answer
    assert "total" in answer


def test_a_draft_group_makes_all_its_features_drafts(hub: Hub) -> None:
    draft(group("support"))
    assert answer_of(vectors(hub, "tickets"), 409)["code"] == "feature_not_active"
    assert "tickets" not in answer_of(hub.get("/features/customer/C1"))
    assert answer_of(hub.get("/features/support/C1"), 404)["code"] == "entity_not_found"


def test_a_deprecated_feature_is_served_with_its_dates_and_its_replacement(hub: Hub) -> None:
    change(feature("total"), "deprecated", replaced_by=feature("average"), sunset=SUNSET, reason="it counts wrongly")
    told = int(feature("total").deprecated_at.timestamp())
    for response in (hub.get("/features/customer/C1?features=average,total"), vectors(hub, "average", "total")):
        assert response.status_code == 200
        assert response["X-FeatureHub-Deprecated"] == "customer_purchases:total;use=customer_purchases:average"
        assert response["Deprecation"] == f"@{told}"  # RFC 9745
        assert response["Sunset"] == "Thu, 31 Jan 2030 00:00:00 GMT"  # RFC 8594
    assert answer_of(hub.get("/features/customer/C1"))["total"] == 4
    assert not hub.get("/features/customer/C1?features=average").has_header("Deprecation")


def test_of_several_deprecated_features_the_earliest_dates_are_told_and_each_name_once(hub: Hub) -> None:
    change(feature("total"), "deprecated", sunset=SUNSET)
    change(feature("average"), "deprecated", sunset=SUNSET.replace(year=2029))
    response = vectors(hub, "total", "average", "total")
    assert response["X-FeatureHub-Deprecated"] == "customer_purchases:total, customer_purchases:average"
    assert response["Sunset"] == "Wed, 31 Jan 2029 00:00:00 GMT"
    assert response["Deprecation"] == f"@{int(feature('total').deprecated_at.timestamp())}"


def test_a_deprecated_group_deprecates_its_features(hub: Hub) -> None:
    change(group("support"), "deprecated")
    response = vectors(hub, "tickets")
    assert response["X-FeatureHub-Deprecated"] == "support:tickets"
    assert response["Deprecation"] == f"@{int(group('support').deprecated_at.timestamp())}"
    assert not response.has_header("Sunset")


def test_archived_features_are_gone_and_all_named_with_their_replacements(hub: Hub) -> None:
    change(feature("is_member"), "deprecated", replaced_by=feature("average"))
    for name in ("is_member", "taste"):
        change(feature(name), "archived")
    for response in (
        hub.get("/features/customer/C1?features=is_member,total,taste"),
        vectors(hub, "is_member", "customer_purchases:total", "taste"),
    ):
        answer = answer_of(response, 410)
        assert answer["code"] == "feature_archived"
        assert [(e["pointer"], e["did_you_mean"]) for e in answer["errors"]] == [
            ("customer_purchases:is_member", ["customer_purchases:average"]),
            ("customer_purchases:taste", []),
        ]
    assert not {"is_member", "taste"} & answer_of(hub.get("/features/customer/C1")).keys()


def test_archived_is_said_before_draft(hub: Hub) -> None:
    draft(feature("average"))
    change(feature("taste"), "archived")
    assert answer_of(vectors(hub, "average", "taste"), 410)["code"] == "feature_archived"


def test_a_service_is_its_highest_version_that_is_active(hub: Hub) -> None:
    asked = {"entities": {"customer_id": ["C1"]}}
    change(service(2), "archived")
    assert answer_of(hub.vectors(feature_service="churn", **asked))["values"] == [[4]]
    assert answer_of(hub.vectors(feature_service="churn@2", **asked), 410)["code"] == "feature_archived"
    draft(service(1))
    assert answer_of(hub.vectors(feature_service="churn@1", **asked), 409)["code"] == "feature_not_active"
    assert answer_of(hub.vectors(feature_service="churn", **asked), 410)["code"] == "feature_archived"


def test_a_draft_version_above_an_active_one_is_not_taken(hub: Hub) -> None:
    draft(service(2))
    answer = answer_of(hub.get("/features/customer/C1?feature_service=churn"))
    assert answer == {"total": 4}


#: Reads the feature `average` of C1 through serving.vectors whenever it is asked, and keeps what it knows in between.
READER = """
import json, sys
import django
django.setup()
from engine.errors import FeaturehubError
from serving import vectors
for line in sys.stdin:
    try:
        found = vectors.read(vectors.of_features(json.loads(line)), {"customer_id": ["C1"]})
        answer = {"values": found.json_values()[0], "deprecated": [f.name for f in found.plan.deprecated]}
    except FeaturehubError as error:
        answer = {"code": error.code}
    print(json.dumps(answer), flush=True)
"""


class OtherProcess:
    """A reader in a process of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            cwd=django_settings.BASE_DIR,
        )

    def read(self, *names: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(names) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def other_process(committed_hub: Hub, settings: Settings) -> Iterator[OtherProcess]:
    if connection.vendor != "sqlite":
        pytest.skip("its environment names the test session's SQLite file")
    database = {"DATABASE_URL": f"sqlite:///{Path(connection.settings_dict['NAME'])}"}
    reader = OtherProcess(database)
    yield reader
    reader.close()


def test_a_change_is_seen_by_the_next_read_of_another_process(other_process: OtherProcess) -> None:
    from catalog.lifecycle import change_status
    from catalog.models import FeatureGroup
    from tests.factories import add_feature

    name = "support:tickets"
    assert other_process.read(name) == {"values": [2], "deprecated": []}
    change_status(feature("tickets", "support"), "deprecated")
    assert other_process.read(name) == {"values": [2], "deprecated": ["tickets"]}
    change_status(feature("tickets", "support"), "archived")
    assert other_process.read(name) == {"code": "feature_archived"}
    change_status(feature("tickets", "support"), "active")
    assert other_process.read(name) == {"values": [2], "deprecated": []}
    change_status(group("support"), "archived")
    assert other_process.read(name) == {"code": "feature_archived"}
    change_status(group("support"), "active")
    assert other_process.read("support:newcomer") == {"code": "unknown_name"}
    add_feature(FeatureGroup.objects.get(name="support"), "newcomer", "int64")
    assert other_process.read("support:newcomer") == {"values": [None], "deprecated": []}
    feature("newcomer", "support").delete()
    assert other_process.read("support:newcomer") == {"code": "unknown_name"}
