"""Lists of the registry: what is on them, how they are narrowed down, and how somebody walks through their pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.catalog.registry.conftest import BASE, Asking, holder, named, person

pytestmark = [pytest.mark.django_db, pytest.mark.database]

KINDS = ("entities", "feature-groups", "features", "feature-services", "data-sources", "owners", "tags")


def make_features(count: int, group: str = "customer_purchases") -> None:
    from catalog.models import Feature, FeatureGroup

    of = FeatureGroup.objects.get(name=group)
    Feature.objects.bulk_create(
        Feature(group=of, name=f"more_{number:03}", dtype="int64", type="numerical", position=100 + number)
        for number in range(count)
    )


def below(url: str) -> str:
    """The address of a page as it is asked for here."""
    parts = urlsplit(url)
    assert parts.path.startswith(BASE)
    return f"{parts.path.removeprefix(BASE).strip('/')}?{parts.query}"


def walked(asking: Asking, path: str, *, towards: str = "next") -> list[list[str]]:
    """The names on each page from one on."""
    pages, following = [], path
    for _ in range(100):
        answer = asking.get(following)
        assert answer.status == 200, answer.document
        pages.append([named(thing) for thing in answer.document["results"]])
        if answer.document[towards] is None:
            return pages
        following = below(answer.document[towards])
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("entities", ["customer"]),
        ("feature-groups/", ["customer_purchases", "support"]),
        ("feature-services", ["churn"]),
        ("data-sources", ["customer_purchases_files"]),
        ("owners", ["growth"]),
        ("tags", []),
        ("feature-groups?owner=growth", ["customer_purchases"]),
        ("feature-groups?owner=nobody", []),
        ("feature-groups?entity=customer&status=active", ["customer_purchases", "support"]),
        ("feature-groups?status=draft", []),
        ("feature-services?group=support", []),
        ("feature-services?group=customer_purchases&status=active", ["churn"]),
        ("data-sources?group=support", []),
        ("feature-groups?q=RUNNING", ["customer_purchases"]),
        ("feature-groups?q=supp", ["support"]),
        ("owners?q=example.com", ["growth"]),
        ("features?group=support", ["support:tickets"]),
        ("features?dtype=float64", ["customer_purchases:avg_purchase_value"]),
        ("features?type=categorical&entity=customer", ["customer_purchases:customer_segment"]),
        ("features?service=churn", ["customer_purchases:total_purchases"]),
        ("features?q=ticket&status=active", ["support:tickets"]),
    ],
)
def test_a_list_holds_what_its_parameters_leave(ci: Asking, path: str, names: list[str]) -> None:
    assert ci.names(path) == names


def test_features_are_found_by_the_status_and_the_owner_that_count(ci: Asking, catalog: Any) -> None:
    from catalog.models import Owner, Tag

    average = catalog.features.get(name="avg_purchase_value")
    average.status, average.owner = "deprecated", Owner.objects.create(name="risk")
    average.save()
    average.tags.add(Tag.objects.create(name="money"))
    catalog.tags.add(Tag.objects.create(name="purchases"))
    one = ["customer_purchases:avg_purchase_value"]
    assert ci.names("features?status=deprecated") == one
    assert ci.names("features?owner=risk") == one
    assert ci.names("features?tag=money") == one
    assert ci.names("features?owner=growth") == [
        *("customer_purchases:customer_segment", "customer_purchases:total_purchases")
    ]
    assert ci.names("feature-groups?tag=purchases") == ["customer_purchases"]
    assert ci.names("tags?q=urch") == ["purchases"]
    catalog.status = "archived"
    catalog.save()
    assert len(ci.names("features?status=archived&group=customer_purchases")) == 3


def test_pages_hold_each_of_250_features_once_in_both_directions(ci: Asking) -> None:
    make_features(250)
    everything = [name for page in walked(ci, "features?limit=200") for name in page]
    assert len(everything) == 254
    assert everything == sorted(set(everything))
    pages = walked(ci, "features?limit=40")
    assert [len(page) for page in pages] == [40] * 6 + [14]
    assert [name for page in pages for name in page] == everything

    last = ci.get("features?limit=200").document["next"]
    back = walked(ci, below(last), towards="previous")
    assert [name for page in reversed(back) for name in page] == everything


def test_what_is_added_while_somebody_walks_moves_nothing_to_another_page(ci: Asking) -> None:
    make_features(6)
    first = ci.get("features?limit=3&group=customer_purchases").document
    seen = [named(thing) for thing in first["results"]]
    assert seen[-1] == "customer_purchases:more_000" or len(seen) == 3
    ci_before = [name for page in walked(ci, below(first["next"])) for name in page]
    from catalog.models import Feature, FeatureGroup

    group = FeatureGroup.objects.get(name="customer_purchases")
    Feature.objects.create(group=group, name="aa_new", dtype="int64", type="numerical", position=99)
    rest = [name for page in walked(ci, below(first["next"])) for name in page]
    assert rest == ci_before
    assert "customer_purchases:aa_new" not in seen + rest
    Feature.objects.create(group=group, name="zz_new", dtype="int64", type="numerical", position=98)
    assert walked(ci, below(first["next"]))[-1][-1] == "customer_purchases:zz_new"


def test_versions_of_a_service_are_told_apart_on_pages(ci: Asking) -> None:
    from catalog.models import FeatureService

    for version in (2, 10):
        FeatureService.objects.create(name="churn", version=version)
    found, following = [], "feature-services?limit=1"
    for _ in range(3):
        document = ci.get(following).document
        found += [thing["version"] for thing in document["results"]]
        following = below(document["next"]) if document["next"] else ""
    assert (found, following) == ([1, 2, 10], "")


#: What cannot be asked for: the parameter that is wrong, and what is like it.
REFUSED = {
    "limt=3": ("limt", ["limit"]),
    "cursr=": ("cursr", ["cursor"]),
    "q=a&q=b": ("q", []),
    "limit=0": ("limit", []),
    "limit=201": ("limit", []),
    "limit=%C2%B2": ("limit", []),
    "cursor=": ("cursor", []),
    "cursor=nonsense": ("cursor", []),
    "cursor=W10": ("cursor", []),  # []
    "cursor=WyJhZnRlciJd": ("cursor", []),  # ["after"]
    "cursor=WyJhZnRlciIsMSwyLDNd": ("cursor", []),  # ["after",1,2,3]
    "cursor=%00": ("cursor", []),
    "cursor=" + "W" * 5000: ("cursor", []),
    "q=%00": ("q", []),
}
TEXTS = ["%", "_", "\\", "'", '"', "'; --", "💜" * 2000, "a" * 10_240, "%" * 10_240, "\ufeff", " "]


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_that_cannot_be_used_is_named(ci: Asking, kind: str) -> None:
    for query, wrong in REFUSED.items():
        answer = ci.get(f"{kind}?{query}")
        told = [(error["pointer"], error["did_you_mean"]) for error in answer.document["errors"]]
        assert (answer.status, told) == (400, [wrong]), query


def test_a_status_that_is_none_is_answered_with_those_that_are(ci: Asking) -> None:
    answer = ci.get("features?status=activ")
    assert answer.status == 400
    (error,) = answer.document["errors"]
    assert error["pointer"] == "status"
    assert error["did_you_mean"][0] == "active"
    assert "draft, active, deprecated, archived" in error["detail"]


def test_no_choice_is_not_every_choice(ci: Asking) -> None:
    answer = ci.get("features?status=&type=")
    assert (answer.status, [pointer for pointer, _ in answer.problems]) == (400, ["status", "type"])


def test_a_parameter_of_another_kind_is_unknown(ci: Asking) -> None:
    answer = ci.get("owners?stats=active&entity=customer")
    assert [error["pointer"] for error in answer.document["errors"]] == ["stats", "entity"]


def test_what_is_found_in_two_ways_is_listed_once(ci: Asking, catalog: Any) -> None:
    from catalog.models import FeatureService

    total = catalog.features.get(name="total_purchases")
    second = FeatureService.objects.create(name="churn", version=2)
    for position, feature in enumerate([total, catalog.features.get(name="avg_purchase_value")]):
        second.chosen.create(feature=feature, position=position)
    found = ["customer_purchases:avg_purchase_value", "customer_purchases:total_purchases"]
    assert ci.names("features?service=churn") == found
    assert ci.names("feature-services?group=customer_purchases") == ["churn", "churn"]


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_may_be_searched_for(ci: Asking, kind: str) -> None:
    for text in TEXTS:
        assert ci.get(f"{kind}?q={quote(text)}").status == 200, text[:20]


def test_signs_of_a_pattern_are_only_text(ci: Asking, catalog: Any) -> None:
    catalog.description = "100% of 'purchases' 💜"
    catalog.save()
    for text in ("100%", "%", "'purchases'", "💜"):
        assert ci.names(f"feature-groups?q={quote(text)}") == ["customer_purchases"], text
    assert ci.names("feature-groups?q=1%25%25f") == []
    assert ci.names("features?q=total_p") == ["customer_purchases:total_purchases"]
    assert ci.names("features?q=total%25p") == []


def test_a_text_that_no_database_searches_for_is_refused_by_name(ci: Asking) -> None:
    answer = ci.get(f"features?q={'a' * 30_000}")
    assert (answer.status, answer.problems) == (400, [("q", "has at most 20000 bytes")])


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_takes_as_many_queries_whatever_is_on_it(ci: Asking, kind: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            answer = ci.get(f"{kind}?limit=200")
        counts.append(len(answer.document["results"]))
        return len(captured)

    counts: list[int] = []
    make_one_more(0)
    ci.get(kind)  # the key is known from now on
    few = queries()
    for number in range(1, 6):
        make_one_more(number)
    make_features(30)
    assert queries() == few
    assert counts[1] >= counts[0] + 5
    assert few <= 12


def make_one_more(number: int) -> None:
    """Of each kind one more, with all that belongs to it."""
    from django.contrib.auth.models import User

    from catalog.models import FeatureService, Owner, Tag
    from tests.factories import make_customer_group, make_entity

    owner = Owner.objects.create(name=f"team_{number}")
    owner.members.add(User.objects.create(username=f"member_{number}"))
    tag = Tag.objects.create(name=f"tag_{number}")
    entity = make_entity(f"entity_{number}", {f"id_{number}": "string"})
    group = make_customer_group(f"group_{number}", inputs={"raw": "int64"}, source=f"{number}.csv", owner=owner)
    feature = group.features.get(name="total_purchases")
    service = FeatureService.objects.create(name=f"service_{number}", owner=owner)
    service.chosen.create(feature=feature, position=0)
    other = group.features.get(name="avg_purchase_value")
    other.owner, other.status, other.replaced_by = owner, "deprecated", feature
    other.save()
    for thing in (entity, group, feature, service):
        thing.tags.add(tag)


# -- What a caller may read


def test_a_key_without_read_lists_nothing(ci: Asking) -> None:
    assert holder("registry").get("features").status == 403


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("feature-groups", ["support"]),
        ("features", ["support:tickets"]),
        ("entities", []),
        ("feature-services", []),
        ("data-sources", []),
        ("owners", []),
        ("tags", []),
    ],
)
def test_a_key_for_one_group_lists_what_is_of_it_alone(ci: Asking, kind: str, seen: list[str]) -> None:
    limited = holder("read", groups=["support"])
    assert limited.names(kind) == seen
    everything = ci.get(kind).document["results"]
    for thing in everything:
        path = named(thing).replace(":", "/")
        assert limited.get(f"{kind}/{path}").status == (200 if named(thing) in seen else 404)


def test_lists_hold_exactly_what_the_one_rule_allows(ci: Asking, catalog: Any) -> None:
    """For every kind and caller: the query of a list finds what `allowed` says of each thing."""
    from django.contrib.auth.models import Permission, User

    from catalog.access import READ, allowed, seen
    from catalog.actions import ANONYMOUS_READER, Caller
    from catalog.models import Entity, FeatureGroup, GroupRole, Owner, Tag
    from catalog.registry.kinds import KINDS as ALL
    from tests.factories import make_entity

    Tag.objects.create(name="purchases")
    lonely = make_entity("lonely", {"id": "int64"})
    Entity.objects.filter(pk=lonely.pk).update(owner=Owner.objects.create(name="care"))
    callers: list[Any] = [
        ANONYMOUS_READER,
        Caller("none", frozenset()),
        *(Caller("limited", frozenset({"read"}), frozenset(names)) for names in ([], ["support"])),
        Caller("both", frozenset({"read"}), frozenset({"support", "customer_purchases"})),
    ]
    for name in ("nobody", "viewer", "owner", "entities", "root"):
        callers.append(User.objects.create(username=name, is_superuser=name == "root"))
    team = Owner.objects.create(name="viewers")
    team.members.add(User.objects.get(username="viewer"))
    GroupRole.objects.create(group=FeatureGroup.objects.get(name="support"), team=team, role="viewer")
    Owner.objects.get(name="care").members.add(User.objects.get(username="owner"))
    User.objects.get(username="entities").user_permissions.add(Permission.objects.get(codename="view_entity"))
    different = set()
    for caller in callers:
        found = [[row.pk for row in seen(caller, kind.rows())] for kind in ALL]
        assert found == [[row.pk for row in kind.rows() if allowed(caller, READ, row)] for kind in ALL], caller
        different.add(str(found))
    assert len(different) > 5


def test_a_person_with_a_role_lists_the_groups_that_it_is_for(ci: Asking) -> None:
    from django.contrib.auth.models import User

    from catalog.models import FeatureGroup, GroupRole, Owner

    viewer = person("viewer")
    assert viewer.get("features").status == 403
    team = Owner.objects.create(name="team")
    team.members.add(User.objects.get(username="viewer"))
    GroupRole.objects.create(group=FeatureGroup.objects.get(name="support"), team=team, role="viewer")
    assert viewer.names("features") == ["support:tickets"]
    assert viewer.names("entities") == ["customer"]
    assert viewer.get("feature-groups/customer_purchases").status == 404
