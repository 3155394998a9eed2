"""What the settings promise to the rest: durable commits, tasks on our Celery app, no pickle, a clean deploy check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app, shared_task
from django.conf import settings
from django.core.cache import cache
from django.db import connection

from featurehub.celery import app
from featurehub.environment import PROJECT, parse_database_url
from featurehub.settings import _postgresql


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("pragma", "wanted"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)])
def test_a_commit_to_sqlite_reaches_the_disk_and_keys_are_checked(pragma: str, wanted: object) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite")
    with connection.cursor() as cursor:
        assert cursor.execute(f"PRAGMA {pragma}").fetchone() == (wanted,)


@pytest.mark.django_db(transaction=True)
def test_the_test_database_is_a_file_that_threads_can_share() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite")
    assert Path(connection.settings_dict["NAME"]).is_file()


def test_a_shared_task_binds_to_our_celery_app_and_not_to_celerys_default() -> None:
    @shared_task(name="tests.which_app")
    def which_app() -> None: ...

    assert which_app.app.main == "featurehub"
    assert current_app.conf.broker_url == settings.CELERY_BROKER_URL


def test_a_message_goes_to_the_brokers_database_and_a_cached_value_to_the_caches(redis_clean: redis.Redis) -> None:
    redis_clean.set("a row of the store", 1)
    cache.set("customer", {"C1": "gold"})
    with app.connection_for_write() as broker:
        app.send_task("tests.never_run", connection=broker)
    cache.clear()
    keyspace: Any = redis_clean.info("keyspace")
    assert keyspace.keys() == {"db0", "db1"}
    assert redis_clean.get("a row of the store") == b"1"


def test_a_cached_value_is_json(redis_clean: redis.Redis) -> None:
    cache.set("customer", {"C1": "gold"}, timeout=None)
    with redis.Redis.from_url(settings.CACHE_REDIS_URL) as client:
        assert [client.get(key) for key in client.scan_iter()] == [b'{"C1": "gold"}']


def test_a_task_that_is_not_json_is_not_accepted() -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_time_limit < app.conf.broker_transport_options["visibility_timeout"]


def test_postgresql_is_waited_for_only_so_long_unless_the_url_says_otherwise() -> None:
    def options(url: str) -> dict[str, str]:
        return _postgresql(parse_database_url(url))["OPTIONS"]

    bounds = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"
    assert options("postgres://hub@db/hub") == {"connect_timeout": "5", "options": bounds}
    own = options("postgres://hub@db/hub?connect_timeout=9&options=-c%20lock_timeout%3D9s&sslmode=require")
    assert own == {"connect_timeout": "9", "options": f"{bounds} -c lock_timeout=9s", "sslmode": "require"}


def test_the_deploy_check_is_clean_in_production(tmp_path: Path) -> None:
    variables = {
        "PATH": os.environ["PATH"],
        "FEATUREHUB_HOME": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{tmp_path}/hub.db",
        "REDIS_URL": "redis://localhost/0",
        "SECRET_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ALLOWED_HOSTS": "hub.example",
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
