"""The history in the admin, the way back, and two people who edit one thing."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from catalog.models import Feature, FeatureGroup
from catalog.schemas import current_schema
from tests.catalog.test_admin import form_of
from tests.factories import make_customer_group

pytestmark = pytest.mark.django_db


def browser_of(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.create(username=name, is_superuser=True, is_staff=True))
    return client


@pytest.fixture
def ada() -> Client:
    return browser_of("ada")


@pytest.fixture
def bob() -> Client:
    return browser_of("bob")


@pytest.fixture
def group() -> FeatureGroup:
    return make_customer_group()


@pytest.fixture
def total(group: FeatureGroup) -> Feature:
    return group.features.get(name="total_purchases")


def page(word: str, thing: Any, *more: int) -> str:
    return reverse(f"admin:catalog_{thing._meta.model_name}_{word}", args=[thing.pk, *more])


def text(response: HttpResponse) -> str:
    return unescape(response.content.decode())


def opened(browser: Client, thing: Any) -> dict[str, Any]:
    """The fields of a form as somebody has opened it, the version that it shows among them."""
    url = page("change", thing)
    found = re.search(r'name="_read_version" value="(\d+)"', text(browser.get(url)))
    assert found is not None
    return {**form_of(browser, url), "_read_version": found[1]}


# -- History


def test_the_history_shows_each_change_by_field_with_who_and_when(ada: Client, bob: Client, total: Feature) -> None:
    ada.post(page("change", total), {**opened(ada, total), "description": "All purchases."})
    bob.post(page("change", total), {**opened(bob, total), "min_value": "1"})
    shown = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text(ada.get(page("history", total)))))
    assert re.search(
        r"changed by bob .* validation\.min_value 0 1 .* changed by ada .* description — All purchases\.", shown
    )


def test_a_past_version_is_brought_back_after_a_page_that_says_what_changes(
    ada: Client, bob: Client, total: Feature
) -> None:
    ada.post(page("change", total), {**opened(ada, total), "description": "All purchases."})
    first = total.history.order_by("history_id").first()
    address = page("revert", total, first.history_id)
    assert address in text(bob.get(page("history", total)))
    assert "description: All purchases. -> (default)" in text(bob.get(address))
    total.refresh_from_db()
    assert total.description == "All purchases."
    bob.post(address, {"confirmed": "yes"})
    total.refresh_from_db()
    assert total.description == ""
    assert "changed by bob" in text(ada.get(page("history", total)))


def test_a_revert_that_needs_a_new_version_is_refused_in_words(ada: Client, group: FeatureGroup) -> None:
    average = group.features.get(name="avg_purchase_value")
    ada.post(page("change", average), {**opened(ada, average), "expression": "total_spent"})
    first = average.history.order_by("history_id").first()
    current_schema(group)
    said = ada.post(page("revert", average, first.history_id), {"confirmed": "yes"}, follow=True)
    assert "that needs version: 2" in text(said)
    average.refresh_from_db()
    assert average.expression == "total_spent"


def test_the_page_of_a_group_tells_of_its_parts(ada: Client, group: FeatureGroup) -> None:
    column = group.inputs.get()
    sent = {**opened(ada, group), "inputs-0-dtype": "int64"}
    assert ada.post(page("change", group), sent).status_code == 302
    column.refresh_from_db()
    assert column.dtype == "int64"
    shown = text(ada.get(page("history", group)))
    assert "{name: total_spent, dtype: int64}" in shown


# -- Edits that meet


def test_the_second_of_two_who_edit_is_told_and_overwrites_nothing(ada: Client, bob: Client, total: Feature) -> None:
    of_ada, of_bob = opened(ada, total), opened(bob, total)
    assert bob.post(page("change", total), {**of_bob, "description": "By bob."}).status_code == 302
    refused = ada.post(page("change", total), {**of_ada, "description": "By ada.", "min_value": "3"})
    shown = text(refused)
    assert (refused.status_code, "Nothing was saved" in shown) == (409, True)
    told = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", shown))
    assert "by bob" in told
    assert "description — By bob." in told
    assert "Description By bob. By ada." in told
    total.refresh_from_db()
    assert (total.description, total.validation["min_value"]) == ("By bob.", 0)


def test_who_wants_it_saves_the_own_version_after_having_seen_the_other(
    ada: Client, bob: Client, total: Feature
) -> None:
    of_ada = opened(ada, total)
    bob.post(page("change", total), {**opened(bob, total), "description": "By bob."})
    refused = text(ada.post(page("change", total), {**of_ada, "description": 'By "ada" & co.', "_save": "Save"}))
    form = refused[refused.index("<form method") :]
    sent = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="(.*?)">', form[: form.index("</form>")]))
    assert sent["description"] == 'By "ada" & co.'
    assert ada.post(page("change", total), sent).status_code == 302
    total.refresh_from_db()
    assert total.description == 'By "ada" & co.'


def test_a_form_with_a_mistake_still_knows_which_version_it_was_opened_with(
    ada: Client, bob: Client, total: Feature
) -> None:
    of_ada = opened(ada, total)
    wrong = text(ada.post(page("change", total), {**of_ada, "dtype": "nonsense"}))
    bob.post(page("change", total), {**opened(bob, total), "description": "By bob."})
    again = text(ada.post(page("change", total), {**of_ada, "dtype": "nonsense"}))
    assert f'name="_read_version" value="{of_ada["_read_version"]}"' in wrong
    assert "Nothing was saved" in again


def test_a_change_over_http_or_of_a_part_is_met_too(ada: Client, group: FeatureGroup) -> None:
    from tests.catalog.registry.conftest import holder

    of_ada = opened(ada, group)
    ci = holder("read", "registry", name="ci")
    ci.edit("feature-groups/customer_purchases", {"inputs": [{"name": "total_spent", "dtype": "int64"}]})
    shown = text(ada.post(page("change", group), of_ada))
    assert "Nothing was saved" in shown
    assert "ci (registry by key" in shown


def test_who_goes_on_editing_meets_nobody_but_the_others(ada: Client, total: Feature) -> None:
    for number in range(3):
        sent = {**opened(ada, total), "description": f"{number}"}
        assert ada.post(page("change", total), sent).status_code == 302
