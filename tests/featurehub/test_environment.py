"""What the environment says, and how nonsense is refused."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from featurehub.environment import (
    PROJECT,
    Environment,
    celery_url,
    parse_database_url,
    read_environment,
    redis_database,
)
from featurehub.secret_key import kept_secret_key

PRODUCTION = {
    "DATABASE_URL": "postgres://hub:p%40ss@db.example:5433/features?sslmode=require",
    "REDIS_URL": "redis://cache.example:6380/4",
    "SECRET_KEY": "0123456789" * 5,
    "ALLOWED_HOSTS": "hub.example, .example.com",
}


def refusal(**variables: str) -> list[str]:
    """The problems that the reader lists for these variables on top of nothing."""
    with pytest.raises(ImproperlyConfigured) as caught:
        read_environment(variables)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_an_empty_environment_is_the_embedded_hub_of_this_project() -> None:
    read = read_environment({})
    home = PROJECT / ".featurehub"
    assert read.embedded
    assert read.home == home
    assert read.database["NAME"] == home / "featurehub.sqlite3"
    assert read.offline_path == home / "offline"
    assert read.source_roots == (home / "sources", PROJECT / "examples")
    assert read.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert (read.port, read.anonymous_reads, read.tls, read.debug) == (8000, False, False, False)
    assert (read.max_clock_skew_seconds, read.failure_rate_limit, read.key_prefix) == (300, 0.1, "fh")


def test_everything_moves_with_the_home(tmp_path: Path) -> None:
    read = read_environment({"FEATUREHUB_HOME": str(tmp_path)})
    assert read.database["NAME"] == tmp_path / "featurehub.sqlite3"
    assert read.redis_url == f"unix://{tmp_path}/redis/redis.sock?db=0"
    assert read.offline_path == tmp_path / "offline"


def test_production_values_are_read_into_types() -> None:
    read = read_environment(
        {**PRODUCTION, "PORT": "80", "FEATUREHUB_SOURCE_ROOTS": "/a:/b c", "FEATUREHUB_FUNCTION_MODULES": "a.b, c"}
    )
    assert not read.embedded
    assert read.database == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "features",
        "HOST": "db.example",
        "PORT": "5433",
        "USER": "hub",
        "PASSWORD": "p@ss",
        "OPTIONS": {"sslmode": "require"},
    }
    assert read.allowed_hosts == ("hub.example", ".example.com")
    assert read.source_roots == (Path("/a"), Path("/b c"))
    assert read.function_modules == ("a.b", "c")
    assert (read.port, read.tls) == (80, True)


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [("DB.Example:5433", "db.example", "5433"), ("%2Frun%2FPostgreSQL", "/run/PostgreSQL", ""), ("[::1]", "::1", "")],
)
def test_the_host_of_a_database_may_be_the_folder_of_a_socket(written: str, host: str, port: str) -> None:
    read = parse_database_url(f"postgres://hub@{written}/features")
    assert (read["HOST"], read["PORT"], read["USER"]) == (host, port, "hub")


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert read_environment({"PORT": "", "DATABASE_URL": " ", "FEATUREHUB_HOME": ""}) == read_environment({})


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("PORT", "abc", "a whole number from 1 to 65535"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "65536", "a whole number from 1 to 65535"),
        ("PORT", "-1", "a whole number from 1 to 65535"),
        ("FEATUREHUB_FAILURE_RATE_LIMIT", "nan", "a number from 0.0 to 1.0"),
        ("FEATUREHUB_FAILURE_RATE_LIMIT", "1.1", "a number from 0.0 to 1.0"),
        ("DEBUG", "maybe", "true or false"),
        ("FEATUREHUB_OFFLINE_URL", "s3://bucket", "a folder or a file:// URL (object storage is not supported yet)"),
        ("FEATUREHUB_OFFLINE_URL", "file://far/x", "a folder or a file:// URL (object storage is not supported yet)"),
        ("FEATUREHUB_KEY_PREFIX", "a:b", "1 to 32 of a-z, 0-9, '_' and '-', a letter first"),
        ("CSRF_TRUSTED_ORIGINS", "hub.example", "origins as https://host or http://host:port, with ',' between them"),
        ("FEATUREHUB_FUNCTION_MODULES", "os;sys", "dotted module names with ',' between them"),
        ("FEATUREHUB_LOG_LEVEL", "loud", "DEBUG, INFO, WARNING or ERROR"),
    ],
)
def test_nonsense_is_refused_by_name_with_what_would_be_right(name: str, text: str, right: str) -> None:
    assert refusal(**{name: text}) == [f"{name}={text}: must be {right}"]


@pytest.mark.parametrize("hosts", ["*", "http://hub.example", "hub.example:80", "a b"])
def test_hosts_are_bare_names(hosts: str) -> None:
    (problem,) = refusal(ALLOWED_HOSTS=hosts)
    assert problem.startswith(f"ALLOWED_HOSTS={hosts}: must be host names without scheme or port")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SECRET_KEY", "hunter2"),
        ("DATABASE_URL", "mysql://hub:hunter2@db/features"),
        ("DATABASE_URL", "postgres://hub:hunter2@db/"),
        ("REDIS_URL", "redis://:hunter2@cache/14"),
        ("REDIS_URL", "http://:hunter2@cache"),
        ("REDIS_URL", "redis://:hunter2@cache:port"),
        ("REDIS_URL", "redis+cluster://:hunter2@one,two/1"),
        ("REDIS_URL", "redis+cluster://:hunter2@one:port,two"),
        ("REDIS_URL", "redis+cluster://:hunter2@one,,two"),
    ],
)
def test_a_refused_secret_is_not_repeated(name: str, text: str) -> None:
    problems = refusal(**{**PRODUCTION, name: text})
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}: must be ")
    assert "hunter2" not in problems[0]


def test_all_problems_come_in_one_message() -> None:
    problems = refusal(PORT="abc", DEBUG="maybe", FEATUREHUB_HOMME="/x")
    assert [problem.split("=")[0].split(" ")[0] for problem in problems] == ["FEATUREHUB_HOMME", "PORT", "DEBUG"]


def test_an_unknown_variable_of_ours_is_refused_with_near_names_and_others_are_left_alone() -> None:
    assert refusal(FEATUREHUB_HOMME="/x", HOMME="/x", FEATUREHUB_API_KEY="fh_1") == [
        "FEATUREHUB_HOMME is not a setting. Did you mean FEATUREHUB_HOME?"
    ]


@pytest.mark.parametrize(("given", "missing"), [("DATABASE_URL", "REDIS_URL"), ("REDIS_URL", "DATABASE_URL")])
def test_half_a_production_setup_is_refused(given: str, missing: str) -> None:
    variables = {name: text for name, text in PRODUCTION.items() if name != missing}
    (problem,) = refusal(**variables)
    assert problem.startswith(f"{missing} is not set: {given} is, and the two go together")


@pytest.mark.parametrize("url", ["redis+cluster://one,two:7000/0", "rediss+cluster://hub:secret@one:7000,[::1]:7001"])
def test_a_cluster_is_for_the_online_store_alone(url: str) -> None:
    own = {"FEATUREHUB_BROKER_URL": "redis://broker/0", "FEATUREHUB_CACHE_URL": "redis://cache/0"}
    read = read_environment({**PRODUCTION, "REDIS_URL": url, **own})
    assert (read.redis_url, read.broker_url, read.cache_url) == (url, *own.values())
    assert [problem.split(":")[0] for problem in refusal(**{**PRODUCTION, "REDIS_URL": url})] == [
        "FEATUREHUB_BROKER_URL is not set",
        "FEATUREHUB_CACHE_URL is not set",
    ]
    (problem,) = refusal(**{**PRODUCTION, "REDIS_URL": url, **own, "FEATUREHUB_CACHE_URL": url})
    assert problem.startswith("FEATUREHUB_CACHE_URL: must be a redis://")


def test_production_needs_its_key_and_its_hosts() -> None:
    problems = refusal(DATABASE_URL=PRODUCTION["DATABASE_URL"], REDIS_URL=PRODUCTION["REDIS_URL"])
    assert [problem.split(" ")[0] for problem in problems] == ["SECRET_KEY", "ALLOWED_HOSTS"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_anonymous_reads_are_for_loopback(host: str) -> None:
    assert read_environment({"HOST": host, "FEATUREHUB_ANONYMOUS_READS": "true"}).anonymous_reads


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "hub.example", "127.example"])  # noqa: S104  nothing binds it
def test_anonymous_reads_are_refused_where_others_can_ask(host: str) -> None:
    (problem,) = refusal(HOST=host, FEATUREHUB_ANONYMOUS_READS="true")
    assert problem == f"FEATUREHUB_ANONYMOUS_READS=true: must be false while HOST={host} is no loopback address"


@pytest.mark.parametrize("host", ["0.0.0.0", "hub.example"])  # noqa: S104  nothing binds it
def test_debug_pages_are_refused_where_others_can_ask(host: str) -> None:
    assert refusal(HOST=host, DEBUG="true") == [f"DEBUG=true: must be false while HOST={host} is no loopback address"]
    assert read_environment({"DEBUG": "true"}).debug
    (problem,) = refusal(**PRODUCTION, DEBUG="true")  # behind a proxy of this machine
    assert problem == (
        "DEBUG=true: must be false while ALLOWED_HOSTS has hub.example, .example.com, which others can reach"
    )


@pytest.mark.parametrize("key", ["x" * 60, "0123456789" * 4, "django-insecure-" + "0123456789" * 5])
def test_a_secret_key_that_is_short_or_no_secret_is_refused(key: str) -> None:
    assert refusal(**{**PRODUCTION, "SECRET_KEY": key}) == [
        "SECRET_KEY: must be a random text of at least 50 characters"
    ]


def test_relative_folders_start_at_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = read_environment({"FEATUREHUB_HOME": "homes/one", "FEATUREHUB_OFFLINE_URL": "file:///a%20b"})
    assert read.home == PROJECT / "homes" / "one"
    assert read.offline_path == Path("/a b")


def test_sqlite_paths_are_absolute_with_four_slashes_and_in_the_project_with_three() -> None:
    assert parse_database_url("sqlite:////var/hub.db")["NAME"] == Path("/var/hub.db")
    assert parse_database_url("sqlite:///hub.db")["NAME"] == PROJECT / "hub.db"


@pytest.mark.parametrize(
    ("redis_url", "second", "celery"),
    [
        ("redis://cache:6379", "redis://cache:6379?db=1", "redis://cache:6379/1"),
        ("redis://cache:6379/4", "redis://cache:6379?db=5", "redis://cache:6379/5"),
        ("redis://:p%40@cache/?db=4", "redis://:p%40@cache?db=5", "redis://:p%40@cache/5"),
        ("unix:///a%20b/s.sock", "unix:///a%20b/s.sock?db=1", "redis+socket:///a%20b/s.sock?virtual_host=1"),
    ],
)
def test_the_next_database_in_both_spellings(redis_url: str, second: str, celery: str) -> None:
    assert redis_database(redis_url, 1) == second
    assert celery_url(second) == celery


def test_store_broker_and_cache_have_databases_of_their_own_unless_named() -> None:
    def urls(read: Environment) -> tuple[str, str, str]:
        return read.redis_url, read.broker_url, read.cache_url

    assert urls(read_environment(PRODUCTION)) == (
        "redis://cache.example:6380/4",
        "redis://cache.example:6380?db=5",
        "redis://cache.example:6380?db=6",
    )
    named = {**PRODUCTION, "FEATUREHUB_BROKER_URL": "redis://b/0", "FEATUREHUB_CACHE_URL": "redis://c/15"}
    assert urls(read_environment(named))[1:] == ("redis://b/0", "redis://c/15")


def test_the_kept_secret_key_is_one_for_all_and_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(kept_secret_key, [home] * 8))
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert stat.S_IMODE((home / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["secret_key"]
