"""What a search finds, in which order, what its facets count, and that no address makes the page fail."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from tests.catalog.pages import browser, choices_of, features_in, text_of
from tests.factories import add_feature, make_customer_group

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def ada() -> Client:
    return browser("ada", is_superuser=True)


def found(client: Client, **query: Any) -> list[str]:
    return list(features_in(text_of(client.get("/catalog/features/", query))))


def make_ranked() -> None:
    """One feature for each place in which the word `spend` can stand, and one without it."""
    from catalog.models import Owner, Tag

    make_customer_group("by_owner", features={"g": "int64"}, owner=Owner.objects.create(name="spend_team"))
    described = make_customer_group("by_description", features={"f": "int64"})
    described.features.update(description="How much they Spend.")
    make_customer_group("by_tag", features={"e": "int64"}).features.get().tags.add(Tag.objects.create(name="spend_tag"))
    make_customer_group("spend_group", features={"d": "int64"})
    make_customer_group("by_name", features={"mean_spend": "int64", "spend_mean": "int64", "spend": "int64"})
    make_customer_group("other", features={"h": "int64"})


def test_a_better_place_of_a_word_comes_first(ada: Client) -> None:
    make_ranked()
    assert found(ada, q="SPEND") == [
        "by_name:spend",
        "by_name:spend_mean",
        "by_name:mean_spend",
        "spend_group:d",
        "by_tag:e",
        "by_description:f",
        "by_owner:g",
    ]


def test_every_word_has_to_be_found_somewhere(ada: Client) -> None:
    make_ranked()
    assert found(ada, q="spend team") == ["by_owner:g"]
    assert found(ada, q="spend nowhere") == []


def test_of_equal_places_what_is_served_comes_first_and_then_the_name(ada: Client) -> None:
    group = make_customer_group("g", features={"a": "int64", "b": "int64", "c": "int64", "d": "int64"})
    for name, status in (("a", "archived"), ("b", "draft"), ("c", "deprecated")):
        group.features.filter(name=name).update(status=status)
    assert found(ada, q="g") == ["g:d", "g:c", "g:b", "g:a"]
    assert found(ada, q="g", sort="name") == ["g:a", "g:b", "g:c", "g:d"]


def test_features_are_sorted_by_their_reads_of_the_last_days(ada: Client) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from catalog.models import FeatureUse

    group, today = make_customer_group("g", features={"a": "int64", "b": "int64", "c": "int64"}), timezone.now().date()
    a, b, c = group.features.order_by("name")
    for feature, reader, days, requests in [(a, "x", 31, 900), (b, "x", 1, 3), (b, "y", 2, 4), (c, "x", 30, 6)]:
        FeatureUse.objects.create(feature=feature, reader=reader, day=today - timedelta(days=days), requests=requests)
    assert found(ada, sort="reads") == ["g:b", "g:c", "g:a"]  # 7, 6, and what is 31 days old counts no more


def make_faceted() -> None:
    """Statuses and owners: a:p active growth, a:q deprecated growth, b:r active care, b:s active nobody's own."""
    from catalog.models import Owner, Tag

    growth, care = Owner.objects.create(name="growth"), Owner.objects.create(name="care")
    tag, other = Tag.objects.create(name="churn"), Tag.objects.create(name="fraud")
    first = make_customer_group("a", features={"p": "int64", "q": "float64"}, owner=growth)
    first.tags.add(tag)
    first.features.get(name="p").tags.add(tag, other)
    first.features.filter(name="q").update(status="deprecated")
    second = make_customer_group("b", features={"r": "int64", "s": "int64"})
    second.features.filter(name="r").update(owner=care)


def test_facets_count_what_the_other_facets_leave(ada: Client) -> None:
    make_faceted()
    page = text_of(ada.get("/catalog/features/"))
    assert choices_of(page, "status") == {"active": 3, "deprecated": 1}
    assert choices_of(page, "owner") == {"growth": 2, "care": 1, "nobody": 1}
    assert choices_of(page, "tag") == {"churn": 2, "fraud": 1}  # of p both its own and its group's, once
    assert choices_of(page, "dtype") == {"int64": 3, "float64": 1}
    assert choices_of(page, "group") == {"a": 2, "b": 2}
    assert choices_of(page, "entity") == {"customer": 4}
    assert choices_of(page, "freshness") == {"no rows": 4}

    page = text_of(ada.get("/catalog/features/?dtype=int64&owner=growth"))
    assert list(features_in(page)) == ["a:p"]
    assert choices_of(page, "dtype") == {"int64": 1, "float64": 1}  # of growth's two, as if int64 was not chosen
    assert choices_of(page, "owner") == {"growth": 1, "care": 1, "nobody": 1}  # of the three int64
    assert choices_of(page, "group") == {"a": 1}


