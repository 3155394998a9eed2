"""What the environment variables say, read once into typed values; nonsense is refused by name.

`Environment` is the one table of settings: a field per variable, with its kind, its default and a line of help.
docs/settings.md lists the same rows for people. A variable that is set to nothing counts as not set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured

from engine.errors import near_names
from featurehub import private_redis

PROJECT = Path(__file__).resolve().parent.parent
OWN_PREFIX = "FEATUREHUB_"
#: Named alike, but the caller's: the key that snippets and documentation take from a shell.
CALLERS_KEY = "FEATUREHUB_API_KEY"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
#: What `manage.py check --deploy` wants, so that a hub that starts passes it.
SHORTEST_SECRET_KEY = 50
FEWEST_DIFFERENT_CHARACTERS = 5
HIGHEST_DATABASE = 15  # a Redis has 16 unless told otherwise


@dataclass(frozen=True, slots=True)
class Kind:
    """What a variable may hold: `parse` turns text into the value or raises ValueError; `right` says what would do."""

    right: str
    parse: Callable[[str], Any]
    # True: the text may hold a password, so no message repeats it.
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    help: str
    # A value, or a function from the home folder to one. REQUIRED: there is none.
    default: Any
    # The default in embedded mode, where it differs.
    embedded: Any

    def default_in(self, home: Path, *, embedded: bool) -> Any:
        """The value when the variable is not set; REQUIRED where there is none."""
        default = self.embedded if embedded and self.embedded is not _SAME else self.default
        return default(home) if callable(default) else default

    def problem(self, text: str) -> str:
        """What is wrong with `text`, and what would be right."""
        shown = self.name if self.kind.secret else f"{self.name}={text}"
        return f"{shown}: must be {self.kind.right}"


REQUIRED = object()
_SAME = object()


def _setting(name: str, kind: Kind, help: str, *, default: Any = REQUIRED, embedded: Any = _SAME) -> Any:
    return field(metadata={"setting": Setting(name, kind, help, default, embedded)})


def _from_project(path: str | Path) -> Path:
    """An absolute path: a relative one starts at the project, so that it means the same from everywhere."""
    return Path(os.path.abspath(PROJECT / Path(path).expanduser()))


def _text(right: str, pattern: str = r"\S+", *, secret: bool = False) -> Kind:
    return Kind(right, lambda text: _matching(pattern, text), secret)


def _matching(pattern: str, text: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise ValueError(text)
    return text


def _list_of(right: str, pattern: str) -> Kind:
    return Kind(right, lambda text: tuple(_matching(pattern, part.strip()) for part in text.split(",") if part.strip()))


def _whole_number(lowest: int, highest: int) -> Kind:
    def parse(text: str) -> int:
        return int(_between(lowest, int(_matching(r"[0-9]{1,12}", text)), highest))

    return Kind(f"a whole number from {lowest} to {highest}", parse)


def _number(lowest: float, highest: float) -> Kind:
    return Kind(f"a number from {lowest} to {highest}", lambda text: _between(lowest, float(text), highest))


def _between(lowest: float, value: float, highest: float) -> float:
    if not lowest <= value <= highest:  # also refuses NaN, which is not between anything
        raise ValueError(value)
    return value


def _parse_boolean(text: str) -> bool:
    answers = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in answers:
        raise ValueError(text)
    return answers[text.lower()]


def _parse_secret_key(text: str) -> str:
    """What Django's own check takes; it also knows the keys of `startproject` by how they begin."""
    is_random = len(set(text)) >= FEWEST_DIFFERENT_CHARACTERS and not text.startswith("django-insecure-")
    if len(text) < SHORTEST_SECRET_KEY or not is_random:
        raise ValueError(text)
    return text


def _parse_offline(text: str) -> Path:
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in {"", "localhost"} or not parts.path:
            raise ValueError(text)
        return _from_project(unquote(parts.path))
    if "://" in text:
        raise ValueError(text)
    return _from_project(text)


