"""GET /features/<entity>/<id>: names, ids, shapes and parameters."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from django.http import HttpResponse

from tests.serving.conftest import YESTERDAY, Hub, push_row

ALL_OF_C1 = {
    "total": 4,
    "customer_purchases:segment": "gold",
    "is_member": True,
    "last_seen": "2026-01-02T03:04:05Z",
    "taste": [0.5, -1.0, 0.25],
    "recent": [1, 2**60],
    "average": 25.0,
    "tickets": 2,
    "support:segment": "calm",
}


def answer_of(response: HttpResponse, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == ("application/json" if status == 200 else "application/problem+json")
    return json.loads(response.content)


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_entity_without_names_gives_every_served_feature_bare_unless_two_groups_share_the_name(
    hub: Hub, slash: str
) -> None:
    answer = answer_of(hub.get(f"/features/customer/C1{slash}"))
    assert answer == ALL_OF_C1
    assert list(answer) == list(ALL_OF_C1)


@pytest.mark.parametrize(
    "names", ["average,total", "total,average", "support:segment,total,customer_purchases:segment"]
)
def test_keys_stand_in_the_order_asked_and_as_asked(hub: Hub, names: str) -> None:
    answer = answer_of(hub.get(f"/features/customer/C1?features={names}"))
    assert list(answer) == names.split(",")
    assert answer["total"] == 4


def test_the_first_part_may_be_a_group_and_an_entity_of_that_name_comes_first(hub: Hub) -> None:
    from tests.serving.conftest import make_group

    assert answer_of(hub.get("/features/support/C1")) == {"tickets": 2, "segment": "calm"}
    make_group("customer", "product", {"unrelated": "int64"})  # a group called as the entity
    _see_the_change()
    assert answer_of(hub.get("/features/customer/C1?features=total")) == {"total": 4}


def _see_the_change() -> None:
    """In a test's transaction nothing is published: this process asks the database."""
    from catalog import snapshot

    snapshot.forget()


def test_an_ambiguous_name_is_refused_with_the_choices(hub: Hub) -> None:
    answer = answer_of(hub.get("/features/customer/C1?features=segment"), 400)
    assert answer["code"] == "ambiguous_name"
    assert answer["errors"][0]["did_you_mean"] == ["customer_purchases:segment", "support:segment"]


def test_unknown_names_are_all_listed_with_near_ones(hub: Hub) -> None:
    answer = answer_of(hub.get("/features/customer/C1?features=totl,averag"), 400)
    assert answer["code"] == "unknown_name"
    assert [(e["pointer"], e["did_you_mean"][0]) for e in answer["errors"]] == [
        ("totl", "total"),
        ("averag", "average"),
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/features/custmer/C1", 404, "not_found"),
        ("/features/customer/nobody", 404, "entity_not_found"),
        ("/features/support/C2", 404, "entity_not_found"),
        ("/features/customer/C1?features=", 400, "unknown_name"),
        ("/features/customer/C1?features=stock", 400, "unknown_name"),
        ("/features/customer/C1?feature=total", 400, "invalid_input"),
        ("/features/customer/C1?features=total&features=tickets", 400, "invalid_input"),
        ("/features/customer/C1?features=total&feature_service=churn", 400, "invalid_input"),
        ("/features/customer/C1?include=everything", 400, "invalid_input"),
        ("/features/customer/C1?int64=float", 400, "invalid_input"),
        ("/features/shop/FR,1?feature_service=churn", 400, "invalid_input"),
        ("/features/customer/C1?feature_service=chrn", 400, "unknown_name"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_with_a_code(hub: Hub, path: str, status: int, code: str) -> None:
    assert answer_of(hub.get(path), status)["code"] == code


def test_an_unknown_entity_is_answered_with_near_names(hub: Hub) -> None:
    assert answer_of(hub.get("/features/custmer/C1"), 404)["errors"][0]["did_you_mean"] == ["customer"]


def test_an_id_that_some_groups_have_is_answered_with_nulls_for_the_others(hub: Hub) -> None:
    push_row("support", customer_id="C4", tickets=1, segment=None)
    assert answer_of(hub.get("/features/customer/C4?features=tickets,total")) == {"tickets": 1, "total": None}


def test_a_service_is_its_highest_active_version_or_the_one_named(hub: Hub) -> None:
    assert answer_of(hub.get("/features/customer/C1?feature_service=churn")) == {"average": 25.0, "total": 4}
    assert answer_of(hub.get("/features/customer/C1?feature_service=churn@1")) == {"total": 4}
    assert "churn@1" in answer_of(hub.get("/features/customer/C1?feature_service=churn@7"), 400)["detail"]


def test_meta_tells_status_time_age_group_and_version_of_each_value(hub: Hub) -> None:
    answer = answer_of(hub.get("/features/customer/C1?features=tickets,is_member&include=meta"))
    assert list(answer) == ["entity", "id", "features", "meta"]
    assert (answer["entity"], answer["id"], answer["features"]) == ("customer", "C1", {"tickets": 2, "is_member": True})
    assert list(answer["meta"]) == ["tickets", "is_member"]
    meta = answer["meta"]["tickets"]
    assert list(meta) == ["status", "event_timestamp", "age_seconds", "group", "version"]
    assert meta["event_timestamp"] == YESTERDAY.isoformat().replace("+00:00", "Z")
    assert 86_400 <= meta.pop("age_seconds") < 86_400 + 600
    assert (meta["status"], meta["group"], meta["version"]) == ("PRESENT", "support", 1)


def test_meta_of_a_missing_row_has_neither_time_nor_age(hub: Hub) -> None:
    meta = answer_of(hub.get("/features/customer/C2?features=total,tickets&include=meta"))["meta"]
    assert (meta["total"]["status"], meta["total"]["event_timestamp"] is None) == ("NULL_VALUE", False)
    assert (meta["tickets"]["status"], meta["tickets"]["event_timestamp"]) == ("NOT_FOUND", None)
    assert meta["tickets"]["age_seconds"] is None


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63)])
def test_int64_is_a_json_integer_beyond_2_to_the_53_and_a_text_when_asked(hub: Hub, number: int) -> None:
    push_row("product_stock", product_id=1, stock=number)
    assert hub.get("/features/product/1").content == b'{"stock":%d}' % number
    assert answer_of(hub.get("/features/product/1?int64=string")) == {"stock": str(number)}
    assert answer_of(hub.get("/features/product/1?int64=number")) == {"stock": number}


