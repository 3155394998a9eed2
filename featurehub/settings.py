"""Django's settings; every value that an operator may choose comes from featurehub/environment.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from featurehub.environment import PROJECT, celery_url, read_environment
from featurehub.secret_key import kept_secret_key

ENVIRONMENT = read_environment(os.environ)

# --- the feature store

BASE_DIR = PROJECT
EMBEDDED = ENVIRONMENT.embedded
FEATUREHUB_HOME: Path = ENVIRONMENT.home
FEATUREHUB_SOURCE_ROOTS: tuple[Path, ...] = ENVIRONMENT.source_roots
FEATUREHUB_OFFLINE_PATH: Path = ENVIRONMENT.offline_path
FEATUREHUB_ANONYMOUS_READS = ENVIRONMENT.anonymous_reads
FEATUREHUB_FUNCTION_MODULES: tuple[str, ...] = ENVIRONMENT.function_modules
FEATUREHUB_MAX_CLOCK_SKEW_SECONDS = ENVIRONMENT.max_clock_skew_seconds
FEATUREHUB_ERASED_FILES_KEPT_SECONDS = ENVIRONMENT.erased_files_kept_seconds
FEATUREHUB_FAILURE_RATE_LIMIT = ENVIRONMENT.failure_rate_limit
FEATUREHUB_LEASE_SECONDS = ENVIRONMENT.lease_seconds
FEATUREHUB_BULK_ROWS_PER_SECOND = ENVIRONMENT.bulk_rows_per_second
FEATUREHUB_KEY_PREFIX = ENVIRONMENT.key_prefix
FEATUREHUB_TRUST_FORWARDED_FOR = ENVIRONMENT.trusts_forwarded_for
FEATUREHUB_WEB_WORKERS = ENVIRONMENT.web_workers

ONLINE_REDIS_URL = ENVIRONMENT.redis_url
BROKER_REDIS_URL = ENVIRONMENT.broker_url
CACHE_REDIS_URL = ENVIRONMENT.cache_url

# --- Django

DEBUG = ENVIRONMENT.debug
SECRET_KEY = ENVIRONMENT.secret_key or kept_secret_key(FEATUREHUB_HOME)
ALLOWED_HOSTS = list(ENVIRONMENT.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENVIRONMENT.csrf_trusted_origins)

INSTALLED_APPS = [
    "featurehub.apps.FeaturehubConfig",
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.simple_history",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "simple_history",
    "django_celery_beat",
    "django_htmx",
    "catalog.apps.CatalogConfig",
    "ingestion.apps.IngestionConfig",
    "serving.apps.ServingConfig",
]

MIDDLEWARE = [
    "catalog.request_id.request_id_middleware",  # first, so that every answer has an id, refused hosts included
    "catalog.metrics.metrics_middleware",
    "django.middleware.security.SecurityMiddleware",
    "catalog.content_policy.content_policy_middleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
]

ROOT_URLCONF = "featurehub.urls"
WSGI_APPLICATION = "featurehub.wsgi.application"
APPEND_SLASH = False  # paths answer with and without one; a redirect would lose a POST's body
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
USE_I18N = False
DATETIME_FORMAT = "Y-m-d H:i:s e"  # with its zone
USE_TZ = True
TIME_ZONE = "UTC"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- the relational database

POSTGRESQL_OPTIONS = {"sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name", "options"}
#: How long a connection may take, and a lock; a process that was stopped in a transaction gives its locks up.
POSTGRESQL_WAITS = {
    "connect_timeout": "5",
    "options": "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30s",
}


def _sqlite(database: dict[str, Any]) -> dict[str, Any]:
    """A push is acknowledged once it is committed, so a commit reaches the disk (FULL); a transaction that will write
    takes its lock at its start (IMMEDIATE), where waiting for it works."""
    Path(database["NAME"]).parent.mkdir(parents=True, exist_ok=True)
    return {
        **database,
        "CONN_MAX_AGE": 60,  # opening it and its pragmas cost a push a twentieth
        "OPTIONS": {
            "timeout": 5,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
        },
        # A file, since a database in memory cannot be shared by threads that have a transaction each.
        "TEST": {"NAME": f"{database['NAME']}.test"},
    }


def _postgresql(database: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, str] = database["OPTIONS"]
    unknown = sorted(given.keys() - POSTGRESQL_OPTIONS)
    if unknown:
        raise ImproperlyConfigured(
            f"DATABASE_URL: no option {', '.join(unknown)}; there are {', '.join(sorted(POSTGRESQL_OPTIONS))}"
        )
    # Of two settings of one name in `options` the later counts.
    together = {"options": f"{POSTGRESQL_WAITS['options']} {given['options']}"} if "options" in given else {}
    options = POSTGRESQL_WAITS | given | together
    return {**database, "OPTIONS": options, "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}


_is_sqlite = ENVIRONMENT.database["ENGINE"].endswith("sqlite3")
DATABASES = {"default": _sqlite(ENVIRONMENT.database) if _is_sqlite else _postgresql(ENVIRONMENT.database)}

# --- cache and sessions

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": CACHE_REDIS_URL,
        "KEY_PREFIX": FEATUREHUB_KEY_PREFIX,
        "TIMEOUT": 300,
        "OPTIONS": {
            # JSON: the default would unpickle whatever stands in Redis.
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_CONNECT_TIMEOUT": 0.1,
            "SOCKET_TIMEOUT": 0.2,
            # A cache that is down is a cache without entries; pages then ask the database.
            "IGNORE_EXCEPTIONS": True,
        },
    }
}
# In the database, so that people stay logged in while Redis is down.
SESSION_COOKIE_AGE = 8 * 3600  # a working day, from the login
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"

CSRF_FAILURE_VIEW = "catalog.problems.csrf_failed"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
AUTHENTICATION_BACKENDS = ["catalog.logins.LimitedBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# --- tasks: the broker only hints at work, the runs and their leases are in the database

CELERY_BROKER_URL = celery_url(BROKER_REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    "health_check_interval": 25,
    "socket_connect_timeout": 5,
    # A broker that hangs must not keep a web thread for ever. Above the second for which a worker's read waits.
    "socket_timeout": 3,
    "global_keyprefix": f"{FEATUREHUB_KEY_PREFIX}:",
}
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# Below the visibility timeout, after which the broker hands a task out again. The thread pool cannot enforce them:
# there the lease of the run ends what hangs.
CELERY_TASK_TIME_LIMIT = 3300
CELERY_TASK_SOFT_TIME_LIMIT = 3000
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_POOL = "threads"  # prefork deadlocks once the parent has used Polars
CELERY_WORKER_CONCURRENCY = 2
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False  # a run holds its lease in the database and goes on
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
# Set up as a row like any schedule, so that it can be seen and changed in the admin.
CELERY_BEAT_SCHEDULE = {
    "publish the catalog version": {"task": "catalog.tasks.publish", "schedule": 1.0, "options": {"expires": 1.0}},
    "put small offline files together": {"task": "ingestion.tasks.upkeep", "schedule": 600.0},
    "compare offline files with what was committed": {"task": "ingestion.tasks.scrub", "schedule": 86_400.0},
    "tell followers what happened": {"task": "catalog.tasks.tell", "schedule": 60.0, "options": {"expires": 60.0}},
    "bring the stores up to date": {"task": "ingestion.tasks.catch_up", "schedule": 5.0, "options": {"expires": 5.0}},
}
CELERY_ENABLE_UTC = True
CELERY_TIMEZONE = "UTC"
DJANGO_CELERY_BEAT_TZ_AWARE = True

# --- HTTP

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "catalog.access.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["catalog.access.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "catalog.negotiation.Negotiation",
    "URL_FORMAT_OVERRIDE": None,  # `?format=` is no parameter of ours
    "EXCEPTION_HANDLER": "catalog.problems.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "COERCE_DECIMAL_TO_STRING": False,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "featurehub",
    "DESCRIPTION": "Register, ingest, serve and train with features.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "PREPROCESSING_HOOKS": ["catalog.openapi.without_trailing_slash"],
    "ENUM_NAME_OVERRIDES": {
        "FeatureStatusEnum": "catalog.models.status.Status.values",
        "RunKindEnum": "catalog.models.run.RunKind.values",
        "DataSourceKindEnum": ["file"],
    },
    # From this server, so that the page works without the internet.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

STATIC_URL = "/static/"
STATIC_ROOT = FEATUREHUB_HOME / "static" if EMBEDDED else PROJECT / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

#: The hub's colour, from the lightest to the darkest: the admin's, and that of the catalog's pages (catalog.css).
PRIMARY = {
    "50": "oklch(96.2% .018 272.314)",
    "100": "oklch(93% .034 272.788)",
    "200": "oklch(87% .065 274.039)",
    "300": "oklch(78.5% .115 274.713)",
    "400": "oklch(67.3% .182 276.935)",
    "500": "oklch(58.5% .233 277.117)",
    "600": "oklch(51.1% .262 276.966)",
    "700": "oklch(45.7% .24 277.023)",
    "800": "oklch(39.8% .195 277.366)",
    "900": "oklch(35.9% .144 278.697)",
    "950": "oklch(25.7% .09 281.288)",
}
UNFOLD = {
    "SITE_TITLE": "featurehub",
    "SITE_HEADER": "featurehub",
    "SITE_URL": "/",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("catalog/icon.svg")}],
    "STYLES": [lambda _: static("catalog/admin.css")],
    "SHOW_HISTORY": True,
    "COLORS": {"primary": PRIMARY},
    "SIDEBAR": {"navigation": "catalog.admin.navigation.sidebar"},
}

# --- security

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = ENVIRONMENT.tls
CSRF_COOKIE_SECURE = ENVIRONMENT.tls
SECURE_SSL_REDIRECT = ENVIRONMENT.tls
SECURE_REDIRECT_EXEMPT = [r"^(health|healthz|readyz)/?$"]  # asked by the machine itself, inside the proxy
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if ENVIRONMENT.tls else 0
if ENVIRONMENT.trusts_forwarded_proto:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# What other hosts under the same domain do is not the hub's to promise.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# --- logging: one line a message, on stderr (docs/monitoring.md)

FEATUREHUB_LOG_REQUESTS = ENVIRONMENT.logs_requests
_LINES = {"json": "catalog.log_lines.JsonLines", "text": "catalog.log_lines.ReadableLines"}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": _LINES[ENVIRONMENT.log_format]}},
    # Ids stand in paths, and Django logs the paths of refused requests.
    "filters": {"ids": {"()": "catalog.logged_paths.WithoutIds"}},
    "handlers": {"stderr": {"class": "catalog.log_lines.StderrLines", "formatter": "line", "filters": ["ids"]}},
    "root": {"handlers": ["stderr"], "level": ENVIRONMENT.log_level},
    # Django gives its own logger a handler and keeps it from the root's; here each message goes one way.
    "loggers": {
        "django": {"handlers": [], "level": ENVIRONMENT.log_level, "propagate": True},
        # The server's own lines, once it has loaded the application; without this they are the server's in form, too.
        "_granian": {"handlers": [], "propagate": True},
        "py4j": {"level": "WARNING"},  # Spark's wire to Java tells of each connection that it closes
    },
}
