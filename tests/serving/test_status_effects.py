"""Status has effect: drafts, deprecated and archived features, groups, services."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

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
