"""What `make run` does before it starts its servers: tables, static files, a login, an API key and demo data.

Each step is repeatable. Progress goes to stderr; stdout gets one JSON object, `{"user", "password", "key"}`.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import django
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

USER = "admin"
KEY_NAME = "make run"


def main() -> None:
    django.setup()
    # What a command prints is progress here: stdout is for the answer alone.
    with redirect_stdout(sys.stderr):
        login = _prepare()
    print(json.dumps(login))


def _prepare() -> dict[str, str]:
    with _step("database"):
        bring_database_up_to_date()
    forget_requests()
    with _step("static files"):
        call_command("collectstatic", verbosity=0, interactive=False)
    with _step("login and API key"):
        login = {"user": USER, "password": _fresh_password(), "key": _fresh_key()}
    with _step("demo data"):
        call_command("demo", follower=USER)
    return login


def bring_database_up_to_date() -> None:
    """Apply the migrations that the database lacks, if any: embedded, nobody else does."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0, interactive=False)


def forget_requests() -> None:
    """Remove what web processes counted that are gone: Prometheus takes counters that begin again."""
    from catalog.metrics import FOLDER  # models exist once Django is set up

    for file in FOLDER.glob("*.db"):
        file.unlink()


def fill_online_store() -> None:
    """Fill a private Redis that does not hold the store: a new one, or one whose file was lost."""
    from ingestion.materialize import ensure_warm  # models exist once Django is set up

    ensure_warm()


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"  {name} ...", file=sys.stderr, flush=True)
    yield
    print(f"  {name}: done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def _fresh_password() -> str:
    """A new password for the superuser of the embedded stack, who is made if need be."""
    from django.contrib.auth import get_user_model  # models exist once Django is set up

    password = secrets.token_urlsafe(12)
    user, _ = get_user_model().objects.get_or_create(
        username=USER, defaults={"is_staff": True, "is_superuser": True, "email": "admin@example.com"}
    )
    user.set_password(password)
    user.save()
    return password


def _fresh_key() -> str:
    """A key that reads and writes; the one of the run before ends here."""
    from catalog import access  # models exist once Django is set up
    from catalog.models import ApiKey

    for earlier in ApiKey.objects.filter(name=KEY_NAME, revoked_at=None):
        access.revoke_key(earlier.public_id)
    return access.create_key(name=KEY_NAME, scopes=access.SCOPES)[1]


if __name__ == "__main__":
    main()