def parse_database_url(text: str) -> dict[str, Any]:
    """Django's DATABASES entry without the options of an engine: ENGINE, NAME and, for PostgreSQL, where and who.

    >>> parse_database_url("postgres://hub:s%40cret@db:5433/features?sslmode=require")["HOST"]
    'db'
    """
    parts = urlsplit(text)
    name = unquote(parts.path[1:])
    if not name or parts.scheme not in {"sqlite", "postgres", "postgresql"}:
        raise ValueError(text)
    if parts.scheme == "sqlite":
        if parts.netloc or parts.query:
            raise ValueError(text)
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": _from_project(name)}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "HOST": unquote(_host(parts)),
        "PORT": str(parts.port or ""),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "OPTIONS": {key: values[-1] for key, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()},
    }


def _host(parts: SplitResult) -> str:
    """The host as it was written: `hostname` is in lower case, which the folder of a socket need not be."""
    written = parts.netloc.rpartition("@")[2]
    return written.partition(":")[0] if written.lower().startswith("%2f") else parts.hostname or ""


def _redis_url(highest_database: int) -> Kind:
    right = f"a redis://host:port/N, rediss:// or unix:///socket?db=N URL with N from 0 to {highest_database}"
    return Kind(right, lambda text: _parse_redis_url(text, highest_database), secret=True)


def _parse_redis_url(text: str, highest_database: int) -> str:
    parts = urlsplit(text)
    if parts.scheme == "unix":
        acceptable = bool(parts.path)
    else:
        acceptable = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
    if not acceptable or _database_number(text) > highest_database:
        raise ValueError(text)
    return text


def _store_url(text: str) -> str:
    """A Redis, or a Redis Cluster by the addresses of some of its nodes; a cluster has database 0 only."""
    parts = urlsplit(text)
    if not is_cluster_url(text):
        return _parse_redis_url(text, HIGHEST_DATABASE - 2)
    nodes = [urlsplit(f"//{address}") for address in parts.netloc.rpartition("@")[2].split(",")]
    if not all(node.hostname and node.port != 0 for node in nodes) or _database_number(text):
        raise ValueError(text)
    return text


def is_cluster_url(redis_url: str) -> bool:
    """Whether the URL names a Redis Cluster."""
    return urlsplit(redis_url).scheme in {"redis+cluster", "rediss+cluster"}


def _database_number(redis_url: str) -> int:
    """The database that a Redis URL names: by `?db=N`, or by its path unless that is a socket's; 0 by default."""
    parts = urlsplit(redis_url)
    path = "" if parts.scheme == "unix" else parts.path.strip("/")
    text = parse_qs(parts.query).get("db", [path])[-1] or "0"
    return int(_matching(r"[0-9]{1,9}", text))


def redis_database(redis_url: str, offset: int) -> str:
    """`redis_url` with its database number raised by `offset`, as redis-py reads it.

    >>> redis_database("redis://cache:6379/3", 2)
    'redis://cache:6379?db=5'
    """
    parts = urlsplit(redis_url)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    query["db"] = str(_database_number(redis_url) + offset)
    path = parts.path if parts.scheme == "unix" else ""
    return f"{parts.scheme}://{parts.netloc}{path}?{urlencode(query)}"


def celery_url(redis_url: str) -> str:
    """`redis_url` in Celery's spelling: kombu takes the database from the path, or `virtual_host` for a socket.

    >>> celery_url("unix:///run/redis.sock?db=1")
    'redis+socket:///run/redis.sock?virtual_host=1'
    """
    parts = urlsplit(redis_url)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items() if key != "db"}
    number = _database_number(redis_url)
    if parts.scheme == "unix":
        options = urlencode({**query, "virtual_host": number})
        return f"redis+socket://{parts.netloc}{quote(unquote(parts.path))}?{options}"
    return f"{parts.scheme}://{parts.netloc}/{number}{'?' + urlencode(query) if query else ''}"


