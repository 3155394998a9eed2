"""Statuses that are changed over HTTP: by the lifecycle, as in the admin, and who would be hit is told before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.catalog.registry.conftest import Asking, holder
from tests.catalog.registry.test_edits import catalog_now, histories, newest

pytestmark = [pytest.mark.django_db, pytest.mark.database]

TOTAL = "features/customer_purchases/total_purchases"
SEGMENT = "features/customer_purchases/customer_segment"


@pytest.fixture
def used(catalog: Any) -> Any:
    """total_purchases was read by the key `checkout` of ada today, and by a revoked one; a dataset has it."""
    from django.contrib.auth.models import User

    from catalog.keys import create_key, revoke_key
    from catalog.models import Acceptance, FeatureUse, Owner, Run, RunKind, TrainingDataset

    total = catalog.features.get(name="total_purchases")
    ada = User.objects.create(username="ada")
    checkout, _ = create_key(name="checkout", scopes=["read"], owner=ada)
    gone, _ = create_key(name="gone", scopes=["read"])
    revoke_key(gone.public_id)
    today = timezone.now().date()
    for key, day, requests in [(checkout, today, 3), (checkout, today - timedelta(days=29), 4), (gone, today, 1)]:
        FeatureUse.objects.create(feature=total, reader=f"key:{key.public_id}", day=day, requests=requests)
    FeatureUse.objects.create(feature=total, reader="anonymous", day=today - timedelta(days=31), requests=9)
    for name, features in [("churn_2026", ["total_purchases"]), ("other", ["support:tickets"])]:
        run = Run.objects.create(kind=RunKind.TRAIN, acceptance=Acceptance.take())
        TrainingDataset.objects.create(name=name, run=run, features=features, event_timestamp="event_timestamp")
    service = catalog.features.get(name="total_purchases").services.get()
    service.owner = Owner.objects.create(name="risk")
    service.save()
    return total


def test_a_dry_run_of_a_deprecation_tells_only_who_is_hit(ci: Asking, used: Any) -> None:
    before, rows = catalog_now(), histories()
    asked = {"reason": "Counted twice.", "replaced_by": "customer_purchases:avg_purchase_value"}
    told = ci.post(f"{TOTAL}/deprecate?dry_run=true", asked)
    assert told.status == 200
    assert told.document == {
        "from": "active",
        "to": "deprecated",
        "services": ["churn@1"],
        "computed_features": ["customer_purchases:avg_purchase_value"],
        "hidden": 0,
        "training_datasets": ["churn_2026"],
        "readers": [
            {"name": "the key 'checkout' of ada", "requests": 7, "last_day": timezone.now().date().isoformat()}
        ],
        "owners": ["growth", "risk"],
        "refused": None,
    }
    assert (catalog_now(), histories()) == (before, rows)


def test_a_dry_run_of_archiving_tells_why_it_would_be_refused(ci: Asking, used: Any) -> None:
    told = ci.post(f"{TOTAL}/archive?dry_run=true").document
    assert "read by churn@1, the key 'checkout' of ada" in told["refused"]
    assert ci.post(f"{SEGMENT}/archive?dry_run=true").document["refused"] is None
    assert ci.post(f"{SEGMENT}/activate?dry_run=true").document["refused"] is None
    assert ci.get(SEGMENT).document["effective_status"] == "active"


def test_a_group_and_a_service_tell_of_all_that_they_have(ci: Asking, used: Any) -> None:
    group = ci.post("feature-groups/customer_purchases/deprecate?dry_run=true").document
    assert (group["services"], group["training_datasets"]) == (["churn@1"], ["churn_2026"])
    assert [reader["requests"] for reader in group["readers"]] == [7]
    service = ci.post("feature-services/churn/archive?dry_run=true").document
    assert (service["services"], service["owners"], service["to"]) == (["churn@1"], ["growth", "risk"], "archived")
    other = ci.post("feature-groups/support/archive?dry_run=true").document
    assert (other["services"], other["readers"], other["training_datasets"]) == ([], [], ["other"])


def test_a_feature_is_deprecated_with_what_replaces_it(ci: Asking) -> None:
    sunset = (timezone.now() + timedelta(days=30)).replace(microsecond=0)
    asked = {"reason": "Counted twice.", "replaced_by": "avg_purchase_value", "sunset": sunset.isoformat()}
    done = ci.post(f"{TOTAL}/deprecate", asked)
    assert done.status == 200
    assert (done.document["status"], done.document["effective_status"]) == ("deprecated", "deprecated")
    assert done.document["replaced_by"] == "customer_purchases:avg_purchase_value"
    assert done.document["sunset"] == sunset.isoformat().replace("+00:00", "Z")
    assert done.document["deprecation_reason"] == "Counted twice."
    assert done.etag == ci.get(TOTAL).etag
    back = ci.post(f"{TOTAL}/activate").document
    assert (back["status"], back["replaced_by"], back["sunset"], back["deprecation_reason"]) == (
        "active",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("asked", "pointer", "detail"),
    [
        ({"replaced_by": "support:ticket"}, "/replaced_by", "there is no feature"),
        ({"replaced_by": "nothing"}, "/replaced_by", "there is no feature"),
        ({"replaced_by": "\0"}, "/replaced_by", "U+0000"),
        ({"replaced_by": 7}, "/replaced_by", "text is expected"),
        ({"sunset": "2020-01-01T00:00:00Z"}, "/sunset", "in the past"),
        ({"sunset": "2030-01-01"}, "/sunset", "with an offset"),
        ({"reason": None}, "/reason", "text is expected"),
        ({"reasn": "x"}, "/reasn", "unknown key"),
        ({"status": "archived"}, "/status", "unknown key"),
    ],
)
def test_what_is_wrong_with_a_deprecation_is_told_by_a_pointer(
    ci: Asking, asked: dict[str, Any], pointer: str, detail: str
) -> None:
    before = catalog_now()
    answer = ci.post(f"{TOTAL}/deprecate", asked)
    assert (answer.status, [where for where, _ in answer.problems]) == (422, [pointer])
    assert detail in answer.problems[0][1]
    assert catalog_now() == before


def test_near_names_of_a_replacement_are_offered_among_those_that_are_seen(ci: Asking) -> None:
    wrong = {"replaced_by": "suport:tickets"}
    assert ci.post(f"{TOTAL}/deprecate", wrong).document["errors"][0]["did_you_mean"] == ["support:tickets"]
    limited = holder("read", "registry", groups=["customer_purchases"])
    for name in ("suport:tickets", "support:tickets"):
        answer = limited.post(f"{TOTAL}/deprecate", {"replaced_by": name})
        assert (answer.status, answer.document["errors"][0]["did_you_mean"]) == (422, []), name


def test_what_is_read_is_not_archived_and_who_reads_it_is_named(ci: Asking, used: Any) -> None:
    for path in (TOTAL, "feature-groups/customer_purchases"):
        answer = ci.post(f"{path}/archive", {})
        assert (answer.status, answer.document["code"]) == (409, "still_read")
        assert "churn@1" in answer.document["detail"]
        assert "the key 'checkout' of ada (7 requests" in answer.document["detail"]
    assert ci.post(f"{SEGMENT}/archive", {"reason": "Nobody reads it."}).document["status"] == "archived"
    assert "Nobody reads it." in newest("Feature", name="customer_segment").history_change_reason
    assert ci.post(f"{SEGMENT}/activate").document["effective_status"] == "active"


def test_a_status_becomes_only_what_may_follow_it(ci: Asking) -> None:
    assert ci.post("feature-services/churn/archive").document["status"] == "archived"
    refused = ci.post("feature-services/churn/deprecate", {"reason": "Old."})
    assert (refused.status, refused.document["code"]) == (409, "conflict")
    assert "it can become active" in refused.document["detail"]
    assert ci.post("feature-services/churn@1/activate").document["status"] == "active"
    assert ci.post("feature-services/churn/deprecate", {"replaced_by": "support:tickets"}).status == 422


def test_a_version_that_is_named_has_to_be_the_present_one(ci: Asking) -> None:
    read = ci.get(TOTAL)
    assert ci.post(f"{TOTAL}/deprecate", {}, **{"If-Match": '"old"'}).status == 412
    assert ci.post(f"{TOTAL}/deprecate", {}, **{"If-Match": read.etag}).status == 200
    assert ci.post(f"{TOTAL}/activate", {}, **{"If-Match": read.etag}).status == 412


def test_a_group_that_is_wrong_in_something_else_is_archived_all_the_same(ci: Asking, catalog: Any) -> None:
    """What a definitions file would be refused for is no reason to go on serving."""
    from catalog.models import Feature

    Feature.objects.filter(name="avg_purchase_value").update(expression="gone + 1")
    assert ci.edit("feature-groups/customer_purchases", {"ttl": "1d"}).status == 422
    assert ci.post(f"{SEGMENT}/archive").status == 200


def test_there_is_no_transition_of_what_has_no_status(ci: Asking) -> None:
    assert ci.post("entities/customer/archive").status == 404
    assert ci.ask("GET", f"{TOTAL}/archive").status == 405


def test_the_last_change_is_taken_back_and_a_dry_run_says_to_what(ci: Asking) -> None:
    sunset = (timezone.now() + timedelta(days=30)).replace(microsecond=0).isoformat()
    ci.post(f"{TOTAL}/deprecate", {"reason": "Old.", "replaced_by": "avg_purchase_value", "sunset": sunset})
    told = ci.post(f"{TOTAL}/undo?dry_run=true").document
    assert (told["from"], told["to"], told["services"], told["refused"]) == ("deprecated", "active", ["churn@1"], None)
    back = ci.post(f"{TOTAL}/undo", {"reason": "By mistake."}).document
    assert (back["effective_status"], back["deprecation_reason"], back["sunset"]) == ("active", None, None)
    assert newest("Feature", name="total_purchases").history_change_reason.endswith("By mistake.")
    again = ci.post(f"{TOTAL}/undo").document
    assert (again["status"], again["deprecation_reason"]) == ("deprecated", "Old.")
    assert again["replaced_by"] == "customer_purchases:avg_purchase_value"


def test_what_cannot_be_taken_back_is_told(ci: Asking) -> None:
    refused = ci.post(f"{SEGMENT}/undo")
    assert (refused.status, "nothing to undo" in refused.document["detail"]) == (409, True)
    told = ci.post(f"{SEGMENT}/undo?dry_run=true").document
    assert (told["to"], "nothing to undo" in told["refused"]) == (None, True)
    assert ci.post(f"{SEGMENT}/undo", {"note": "x"}).status == 422
    assert ci.post(f"{SEGMENT}/undo", **{"If-Match": '"other"'}).status == 412
