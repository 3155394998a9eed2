"""Everything refused is counted by its reason and logged without a secret; failed logins have a limit."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from tests.factories import make_customer_group

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
PASSWORD = "a right password, long enough"


@pytest.fixture(autouse=True)
def nothing_known(settings: Settings) -> Iterator[None]:
    from tests.forgetting import forget

    # Of the limits here none is about how slow a hash is.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    forget()
    yield
    forget()


def make(*scopes: str, **fields: Any) -> str:
    from catalog.keys import create_key

    return create_key(name="shop", scopes=scopes, **fields)[1]


def counts() -> dict[str, int]:
    """What the table has once the background step has run."""
    from catalog import refusals
    from catalog.models import Refusal

    refusals.record()
    return dict(Refusal.objects.values_list("reason", "count"))


def get(path: str, authorization: str = "") -> HttpResponse:
    return Client(headers={"Authorization": authorization} if authorization else {}).get(path)


def no_key() -> None:
    get("/groups")


def malformed() -> None:
    get("/groups", "Bearer fh_nonsense")


def other_scheme() -> None:
    get("/groups", "Basic YTpi")


def unknown() -> None:
    from catalog.models import ApiKey

    text = make("read")
    ApiKey.objects.all().delete()
    get("/groups", f"Bearer {text}")


def wrong_secret() -> None:
    from catalog.keys import _text
    from catalog.models import ApiKey

    make("read")
    get("/groups", f"Bearer {_text(ApiKey.objects.get().public_id, 'a' * 40)}")


def rotated_away() -> None:
    from catalog.keys import rotate_key

    text = make("read")
    rotate_key(text.split("_")[1], old_ends_at=timezone.now())
    get("/groups", f"Bearer {text}")


def revoked() -> None:
    from catalog.keys import revoke_key

    text = make("read")
    revoke_key(text.split("_")[1])
    get("/groups", f"Bearer {text}")


def expired() -> None:
    from catalog.models import ApiKey

    text = make("read")
    ApiKey.objects.update(expires_at=timezone.now())
    get("/groups", f"Bearer {text}")


def inactive() -> None:
    text = make("read", owner=User.objects.create(username="ada", is_active=False))
    get("/groups", f"Bearer {text}")


def scope() -> None:
    get("/groups", f"Bearer {make('write')}")


def group() -> None:
    make_customer_group("support", features={"tickets": "int64"})
    make_customer_group()
    get("/api/v1/groups/customer_purchases/quarantine", f"Bearer {make('read', groups=['support'])}")


def rate() -> None:
    text = make("read", requests_per_second=1, burst=1)
    for _ in range(2):
        get("/groups", f"Bearer {text}")


def session() -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.create(username="ada", is_superuser=True))
    browser.post("/ingest/customer_purchases/C1")


def page() -> None:
    browser = Client()
    browser.force_login(User.objects.create(username="ada", is_staff=True))
    browser.get(reverse("admin:catalog_feature_changelist"))


def login() -> None:
    log_in("ada", "wrong")


CASES = {
    "no_key": no_key,
    "malformed_key": malformed,
    "malformed_key, by its scheme": other_scheme,
    "unknown_key": unknown,
    "wrong_secret": wrong_secret,
    "wrong_secret, rotated away": rotated_away,
    "revoked_key": revoked,
    "expired_key": expired,
    "owner_inactive": inactive,
    "scope": scope,
    "group": group,
    "rate": rate,
    "session": session,
    "page": page,
    "login": login,
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_is_counted_by_its_reason_and_logged_in_one_line(case: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="catalog.refusals"):
        CASES[case]()
    reason = case.partition(",")[0]
    assert counts() == {reason: 1}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "catalog.refusals"]
    assert f"refused ({reason})" in line
    assert "from 127.0.0.1" in line
    assert "\n" not in line


def test_every_reason_has_a_case_here_or_a_test_of_its_own() -> None:
    from catalog.models import Reason

    assert {case.partition(",")[0] for case in CASES} | {"pii", "login_locked"} == set(Reason.values)


def test_values_about_persons_that_are_refused_are_counted(sources: Any) -> None:
    from catalog.models import Tag

    make_customer_group().tags.add(Tag.objects.create(name="pii"))
    assert get("/features/customer/C1", f"Bearer {make('read')}").status_code == 403
    assert counts() == {"pii": 1}


@pytest.mark.parametrize("case", [wrong_secret, revoked, expired, rotated_away, scope, rate])
def test_no_log_line_holds_a_secret(
    case: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog import keys

    texts, text_of = [], keys._text

    def remembered(public_id: str, secret: str) -> str:
        texts.append(text_of(public_id, secret))
        return texts[-1]

    monkeypatch.setattr(keys, "_text", remembered)
    with caplog.at_level(logging.DEBUG):
        case()
    assert texts
    assert [text for text in texts if text.split("_")[2][:10] in caplog.text] == []


def test_a_path_cannot_break_out_of_its_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="catalog.refusals"):
        get("/features/customer/C1%0d%0a2026 INFO all is well")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "catalog.refusals"]
    assert "\n" not in line
    assert "\r" not in line


def test_the_answer_does_not_tell_what_is_wrong_with_a_key() -> None:
    from catalog.keys import revoke_key

    known = make("read")
    revoke_key(known.split("_")[1])
    answers = [get("/groups", f"Bearer {text}") for text in (known, "fh_nonsense")]
    assert answers[0].content == answers[1].content
    assert b"revoked" not in answers[0].content


def test_a_refusal_costs_the_request_no_write_and_what_was_not_written_is_written_later(
    django_assert_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog import refusals
    from catalog.models import Refusal

    with django_assert_num_queries(0):
        for _ in range(3):
            no_key()
    queryset = type(Refusal.objects.all())
    update = queryset.update

    def down(*_: Any, **__: Any) -> int:
        raise OperationalError("database is locked")

    monkeypatch.setattr(queryset, "update", down)
    with pytest.raises(OperationalError):
        refusals.record()
    assert not Refusal.objects.exists()
    monkeypatch.setattr(queryset, "update", update)
    no_key()
    assert counts() == {"no_key": 4}
    with django_assert_num_queries(0):
        refusals.record()
    malformed()
    assert counts() == {"no_key": 4, "malformed_key": 1}


def test_the_admin_and_the_metrics_show_the_counts() -> None:
    for _ in range(3):
        no_key()
    counts()
    browser = Client()
    browser.force_login(User.objects.create(username="ada", is_superuser=True, is_staff=True))
    text = re.sub(r"<[^>]+>|\s+", " ", browser.get(reverse("admin:catalog_refusal_changelist")).content.decode())
    assert re.search(r"no_key +no key +3 ", text)
    assert 'featurehub_refusals_total{reason="no_key"} 3.0' in browser.get("/metrics").content.decode()


# -- Logins


def log_in(name: str, password: str, address: str = "127.0.0.1", **headers: str) -> HttpResponse:
    client = Client(REMOTE_ADDR=address, headers=headers)
    return client.post(reverse("admin:login"), {"username": name, "password": password})


def is_in(response: HttpResponse) -> bool:
    return response.status_code == 302


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", password=PASSWORD, is_staff=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The time of the limit, which the test moves."""
    from catalog import logins

    class Clock:
        now = NOON

    monkeypatch.setattr(logins.timezone, "now", lambda: Clock.now)
    return Clock