_FOLDER = Kind("a folder", _from_project)
_BOOLEAN = Kind("true or false", _parse_boolean)


def _default_source_roots(home: Path) -> tuple[Path, ...]:
    return (home / "sources",)


def _embedded_source_roots(home: Path) -> tuple[Path, ...]:
    return (home / "sources", PROJECT / "examples")


@dataclass(frozen=True, slots=True)
class Environment:
    """Every setting, parsed. `embedded`: neither a database nor a Redis was named, so both are this project's own."""

    embedded: bool

    home: Path = _setting(
        "FEATUREHUB_HOME",
        _FOLDER,
        "Where the embedded stack keeps its database, its Redis file, its key and the offline store.",
        default=PROJECT / ".featurehub",
    )
    database: dict[str, Any] = _setting(
        "DATABASE_URL",
        Kind("a sqlite:///path or postgres://user:password@host:port/name URL", parse_database_url, secret=True),
        "The relational database. With neither this nor REDIS_URL the hub runs embedded.",
        embedded=lambda home: {"ENGINE": "django.db.backends.sqlite3", "NAME": home / "featurehub.sqlite3"},
    )
    redis_url: str = _setting(
        "REDIS_URL",
        Kind(
            f"a redis://host:port/N, rediss:// or unix:///socket?db=N URL with N from 0 to {HIGHEST_DATABASE - 2}"
            " (broker and cache take the next two), or redis+cluster://host:port,host:port",
            _store_url,
            secret=True,
        ),
        "The online store's Redis or Redis Cluster; a Redis also holds the broker's and the cache's data unless they "
        "have their own.",
        embedded=private_redis.url,
    )
    own_broker_url: str | None = _setting(
        "FEATUREHUB_BROKER_URL",
        _redis_url(HIGHEST_DATABASE),
        "A Redis of its own for Celery's messages, so that they and the store have separate memory limits.",
        default=None,
    )
    own_cache_url: str | None = _setting(
        "FEATUREHUB_CACHE_URL", _redis_url(HIGHEST_DATABASE), "A Redis of its own for cached values.", default=None
    )
    offline_path: Path = _setting(
        "FEATUREHUB_OFFLINE_URL",
        Kind("a folder or a file:// URL (object storage is not supported yet)", _parse_offline),
        "Where the offline store keeps its tables.",
        default=lambda home: home / "offline",
    )
    source_roots: tuple[Path, ...] = _setting(
        "FEATUREHUB_SOURCE_ROOTS",
        Kind(
            f"folders with {os.pathsep!r} between them",
            lambda text: tuple(_from_project(part) for part in text.split(os.pathsep) if part),
        ),
        "Folders that the source paths of definitions may lie in.",
        default=_default_source_roots,
        embedded=_embedded_source_roots,
    )
    function_modules: tuple[str, ...] = _setting(
        "FEATUREHUB_FUNCTION_MODULES",
        _list_of("dotted module names with ',' between them", r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"),
        "Installed modules whose functions may be named as transformations.",
        default=(),
    )
    host: str = _setting(
        "HOST",
        _text("a host name or an address without a port", r"[^\s/]+"),
        "The address to listen on.",
        default="127.0.0.1",
    )
    port: int = _setting("PORT", _whole_number(1, 65535), "The port to listen on.", default=8000)
    web_workers: int = _setting("FEATUREHUB_WEB_WORKERS", _whole_number(1, 256), "Web processes.", default=2)
    anonymous_reads: bool = _setting(
        "FEATUREHUB_ANONYMOUS_READS",
        _BOOLEAN,
        "Reads need no key. Only while HOST is a loopback address; `make run` switches it on there.",
        default=False,
    )
    secret_key: str | None = _setting(
        "SECRET_KEY",
        Kind(f"a random text of at least {SHORTEST_SECRET_KEY} characters", _parse_secret_key, secret=True),
        "Signs sessions and tokens.",
        embedded=None,  # made once and kept in the home folder
    )
    allowed_hosts: tuple[str, ...] = _setting(
        "ALLOWED_HOSTS",
        _list_of(
            "host names without scheme or port, with ',' between them ('*' is refused: it would switch the check off)",
            r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]",
        ),
        "The host names under which the hub answers.",
        embedded=("localhost", "127.0.0.1", "[::1]"),
    )
    csrf_trusted_origins: tuple[str, ...] = _setting(
        "CSRF_TRUSTED_ORIGINS",
        _list_of("origins as https://host or http://host:port, with ',' between them", r"https?://[^\s/,]+"),
        "Other origins whose pages may post to the hub with a session.",
        default=(),
    )
    tls: bool = _setting(
        "FEATUREHUB_TLS",
        _BOOLEAN,
        "Browsers reach the hub over TLS only: other requests are redirected and cookies are marked secure.",
        default=True,
        embedded=False,
    )
    trusts_forwarded_proto: bool = _setting(
        "FEATUREHUB_TRUST_FORWARDED_PROTO",
        _BOOLEAN,
        "A proxy in front ends TLS and sets X-Forwarded-Proto itself, whatever the caller sent.",
        default=False,
    )
    trusts_forwarded_for: bool = _setting(
        "FEATUREHUB_TRUST_FORWARDED_FOR",
        _BOOLEAN,
        "A proxy in front adds the caller's address at the end of X-Forwarded-For; failed logins are counted by it.",
        default=False,
    )
    debug: bool = _setting("DEBUG", _BOOLEAN, "Django's debug pages. Never where others can reach it.", default=False)
    log_level: str = _setting(
        "FEATUREHUB_LOG_LEVEL",
        _text("DEBUG, INFO, WARNING or ERROR", "DEBUG|INFO|WARNING|ERROR"),
        "The least severe messages that are logged.",
        default="INFO",
    )
    log_format: str = _setting(
        "FEATUREHUB_LOG_FORMAT",
        _text("json or text", "json|text"),
        "How a line of the log is written: as a JSON object, or for people.",
        default="json",
        embedded="text",
    )
    logs_requests: bool = _setting(
        "FEATUREHUB_LOG_REQUESTS", _BOOLEAN, "A line in the log for each answered request.", default=False
    )
    max_clock_skew_seconds: int = _setting(
        "FEATUREHUB_MAX_CLOCK_SKEW_SECONDS",
        _whole_number(0, 86_400),
        "An event later than now by more than this is refused.",
        default=300,
    )
    erased_files_kept_seconds: int = _setting(
        "FEATUREHUB_ERASED_FILES_KEPT_SECONDS",
        _whole_number(0, 30 * 86_400),
        "Offline files that an erasure replaced are kept so long, for readers that began before it.",
        default=86_400,
    )
    lease_seconds: float = _setting(
        "FEATUREHUB_LEASE_SECONDS",
        _number(1.0, 3600.0),
        "A run whose worker has not been heard of for this long is taken up by another.",
        default=30,
    )
    failure_rate_limit: float = _setting(
        "FEATUREHUB_FAILURE_RATE_LIMIT",
        _number(0.0, 1.0),
        "A run fails as a whole when a larger share of its rows breaks the rules.",
        default=0.1,
    )
    bulk_rows_per_second: int = _setting(
        "FEATUREHUB_BULK_ROWS_PER_SECOND",
        _whole_number(0, 10_000_000),
        "At most so many rows a second does a process bring online from the offline tables; 0 is as fast as it goes.",
        default=0,
    )
    key_prefix: str = _setting(
        "FEATUREHUB_KEY_PREFIX",
        _text("1 to 32 of a-z, 0-9, '_' and '-', a letter first", r"[a-z][a-z0-9_-]{0,31}"),
        "The first part of every key in Redis, so that two hubs can share one.",
        default="fh",
    )

    @property
    def broker_url(self) -> str:
        """Celery's Redis, as redis-py reads it: its own, or the next database number of the store's."""
        return self.own_broker_url or redis_database(self.redis_url, 1)

    @property
    def cache_url(self) -> str:
        """The cache's Redis: its own, or the next but one of the store's, since clearing a cache empties a database."""
        return self.own_cache_url or redis_database(self.redis_url, 2)


