"""A hub that others can reach: what it refuses to start with, the headers of its answers, and no pickle anywhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from kombu import Queue
from kombu.exceptions import ContentDisallowed
from pytest_django import Settings

from featurehub.celery import app
from featurehub.environment import PROJECT
from tests.featurehub.bomb import pickled_bomb, require_it_goes_off
from tests.test_layers import imported, unsafe

PASSWORD = "a right password, long enough"


def start(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Load the RSGI application in a process of its own, as a server does, with production's settings."""
    settings = {
        "FEATUREHUB_HOME": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{tmp_path}/hub.db",
        "REDIS_URL": "redis://localhost/0",
        "SECRET_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ALLOWED_HOSTS": "hub.example",
    }
    environment = {name: text for name, text in (settings | variables).items() if text}
    command = [sys.executable, "-c", "import featurehub.rsgi"]
    environment["PATH"] = os.environ["PATH"]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def test_with_production_settings_it_starts(tmp_path: Path) -> None:
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set"),
        ({"SECRET_KEY": "hush" * 20}, "SECRET_KEY: must be a random text"),
        ({"SECRET_KEY": "django-insecure-0123456789abcdefghijklmnopqrstuvwxyz"}, "SECRET_KEY: must be a random text"),
        ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS is not set"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS=*: must be host names"),
        ({"DEBUG": "true"}, "DEBUG=true: must be false"),
        ({"DEBUG": "true", "HOST": "0.0.0.0"}, "DEBUG=true: must be false"),  # noqa: S104  nothing binds it
        ({"FEATUREHUB_ANONYMOUS_READS": "true", "HOST": "hub.example"}, "FEATUREHUB_ANONYMOUS_READS=true: must be"),
    ],
    ids=lambda value: next(iter(value.items()), ("",))[0] if isinstance(value, dict) else "",
)
def test_it_does_not_start_with_what_would_open_it(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    done = start(tmp_path, **variables)
    assert done.returncode != 0
    assert said in done.stderr
    assert "hushhush" not in done.stderr


# -- Headers


@pytest.fixture
def browser(db: None, settings: Settings) -> Client:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    User.objects.create_user("ada", password=PASSWORD, is_staff=True, is_superuser=True)
    return Client()


PAGES = ["/admin/login/", "/admin/", "/admin/catalog/feature/", "/api/docs/"]
EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@pytest.mark.parametrize("path", [*PAGES, "/health", "/groups", "/nothing/there"])
def test_every_answer_has_the_headers_of_security_and_pages_a_content_policy(browser: Client, path: str) -> None:
    if path != "/admin/login/":
        browser.force_login(User.objects.get())
    response = browser.get(path)
    assert {name: response.get(name) for name in EVERYWHERE} == EVERYWHERE
    policy = response.get("Content-Security-Policy", "")
    assert ("frame-ancestors 'none'" in policy and "default-src 'self'" in policy) == (path in PAGES)
    assert "http" not in policy
    assert "*" not in policy


def test_a_form_that_comes_without_its_token_is_refused_in_words_or_as_a_problem(browser: Client) -> None:
    form, program = {"username": "ada", "password": PASSWORD}, Client(enforce_csrf_checks=True)
    response = program.post("/admin/login/", form, headers={"Sec-Fetch-Dest": "document"})
    assert response.status_code == 403
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "load its page again" in response.content.decode()
    response = program.post("/admin/login/", form)
    assert (response.status_code, response["Content-Type"]) == (403, "application/problem+json")


def log_in(browser: Client, **options: object) -> HttpResponse:
    return browser.post(reverse("admin:login"), {"username": "ada", "password": PASSWORD}, **options)


def test_behind_tls_cookies_are_secure_and_the_session_ends_with_the_day(browser: Client, settings: Settings) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    response = log_in(browser, secure=True)
    session = response.cookies["sessionid"]
    assert (session["secure"], session["httponly"], session["samesite"]) == (True, True, "Lax")
    assert session["max-age"] == 8 * 3600
    assert response.cookies["csrftoken"]["secure"]


def test_a_login_does_not_lead_to_another_host(browser: Client) -> None:
    response = browser.post(
        reverse("admin:login") + "?next=https://evil.example/",
        {"username": "ada", "password": PASSWORD, "next": "https://evil.example/"},
    )
    assert response.status_code == 302
    assert "evil.example" not in response["Location"]


def test_another_origin_is_told_nothing(browser: Client) -> None:
    browser.force_login(User.objects.get())
    for method in (browser.get, browser.options):
        response = method("/groups", headers={"Origin": "https://evil.example"})
        assert not [name for name in response.headers if name.lower().startswith("access-control-")]


# -- No pickle


OURS = sorted(
    path
    for folder in ("engine", "catalog", "ingestion", "serving", "featurehub", "tests", "benchmarks", "examples")
    for path in (PROJECT / folder).rglob("*.py")
    if path
    not in map(
        Path(__file__).with_name, ("test_hardening.py", "test_hostile_input.py", "bomb.py")
    )  # to see them refused
)


def test_nothing_in_the_tree_reads_or_writes_pickle() -> None:
    """PySpark's workers talk pickle to their driver; that is its own transport, and no file of ours imports it."""
    assert len(OURS) > 200
    found = {}
    for path in OURS:
        source = path.read_text()
        names = [name for name in unsafe(source) if "pickle" in name or "dill" in name or "joblib" in name]
        names += [name for name in imported(source, "x") if "pickle" in name]
        names += [
            node.value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and node.value == "pickle" and path.name != "test_layers.py"
        ]
        if names:
            found[str(path.relative_to(PROJECT))] = names
    assert found == {}


def test_every_serializer_of_the_settings_is_json() -> None:
    conf = app.conf
    assert [conf.task_serializer, conf.result_serializer, conf.event_serializer] == ["json"] * 3
    assert conf.accept_content == ["json"]
    assert conf.result_accept_content in (None, ["json"])
    assert "json" in django_settings.CACHES["default"]["OPTIONS"]["SERIALIZER"]
    assert django_settings.SESSION_SERIALIZER.endswith("JSONSerializer")


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[Path]:
    """Where a bomb would leave its file; it does go off where somebody unpickles it."""
    require_it_goes_off(tmp_path)
    yield tmp_path / "left"
    assert not (tmp_path / "left").exists()


def test_a_pickle_in_the_cache_is_not_loaded(redis_clean: redis.Redis, left_behind: Path) -> None:
    cache.set("customer", 1)
    with redis.Redis.from_url(django_settings.CACHE_REDIS_URL) as client:
        (key,) = client.scan_iter()
        client.set(key, pickled_bomb(left_behind))
    with pytest.raises(ValueError, match="decode"):  # as any text that is no JSON
        cache.get("customer")


def test_a_pickle_sent_to_the_broker_is_refused(redis_clean: redis.Redis, left_behind: Path) -> None:
    with app.connection_for_write() as broker, broker.channel() as channel:
        queue = Queue("celery", channel=channel)
        queue.declare()
        app.amqp.Producer(channel).publish(
            pickled_bomb(left_behind),
            routing_key="celery",
            content_type="application/x-python-serialize",
            content_encoding="binary",
        )
        message = queue.get(accept=app.conf.accept_content)
        assert message is not None
        with pytest.raises(ContentDisallowed):
            message.decode()