def test_after_five_failures_the_right_password_is_refused_too_until_a_quarter_of_an_hour_is_over(
    ada: User, clock: Any
) -> None:
    for _ in range(4):
        assert "correct username and password" in log_in("ada", "wrong").content.decode()
    assert "Too many failed logins" in log_in("ada", "wrong").content.decode()
    assert "Too many failed logins; try again in 15 min." in log_in("ada", PASSWORD).content.decode()
    clock.now = NOON + timedelta(minutes=14, seconds=59)
    assert "try again in 1 min." in log_in("ada", PASSWORD).content.decode()
    clock.now = NOON + timedelta(minutes=15)
    assert is_in(log_in("ada", PASSWORD))
    assert counts() == {"login": 5, "login_locked": 2}


def test_a_refused_login_does_not_prolong_the_wait_nor_ask_for_the_password(ada: User, clock: Any) -> None:
    from catalog.models import FailedLogin

    for _ in range(12):
        log_in("ada", "wrong")
    assert FailedLogin.objects.get().failures == 5
    clock.now = NOON + timedelta(minutes=15)
    assert is_in(log_in("ada", PASSWORD))


def test_others_from_there_and_the_same_person_from_elsewhere_are_not_hit(ada: User, clock: Any) -> None:
    User.objects.create_user("grace", password=PASSWORD, is_staff=True)
    for _ in range(5):
        log_in("ada", "wrong", "10.0.0.1")
    assert not is_in(log_in("ada", PASSWORD, "10.0.0.1"))
    assert is_in(log_in("grace", PASSWORD, "10.0.0.1"))
    assert is_in(log_in("ada", PASSWORD, "10.0.0.2"))


