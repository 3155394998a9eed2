"""What every test stands on: a home of its own, settings read from it, a private redis-server and a database.

The database is SQLite, or with TESTS_ON=postgresql a cluster of this session's own. The settings read the environment
when they are first touched, so it is made here, while pytest loads this file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from pytest_django import Settings

from featurehub import private_redis
from featurehub.environment import OWN_PREFIX, SETTINGS
from tests import postgresql, spark
from tests.forgetting import forget
from tests.redis_cluster import RedisCluster

POSTGRESQL = postgresql.Cluster() if os.environ.get(postgresql.CHOICE) == "postgresql" else None
HOME = Path(tempfile.mkdtemp(prefix="featurehub-tests-"))


def _make_environment() -> None:
    """Nothing that the developer has set reaches a test."""
    for name in list(os.environ):
        if name in SETTINGS or name.startswith(OWN_PREFIX):
            del os.environ[name]
    os.environ.update(
        DJANGO_SETTINGS_MODULE="featurehub.settings",
        FEATUREHUB_HOME=str(HOME),
        FEATUREHUB_SOURCE_ROOTS=str(HOME / "sources"),
        FEATUREHUB_TLS="false",
        DATABASE_URL=POSTGRESQL.url("featurehub") if POSTGRESQL else f"sqlite:///{HOME / 'featurehub.sqlite3'}",
        REDIS_URL=private_redis.url(HOME),
        SECRET_KEY="a key for tests, which guards nothing at all, and is long",
        ALLOWED_HOSTS="testserver,localhost",
    )
    (HOME / "sources").mkdir()


_make_environment()

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("hub", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("hub")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What repeats a run of the model checker (tests/model)."""
    group = parser.getgroup("model checker")
    group.addoption(
        "--model-seed", type=int, default=None, help="the seed of a run that was printed; else a random one"
    )
    group.addoption("--model-kills", type=int, default=None, help="how many processes are killed")


def pytest_configure(config: pytest.Config) -> None:
    """Load the settings, so that pytest-django sets Django up."""
    from django.conf import settings

    assert settings.FEATUREHUB_HOME == HOME
    hands_out_tests = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if POSTGRESQL and not hands_out_tests:
        POSTGRESQL.start()


def pytest_xdist_setupnodes() -> None:
    """Each process that tests are handed out to makes an environment of its own, before its settings are loaded."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


def pytest_report_header() -> str:
    return f"database: {'PostgreSQL' if POSTGRESQL else 'SQLite'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not POSTGRESQL and postgresql.programs() is None:
        terminalreporter.write_line(postgresql.NOT_INSTALLED)


def pytest_unconfigure() -> None:
    if POSTGRESQL:
        POSTGRESQL.remove()
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def private_redis_url() -> Iterator[str]:
    """The URL of a redis-server that this session started and that nobody else can reach."""
    with private_redis.running(HOME) as url:
        client = redis.Redis.from_url(url)
        assert client.info("server")["process_id"] == private_redis.recorded_process_id(HOME)
        client.close()
        yield url


@pytest.fixture(scope="session", autouse=True)
def static_files_without_collecting() -> Iterator[None]:
    """Pages link static files by their names, since no test session collects them (journeys start a whole hub)."""
    from django.test import override_settings

    (HOME / "static").mkdir()  # the middleware warns about a folder that is not there
    storages = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    with override_settings(STORAGES=storages, STATIC_ROOT=HOME / "static"):
        yield


@pytest.fixture(scope="session")
def spark_session() -> Iterator[Any]:
    """A Spark session on a cluster of this session's own; tests that ask for it are skipped where there is no Spark."""
    if reason := spark.missing():
        pytest.skip(reason)
    with spark.running() as session:
        yield session


@pytest.fixture
def redis_clean(private_redis_url: str) -> Iterator[redis.Redis]:
    """A client of the private server's database 0; every database of it is empty now and again afterwards."""
    client = redis.Redis.from_url(private_redis_url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture(scope="session")
def running_redis_cluster() -> Iterator[RedisCluster]:
    """A Redis Cluster of three masters that this session started."""
    with closing(RedisCluster()) as running:
        yield running


@pytest.fixture
def redis_cluster(running_redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The same, empty; its nodes may be killed and its slots moved."""
    running_redis_cluster.reset()
    yield running_redis_cluster
    running_redis_cluster.reset()


@pytest.fixture
def cluster() -> Iterator[postgresql.Cluster]:
    """The session's PostgreSQL, which the test may kill; it runs again afterwards."""
    if POSTGRESQL is None:
        pytest.skip("about PostgreSQL")
    yield POSTGRESQL
    from django.db import connections

    connections.close_all()
    POSTGRESQL.start()


@pytest.fixture
def sources(db: None, redis_clean: redis.Redis, settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """The one source root of a hub that nobody else writes to; the hub's stores are empty and warm."""
    from ingestion import materialize

    root = tmp_path / "sources"
    root.mkdir()
    settings.FEATUREHUB_SOURCE_ROOTS = (root,)
    settings.FEATUREHUB_OFFLINE_PATH = tmp_path / "offline"
    forget()
    materialize.ensure_warm()
    yield root
    forget()


@pytest.fixture
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that call a WSGI application: the connection of their transaction stays open, as Django's own test
    client has it."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", lambda _: None)