def test_int64_as_text_reaches_into_lists(hub: Hub) -> None:
    answer = answer_of(hub.get("/features/customer/C1?features=recent,average&int64=string"))
    assert answer == {"recent": ["1", str(2**60)], "average": 25.0}


@pytest.mark.parametrize(
    "customer",
    ["a,b", "a/b", "~", "~c", "🛒", "e\u0301", "\u00e9", "}{", "{x}", " ", "C1 ", "a b", "%2C", "a+b", ".", "x" * 512],
)
def test_an_id_finds_the_row_it_was_pushed_with_and_no_other(hub: Hub, customer: str) -> None:
    push_row("support", customer_id=customer, tickets=77)
    escaped = customer.replace("~", "~t").replace(",", "~c").replace("/", "~s")
    assert answer_of(hub.get(f"/features/support/{quote(escaped, safe='')}?features=tickets")) == {"tickets": 77}
    assert answer_of(hub.get("/features/support/C1?features=tickets")) == {"tickets": 2}


def test_letters_that_only_look_alike_are_different_ids(hub: Hub) -> None:
    push_row("support", customer_id="e\u0301", tickets=1)
    assert answer_of(hub.get(f"/features/support/{quote(chr(0xE9))}"), 404)["code"] == "entity_not_found"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/features/customer/a%2Cb", "2 parts"),
        ("/features/customer/a,b", "2 parts"),
        ("/features/customer/~x", "no escape"),
        (f"/features/customer/{'x' * 513}", "512 bytes"),
        (f"/features/customer/{quote('é' * 257)}", "512 bytes"),
        ("/features/product/007", "not 007"),
        ("/features/product/1.0", "int64"),
        ("/features/product/%D9%A7", "int64"),  # an Arabic seven
        ("/features/product/9223372036854775808", "does not fit"),
        ("/features/shop/FR", "<country>,<shop_number>"),
        ("/features/shop/FR,x", "shop_number"),
    ],
)
def test_an_id_that_can_be_no_ones_is_refused_saying_why(hub: Hub, path: str, told: str) -> None:
    answer = answer_of(hub.get(path), 400)
    assert told in answer["detail"]


def test_a_decoded_slash_in_an_id_is_another_address_so_ids_escape_it(hub: Hub) -> None:
    assert answer_of(hub.get("/features/support/a%2Fb"), 404)["code"] == "not_found"


def test_a_composite_id_is_its_values_in_order_each_escaped(hub: Hub) -> None:
    push_row("shop_ratings", country="a,b", shop_number=-7, rating=4.5)
    assert answer_of(hub.get("/features/shop/a~cb,-7")) == {"rating": 4.5}
    assert answer_of(hub.get("/features/shop/a~cb%2C-7")) == {"rating": 4.5}


def test_a_float_that_is_whole_stays_a_float_and_no_answer_has_nan(hub: Hub) -> None:
    push_row("shop_ratings", country="FR", shop_number=1, rating=3)
    assert hub.get("/features/shop/FR,1").content == b'{"rating":3.0}'
    assert b"NaN" not in hub.get("/features/customer/C2").content
