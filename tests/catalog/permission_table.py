"""The one table of who may do what: every address of the hub, what its methods need, and what each kind of caller has.

tests/catalog/test_permissions.py asks every cell of it; a route that is not here fails that test. docs/security.md
shows the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, URLResolver

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Every route outside the admin: an address of it, and the scope that each of its methods needs; None is open to all.
ROUTES: dict[str, tuple[str, dict[str, str | None]]] = {
    "health": ("/health", {"GET": None}),
    "ready": ("/readyz", {"GET": None}),
    "live": ("/healthz", {"GET": None}),
    "metrics": ("/metrics", {"GET": "read"}),
    "groups": ("/groups", {"GET": "read"}),
    "features": ("/features", {"GET": "read"}),
    "feature-metadata": ("/features/customer/total_purchases/metadata", {"GET": "read"}),
    "entity-vector": ("/features/customer/C1?features=customer_purchases:total_purchases", {"GET": "read"}),
    "vectors": ("/api/v1/vectors", {"POST": "read"}),
    "feast-vectors": ("/feast/get-online-features", {"POST": "read"}),
    "feast-health": ("/feast/health", {"GET": None}),
    "training-datasets": ("/api/v1/training-datasets", {"GET": "read", "POST": "write"}),
    "training-dataset": ("/api/v1/training-datasets/churn", {"GET": "read", "DELETE": "write"}),
    "training-dataset-data": ("/api/v1/training-datasets/churn/data", {"GET": "read"}),
    "ingest-row": ("/ingest/customer_purchases/C1", {"POST": "write"}),
    "group-rows": ("/api/v1/groups/customer_purchases/rows", {"POST": "write"}),
    "group-row": ("/api/v1/groups/customer_purchases/rows/C1", {"DELETE": "write"}),
    "feast-push": ("/feast/push", {"POST": "write"}),
    "group-runs": ("/api/v1/groups/customer_purchases/runs", {"POST": "write"}),
    "quarantine": ("/api/v1/groups/customer_purchases/quarantine", {"GET": "read"}),
    "quarantine-replay": ("/api/v1/groups/customer_purchases/quarantine/replay", {"POST": "write"}),
    "quarantine-discard": ("/api/v1/groups/customer_purchases/quarantine/discard", {"POST": "write"}),
    "run": ("/api/v1/runs/11111111-1111-4111-8111-111111111111", {"GET": "read"}),
    "registry-entities": ("/api/v1/registry/entities", {"GET": "read", "POST": "registry"}),
    "registry-entity": ("/api/v1/registry/entities/customer", {"GET": "read", "PATCH": "registry"}),
    "registry-feature-groups": ("/api/v1/registry/feature-groups", {"GET": "read", "POST": "registry"}),
    "registry-feature-group": ("/api/v1/registry/feature-groups/support", {"GET": "read", "PATCH": "registry"}),
    "registry-feature-group-activate": ("/api/v1/registry/feature-groups/support/activate", {"POST": "registry"}),
    "registry-feature-group-deprecate": ("/api/v1/registry/feature-groups/support/deprecate", {"POST": "registry"}),
    "registry-feature-group-archive": ("/api/v1/registry/feature-groups/support/archive", {"POST": "registry"}),
    "registry-feature-group-undo": ("/api/v1/registry/feature-groups/support/undo", {"POST": "registry"}),
    "registry-feature-group-request-review": (
        "/api/v1/registry/feature-groups/support/request-review",
        {"POST": "registry"},
    ),
    "registry-feature-group-approve": ("/api/v1/registry/feature-groups/support/approve", {"POST": "registry"}),
    "registry-feature-group-decline": ("/api/v1/registry/feature-groups/support/decline", {"POST": "registry"}),
    "registry-feature-group-withdraw": ("/api/v1/registry/feature-groups/support/withdraw", {"POST": "registry"}),
    "registry-features": ("/api/v1/registry/features", {"GET": "read", "POST": "registry"}),
    "registry-feature": ("/api/v1/registry/features/support/tickets", {"GET": "read", "PATCH": "registry"}),
    "registry-feature-statistics": ("/api/v1/registry/features/support/tickets/statistics", {"GET": "read"}),
    "registry-feature-activate": ("/api/v1/registry/features/support/tickets/activate", {"POST": "registry"}),
    "registry-feature-deprecate": ("/api/v1/registry/features/support/tickets/deprecate", {"POST": "registry"}),
    "registry-feature-archive": ("/api/v1/registry/features/support/tickets/archive", {"POST": "registry"}),
    "registry-feature-undo": ("/api/v1/registry/features/support/tickets/undo", {"POST": "registry"}),
    "registry-feature-request-review": (
        "/api/v1/registry/features/support/tickets/request-review",
        {"POST": "registry"},
    ),
    "registry-feature-approve": ("/api/v1/registry/features/support/tickets/approve", {"POST": "registry"}),
    "registry-feature-decline": ("/api/v1/registry/features/support/tickets/decline", {"POST": "registry"}),
    "registry-feature-withdraw": ("/api/v1/registry/features/support/tickets/withdraw", {"POST": "registry"}),
    "registry-feature-services": ("/api/v1/registry/feature-services", {"GET": "read", "POST": "registry"}),
    "registry-feature-service": ("/api/v1/registry/feature-services/churn", {"GET": "read", "PATCH": "registry"}),
    "registry-feature-service-activate": ("/api/v1/registry/feature-services/churn/activate", {"POST": "registry"}),
    "registry-feature-service-deprecate": ("/api/v1/registry/feature-services/churn/deprecate", {"POST": "registry"}),
    "registry-feature-service-archive": ("/api/v1/registry/feature-services/churn/archive", {"POST": "registry"}),
    "registry-feature-service-undo": ("/api/v1/registry/feature-services/churn/undo", {"POST": "registry"}),
    "registry-feature-service-request-review": (
        "/api/v1/registry/feature-services/churn/request-review",
        {"POST": "registry"},
    ),
    "registry-feature-service-approve": ("/api/v1/registry/feature-services/churn/approve", {"POST": "registry"}),
    "registry-feature-service-decline": ("/api/v1/registry/feature-services/churn/decline", {"POST": "registry"}),
    "registry-feature-service-withdraw": ("/api/v1/registry/feature-services/churn/withdraw", {"POST": "registry"}),
    "registry-data-sources": ("/api/v1/registry/data-sources", {"GET": "read", "POST": "registry"}),
    "registry-data-source": ("/api/v1/registry/data-sources/support_files", {"GET": "read", "PATCH": "registry"}),
    "registry-owners": ("/api/v1/registry/owners", {"GET": "read", "POST": "registry"}),
    "registry-owner": ("/api/v1/registry/owners/care", {"GET": "read", "PATCH": "registry"}),
    "registry-tags": ("/api/v1/registry/tags", {"GET": "read"}),
    "registry-tag": ("/api/v1/registry/tags/purchases", {"GET": "read"}),
    "registry-reviews": ("/api/v1/registry/reviews", {"GET": "read"}),
    "openapi": ("/api/v1/openapi.json", {"GET": "read"}),
    "api-docs": ("/api/docs/", {"GET": "read"}),
}
RUN, RULE = "11111111-1111-4111-8111-111111111111", 4711
_CHANGED = "/catalog/features/customer_purchases/total_purchases"
#: Every page: an address of it, and what each of its methods needs beside `read` anywhere; None is open to all,
#: `person` is for who is logged in. A method that is not named is 405.
PAGES: dict[str, tuple[str, dict[str, str | None]]] = {
    "login": ("/login/", {"GET": None, "POST": None}),
    "logout": ("/logout/", {"POST": None}),
    "home": ("/", {"GET": "read"}),
    "catalog-features": ("/catalog/features/", {"GET": "read"}),
    "catalog-find": ("/catalog/find/", {"GET": "read"}),
    "catalog-feature": (f"{_CHANGED}/", {"GET": "read"}),
    "catalog-groups": ("/catalog/groups/", {"GET": "read"}),
    "catalog-group": ("/catalog/groups/customer_purchases/", {"GET": "read"}),
    "catalog-entities": ("/catalog/entities/", {"GET": "read"}),
    "catalog-entity": ("/catalog/entities/customer/", {"GET": "read"}),
    "catalog-services": ("/catalog/services/", {"GET": "read"}),
    "catalog-service": ("/catalog/services/loyalty/", {"GET": "read"}),
    "catalog-datasets": ("/catalog/datasets/", {"GET": "read"}),
    "catalog-dataset": ("/catalog/datasets/churn/", {"GET": "read"}),
    "catalog-change": (f"{_CHANGED}/deprecate/", {"GET": "registry", "POST": "registry"}),
    "catalog-follow": (f"{_CHANGED}/follow/", {"GET": "read", "POST": "person"}),
    "catalog-inbox": ("/catalog/inbox/", {"GET": "person", "POST": "person"}),
    "catalog-lineage": ("/catalog/lineage/", {"GET": "read"}),
    "catalog-runs": ("/catalog/runs/", {"GET": "read"}),
    "catalog-runs-under-way": ("/catalog/runs/under-way/", {"GET": "read"}),
    "catalog-run": (f"/catalog/runs/{RUN}/", {"GET": "read"}),
    "catalog-run-part": (f"/catalog/runs/{RUN}/now/", {"GET": "read"}),
    "catalog-run-retry": (f"/catalog/runs/{RUN}/retry/", {"GET": "read", "POST": "write"}),
    "catalog-run-cancel": (f"/catalog/runs/{RUN}/cancel/", {"GET": "write", "POST": "write"}),
    "catalog-run-now": ("/catalog/groups/customer_purchases/run/", {"GET": "write", "POST": "write"}),
    "catalog-quarantine": ("/catalog/quarantine/", {"GET": "read"}),
    "catalog-group-quarantine": ("/catalog/groups/customer_purchases/quarantine/", {"GET": "read"}),
    "catalog-quarantine-replay": ("/catalog/quarantine/replay/", {"GET": "read", "POST": "write"}),
    "catalog-quarantine-discard": ("/catalog/quarantine/discard/", {"GET": "read", "POST": "write"}),
    "catalog-quarantine-rule": (f"/catalog/quarantine/{RULE}/", {"GET": "read"}),
    "catalog-quarantine-csv": (f"/catalog/quarantine/{RULE}/rows.csv", {"GET": "read"}),
    "catalog-quarantine-row": (f"/catalog/quarantine/{RULE}/rows/0/", {"GET": "write", "POST": "write"}),
    "catalog-samples": (f"{_CHANGED}/samples/", {"GET": "read"}),
    "catalog-group-samples": ("/catalog/groups/customer_purchases/samples/", {"GET": "read"}),
    "catalog-use": (f"{_CHANGED}/use/", {"GET": "read"}),
    "catalog-service-use": ("/catalog/services/loyalty/use/", {"GET": "read"}),
    "catalog-try": ("/catalog/entities/customer/try/", {"GET": "read", "POST": "read"}),
}
#: Pages for who may read anything: what they show is what the caller may see.
OF_NO_GROUP = {
    *("home", "catalog-features", "catalog-find", "catalog-groups", "catalog-entities", "catalog-entity"),
    *("catalog-services", "catalog-service", "catalog-datasets", "catalog-inbox", "catalog-lineage", "catalog-runs"),
    *("catalog-runs-under-way", "catalog-quarantine", "catalog-service-use", "catalog-try"),
}
#: Those of an entity and a service, which a limited key sees only within its groups: whether it is of both groups.
SHARED_PAGES = {"catalog-entity": True, "catalog-try": True, "catalog-service": False, "catalog-service-use": False}
#: What is sent to (route, method), where `{}` would not say which group it is about.
BODIES: dict[tuple[str, str], Any] = {
    ("vectors", "POST"): {
        "features": ["customer_purchases:total_purchases"],
        "entities": {"customer_id": ["C1"]},
    },
    ("feast-vectors", "POST"): {
        "features": ["customer_purchases:total_purchases"],
        "entities": {"customer_id": ["C1"]},
    },
    ("training-datasets", "POST"): {
        "name": "other",
        "features": ["customer_purchases:total_purchases"],
        "spine": [{"customer_id": "C1", "event_timestamp": "2026-01-01T00:00:00Z"}],
    },
    ("feast-push", "POST"): {
        "push_source_name": "customer_purchases",
        "df": {"customer_id": ["C1"]},
        "to": "online_and_offline",
    },
}
#: The methods of routes that are not about one group: what they answer is what the caller may read.
ABOUT_NO_GROUP = {
    ("metrics", "GET"),
    ("groups", "GET"),
    ("features", "GET"),
    ("training-datasets", "GET"),
    ("openapi", "GET"),
    ("api-docs", "GET"),
    # In the registry what is out of reach is not there: 404, which says less than that it may not be read.
    *((name, method) for name in ROUTES if name.startswith("registry-") for method in ROUTES[name][1]),
}

#: What each caller has with the group of the addresses above (customer_purchases), and with some other group.
EVERYTHING = frozenset({"read", "pii:read", "write", "registry", "create", "manage"})
ROLES: dict[str, frozenset[str]] = {
    "viewer": frozenset({"read"}),
    "editor": frozenset({"read", "write", "registry", "create"}),
    "owner": EVERYTHING,
}
NOTHING: frozenset[str] = frozenset()
#: name: (with that group, with another)
KEYS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "read key": (frozenset({"read"}), frozenset({"read"})),
    "write key": (frozenset({"write"}), frozenset({"write"})),
    "registry key": (frozenset({"registry"}), frozenset({"registry"})),
    "pii key": (frozenset({"pii:read"}), frozenset({"pii:read"})),
    "key with every scope": (EVERYTHING, EVERYTHING),
    "key limited to the group": (frozenset({"read", "write"}), NOTHING),
    "key limited to another group": (NOTHING, frozenset({"read", "write"})),
}
PEOPLE: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "somebody without a role": (NOTHING, NOTHING),
    "staff without a role": (NOTHING, NOTHING),
    "viewer": (ROLES["viewer"], NOTHING),
    "editor": (ROLES["editor"], NOTHING),
    "owner": (ROLES["owner"], NOTHING),
    "owner of another group": (NOTHING, ROLES["owner"]),
    "superuser": (EVERYTHING, EVERYTHING),
}
#: Callers whom nobody knows, or does not know any more: 401 wherever a key is needed.
NOBODIES = ("nobody", "wrong key", "expired key", "revoked key", "rotated key")

#: What an address of the admin needs, by the last word of its name: to look at it, and to post to it.
ADMIN_NEEDS: dict[str, tuple[str, str]] = {
    "changelist": ("read", "read"),
    "add": ("create", "create"),
    "change": ("read", "registry"),
    "history": ("read", "read"),
    "simple_history": ("read", "nobody"),
    "revert": ("registry", "registry"),
    "drift": ("read", "read"),
    "export": ("read", "read"),
    "import": ("create", "create"),
    "delete": ("manage", "manage"),
    "activate": ("registry", "registry"),
    "deprecate": ("registry", "registry"),
    "archive": ("registry", "registry"),
    "undo": ("registry", "registry"),
    "request_review": ("registry", "registry"),
    "approve": ("registry", "registry"),
    "decline": ("registry", "registry"),
    "withdraw": ("registry", "registry"),
    "cancel": ("write", "write"),
    "retry": ("write", "write"),
    "replay": ("write", "write"),
    "discard": ("write", "write"),
    "drop": ("manage", "manage"),
    "erase": ("create", "create"),
    "rotate": ("registry", "registry"),
    "revoke": ("registry", "registry"),
    "password_change": ("registry", "registry"),
}
#: Whom the pages of a kind of thing are for. `roles`: for who has a role in the thing's group, `shared`: to look at for
#: who has any role, and to change for who may change all of its groups; `permission`: for who has Django's permission.
ADMIN_MODELS: dict[str, str] = {
    "catalog_feature": "roles",
    "catalog_featuregroup": "roles",
    "catalog_datasource": "roles",
    "catalog_run": "roles",
    "catalog_trainingdataset": "roles",
    "catalog_offlinedamage": "roles",
    "catalog_featureuse": "roles",
    "catalog_reviewrequest": "roles",
    "ingestion_quarantinedrule": "roles",
    "ingestion_sourcefile": "roles",
    "ingestion_onlinecursor": "roles",
    "catalog_entity": "shared",
    "catalog_featureservice": "shared",
    "catalog_owner": "shared",
    "catalog_tag": "shared",
    "catalog_applieddefinition": "permission",
    "catalog_apikey": "permission",
    "catalog_erasure": "permission",
    "catalog_refusal": "permission",
    "catalog_failedlogin": "permission",
    "auth_user": "permission",
    "auth_group": "permission",
    "django_celery_beat_periodictask": "permission",
    "django_celery_beat_intervalschedule": "permission",
    "django_celery_beat_crontabschedule": "permission",
    "django_celery_beat_clockedschedule": "permission",
    "django_celery_beat_solarschedule": "permission",
}
#: Kinds that nobody adds, changes or deletes here, whatever they may do.
NEVER = {
    "catalog_run": {"add", "change", "delete"},
    "catalog_trainingdataset": {"add", "change", "delete"},
    "catalog_offlinedamage": {"add", "change", "delete"},
    "catalog_featureuse": {"add", "change", "delete"},
    "catalog_reviewrequest": {"add", "change", "delete"},
    "catalog_applieddefinition": {"add", "change", "delete"},
    "catalog_erasure": {"add", "change", "delete"},
    "ingestion_quarantinedrule": {"add", "change", "delete"},
    "ingestion_sourcefile": {"add", "change", "delete"},
    "ingestion_onlinecursor": {"add", "change", "delete"},
    "catalog_refusal": {"add", "change", "delete"},
    "catalog_failedlogin": {"add", "change", "delete"},
    "catalog_apikey": {"change", "delete"},
}
#: Kinds that are in no group before they are there: no role lets people make one.
MADE_BY_PERMISSION = {"catalog_featuregroup", "catalog_datasource", "catalog_entity", "catalog_featureservice"}
#: Pages of the admin about nothing in particular: for whoever may log in there, or to get in and out.
ADMIN_OTHER = {
    *("index", "search", "login", "logout", "password_change", "password_change_done", "autocomplete", "jsi18n"),
    *("view_on_site", "app_list"),
}


def body_of(name: str, method: str) -> bytes:
    return json.dumps(BODIES.get((name, method), {})).encode()


def routes(patterns: list[URLPattern | URLResolver], under: str = "") -> Iterator[str]:
    """The name of every route outside the admin, or its pattern when it has none."""
    for pattern in patterns:
        address = f"{under}{pattern.pattern}"
        if address.startswith("admin/"):
            continue
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, address)
        else:
            yield pattern.name or address
