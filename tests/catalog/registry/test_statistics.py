"""Statistics over HTTP: to whoever may read the feature, and of what is tagged counts alone, whoever asks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.catalog.registry.conftest import Asking, holder

pytestmark = [pytest.mark.django_db, pytest.mark.database]

TICKETS = "features/support/tickets/statistics"


@pytest.fixture
def tickets(catalog: Any) -> Any:
    """support:tickets, of which a run of 300 rows is known, and one of 300 others the day before."""
    from datetime import UTC, datetime, timedelta

    from catalog.models import Feature
    from tests.catalog.test_statistics import record

    feature = Feature.objects.select_related("group").get(name="tickets")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    record(feature, [7, 8, 9] * 100, at - timedelta(days=1))
    record(feature, [41, 42, None] * 100, at)
    return feature


def test_the_latest_the_baseline_and_how_far_they_are_apart(ci: Asking, tickets: Any) -> None:
    told = ci.get(TICKETS).document
    assert (told["feature"], told["dtype"], told["moved"]) == ("support:tickets", "int64", True)
    assert told["psi"] > 0.2
    newest, before = told["latest"], told["baseline"]
    assert (newest["count"], newest["nulls"], newest["described"], newest["distinct"]) == (300, 100, 200, 2)
    assert (newest["min"], newest["max"], newest["mean"], newest["quantiles"]["p50"]) == (41, 42, 41.5, 41)
    assert (before["count"], before["max"], before["days"]) == (300, 9, 7)
    assert before["histogram"]["edges"] == newest["histogram"]["edges"]
    assert before["histogram"]["below"] == 300
    assert ci.get(TICKETS + "/").document == told


def test_without_any_it_says_so(ci: Asking) -> None:
    told = ci.get("features/customer_purchases/total_purchases/statistics").document
    assert (told["latest"], told["baseline"], told["psi"], told["moved"]) == (None, None, None, False)


def test_what_is_out_of_reach_is_not_there(tickets: Any) -> None:
    assert holder("read", groups=["customer_purchases"]).get(TICKETS).status == 404
    assert holder("read", groups=["support"]).get(TICKETS).status == 200
    assert holder("write").get(TICKETS).status == 403
    assert holder("read").get("features/support/nothing/statistics").status == 404


@pytest.mark.parametrize("which", ["feature", "group", "entity"])
def test_of_what_is_tagged_pii_counts_alone_are_told_whoever_asks(tickets: Any, which: str) -> None:
    from catalog.models import Tag

    {"feature": tickets, "group": tickets.group, "entity": tickets.group.entity}[which].tags.add(
        Tag.objects.create(name="pii")
    )
    for caller in (holder("read"), holder("read", "pii:read")):
        told = caller.get(TICKETS).document
        assert (told["latest"]["count"], told["latest"]["nulls"], told["baseline"]["count"]) == (300, 100, 300)
        assert (told["psi"], told["moved"]) == (None, False)
        for some in (told["latest"], told["baseline"]):
            assert [some[name] for name in ("min", "max", "mean", "std", "histogram", "distinct")] == [None] * 6
            assert (some["quantiles"], some["top"], some["described"]) == ({}, [], 0)
