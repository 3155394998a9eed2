"""Looking a vector up in the browser: the same answer as the API's, in words."""

from __future__ import annotations

import html
import itertools
import json
import logging
import re
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog import rate_limits
from tests.serving.conftest import NOW, Hub, push_row
from tests.serving.test_on_request import define
from tests.serving.test_pages_samples import HTMX, drain, group_named, person, tag_as_personal, text_of, words

TRY = "/catalog/entities/customer/try/"
ONE = "feature:customer_purchases:{}"


def look_up(client: Client, id: str = "C1", *, status: int = 200, **fields: str) -> str:
    """The page that a form leads to, without scripts."""
    response = client.post(TRY, {"key-customer_id": id, **fields})
    assert response.status_code == status, response.content
    return response.content.decode()


def found(page: str) -> dict[str, list[str]]:
    """The words of each row of the result, by its feature."""
    table = page.split("Values table")[1].partition("</table>")[0]
    rows = re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</th>(.*?)</tr>", table, re.DOTALL)
    return {
        words(head): [words(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells, re.DOTALL)]
        for head, cells in rows
    }


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two look-ups of a test there is a minute."""
    minutes = itertools.count(step=60)
    buckets = rate_limits.Buckets(1, clock=lambda: float(next(minutes)))
    monkeypatch.setattr(rate_limits, "buckets", cache(lambda: buckets))


@pytest.fixture
def ada(hub: Hub) -> Client:
    """Somebody who may read everything that is not personal."""
    return person()


def test_all_stored_features_of_an_id_are_found_with_status_time_and_age(hub: Hub, ada: Client) -> None:
    page = look_up(ada)
    rows = found(page)
    assert list(rows) == list(json.loads(hub.get("/features/customer/C1").content))
    value, status, event, age, group = rows["total"]
    assert (value, status, age, group) == ("4", "present", "1 d", "customer_purchases version 1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", event)
    assert rows["taste"][0] == "[0.5, -1.0, 0.25]"
    assert re.search(r"9 values of C1 in \d+\.\d\d ms measured by the server", words(page))


def test_each_of_the_five_statuses_has_its_word(hub: Hub, ada: Client, redis_client: redis.Redis) -> None:
    assert found(look_up(ada, "C2"))["total"][:2] == ["—", "null Null is what is stored or computed."]
    assert found(look_up(ada, "C2"))["tickets"][1].startswith("not found")
    old = found(look_up(ada, "C3"))["total"]
    assert old[1] == "too old Older than the group's TTL: the value is withheld."
    assert old[0] == "—"
    [key] = [key for key in redis_client.scan_iter() if b"support" in key and b"C1" in key]
    redis_client.set(key, b"\xff")
    assert found(look_up(ada, "C1"))["tickets"][1] == "invalid It cannot be read or computed."


def test_one_feature_and_one_service_can_be_chosen(ada: Client) -> None:
    assert list(found(look_up(ada, what=ONE.format("total")))) == ["customer_purchases:total"]
    assert list(found(look_up(ada, what="service:churn@2"))) == ["average", "total"]
    form = text_of(ada.get(TRY))
    assert 'value="service:churn@2"' in form
    assert f'value="{ONE.format("average")}"' in form


@pytest.mark.parametrize("page", ["/catalog/features/customer_purchases/total/use/", "/catalog/services/churn@2/use/"])
def test_the_form_of_a_feature_or_service_looks_just_that_up(ada: Client, page: str) -> None:
    form = text_of(ada.get(page, headers=HTMX))
    [what] = re.findall(r'<input type="hidden" name="what" value="([^"]+)">', form)
    assert "customer_purchases:total" in look_up(ada, what=html.unescape(what)) or "churn" in what
    assert "<select" not in form


def test_htmx_gets_the_result_alone_and_words_for_those_who_do_not_see_it(ada: Client) -> None:
    response = ada.post(TRY, {"key-customer_id": "C1"}, headers=HTMX)
    part = text_of(response)
    assert "<form" not in part
    assert '<div id="told" hx-swap-oob="innerHTML">9 values found</div>' in part
    error = ada.post(TRY, {"key-customer_id": "nobody"}, headers=HTMX)  # htmx shows no body of a 404
    assert "There is no row of this customer" in text_of(error)


def test_an_id_with_new_rows_is_one_click_away(ada: Client) -> None:
    push_row("customer_purchases", NOW, customer_id="a/b,c~", total=1)
    drain()
    [form] = re.findall(r'<form class="try".*?</form>', text_of(ada.get(TRY)), re.DOTALL)
    ids = [html.unescape(id) for id in re.findall(r'name="id" value="([^"]*)" formnovalidate', form)]
    assert ids == ["a~sb~cc~t", "C2", "C1", "C3"]
    response = ada.post(TRY, {"key-customer_id": "", "id": ids[0]})
    assert found(text_of(response))["total"][0] == "1"


def test_ids_are_suggested_of_several_groups_and_a_damaged_one_has_none(ada: Client, settings: Any) -> None:
    push_row("support", NOW, customer_id="only in support", tickets=1)
    drain()
    assert "only in support" in text_of(ada.get(TRY))
    for path in settings.FEATUREHUB_OFFLINE_PATH.glob("customer_purchases/v1/*.parquet"):
        path.write_bytes(b"damaged")
    page = text_of(ada.get(TRY))
    assert "only in support" in page
    assert 'value="C2"' not in page
    assert ada.get("/catalog/groups/customer_purchases/samples/").status_code == 500


def test_an_entity_with_several_keys_has_a_field_for_each(ada: Client) -> None:
    push_row("shop_ratings", country="a,b", shop_number=7, rating=4.5)
    page = ada.post("/catalog/entities/shop/try/", {"key-country": "a,b", "key-shop_number": "7"})
    assert found(text_of(page))["rating"][0] == "4.5"
    page = ada.post("/catalog/entities/shop/try/", {"key-country": "a,b", "key-shop_number": "007"})
    assert (page.status_code, "7, not 007" in page.content.decode()) == (400, True)
    page = ada.post("/catalog/entities/shop/try/", {"key-country": "a,b"})
    assert (page.status_code, "shop_number: an id is needed" in page.content.decode()) == (400, True)


# -- Features computed on request


def test_request_inputs_are_fields_of_the_form(ada: Client) -> None:
    define(
        {"cart_value": "float64", "items": "int64", "gift": "bool", "at": "timestamp", "sizes": "list<int64>"},
        {
            "cart_ratio": ("float64", "cart_value / average"),
            "many": ("bool", "items > 3 AND gift"),
            "when_at": ("timestamp", "at"),
            "sized": ("list<int64>", "sizes"),
        },
    )
    form = text_of(ada.get("/catalog/features/customer_purchases/cart_ratio/use/", headers=HTMX))
    assert re.findall(r'name="request-(\w+)"', form) == ["cart_value"]
    ask = {"what": ONE.format("cart_ratio"), "request-items": "not needed"}
    page = look_up(ada, **ask, **{"request-cart_value": "100"})
    assert found(page)["customer_purchases:cart_ratio"][:3] == ["4.0", "present", "computed now"]
    assert '"request": {"cart_value": [100.0]}' in html.unescape(page)
    assert found(look_up(ada, **ask))["customer_purchases:cart_ratio"][0] == "—"  # an empty field is null
    many = ONE.format("many")
    page = look_up(ada, what=many, **{"request-items": "4", "request-gift": "true"})
    assert found(page)["customer_purchases:many"][0] == "true"
    for wrong, told in (("4.0", "a whole number is right"), ("9" * 10_000, "a whole number is right"), ("9" * 19, "")):
        page = look_up(ada, what=many, status=400, **{"request-items": wrong, "request-gift": "true"})
        assert told in page
    page = look_up(ada, what=many, status=400, **{"request-gift": "maybe"})
    assert "true or false is right" in page
    for wrong in ("nan", "1e999", "x"):
        look_up(ada, what=ONE.format("cart_ratio"), status=400, **{"request-cart_value": wrong})
    page = look_up(ada, what=ONE.format("sized"), **{"request-sizes": "[1, 2]"})
    assert found(page)["customer_purchases:sized"][0] == "[1, 2]"
    look_up(ada, what=ONE.format("sized"), status=400, **{"request-sizes": "[1, "})
    page = look_up(ada, what=ONE.format("when_at"), **{"request-at": "2026-01-31T12:00:00Z"})
    assert found(page)["customer_purchases:when_at"][0] == "2026-01-31 12:00:00"


# -- Errors


def test_what_goes_wrong_is_said_in_words(hub: Hub, ada: Client) -> None:
    from catalog import snapshot
    from catalog.models import Feature, Status

    assert "Not found (404)" in words(look_up(ada, "nobody", status=404))
    page = words(look_up(ada, what=ONE.format("totl"), status=400))
    assert "has no feature named 'customer_purchases:totl'" in page
    assert "Did you mean customer_purchases:total" in page
    assert "no version '9' of churn" in words(look_up(ada, what="service:churn@9", status=400))
    look_up(ada, what="nonsense", status=400)
    for status, code, told in ((Status.DRAFT, 409, "Not served yet"), (Status.ARCHIVED, 410, "Archived")):
        Feature.objects.filter(name="tickets").update(status=status)
        snapshot.forget()
        assert told in words(look_up(ada, what="feature:support:tickets", status=code))
        snapshot.forget()


def test_a_store_that_is_down_is_said_in_words(ada: Client, redis_client: redis.Redis) -> None:
    redis_client.flushall()
    assert "Not available now (503)" in words(look_up(ada, status=503))


@pytest.mark.parametrize(
    "id", ["<script>alert(1)</script>", "x" * 10_000, "a\0b", "😀" * 50, "'; DROP TABLE", "{{ 7|add:7 }}", "~x", " "]
)
def test_odd_ids_are_data_or_an_error_and_show_as_text(ada: Client, id: str) -> None:
    for fields in ({"key-customer_id": id}, {"id": id}, {"key-customer_id": "C1", "what": f"feature:{id}"}):
        for headers in ({}, HTMX):
            response = ada.post(TRY, fields, headers=headers)
            assert response.status_code in (200, 400, 404)
            assert b"<script>alert" not in response.content
            assert b"\0" not in response.content


def test_an_odd_id_that_is_there_shows_as_text(ada: Client) -> None:
    bad = "<img src=x onerror=alert(1)>'\"😀"
    push_row("customer_purchases", NOW, customer_id=bad, segment=bad)
    page = look_up(ada, bad, what=ONE.format("segment"))
    assert "<img" not in page
    assert found(page)["customer_purchases:segment"][0] == bad


# -- The same as a command


def test_the_command_asks_the_api_for_the_same(hub: Hub, ada: Client) -> None:
    push_row("support", NOW, customer_id="a/b c", tickets=3)
    page = look_up(ada, "a/b c", what="feature:support:tickets")
    command = html.unescape(re.findall(r'<code id="looked-curl">(.*?)</code>', page, re.DOTALL)[0])
    assert "Bearer $FEATUREHUB_API_KEY" in command
    address = urlsplit(command.split("'")[1])
    assert (address.netloc, parse_qs(address.query)) == ("testserver", {"features": ["support:tickets"]})
    answer = hub.get(f"{address.path}?{address.query}")
    assert json.loads(answer.content) == {"support:tickets": 3}


# -- Rights


def test_only_what_a_person_may_read_is_looked_up_and_the_rest_named(hub: Hub) -> None:
    browser = person("support", "viewer")
    page = look_up(browser)
    assert list(found(page)) == ["support:tickets", "support:segment"]
    assert "Left out, since you may not read them: customer_purchases:total" in words(page)
    assert "customer_purchases:" not in text_of(browser.get(TRY))
    refused = words(look_up(browser, what=ONE.format("total"), status=403))
    assert "ada may not read customer_purchases" in refused
    assert browser.get("/catalog/features/customer_purchases/total/use/").status_code == 404
    assert look_up(person_without_anything(), status=403)


def person_without_anything() -> Client:
    from django.contrib.auth.models import User

    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_user("eve"))
    return client


def test_personal_features_are_left_out_and_refused_when_they_are_asked_for(hub: Hub, ada: Client) -> None:
    tag_as_personal(group_named("support").features.get(name="tickets"))
    page = look_up(ada)
    assert "tickets" not in found(page)
    assert "support:tickets" in words(page).split("Left out")[1]
    assert "needs the scope 'pii:read'" in words(look_up(ada, what="feature:support:tickets", status=403))


def test_personal_ids_are_neither_suggested_nor_pasted(hub: Hub, ada: Client) -> None:
    drain()
    tag_as_personal(group_named().entity)
    for address in (TRY, "/catalog/features/customer_purchases/total/use/", "/catalog/services/churn@2/use/"):
        page = text_of(ada.get(address))
        assert not re.search(r"\bC[123]\b", page)
        assert "No ids are suggested" in words(page)
    assert "&lt;customer_id&gt;" in page
    assert list(found(look_up(ada, "C1")))  # who knows an id may ask for it
    owner = text_of(hub.get(TRY))  # its key has pii:read
    assert 'name="id" value="C1"' in owner


def test_anonymous_readers_of_this_machine_may_look_up_and_nobody_else(hub: Hub, settings: Any) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    assert "C1" in look_up(Client())
    away = Client(REMOTE_ADDR="203.0.113.7").post(TRY, {"key-customer_id": "C1"})
    assert (away.status_code, away["Location"].startswith("/login/")) == (302, True)


def test_a_look_up_needs_the_token_of_its_form(hub: Hub, settings: Any) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    client = Client(enforce_csrf_checks=True)
    assert client.post(TRY, {"key-customer_id": "C1"}).status_code == 403
    [token] = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', text_of(client.get(TRY))))
    assert client.post(TRY, {"key-customer_id": "C1", "csrfmiddlewaretoken": token}).status_code == 200


# -- Traces


def test_a_look_up_is_counted_as_a_read_and_its_id_stands_in_no_log_and_no_address(
    hub: Hub, ada: Client, caplog: pytest.LogCaptureFixture
) -> None:
    from catalog import usage
    from catalog.models import FeatureUse

    usage.record()
    FeatureUse.objects.all().delete()
    with caplog.at_level(logging.DEBUG):
        response: HttpResponse = ada.post(TRY, {"key-customer_id": "C1", "what": "feature:support:tickets"})
        look_up(ada, "somebody-secret", status=404)
    usage.record()
    assert [(str(use.feature), use.requests) for use in FeatureUse.objects.all()] == [("support:tickets", 1)]
    assert "somebody-secret" not in caplog.text
    assert response["Cache-Control"] == "private, no-store"
    assert 'method="post"' in text_of(ada.get(TRY))
    assert "prefilled" not in text_of(ada.get(f"{TRY}?key-customer_id=prefilled"))


def test_a_person_looks_up_at_most_ten_times_a_second(hub: Hub, ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = rate_limits.Buckets(1, clock=lambda: 0.0)
    monkeypatch.setattr(rate_limits, "buckets", cache(lambda: stopped))
    for _ in range(10):
        look_up(ada)
    response = ada.post(TRY, {"key-customer_id": "C1"})
    assert (response.status_code, response["Retry-After"]) == (429, "1")
    assert "Too many look-ups" in response.content.decode()
    other = {"Authorization": f"Bearer {hub.key}"}
    assert Client().post(TRY, {"key-customer_id": "C1"}, headers=other).status_code == 200


def test_the_number_of_queries_does_not_grow_with_groups_and_features(hub: Hub, ada: Client) -> None:
    from django.db import connection

    from catalog import snapshot
    from tests.factories import add_feature, make_customer_group

    def queries(address: str) -> int:
        snapshot.current()
        with CaptureQueriesContext(connection) as asked:
            text_of(ada.get(address))
        return len(asked)

    addresses = ["/catalog/features/customer_purchases/total/use/", "/catalog/services/churn@2/use/"]
    drain()
    before = [queries(address) for address in addresses]
    for number in range(20):
        add_feature(group_named(), f"more_{number}", "int64")
        make_customer_group(f"more_{number}", features={"one": "int64"})
        push_row("customer_purchases", NOW - timedelta(minutes=number), customer_id=f"N{number}")
    snapshot.forget()
    assert [queries(address) for address in addresses] == before
