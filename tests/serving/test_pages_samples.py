"""The newest rows of a group in the browser: what they show, and to whom."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from engine.offline import newest
from engine.schema import Dtype
from tests.serving.conftest import NOW, Hub, push_row

HTMX = {"HX-Request": "true"}
ROWS = "/catalog/groups/customer_purchases/samples/"
VALUES = "/catalog/features/customer_purchases/{}/samples/"


def drain(*groups: str) -> None:
    """Bring what was pushed into the offline store."""
    from ingestion import drain, push

    for group in groups or ("customer_purchases", "support"):
        drain.drain(push.find_group(group))


def person(group: str = "", role: str = "", *, pii: bool = False) -> Client:
    """The browser of somebody with a role in one group, or who may see everything."""
    from django.contrib.auth.models import Permission, User

    from catalog.models import FeatureGroup, GroupRole, Owner

    user = User.objects.create_user("ada")
    if group:
        team = Owner.objects.create(name="team")
        team.members.add(user)
        GroupRole.objects.create(group=FeatureGroup.objects.get(name=group), team=team, role=role)
    else:
        user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    if pii:
        user.user_permissions.add(Permission.objects.get(codename="read_pii_featuregroup"))
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def tag_as_personal(*things: Any) -> None:
    from catalog import snapshot
    from catalog.models import Tag

    tag, _ = Tag.objects.get_or_create(name="pii")
    for thing in things:
        thing.tags.add(tag)
    snapshot.forget()


def group_named(name: str = "customer_purchases") -> Any:
    from catalog.models import FeatureGroup

    return FeatureGroup.objects.get(name=name)


def text_of(response: HttpResponse) -> str:
    assert response.status_code == 200, response.content
    return response.content.decode()


def cells(page: str) -> list[list[str]]:
    """The words of the table's cells, row by row."""
    body = re.findall(r"<tr>(.*?)</tr>", page.split("<tbody>")[1].partition("</tbody>")[0], re.DOTALL)
    return [[words(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in body]


def words(markup: str) -> str:
    without_icons = re.sub(r'<span class="ms".*?</span>', "", markup)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", without_icons).split()))


def test_the_newest_rows_are_shown_with_null_in_words_and_long_values_cut(hub: Hub) -> None:
    push_row("customer_purchases", NOW, customer_id="C4", segment="x" * 10_000, taste=[1.5] * 3, recent=list(range(9)))
    push_row("customer_purchases", NOW, customer_id="C5", segment="", total=1_234_567, is_member=False)
    drain()
    page = text_of(hub.get(ROWS, **HTMX))
    c5, c4, c2, c1, c3 = cells(page)
    assert c5[2:] == ["1,234,567", "empty text", "false", "null", "null", "null", "null", "null"]
    assert c4[3] == f"{'x' * 80}… 10,000 characters"
    assert c4[6:8] == ["[1.5, 1.5, 1.5]", "[0, 1, 2, 3, …] 9 numbers"]
    assert c1[0] == "C1"
    assert c1[5] == "2026-01-02 03:04:05"
    assert c2[2] == "null"
    assert c3[0] == "C3"
    assert '<td class="number"><span title="1234567">1,234,567</span></td>' in page
    assert "The newest 5 rows by event time. Offline store as of" in words(page)


def test_the_part_alone_goes_to_htmx_and_a_whole_page_to_others(hub: Hub) -> None:
    drain()
    part, whole = text_of(hub.get(ROWS, **HTMX)), text_of(hub.get(ROWS))
    assert "<html" not in part
    assert "<h1>Newest rows of customer_purchases</h1>" in whole
    assert cells(part) == cells(whole)
    assert "script-src 'self'" in hub.get(ROWS)["Content-Security-Policy"]


def test_a_feature_has_its_values_beside_their_keys_and_times(hub: Hub) -> None:
    drain()
    page = text_of(hub.get(VALUES.format("total"), **HTMX))
    assert [row[0] for row in cells(page)] == ["C2", "C1", "C3"]
    assert [row[2] for row in cells(page)] == ["null", "4", "1"]
    assert "segment" not in page


def test_a_row_from_before_a_feature_was_there_says_so_and_not_null(hub: Hub) -> None:
    from catalog import snapshot
    from tests.factories import add_feature

    drain()
    add_feature(group_named(), "late", "int64")
    snapshot.forget()
    push_row("customer_purchases", NOW, customer_id="C9", late=None)
    drain()
    snapshot.forget()
    assert [row[2] for row in cells(text_of(hub.get(VALUES.format("late"), **HTMX)))] == [
        "null",
        *["not in the row"] * 3,
    ]


def test_a_group_without_rows_and_a_feature_without_rows_say_why(hub: Hub) -> None:
    from tests.serving.test_on_request import define

    define({"cart": "float64"}, {"ratio": ("float64", "cart / average")})
    assert "has no rows of customer_purchases yet" in text_of(hub.get(ROWS, **HTMX))
    assert "computed on request" in text_of(hub.get(VALUES.format("ratio"), **HTMX))


def test_what_is_stored_is_shown_as_text_and_never_as_markup(hub: Hub) -> None:
    bad = "<script>alert(1)</script>\x01\x1b😀'\"&{{ 7|add:7 }}"
    push_row("customer_purchases", NOW, customer_id=bad, segment=bad)
    drain()
    for address in (ROWS, VALUES.format("segment")):
        page = text_of(hub.get(address))
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;␁␛😀" in page
        assert "{{ 7|add:7 }}" in page


# -- CSV


def test_the_csv_has_the_whole_values_and_no_formulas(hub: Hub) -> None:
    push_row("customer_purchases", NOW, customer_id="=1+1", segment="@SUM(A1)", total=-5, taste=[0.5, -1.0, 2.0])
    push_row("customer_purchases", NOW, customer_id="long", segment="y" * 10_000)
    drain()
    response = hub.get(f"{ROWS}?format=csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(text_of(response))))
    assert rows[0]["segment"] == "y" * 10_000
    assert (rows[1]["customer_id"], rows[1]["segment"]) == ("'=1+1", "'@SUM(A1)")
    assert (rows[1]["total"], rows[1]["taste"]) == ("-5", "[0.5, -1.0, 2.0]")  # a number below zero is no formula
    assert rows[2]["total"] == ""
    assert hub.get(f"{ROWS}?format=json").status_code == 400


# -- Rights


@pytest.mark.parametrize("address", [ROWS, VALUES.format("total"), f"{ROWS}?format=csv"])
def test_a_group_out_of_reach_is_not_there(hub: Hub, address: str) -> None:
    drain()
    browser = person("support", "viewer")
    assert browser.get(address).status_code == 404
    assert browser.get("/catalog/groups/support/samples/").status_code == 200
    assert hub.client.get(address, REMOTE_ADDR="203.0.113.7").status_code == 302  # to the login


@pytest.mark.parametrize(
    ("tagged", "hidden"),
    [
        (lambda group: group.features.get(name="segment"), {"segment", "total_spent"}),
        (lambda group: group.entity, {"customer_id", "total_spent"}),
        (
            lambda group: group,
            {"total", "segment", "is_member", "last_seen", "taste", "recent", "average", "total_spent"},
        ),
    ],
    ids=["feature", "keys", "group"],
)
def test_personal_columns_are_hidden_without_pii_read(hub: Hub, tagged: Callable[[Any], Any], hidden: set[str]) -> None:
    push_row("customer_purchases", NOW, customer_id="Zoe", segment="secret", total=7, total_spent=9876.5)
    drain()
    tag_as_personal(tagged(group_named()))
    shown, masked = text_of(hub.get(ROWS)), text_of(person().get(ROWS))
    assert "Hidden: personal" not in words(shown)
    assert (
        set(re.findall(r"<code>(\w+)</code>", masked.split("needs <code>pii:read</code>")[1].split("</p>")[0]))
        == hidden
    )
    for column, value in {"customer_id": "Zoe", "segment": "secret", "total_spent": "9,876.5"}.items():
        assert value in shown
        assert (value in masked) == (column not in hidden), column
    text = text_of(person_again().get(f"{ROWS}?format=csv"))
    assert all(f"{column} (hidden)" in text for column in hidden)
    assert ("Zoe" in text) == ("customer_id" not in hidden)
    assert ("secret" in text) == ("segment" not in hidden)


def person_again() -> Client:
    from django.contrib.auth.models import User

    client = Client()
    client.force_login(User.objects.get(username="ada"))
    return client


def test_a_group_owner_sees_personal_values_of_that_group(hub: Hub) -> None:
    drain()
    tag_as_personal(group_named().features.get(name="segment"))
    assert "gold" in text_of(person("customer_purchases", "owner").get(ROWS))


# -- Costs


def test_the_number_of_queries_does_not_grow_with_features_and_rows(hub: Hub) -> None:
    from django.db import connection

    from catalog import snapshot
    from tests.factories import add_feature

    def queries() -> int:
        snapshot.current()
        with CaptureQueriesContext(connection) as asked:
            text_of(hub.get(ROWS))
        return len(asked)

    drain()
    queries()
    before = queries()
    for number in range(20):
        add_feature(group_named(), f"more_{number}", "int64")
    snapshot.forget()
    for number in range(60):
        push_row("customer_purchases", NOW - timedelta(minutes=number), customer_id=f"N{number}")
    drain()
    assert queries() == before


def test_only_the_files_with_the_newest_rows_are_opened(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(6):
        for number in range(60 if day == 3 else 2):
            when = NOW if day == 3 else NOW - timedelta(days=30 - day)
            push_row("support", when, customer_id=f"{day}-{number}", tickets=day)
        drain("support")
    opened: list[Any] = []
    real = newest.open_parquet
    monkeypatch.setattr(newest, "open_parquet", lambda path: opened.append(path) or real(path))
    assert len(cells(text_of(hub.get("/catalog/groups/support/samples/", **HTMX)))) == 50
    assert len(opened) == 1


def test_other_methods_are_refused(hub: Hub) -> None:
    for address in (ROWS, VALUES.format("total")):
        assert hub.client.post(address).status_code == 405


@pytest.mark.parametrize(
    "address",
    [
        "/catalog/groups/%00/samples/",
        "/catalog/groups/%F0%9F%98%80/samples/",
        f"/catalog/groups/{'x' * 10_000}/samples/",
        "/catalog/features/customer_purchases/%00/samples/",
        f"/catalog/features/{'x' * 10_000}/%3Cscript%3E/use/",
        "/catalog/services/%00@%00/use/",
        "/catalog/services/churn@99999999999999999999/use/",
        f"/catalog/entities/{'%F0%9F%98%80' * 500}/try/",
    ],
)
def test_odd_names_are_not_there(hub: Hub, address: str) -> None:
    response = hub.get(address)
    assert response.status_code == 404
    assert b"<script>" not in response.content


def test_numbers_are_written_so_that_people_can_read_them() -> None:
    from serving.samples import shown

    def told(value: Any, dtype: str) -> str:
        return shown(value, Dtype.parse(dtype)).text

    assert told(2**63 - 1, "int64") == "9,223,372,036,854,775,807"
    assert [told(value, "float64") for value in (0.1, 1234567.891, 1e-9, 26.076666666666668)] == [
        "0.1",
        "1,234,568",
        "1e-09",
        "26.07667",
    ]
    assert told([None, "a" * 30], "list<string>") == f'[null, "{"a" * 20}…"]'
