"""Changing a status from a page: who is hit, then why, then the word that does it; reviews, and following."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.catalog.pages import browser, make_world, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]

FEATURE = "/catalog/features/customer_purchases/avg_purchase_value/"
READ = "/catalog/features/customer_purchases/total_purchases/"


@pytest.fixture
def world() -> dict[str, Any]:
    return make_world()


@pytest.fixture
def editor(world: dict[str, Any]) -> Client:
    from catalog.models import Role

    return browser("edda", Role.EDITOR, world["seen"])


def status_of(name: str = "avg_purchase_value") -> str:
    from catalog.models import Feature

    return str(Feature.objects.get(name=name).effective_status)


def etag_in(page: str) -> str:
    return re.findall(r'name="etag" value="([^"]*)"', page)[0].replace("&quot;", '"')


def day(days: int) -> str:
    return f"{timezone.now() + timedelta(days=days):%Y-%m-%d}"


def test_a_deprecation_takes_three_steps_and_changes_nothing_before_the_last(editor: Client) -> None:
    from catalog.models import Feature

    first = text_of(editor.get(f"{READ}deprecate/"))
    assert "customer_model@1" in first
    assert "anonymous callers, 7 requests" in first
    second = text_of(editor.post(f"{READ}deprecate/", {"step": "ask", "etag": etag_in(first)}))
    assert 'name="sunset"' in second
    asked = {
        "reason": "Counts refunds.",
        "replaced_by": "customer_purchases:avg_purchase_value",
        "sunset": day(30),
        "etag": etag_in(second),
    }
    third = text_of(editor.post(f"{READ}deprecate/", asked | {"step": "confirm"}))
    assert 'name="step" value="do"' in third
    assert status_of("total_purchases") == "active"
    done = editor.post(f"{READ}deprecate/", asked | {"step": "do"})
    assert (done.status_code, done["Location"]) == (302, READ)
    feature = Feature.objects.get(name="total_purchases")
    assert (feature.status, feature.deprecation_reason, str(feature.replaced_by)) == (
        *("deprecated", "Counts refunds.", "customer_purchases:avg_purchase_value"),
    )
    assert feature.history.first().history_user == editor.person  # type: ignore[attr-defined]
    assert "Counts refunds." in text_of(editor.get(READ))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({}, "Say why"),
        ({"reason": "r", "sunset": "2020-01-01"}, "sunset"),
        ({"reason": "r", "sunset": "tomorrow"}, "sunset"),
        ({"reason": "r", "sunset": "2026-13-45"}, "sunset"),
        ({"reason": "r", "replaced_by": "nothing:like_it"}, "nothing:like_it"),
        ({"reason": "r", "replaced_by": "secret_salaries:secret_bonus"}, "no feature named"),
        ({"reason": "r", "replaced_by": "customer_purchases:avg_purchase_value"}, ""),
    ],
)
@pytest.mark.parametrize("step", ["confirm", "do"])
def test_what_is_asked_wrongly_is_told_and_changes_nothing(
    editor: Client, sent: dict[str, str], told: str, step: str
) -> None:
    page = text_of(editor.post(f"{FEATURE}deprecate/", sent | {"step": step}))
    assert 'role="alert"' in page
    assert told in page
    assert status_of() == "active"


def test_archiving_what_is_read_is_refused_by_naming_the_readers(editor: Client) -> None:
    page = text_of(editor.get(f"{READ}archive/"))
    assert "It would be refused" in page
    page = text_of(editor.post(f"{READ}archive/", {"step": "do", "reason": "r"}))
    assert 'role="alert"' in page
    assert "customer_model@1" in page
    assert status_of("total_purchases") == "active"
    assert editor.post(f"{FEATURE}archive/", {"step": "do", "reason": "r"})["Location"] == FEATURE
    assert status_of() == "archived"


def test_a_change_of_what_was_changed_meanwhile_is_refused(editor: Client) -> None:
    from catalog.models import Feature

    stale = etag_in(text_of(editor.get(f"{FEATURE}archive/")))
    feature = Feature.objects.get(name="avg_purchase_value")
    feature.description = "Somebody else was here."
    feature.save()
    response = editor.post(f"{FEATURE}archive/", {"step": "do", "reason": "r", "etag": stale})
    assert response.status_code == 412
    assert status_of() == "active"
    fresh = etag_in(text_of(editor.get(f"{FEATURE}archive/")))
    assert editor.post(f"{FEATURE}archive/", {"step": "do", "reason": "r", "etag": fresh}).status_code == 302


def test_undo_takes_the_last_change_back(editor: Client) -> None:
    editor.post(f"{FEATURE}archive/", {"step": "do", "reason": "r"})
    assert editor.post(f"{FEATURE}undo/", {"step": "do"})["Location"] == FEATURE
    assert status_of() == "active"


def test_a_change_needs_the_right_to_it(world: dict[str, Any], editor: Client) -> None:
    from catalog.models import Role

    viewer = browser("vera", Role.VIEWER, world["seen"])
    for step in ("impact", "do"):
        assert viewer.post(f"{FEATURE}archive/", {"step": step, "reason": "r"}).status_code == 403
    assert viewer.get(f"{FEATURE}archive/").status_code == 403
    assert status_of() == "active"
    assert "/archive/" not in text_of(viewer.get(FEATURE))
    hidden = "/catalog/features/secret_salaries/secret_bonus/archive/"
    assert editor.post(hidden, {"step": "do", "reason": "r"}).status_code == 404
    assert status_of("secret_bonus") == "active"


def test_a_change_without_the_token_is_refused(editor: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(editor.person)  # type: ignore[attr-defined]
    assert strict.post(f"{FEATURE}archive/", {"step": "do", "reason": "r"}).status_code == 403
    assert status_of() == "active"
    page = text_of(strict.get(f"{FEATURE}archive/"))
    token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[-1]
    sent = {"step": "do", "reason": "r", "csrfmiddlewaretoken": token}
    assert strict.post(f"{FEATURE}archive/", sent).status_code == 302


def test_a_draft_is_approved_by_somebody_else_than_its_author(world: dict[str, Any], editor: Client) -> None:
    from catalog.models import Feature, Role

    Feature.objects.filter(name="avg_purchase_value").update(status="draft")
    assert editor.post(f"{FEATURE}request-review/", {"step": "do", "reason": "Please."}).status_code == 302
    own = text_of(editor.post(f"{FEATURE}approve/", {"step": "do"}))
    assert "somebody else answers it" in own
    assert status_of() == "draft"
    other = browser("olga", Role.EDITOR, world["seen"])
    assert "Please." in text_of(other.get(f"{FEATURE}approve/"))
    assert other.post(f"{FEATURE}approve/", {"step": "do"})["Location"] == FEATURE
    assert status_of() == "active"


def test_a_thing_is_followed_and_followed_no_more(world: dict[str, Any], editor: Client) -> None:
    from catalog.follows import is_following

    person = editor.person  # type: ignore[attr-defined]
    for address in (f"{FEATURE}follow/", "/catalog/groups/customer_purchases/follow/"):
        assert editor.post(address, {"follow": "yes"}).status_code == 302
    assert is_following(person, world["seen"])
    assert "customer_purchases:avg_purchase_value" in text_of(editor.get("/catalog/inbox/"))
    editor.post("/catalog/groups/customer_purchases/follow/", {"follow": "no"})
    assert not is_following(person, world["seen"])
    assert editor.post("/catalog/groups/secret_salaries/follow/", {"follow": "yes"}).status_code == 404
    assert not is_following(person, world["hidden"])


def test_marking_as_read_changes_nobody_elses_inbox(world: dict[str, Any], editor: Client) -> None:
    from catalog.follows import follow, tell, unread_count
    from catalog.models import Inbox, NoticeKind, Role

    other = browser("olga", Role.EDITOR, world["seen"])
    people = [editor.person, other.person]  # type: ignore[attr-defined]
    for person in people:
        follow(person, world["seen"])
    for number in range(2):
        tell(NoticeKind.STALE, world["seen"], f"is stale {number}.", key=f"k{number}")
    theirs = list(Inbox.objects.filter(user=people[1]).values_list("pk", flat=True))
    for sent in ({"id": theirs}, {"id": ["abc", "-1", "9" * 30, "²"]}, {"id": [str(10**17)]}):
        assert editor.post("/catalog/inbox/", sent).status_code == 302
    assert [unread_count(person) for person in people] == [2, 2]
    mine = Inbox.objects.filter(user=people[0]).first()
    assert mine is not None
    editor.post("/catalog/inbox/", {"id": [mine.pk]})
    assert [unread_count(person) for person in people] == [1, 2]
    editor.post("/catalog/inbox/")
    assert [unread_count(person) for person in people] == [0, 2]
