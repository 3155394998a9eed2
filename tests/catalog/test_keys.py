"""A key's life: made with limits, shown once, rotated, expired, its use and its changes written down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from engine.errors import Conflict, InvalidInput, NotAuthenticated, NotFound

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    from catalog import keys, snapshot

    keys.forget()
    snapshot.forget()
    yield
    keys.forget()
    snapshot.forget()


@pytest.fixture
def browser() -> Client:
    """A browser in which the superuser `ada` is logged in."""
    client = Client()
    client.force_login(User.objects.create(username="ada", is_superuser=True, is_staff=True))
    return client


def make(*scopes: str, **fields: Any) -> tuple[Any, str]:
    from catalog.keys import create_key

    return create_key(name="shop", scopes=scopes or ("read",), **fields)


def is_taken(text: str) -> bool:
    from catalog.keys import caller_of

    try:
        caller_of(text)
    except NotAuthenticated:
        return False
    return True


class Clocks:
    """Both clocks of the keys, moved together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from catalog import keys

        self.passed, start, ticks = 0.0, timezone.now(), keys.time.monotonic()
        monkeypatch.setattr(keys.timezone, "now", lambda: start + timedelta(seconds=self.passed))
        monkeypatch.setattr(keys.time, "monotonic", lambda: ticks + self.passed)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_a_key_is_refused_from_the_moment_it_expires_though_it_was_trusted_just_before(clocks: Clocks) -> None:
    _, text = make(expires_at=timezone.now() + timedelta(seconds=60))
    clocks.passed = 59.9
    assert is_taken(text)
    clocks.passed = 60.0
    assert not is_taken(text)


def test_after_a_rotation_both_texts_are_taken_until_the_stated_time_and_then_the_new_one_alone(clocks: Clocks) -> None:
    from catalog.keys import rotate_key

    key, old = make("write")
    assert is_taken(old)
    rotated, new = rotate_key(key.public_id, old_ends_at=timezone.now() + timedelta(seconds=3600))
    assert new != old
    assert new.split("_")[1] == old.split("_")[1] == rotated.public_id
    assert (is_taken(old), is_taken(new)) == (True, True)
    clocks.passed = 3599.0
    assert (is_taken(old), is_taken(new)) == (True, True)
    clocks.passed = 3600.0
    assert (is_taken(old), is_taken(new)) == (False, True)


def test_a_second_rotation_waits_for_the_first_unless_every_old_text_ends_now() -> None:
    from catalog.keys import rotate_key

    key, first = make()
    _, second = rotate_key(key.public_id, old_ends_at=timezone.now() + timedelta(hours=1))
    with pytest.raises(Conflict, match="was rotated, and the secret before is taken until"):
        rotate_key(key.public_id, old_ends_at=timezone.now() + timedelta(hours=2))
    assert (is_taken(first), is_taken(second)) == (True, True)
    _, third = rotate_key(key.public_id, old_ends_at=timezone.now())
    assert (is_taken(first), is_taken(second), is_taken(third)) == (False, False, True)


def test_a_key_that_has_ended_is_not_rotated() -> None:
    from catalog.keys import revoke_key, rotate_key

    key, _ = make()
    revoke_key(key.public_id)
    with pytest.raises(Conflict, match="is revoked; make a new one"):
        rotate_key(key.public_id, old_ends_at=timezone.now())
    with pytest.raises(NotFound, match="'nobody'"):
        rotate_key("nobody", old_ends_at=timezone.now())
    with pytest.raises(InvalidInput, match="with its zone"):
        rotate_key(key.public_id, old_ends_at=datetime(2030, 1, 1))  # noqa: DTZ001  naive is what is refused


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expires at a moment to come"),
        ({"expires_at": datetime(2099, 1, 1)}, "with its zone"),  # noqa: DTZ001  naive is what is refused
        ({"groups": ["customer_purchase"]}, "customer_purchases"),
        ({"requests_per_second": 0}, "requests_per_second is a whole number from 1"),
        ({"requests_per_second": 5, "burst": 0}, "burst is a whole number from 1"),
        ({"requests_per_second": 10_000_000}, "to 1000000"),
        ({"burst": 5}, "say requests_per_second too"),
    ],
)
def test_what_no_key_can_be_is_said_and_nothing_is_made(fields: dict[str, Any], said: str) -> None:
    from catalog.models import ApiKey
    from tests.factories import make_customer_group

    make_customer_group()
    with pytest.raises(InvalidInput) as error:
        make(**fields)
    assert said in str(error.value)
    assert not ApiKey.objects.exists()


