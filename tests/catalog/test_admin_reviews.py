"""Reviews and undoing in the admin: what a page offers, what it asks before, and what forms refuse."""

from __future__ import annotations

from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from catalog.models import Feature, FeatureGroup, FeatureService, ReviewRequest
from tests.factories import add_feature, make_customer_group

pytestmark = pytest.mark.django_db


def browser_of(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.create(username=name, is_superuser=True, is_staff=True))
    return client


@pytest.fixture
def ada() -> Client:
    return browser_of("ada")


@pytest.fixture
def draft() -> Feature:
    """A draft feature of a group that needs reviews."""
    made = add_feature(make_customer_group(needs_review=True), "is_new", "bool", expression="total_purchases = 1")
    made.status = "draft"
    made.save()
    return made


def page(word: str, thing: Feature | FeatureGroup | FeatureService) -> str:
    return reverse(f"admin:catalog_{thing._meta.model_name}_{word}", args=[thing.pk])


def text(browser: Client, address: str) -> str:
    return unescape(browser.get(address).content.decode())


def test_a_draft_is_reviewed_on_its_page_by_somebody_else(ada: Client, draft: Feature) -> None:
    offered = text(ada, page("change", draft))
    assert "needed by customer_purchases; none was asked for" in offered
    assert page("request_review", draft) in offered
    assert page("approve", draft) not in offered
    said = ada.post(page("activate", draft), {"confirmed": "yes"}, follow=True)
    assert "customer_purchases wants a review first" in unescape(said.content.decode())

    assert "Somebody else who may change it" in text(ada, page("request_review", draft))
    ada.post(page("request_review", draft), {"confirmed": "yes", "text": "For churn."})
    offered = text(ada, page("change", draft))
    assert page("approve", draft) in offered
    assert page("request_review", draft) not in offered
    said = ada.post(page("approve", draft), {"confirmed": "yes"}, follow=True)
    assert "somebody else answers it" in unescape(said.content.decode())

    bob = browser_of("bob")
    assert "ada asked: For churn." in text(bob, page("approve", draft))
    bob.post(page("approve", draft), {"confirmed": "yes", "text": "Fine."})
    draft.refresh_from_db()
    assert draft.status == "active"
    listed = text(bob, reverse("admin:catalog_reviewrequest_changelist"))
    assert "customer_purchases:is_new" in listed
    assert "approved" in listed
    review = ReviewRequest.objects.get()
    assert "Fine." in text(bob, reverse("admin:catalog_reviewrequest_change", args=[review.pk]))


def test_a_review_is_declined_or_withdrawn_and_the_draft_stays(ada: Client, draft: Feature) -> None:
    bob = browser_of("bob")
    for browser, word, state in ((bob, "decline", "declined"), (ada, "withdraw", "withdrawn")):
        ada.post(page("request_review", draft), {"confirmed": "yes"})
        browser.get(page(word, draft))
        browser.post(page(word, draft), {"confirmed": "yes", "text": "Not yet."})
        last = ReviewRequest.objects.last()
        assert last is not None
        assert (last.state, last.comment) == (state, "Not yet.")
    draft.refresh_from_db()
    assert draft.status == "draft"


def test_a_deprecation_is_undone_after_a_page_that_says_to_what_and_who_is_hit(ada: Client, draft: Feature) -> None:
    total = Feature.objects.get(name="total_purchases")
    assert page("undo", total) not in text(ada, page("change", total))
    ada.post(page("deprecate", total), {"confirmed": "yes", "reason": "Old."})
    assert page("undo", total) in text(ada, page("change", total))
    asked = text(ada, page("undo", total))
    assert "It becomes active again." in asked
    assert "computed from it: customer_purchases:avg_purchase_value, customer_purchases:is_new" in asked
    ada.post(page("undo", total), {"confirmed": "yes"})
    total.refresh_from_db()
    assert (total.effective_status, total.deprecation_reason) == ("active", "")


def test_a_new_feature_of_a_group_with_reviews_begins_as_a_draft(ada: Client, draft: Feature) -> None:
    sent = {"name": "new", "group": draft.group_id, "dtype": "int64", "type": "numerical", "on_violation": "quarantine"}
    for status in ("", "active"):
        said = ada.post(reverse("admin:catalog_feature_add"), {**sent, "status": status})
        assert "begin with `status: draft`" in unescape(said.content.decode())
    ada.post(reverse("admin:catalog_feature_add"), {**sent, "status": "draft"})
    assert Feature.objects.get(name="new").status == "draft"


def test_an_active_feature_does_not_move_into_a_group_with_reviews(ada: Client, draft: Feature) -> None:
    other = make_customer_group("support", features={"tickets": "int64"}).features.get()
    sent = {"name": "tickets", "group": draft.group_id, "dtype": "int64", "type": "numerical"}
    said = ada.post(page("change", other), {**sent, "on_violation": "quarantine"})
    assert "wants a review first" in unescape(said.content.decode())
    other.refresh_from_db()
    assert other.group.name == "support"


def test_a_new_group_and_a_new_service_begin_as_drafts(ada: Client, draft: Feature) -> None:
    forms = {"inputs": 0, "request_inputs": 0}
    management = {f"{name}-{key}": number for name, number in forms.items() for key in ("TOTAL_FORMS", "INITIAL_FORMS")}
    sent = {"name": "returns", "version": 1, "entity": draft.group.entity_id, "event_timestamp": "at", **management}
    said = ada.post(reverse("admin:catalog_featuregroup_add"), {**sent, "status": "active", "needs_review": "on"})
    assert "begin with `status: draft`" in unescape(said.content.decode())
    ada.post(reverse("admin:catalog_featuregroup_add"), {**sent, "status": "draft", "needs_review": "on"})
    assert FeatureGroup.objects.get(name="returns").needs_review

    total = Feature.objects.get(name="total_purchases")
    chosen = {"chosen-TOTAL_FORMS": 1, "chosen-INITIAL_FORMS": 0, "chosen-0-feature": total.pk, "chosen-0-position": 0}
    service = {"name": "churn", "version": 1, "status": "active", **chosen}
    said = ada.post(reverse("admin:catalog_featureservice_add"), service, follow=True)
    assert "It is a draft. churn@1 is new" in unescape(said.content.decode())
    assert FeatureService.objects.get().status == "draft"


def test_who_does_not_manage_a_group_does_not_turn_its_reviews_off(draft: Feature) -> None:
    from catalog.models import GroupRole, Owner, Role

    team = Owner.objects.create(name="team")
    editor = User.objects.create(username="eve", is_staff=True)
    team.members.add(editor)
    GroupRole.objects.create(group=draft.group, team=team, role=Role.EDITOR)
    browser = Client()
    browser.force_login(editor)
    assert 'name="needs_review"' not in text(browser, page("change", draft.group))
    assert 'name="needs_review"' in text(browser_of("boss"), page("change", draft.group))