SETTINGS: dict[str, Setting] = {
    each.metadata["setting"].name: each.metadata["setting"] for each in fields(Environment) if each.metadata
}


def read_environment(variables: Mapping[str, str]) -> Environment:
    """The settings that `variables` make; raises ImproperlyConfigured with every problem at once, a line each."""
    given = {name: text for name in SETTINGS if (text := variables.get(name, "").strip())}
    embedded = not {"DATABASE_URL", "REDIS_URL"} & given.keys()
    values, problems = _parsed(given)
    problems = _unknown_names(variables) + problems
    home = values.get("FEATUREHUB_HOME", SETTINGS["FEATUREHUB_HOME"].default)
    for name, setting in SETTINGS.items():
        if name in given:
            continue
        values[name] = setting.default_in(home, embedded=embedded)
        if values[name] is REQUIRED:
            problems.append(f"{name} is not set: {_reason_required(name, given)}")
    problems += _contradictions(values)
    if problems:
        raise ImproperlyConfigured("\n  ".join(["The environment cannot be used:", *problems]))
    return Environment(
        embedded, **{each.name: values[each.metadata["setting"].name] for each in fields(Environment) if each.metadata}
    )


def _parsed(given: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    problems = []
    for name, text in given.items():
        try:
            values[name] = SETTINGS[name].kind.parse(text)
        except ValueError:
            problems.append(SETTINGS[name].problem(text))
    return values, problems


def _unknown_names(variables: Mapping[str, str]) -> list[str]:
    """A misspelt variable would be a setting that silently keeps its default."""
    problems = []
    for name in sorted(variables):
        if name.startswith(OWN_PREFIX) and name not in SETTINGS and name != CALLERS_KEY:
            own = {known.removeprefix(OWN_PREFIX): known for known in SETTINGS}
            near = [own[found] for found in near_names(name.removeprefix(OWN_PREFIX), own)]
            problems.append(f"{name} is not a setting." + (f" Did you mean {' or '.join(near)}?" if near else ""))
    return problems


def _reason_required(name: str, given: Mapping[str, str]) -> str:
    """Half a production set-up is refused: the other half would silently be a database or a Redis of this machine."""
    other = {"DATABASE_URL": "REDIS_URL", "REDIS_URL": "DATABASE_URL"}.get(name)
    if other in given:
        return f"{other} is, and the two go together (with neither, the hub runs embedded)."
    return f"it must be {SETTINGS[name].kind.right} when DATABASE_URL and REDIS_URL are set."


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What tells everybody something, or lets everybody read, is for this machine alone."""
    problems = []
    if not is_loopback(values.get("HOST", "")):
        problems = [
            f"{name}=true: must be false while HOST={values.get('HOST')} is no loopback address"
            for name in ("FEATUREHUB_ANONYMOUS_READS", "DEBUG")
            if values.get(name)
        ]
    # A proxy on this machine brings others to a loopback address; it is the name by which they come that tells.
    hosts = values.get("ALLOWED_HOSTS")
    public = [host for host in hosts if not is_loopback(host)] if isinstance(hosts, tuple) else []
    if values.get("DEBUG") and public and not problems:
        problems = [f"DEBUG=true: must be false while ALLOWED_HOSTS has {', '.join(public)}, which others can reach"]
    if isinstance(url := values.get("REDIS_URL"), str) and is_cluster_url(url):
        problems += [
            f"{name} is not set: it must be a Redis of its own, since a Redis Cluster (REDIS_URL) has one database."
            for name in ("FEATUREHUB_BROKER_URL", "FEATUREHUB_CACHE_URL")
            if name in values and values[name] is None
        ]
    return problems


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host`."""
    return host.strip("[]").lower() in LOOPBACK_HOSTS or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