# -- Last use


def test_the_last_use_is_written_by_a_background_step_and_once_a_day(
    django_assert_num_queries: DjangoAssertNumQueries, clocks: Clocks
) -> None:
    from catalog import keys
    from catalog.models import ApiKey

    key, text = make()
    idle, _ = make()
    assert is_taken(text)
    with django_assert_num_queries(0):  # what is trusted costs a request no query, and its use no write
        assert is_taken(text)
    assert ApiKey.objects.get(pk=key.pk).last_used_on is None
    assert keys.record_use() == 1
    today = timezone.now().date()
    assert ApiKey.objects.get(pk=key.pk).last_used_on == today
    assert ApiKey.objects.get(pk=idle.pk).last_used_on is None
    assert is_taken(text)
    with django_assert_num_queries(0):
        assert keys.record_use() == 0
    clocks.passed = 86_400.0
    assert is_taken(text)
    assert keys.record_use() == 1
    assert ApiKey.objects.get(pk=key.pk).last_used_on == today + timedelta(days=1)
    assert key.history.count() == 1


def test_a_use_that_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    from catalog import background, keys
    from catalog.models import ApiKey

    _, text = make()
    assert is_taken(text)
    update = type(ApiKey.objects.all()).update
    monkeypatch.setattr(background.connection, "close", lambda: None)  # the test's transaction is on it

    def down(*_: Any, **__: Any) -> int:
        raise OperationalError("database is locked")

    monkeypatch.setattr(type(ApiKey.objects.all()), "update", down)
    background.write()
    monkeypatch.setattr(type(ApiKey.objects.all()), "update", update)
    assert ApiKey.objects.get().last_used_on is None
    assert keys.record_use() == 1


def test_a_later_day_is_not_taken_back_by_a_process_whose_clock_is_behind(clocks: Clocks) -> None:
    from catalog import keys
    from catalog.models import ApiKey

    _, text = make()
    ApiKey.objects.update(last_used_on=date(2999, 1, 1))
    assert is_taken(text)
    assert keys.record_use() == 0
    assert ApiKey.objects.get().last_used_on == date(2999, 1, 1)


# -- History and the command


def command(*arguments: str, **options: Any) -> Any:
    out, told = StringIO(), StringIO()
    call_command("apikey", *arguments, json=True, stdout=out, stderr=told, **options)
    return json.loads(out.getvalue())


def test_the_history_of_a_key_says_who_did_what_and_when_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog.models import ApiKey

    monkeypatch.setenv("LOGNAME", "ada")
    made = command("create", "shop", "--scope", "read")
    first = ApiKey.objects.get().secret_sha256
    command("rotate", made["id"], "--keep-old", "2h")
    command("revoke", made["id"])
    command("revoke", made["id"])  # nothing more happens
    entries = list(ApiKey.objects.get().history.order_by("history_date"))
    reasons = [entry.history_change_reason for entry in entries]
    assert [reason.split(" ")[0].strip(",") for reason in reasons] == ["created", "rotated", "revoked"]
    assert all(reason.endswith("by ada") for reason in reasons)
    kept = json.dumps([{k: str(v) for k, v in vars(entry).items()} for entry in entries])
    now = ApiKey.objects.get()
    for secret in (first, now.secret_sha256, made["key"]):
        assert secret not in kept