def test_a_login_that_succeeds_forgets_the_failures_before(ada: User, clock: Any) -> None:
    for _ in range(3):
        for _ in range(4):
            log_in("ada", "wrong")
        assert is_in(log_in("ada", PASSWORD))


def test_failures_that_lie_a_quarter_of_an_hour_apart_do_not_add_up(ada: User, clock: Any) -> None:
    for hour in range(8):
        clock.now = NOON + timedelta(hours=hour)
        log_in("ada", "wrong")
    assert is_in(log_in("ada", PASSWORD))


def test_many_names_from_one_address_with_a_password_each_have_a_limit(ada: User, clock: Any) -> None:
    from catalog.logins import record_failure

    for number in range(49):
        User.objects.create(username=f"user {number}")
        record_failure(f"user {number}", "10.0.0.1", now=NOON)
    assert is_in(log_in("ada", PASSWORD, "10.0.0.1"))
    record_failure("user 0", "10.0.0.1", now=NOON)
    assert not is_in(log_in("ada", PASSWORD, "10.0.0.1"))
    assert is_in(log_in("ada", PASSWORD, "10.0.0.2"))


def test_what_is_typed_as_a_name_is_kept_only_if_somebody_has_it(ada: User, clock: Any) -> None:
    from catalog.models import FailedLogin

    for name in ("hunter2", "ada", "no\0body", ""):
        log_in(name, "wrong")
    assert sorted(FailedLogin.objects.values_list("name", flat=True)) == ["", "ada"]


def test_counts_older_than_a_day_go(ada: User, clock: Any) -> None:
    from catalog.models import FailedLogin

    log_in("ada", "wrong", "10.0.0.1")
    clock.now = NOON + timedelta(days=1)
    log_in("ada", "wrong", "10.0.0.2")
    assert [failed.address for failed in FailedLogin.objects.all()] == ["10.0.0.2"]


@pytest.mark.parametrize(("is_trusted", "address"), [(False, "127.0.0.1"), (True, "8.8.8.8")])
def test_behind_a_proxy_that_is_trusted_the_address_is_the_one_it_saw_itself(
    ada: User, settings: Settings, is_trusted: bool, address: str
) -> None:
    from catalog.models import FailedLogin

    settings.FEATUREHUB_TRUST_FORWARDED_FOR = is_trusted
    log_in("ada", "wrong", **{"X-Forwarded-For": "1.2.3.4, 8.8.8.8"})
    assert FailedLogin.objects.get().address == address


def test_a_problem_document_still_answers_what_it_did() -> None:
    problem = json.loads(get("/groups").content)
    assert problem.keys() == {"type", "title", "status", "detail", "instance", "code", "errors"}
