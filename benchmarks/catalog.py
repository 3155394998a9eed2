"""How long the catalog's pages take in a large catalog, through the WSGI application in this process.

python -m benchmarks.catalog HOME          (on the DATABASE_URL of the environment, else on SQLite in HOME)

A request's time is the server's: routing, session, queries, template. Each page is asked for in turn, so that none has
the caches of the database to itself; how many queries it makes is counted apart.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

from benchmarks import hub
from benchmarks.load import percentile

TIMES = 200
HOST = "localhost"


def main(home: Path, times: int = TIMES) -> None:
    _open(home)
    from benchmarks import catalog_scale

    if not catalog_scale.is_filled():
        catalog_scale.fill()
    ask = browser(catalog_scale.EVERYBODY)
    pages = addresses()
    for page in pages.values():
        ask(page)
    taken: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(times):
        for name, page in pages.items():
            taken[name].append(1000 * hub.seconds(lambda page=page: ask(page)))
    hub.report(
        features=catalog_scale.FULL.groups * catalog_scale.FULL.features_of_each,
        pages={
            name: {
                "p50_ms": percentile(times_of_page, 0.50),
                "p95_ms": percentile(times_of_page, 0.95),
                "queries": queries(lambda page=pages[name]: ask(page)),
            }
            for name, times_of_page in taken.items()
        },
    )


def _open(home: Path) -> None:
    """Django set up on `home`, with its tables and static files; nothing of the stores is needed."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "featurehub.settings",
        "FEATUREHUB_HOME": str(home),
        "FEATUREHUB_SOURCE_ROOTS": str(home),
        "FEATUREHUB_LOG_LEVEL": "ERROR",
        "ALLOWED_HOSTS": HOST,
    }
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)
    call_command("collectstatic", verbosity=0, interactive=False)


def addresses() -> dict[str, str]:
    """A page of each kind, and searches of each kind, by what the table calls them."""
    from catalog.models import Entity, Feature, FeatureGroup, FeatureService, TrainingDataset
    from catalog.pages.addresses import page_of

    def listed(**query: Any) -> str:
        return f"/catalog/features/?{urlencode(query, doseq=True)}"

    service = FeatureService.objects.order_by("pk")[0]
    feature = Feature.objects.select_related("group").get(chosen_by__service=service, chosen_by__position=0)
    return {
        "home": "/",
        "all features": listed(),
        "search, one word": listed(q="purchase"),
        "search, two words": listed(q="total customer"),
        "search, no match": listed(q="zzzz"),
        "search, emoji": listed(q="🦆"),
        "search, filters": listed(q="total", status=["active", "deprecated"], entity="customer", tag="fraud"),
        "features by reads": listed(sort="reads"),
        "features, page 100": listed(page=100),
        "a feature": page_of(feature),
        "a group": page_of(FeatureGroup.objects.order_by("pk")[0]),
        "an entity": page_of(Entity.objects.order_by("pk")[0]),
        "a service": page_of(service),
        "a dataset": page_of(TrainingDataset.objects.order_by("pk")[0]),
        "groups": "/catalog/groups/",
        "datasets": "/catalog/datasets/",
        "lineage": "/catalog/lineage/",
        "runs": "/catalog/runs/",
        "quarantine": "/catalog/quarantine/",
        "inbox": "/catalog/inbox/",
        "palette": "/catalog/find/?q=total",
    }


def browser(name: str) -> Callable[[str], bytes]:
    """Asks for a path as somebody who is logged in; anything but 200 ends the run."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore

    from featurehub.wsgi import application

    person, session = User.objects.get(username=name), SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(person.pk), "catalog.logins.LimitedBackend"
    session[HASH_SESSION_KEY] = person.get_session_auth_hash()
    session.save()
    cookie = f"sessionid={session.session_key}"

    def ask(address: str) -> bytes:
        path, _, query = address.partition("?")
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query, "HTTP_COOKIE": cookie, "HTTP_HOST": HOST}
        setup_testing_defaults(environ)
        answered: list[str] = []
        response = application(environ, lambda status, *_: answered.append(status))
        try:
            body = b"".join(response)
        finally:
            response.close()
        if answered != ["200 OK"]:
            raise RuntimeError(f"{address} was answered {answered}: {body[:500]!r}")
        return body

    return ask


def queries(work: Callable[[], object]) -> int:
    """How many statements the work sends to the database."""
    from django.db import connection

    sent: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        sent.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        work()
    return len(sent)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