def test_the_command_makes_a_limited_key_and_lists_it_without_its_secret() -> None:
    from tests.factories import make_customer_group

    make_customer_group()
    User.objects.create(username="ada")
    made = command(
        *["create", "shop", "--scope", "read", "--scope", "write", "--group", "customer_purchases", "--owner", "ada"],
        *["--expires", "90d", "--rate", "50", "--burst", "100"],
    )
    assert is_taken(made["key"])
    (listed,) = command("list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["groups"], listed["owner"], listed["state"]) == (["customer_purchases"], "ada", "valid")
    assert (listed["requests_per_second"], listed["burst"], listed["last_used_on"]) == (50, 100, None)
    left = datetime.fromisoformat(listed["expires_at"]) - timezone.now()
    assert timedelta(days=89) < left < timedelta(days=90)
    text = StringIO()
    call_command("apikey", "list", stdout=text)
    assert re.fullmatch(rf"{listed['id']}  shop +read,write +active +used never +customer_purchases\n", text.getvalue())


def test_the_command_ends_the_old_text_at_once_when_it_is_told_so() -> None:
    made = command("create", "shop", "--scope", "read")
    rotated = command("rotate", made["id"], "--keep-old", "0")
    assert (is_taken(made["key"]), is_taken(rotated["key"])) == (False, True)


@pytest.mark.parametrize(
    "arguments", [["rotate", "nobody"], ["create", "k", "--scope", "read", "--owner", "nobody"], ["revoke", "no\0body"]]
)
def test_the_command_says_what_is_not_there(arguments: list[str]) -> None:
    told = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("apikey", *arguments, stderr=told)
    assert ended.value.code == 1
    assert "nobody" in told.getvalue() or "no\\x00body" in told.getvalue()


# -- The admin


def shown_text(response: HttpResponse) -> str:
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    found = re.search(r'id="key-text">(fh_\w+)<', response.content.decode())
    assert found
    return found[1]


def test_the_admin_makes_a_key_and_shows_its_text_on_that_one_page(browser: Client) -> None:
    from catalog.models import ApiKey
    from tests.factories import make_customer_group

    make_customer_group()
    sent = {"name": "notebook", "scopes": ["read", "write"], "groups": ["customer_purchases"]}
    limits = {"requests_per_second": "5", "burst": "10", "expires_at_0": "2099-01-01", "expires_at_1": "00:00:00"}
    text = shown_text(browser.post(reverse("admin:catalog_apikey_add"), sent | limits))
    assert is_taken(text)
    key = ApiKey.objects.get()
    assert (key.name, key.scopes, key.groups) == ("notebook", ["read", "write"], ["customer_purchases"])
    assert (key.requests_per_second, key.burst, key.expires_at) == (5, 10, datetime(2099, 1, 1, tzinfo=UTC))
    (entry,) = key.history.all()
    assert (entry.history_user.username, entry.history_change_reason) == ("ada", "created by ada")
    for page in ("changelist", "change", "history"):
        url = reverse(f"admin:catalog_apikey_{page}", args=[] if page == "changelist" else [key.pk])
        again = browser.get(url)
        assert again.status_code == 200
        assert text.encode() not in again.content
        assert key.secret_sha256.encode() not in again.content


def test_the_admin_says_above_the_form_what_no_key_can_be(browser: Client) -> None:
    from catalog.models import ApiKey

    response = browser.post(reverse("admin:catalog_apikey_add"), {"name": "n", "scopes": ["read"], "burst": "5"})
    assert response.status_code == 200
    assert "say requests_per_second too" in response.content.decode()
    assert not ApiKey.objects.exists()


def test_the_admin_rotates_a_key_after_asking_and_shows_the_new_text_once(browser: Client) -> None:
    key, old = make()
    url = reverse("admin:catalog_apikey_rotate", args=[key.pk])
    assert "Give this key a new secret?" in browser.get(url).content.decode()
    assert "Give this key a new secret?" in browser.post(url, {"confirmed": "yes", "keep_old": "soon"}).content.decode()
    assert is_taken(old)
    new = shown_text(browser.post(url, {"confirmed": "yes", "keep_old": "2h"}))
    assert (is_taken(old), is_taken(new)) == (True, True)
    again = browser.post(url, {"confirmed": "yes", "keep_old": "2h"}, follow=True)
    assert "was rotated, and the secret before is taken until" in again.content.decode()
    newest = shown_text(browser.post(url, {"confirmed": "yes", "keep_old": ""}))
    assert (is_taken(old), is_taken(new), is_taken(newest)) == (False, False, True)


def test_the_admin_revokes_a_key_from_its_page_after_asking(browser: Client) -> None:
    key, text = make()
    url = reverse("admin:catalog_apikey_revoke", args=[key.pk])
    assert "cannot be brought back" in browser.get(url).content.decode()
    assert is_taken(text)
    browser.post(url, {"confirmed": "yes"})
    assert not is_taken(text)
    page = browser.get(reverse("admin:catalog_apikey_change", args=[key.pk])).content.decode()
    assert url not in page
    assert "revoked by ada" in browser.get(reverse("admin:catalog_apikey_history", args=[key.pk])).content.decode()


# -- Values about persons


@pytest.fixture
def personal(sources: Path) -> Any:
    """customer_purchases with one feature tagged `pii`, and support without any."""
    from catalog.models import Tag
    from tests.factories import make_customer_group

    group = make_customer_group()
    make_customer_group("support", features={"tickets": "int64"})
    group.features.get(name="customer_segment").tags.add(Tag.objects.create(name="pii"))
    return group


def get(path: str, *scopes: str, **fields: Any) -> HttpResponse:
    return Client(headers={"Authorization": f"Bearer {make(*scopes, **fields)[1]}"}).get(path)


def test_a_feature_tagged_pii_is_read_with_its_scope_alone(personal: Any) -> None:
    segment = "/features/customer/C1?features=customer_segment"
    refused = get(segment, "read")
    assert refused.status_code == 403
    assert "customer_purchases:customer_segment" in json.loads(refused.content)["detail"]
    assert get("/features/customer/C1", "read").status_code == 403  # all of the entity holds it
    assert get("/features/customer/C1?features=total_purchases", "read").status_code == 404  # read: there is no row
    assert get(segment, "read", "pii:read").status_code == 404
    assert get(segment, "read", "pii:read", groups=["customer_purchases"]).status_code == 404
    assert get(segment, "pii:read").status_code == 403  # it is on top of reading


def test_a_tag_counts_from_the_next_request_on_whether_on_the_feature_or_its_group(personal: Any) -> None:
    from catalog.models import Tag
    from catalog.publishing import publish

    tickets = "/features/customer/C1?features=tickets"
    text = make("read")[1]
    client = Client(headers={"Authorization": f"Bearer {text}"})
    support = type(personal).objects.get(name="support")
    assert client.get(tickets).status_code == 404
    support.tags.add(Tag.objects.get(name="pii"))
    publish()  # as the commit does, which a test's transaction does not come to
    assert client.get(tickets).status_code == 403
    support.tags.clear()
    publish()
    assert client.get(tickets).status_code == 404
    support.features.get().tags.set([Tag.objects.get(name="pii")])
    publish()
    assert client.get(tickets).status_code == 403
    Tag.objects.get(name="pii").delete()
    publish()
    assert client.get(tickets).status_code == 404


def test_rejected_rows_are_listed_without_their_payloads_to_who_may_not_read_pii(personal: Any) -> None:
    from catalog.models import Run
    from ingestion.models import QuarantinedRule

    run = Run.queue(personal)
    Run.objects.filter(pk=run.pk).update(state="succeeded", finished_at=timezone.now())
    samples = [{"row": 0, "payload": '{"customer_segment": "ada@example.com"}'}]
    QuarantinedRule.objects.create(
        run=run, column="customer_segment", rule="allowed_values", detail="d", row_count=1, samples=samples
    )
    path = "/api/v1/groups/customer_purchases/quarantine"
    assert b"ada@example.com" not in get(path, "read").content
    assert json.loads(get(path, "read").content)["results"][0]["rows"] == 1
    assert b"ada@example.com" in get(path, "read", "pii:read").content


def test_a_dataset_with_a_feature_tagged_pii_is_handed_out_with_its_scope_alone(personal: Any) -> None:
    from catalog.models import Acceptance, Run, TrainingDataset

    training = Run.objects.create(kind="train", acceptance=Acceptance.take())
    TrainingDataset.objects.create(
        name="churn", run=training, features=["customer_segment"], event_timestamp="event_timestamp"
    )
    path = "/api/v1/training-datasets/churn/data"
    assert json.loads(get(path, "read").content)["code"] == "not_allowed"
    assert json.loads(get(path, "read", "pii:read").content)["code"] == "conflict"  # it is not made yet