def test_a_second_value_of_a_facet_adds_what_it_has_and_an_unknown_one_nothing(ada: Client) -> None:
    make_faceted()
    assert found(ada, owner=["growth", "care"], sort="group") == ["a:p", "a:q", "b:r"]
    assert found(ada, owner=["growth", "nobody_knows"], sort="group") == ["a:p", "a:q"]
    assert choices_of(text_of(ada.get("/catalog/features/?owner=nobody_knows")), "owner")["nobody_knows"] == 0


def test_an_address_shows_the_same_to_somebody_else_and_a_chosen_value_can_be_taken_away(ada: Client) -> None:
    make_faceted()
    address = "/catalog/features/?q=a&status=active&dtype=int64&sort=group"
    mine, theirs = text_of(ada.get(address)), text_of(browser("grace", is_superuser=True).get(address))
    assert list(features_in(mine)) == list(features_in(theirs)) != []
    assert 'href="?q=a&amp;dtype=int64&amp;sort=group"' in mine


def test_a_page_beyond_the_end_is_the_last_one(ada: Client) -> None:
    group = make_customer_group("g", features={})
    for number in range(51):
        add_feature(group, f"f{number:02}", "int64")
    assert found(ada, page=2, sort="name") == ["g:f50"]
    for page in ("3", "999999"):
        assert found(ada, page=page, sort="name") == ["g:f50"]
    for page in ("-1", "0", "abc", "1e9", "9" * 30, "²", ""):
        assert len(found(ada, page=page)) == 50, page


@pytest.mark.parametrize("wild", ["%", "_", "\\", "'", '"', "a%", "[a]", "*"])
def test_a_sign_that_means_something_to_a_database_means_itself(ada: Client, wild: str) -> None:
    group = make_customer_group("plain", features={"a": "int64", "b": "int64"})
    group.features.filter(name="a").update(description=f"x {wild} y")
    assert found(ada, q=wild) == ["plain:a"]


HOSTILE = [
    "q=%F0%9F%A6%86",
    "q=" + "x" * 10_000,
    "q=" + "+".join(["word"] * 500),
    "q=%00",
    "q=a%00b",
    "q=%zz%",
    "q=%FF%FE",
    "q=%ED%A0%80",
    "q=<script>alert(1)</script>",
    "q=" + quote("') OR 1=1 --"),
    "q=a&q=b&q=c",
    "sort=nothing&sort=reads",
    "page=-1&page=1e9",
    "status=unknown&entity=%00&tag=%27&owner=%F0%9F%A6%86&group=" + "y" * 5_000,
    "nobody_asked=for&this=too",
    "&".join(f"tag=t{number}" for number in range(900)),
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "path", ["features/", "find/", "groups/", "entities/", "services/", "datasets/", "lineage/", "inbox/"]
)
def test_no_query_makes_a_page_fail(ada: Client, path: str, query: str) -> None:
    make_faceted()
    page = text_of(ada.get(f"/catalog/{path}", QUERY_STRING=query))
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    "path",
    [
        "features/a%00/p/",
        "features/%F0%9F%A6%86/p/",
        "groups/%27/",
        "groups/%25/",
        "entities/%00/",
        "services/a@b@c/",
        "services/a@99999999999999999999/",
        "services/@/",
        "datasets/%00/",
        "datasets/%ED%A0%80/",
        "groups/" + "z" * 5_000 + "/",
    ],
)
def test_a_name_of_nothing_is_a_page_that_says_so(ada: Client, path: str) -> None:
    response = ada.get(f"/catalog/{path}")
    assert response.status_code == 404
    assert "default-src 'none'" in response["Content-Security-Policy"]
