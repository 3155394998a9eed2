"""Making a Python process one of the hub's: Django set up, a Redis chosen, the online store filled."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from functools import cache

from engine.errors import Unavailable
from featurehub.environment import is_loopback

DEFAULT_REDIS_PORT = 6379


def open_hub(redis_host: str | None, redis_port: int | None) -> None:
    """Set Django up if nobody did, choose the Redis, and have the online store filled."""
    import django
    from django.apps import apps
    from django.conf import settings

    if not apps.ready:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")
        django.setup()
    if settings.EMBEDDED:
        _open_embedded(redis_host, redis_port)
    elif redis_host is not None:
        _use_redis(redis_host, redis_port or DEFAULT_REDIS_PORT)
    from ingestion.materialize import ensure_warm

    ensure_warm()


def _open_embedded(redis_host: str | None, redis_port: int | None) -> None:
    from featurehub import preparation

    preparation.bring_database_up_to_date()
    if redis_host is not None:
        port = redis_port or DEFAULT_REDIS_PORT
        try:
            _use_redis(redis_host, port)
            return
        except Unavailable:
            if not is_loopback(redis_host):
                raise
            print(f"No Redis answers at {redis_host}:{port}; using the embedded stack's own.")
    _keep_private_redis()


def _use_redis(host: str, port: int) -> None:
    """Make the Redis at this address the online store of this process; raises Unavailable when none answers."""
    from django.conf import settings

    from catalog import stores
    from engine.online.store import OnlineStore

    url = f"redis://{f'[{host}]' if ':' in host else host}:{port}/0"
    OnlineStore(url, settings.FEATUREHUB_KEY_PREFIX).ping()
    settings.ONLINE_REDIS_URL = url
    stores.online.cache_clear()


@cache
def _keep_private_redis() -> None:
    """Have the private Redis run until this process ends; once, however many FeatureStores it makes."""
    from featurehub import embedded

    held = ExitStack()
    held.enter_context(embedded.redis())
    atexit.register(held.close)
