"""Every cell of the table: each address and method, asked by each kind of caller, on a hub with two groups."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import get_resolver, reverse
from django.utils import timezone

from catalog.actions import SCOPES
from featurehub.environment import PROJECT
from tests.catalog.permission_table import (
    ABOUT_NO_GROUP,
    ADMIN_MODELS,
    ADMIN_NEEDS,
    ADMIN_OTHER,
    EVERYTHING,
    KEYS,
    MADE_BY_PERMISSION,
    METHODS,
    NEVER,
    NOBODIES,
    OF_NO_GROUP,
    PAGES,
    PEOPLE,
    ROLES,
    ROUTES,
    RULE,
    RUN,
    SHARED_PAGES,
    body_of,
    routes,
)
from tests.factories import make_customer_group

pytestmark = pytest.mark.django_db

RUN_ID = UUID(RUN)
#: What is asked for is 404 to who may see it, too: rows of a quarantine without files, an entity without rows.
GONE = {("catalog-quarantine-row", "404"), ("catalog-quarantine-csv", "404"), ("catalog-try", "404")}


@dataclass
class World:
    """Two groups, customer_purchases and support, and everybody who might ask about them."""

    keys: dict[str, str] = field(default_factory=dict)
    browsers: dict[str, Client] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)

    def ask(self, caller: str, name: str, path: str, method: str) -> HttpResponse:
        """The answer; nothing of what it did stays."""
        with undone():
            if caller in self.browsers:
                return self.browsers[caller].generic(method, path, body_of(name, method), "application/json")
            headers = {"Authorization": f"Bearer {self.keys[caller]}"} if self.keys[caller] else {}
            client = Client(raise_request_exception=False, headers=headers)
            return client.generic(method, path, body_of(name, method), "application/json")


@contextmanager
def undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def world(sources: Path) -> World:
    made = World()
    _make_groups(made)
    _make_keys(made)
    _make_people(made)
    return made


def _make_groups(world: World) -> None:
    from catalog.models import Acceptance, Owner, Run, RunKind, TrainingDataset

    group = make_customer_group("customer_purchases", source="c.csv", owner=Owner.objects.create(name="growth"))
    make_customer_group("support", features={"tickets": "int64"}, owner=Owner.objects.create(name="care"))
    run = Run.queue(group)
    Run.objects.filter(pk=run.pk).update(id=RUN_ID)
    training = Run.objects.create(kind=RunKind.TRAIN, acceptance=Acceptance.take())
    TrainingDataset.objects.create(
        name="churn", run=training, features=["customer_purchases:total_purchases"], event_timestamp="event_timestamp"
    )
    world.objects["group"] = group


def _make_keys(world: World) -> None:
    from catalog.keys import create_key, revoke_key, rotate_key
    from catalog.models import ApiKey

    def make(*scopes: str, **fields: Any) -> str:
        return create_key(name="k", scopes=scopes, **fields)[1]

    world.keys = {
        "read key": make("read"),
        "write key": make("write"),
        "registry key": make("registry"),
        "pii key": make("pii:read"),
        "key with every scope": make("read", "pii:read", "write", "registry"),
        "key limited to the group": make("read", "write", groups=["customer_purchases"]),
        "key limited to another group": make("read", "write", groups=["support"]),
        "nobody": "",
        "wrong key": "fh_nonsense",
        "expired key": make("read", "write", expires_at=timezone.now() + timedelta(hours=1)),
        "revoked key": make("read", "write"),
        "rotated key": make("read", "write"),
    }
    public_ids = {name: key.split("_")[1] for name, key in world.keys.items() if key}
    past = timezone.now() - timedelta(seconds=1)
    ApiKey.objects.filter(public_id=public_ids["expired key"]).update(expires_at=past)
    revoke_key(public_ids["revoked key"])
    rotate_key(public_ids["rotated key"], old_ends_at=timezone.now())
    assert world.keys.keys() == {*KEYS, *NOBODIES}


def _make_people(world: World) -> None:
    from catalog.models import FeatureGroup, GroupRole, Owner, Role

    group = FeatureGroup.objects.get(name="customer_purchases")
    for name in PEOPLE:
        person = User.objects.create(username=name, is_staff=name != "somebody without a role")
        team = Owner.objects.create(name=name.replace(" ", "_"))
        team.members.add(person)
        if name in ("viewer", "editor"):
            GroupRole.objects.create(group=group, team=team, role=Role(name))
        elif name == "owner":
            Owner.objects.get(name="growth").members.add(person)
        elif name == "owner of another group":
            Owner.objects.get(name="care").members.add(person)
        elif name == "superuser":
            User.objects.filter(pk=person.pk).update(is_superuser=True)
        world.browsers[name] = Client(raise_request_exception=False)
        world.browsers[name].force_login(person)


# -- The API


def test_every_route_is_in_the_table() -> None:
    assert sorted(routes(get_resolver().url_patterns)) == sorted([*ROUTES, *PAGES])


def expected(caller: str, name: str, method: str) -> str:
    """`401`, `403`, `405` or `open`, as the table has it."""
    needs = ROUTES[name][1]
    if None in needs.values():
        return "open" if method in needs else "405"
    if caller in NOBODIES:
        return "401"
    here, elsewhere = (KEYS | PEOPLE)[caller]
    within_address = "customer_purchases" in ROUTES[name][0].partition("?")[0]
    needed = needs.get(method, "read")
    assert needed is not None
    if method not in needs:
        # A method that is not there is told to whoever may read; the address alone says of which group.
        return "405" if "read" in (here if within_address else here | elsewhere) else "403"
    has = here | elsewhere if (name, method) in ABOUT_NO_GROUP else here
    return "open" if needed in has else "403"


@pytest.mark.parametrize("name", ROUTES)
def test_every_caller_gets_from_a_route_what_the_table_says(world: World, name: str) -> None:
    path, asked = ROUTES[name][0], 0
    for caller in (*NOBODIES, *KEYS, *PEOPLE):
        for method in METHODS:
            response = world.ask(caller, name, path, method)
            asked += 1
            told = str(response.status_code)
            wanted = expected(caller, name, method)
            got = told if told in ("401", "403", "405") else "open"
            assert got == wanted, f"{caller}: {method} {path} is {told}, not {wanted}: {response.content[:300]!r}"
            if got != "open":
                assert response["Content-Type"] == "application/problem+json"
    assert asked == (len(NOBODIES) + len(KEYS) + len(PEOPLE)) * len(METHODS)


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name, (_, needs) in ROUTES.items() for method in needs if (name, method) not in ABOUT_NO_GROUP],
)
def test_who_is_limited_to_another_group_is_told_which_group_it_was(world: World, name: str, method: str) -> None:
    if None in ROUTES[name][1].values():
        pytest.skip("open to all")
    answer = json.loads(world.ask("key limited to another group", name, ROUTES[name][0], method).content)
    assert answer["code"] == "not_allowed"
    assert "customer_purchases" in answer["detail"]
    assert [error["pointer"] for error in answer["errors"]] == ["customer_purchases"]


def test_lists_hold_what_the_caller_may_read(world: World) -> None:
    for caller, names in {
        "read key": ["customer_purchases", "support"],
        "key limited to the group": ["customer_purchases"],
        "key limited to another group": ["support"],
        "viewer": ["customer_purchases"],
        "owner of another group": ["support"],
    }.items():
        groups = json.loads(world.ask(caller, "groups", "/groups", "GET").content)["groups"]
        features = json.loads(world.ask(caller, "features", "/features", "GET").content)["features"]
        made = json.loads(world.ask(caller, "training-datasets", "/api/v1/training-datasets", "GET").content)
        assert [group["name"] for group in groups] == names, caller
        assert {feature["group"] for feature in features} == set(names), caller
        assert bool(made["datasets"]) == ("customer_purchases" in names), caller


def test_a_request_for_a_group_in_reach_and_one_out_of_it_is_refused_as_a_whole(world: World) -> None:
    body = {
        "features": ["customer_purchases:total_purchases", "support:tickets"],
        "entities": {"customer_id": ["C1"]},
    }
    for key, refused in {
        "key limited to the group": "support",
        "key limited to another group": "customer_purchases",
    }.items():
        headers = {"Authorization": f"Bearer {world.keys[key]}"}
        client = Client(headers=headers)
        response = client.post("/api/v1/vectors", json.dumps(body), "application/json")
        assert (response.status_code, [e["pointer"] for e in json.loads(response.content)["errors"]]) == (
            403,
            [refused],
        )
        both = client.get("/features/customer/C1?features=customer_purchases:total_purchases,support:tickets")
        assert both.status_code == 403
        assert client.get("/features/customer/C1").status_code == 403  # all of the entity is more than the key reads


def test_a_service_with_one_group_out_of_reach_is_refused(world: World) -> None:
    from catalog.models import Feature, FeatureService

    service = FeatureService.objects.create(name="mixed")
    for position, name in enumerate(["total_purchases", "tickets"]):
        service.chosen.create(feature=Feature.objects.get(name=name), position=position)
    client = Client(headers={"Authorization": f"Bearer {world.keys['key limited to the group']}"})
    response = client.get("/features/customer/C1?feature_service=mixed")
    assert response.status_code == 403
    assert b"support" in response.content


# -- The pages


def expected_of_page(caller: str, name: str, method: str) -> str:
    """`login`, `401`, `403`, `404`, `405` or `open`, as the table has it."""
    needs = PAGES[name][1]
    if method not in needs:
        return "405"
    needed = needs[method]
    if needed is None:
        return "open"
    if caller in NOBODIES:
        return "login" if caller == "nobody" else "401"
    here, elsewhere = (KEYS | PEOPLE)[caller]
    leads_to_the_list = name in ("catalog-quarantine-discard", "catalog-quarantine-replay") and method == "GET"
    is_of_no_group = name in OF_NO_GROUP or leads_to_the_list
    if not is_of_no_group and "read" not in here:
        return "404" if "read" in elsewhere else "403"
    if caller in KEYS and name in SHARED_PAGES and "read" in here | elsewhere:
        return "open" if "read" in (here & elsewhere if SHARED_PAGES[name] else here) else "404"
    if needed == "person":
        has = caller in PEOPLE and "read" in here | elsewhere
    else:
        has = {"read", needed} <= (here | elsewhere if is_of_no_group else here)
    return "open" if has else "403"


def told_of_page(response: HttpResponse) -> str:
    where = response.headers.get("Location", "") or response.headers.get("HX-Redirect", "")
    if where.startswith("/login/"):
        return "login"
    return str(response.status_code) if response.status_code in (401, 403, 404, 405) else "open"


def open_page(world: World, caller: str, path: str, method: str, **headers: str) -> HttpResponse:
    with undone():
        if caller in world.browsers:
            client = world.browsers[caller]
        else:
            key = world.keys[caller]
            client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {key}"} if key else {})
        sent = f"rule={RULE}&id={RULE}"
        return client.generic(method, path, sent, "application/x-www-form-urlencoded", headers=headers)


def make_things_of_pages(world: World) -> None:
    from catalog.models import FeatureService, Run, RunState
    from ingestion.models import QuarantinedRule

    group = world.objects["group"]
    FeatureService.objects.create(name="loyalty").chosen.create(feature=group.features.first(), position=0)
    ended = Run.queue(group)
    Run.objects.filter(pk=ended.pk).update(state=RunState.SUCCEEDED, finished_at=timezone.now(), rows_quarantined=1)
    rule = {"column": "total_purchases", "rule": "min_value", "detail": "d", "row_count": 1}
    QuarantinedRule.objects.create(pk=RULE, run=ended, samples=[], **rule)


@pytest.mark.parametrize("name", PAGES)
def test_every_caller_gets_from_a_page_what_the_table_says(world: World, name: str) -> None:
    make_things_of_pages(world)
    path, asked = PAGES[name][0], 0
    for caller in (*NOBODIES, *KEYS, *PEOPLE):
        for method in METHODS:
            headers = {"HX-Request": "true"} if name == "catalog-run-part" else {}
            response = open_page(world, caller, path, method, **headers)
            wanted, got = expected_of_page(caller, name, method), told_of_page(response)
            if wanted == "open" and (name, got) in GONE:
                continue
            if wanted == "405" and got in ("login", "401", "403"):
                continue  # who they are is asked first, where a page takes some method to post
            assert got == wanted, f"{caller}: {method} {path} is {got} ({response.status_code}), not {wanted}"
            assert response.status_code < 500
            asked += 1
    assert asked > (len(NOBODIES) + len(KEYS)) * len(METHODS)


@pytest.mark.parametrize("name", [name for name, (_, needs) in PAGES.items() if None not in needs.values()])
def test_a_part_of_a_page_sends_nobody_to_the_login_as_a_whole(world: World, name: str) -> None:
    make_things_of_pages(world)
    method = next(iter(PAGES[name][1]))
    response = open_page(world, "nobody", PAGES[name][0], method, **{"HX-Request": "true"})
    assert (response.status_code, response.content) == (204, b"")
    assert response["HX-Redirect"].startswith("/login/?next=/")


# -- The admin


def test_every_address_of_the_admin_is_in_the_table() -> None:
    unknown = []
    for pattern in _admin_patterns():
        model, _, word = _split(pattern)
        if (
            pattern is not None
            and pattern not in ADMIN_OTHER
            and (model not in ADMIN_MODELS or word not in ADMIN_NEEDS)
        ):
            unknown.append(pattern)
    assert unknown == []


def test_every_kind_of_thing_in_the_admin_is_guarded() -> None:
    from catalog.admin.guarded import GuardedAdmin

    assert {f"{m._meta.app_label}_{m._meta.model_name}" for m in admin.site._registry} == ADMIN_MODELS.keys()
    assert [type(page) for page in admin.site._registry.values() if not isinstance(page, GuardedAdmin)] == []
    asked = ("has_view_permission", "has_change_permission", "has_delete_permission", "has_add_permission")
    for page in admin.site._registry.values():
        first = {name: next(c for c in type(page).__mro__ if name in vars(c)) for name in asked}
        assert all(owner.__module__.split(".")[0] in ("catalog", "ingestion", "serving") for owner in first.values())


def _admin_patterns() -> Iterator[str | None]:
    for pattern in admin.site.get_urls():
        if hasattr(pattern, "url_patterns"):
            yield from (below.name for below in pattern.url_patterns)
        else:
            yield pattern.name


def _split(name: str | None) -> tuple[str, str, str]:
    model = next((model for model in ADMIN_MODELS if (name or "").startswith(f"{model}_")), "")
    return model, "_", (name or "").removeprefix(f"{model}_")


def make_things(world: World) -> dict[str, Any]:
    """One thing of each kind, of the group customer_purchases where it has one."""
    from django_celery_beat.models import (
        ClockedSchedule,
        CrontabSchedule,
        IntervalSchedule,
        PeriodicTask,
        SolarSchedule,
    )

    from catalog.models import (
        ApiKey,
        AppliedDefinition,
        Entity,
        Erasure,
        FailedLogin,
        FeatureService,
        FeatureUse,
        OfflineDamage,
        Owner,
        Refusal,
        ReviewRequest,
        Run,
        RunState,
        Tag,
        TrainingDataset,
    )
    from ingestion.models import OnlineCursor, QuarantinedRule, SourceFile

    group = world.objects["group"]
    run = Run.objects.get(pk=RUN_ID)
    ended = Run.queue(group)
    Run.objects.filter(pk=ended.pk).update(state=RunState.SUCCEEDED, finished_at=timezone.now())
    service = FeatureService.objects.create(name="churn", status="draft")
    service.chosen.create(feature=group.features.first(), position=0)
    hourly = IntervalSchedule.objects.create(every=1, period="hours")
    return {
        "catalog_feature": group.features.first(),
        "catalog_featuregroup": group,
        "catalog_datasource": group.source,
        "catalog_run": run,
        "catalog_trainingdataset": TrainingDataset.objects.get(),
        "catalog_offlinedamage": OfflineDamage.objects.create(group=group, group_version=1, path="p", detail="d"),
        "catalog_featureuse": FeatureUse.objects.create(
            feature=group.features.first(), reader="anonymous", day=timezone.now().date(), requests=1
        ),
        "catalog_reviewrequest": ReviewRequest.objects.create(
            feature=group.features.first(), definition="a" * 64, asked_by="user:1", asked_by_name="ada"
        ),
        "ingestion_quarantinedrule": QuarantinedRule.objects.create(
            run=ended, column="total_purchases", rule="min_value", detail="d", row_count=1, samples=[]
        ),
        "ingestion_sourcefile": SourceFile.objects.create(
            group=group, group_version=1, path="p", size=1, sha256="a" * 64, run=ended
        ),
        "ingestion_onlinecursor": OnlineCursor.objects.create(group=group, group_version=1),
        "catalog_entity": Entity.objects.get(),
        "catalog_featureservice": service,
        "catalog_owner": Owner.objects.get(name="growth"),
        "catalog_tag": Tag.objects.create(name="purchases"),
        "catalog_applieddefinition": AppliedDefinition.objects.create(
            kind="owner", name="growth", text="owners:\n- name: growth\n", sha256="a" * 64, applied_at=timezone.now()
        ),
        "catalog_apikey": ApiKey.objects.filter(revoked_at=None, expires_at=None).first(),
        "catalog_erasure": Erasure.objects.create(
            entity=Entity.objects.get(), key_hash="a" * 64, reason="asked", run=ended, until=timezone.now()
        ),
        "catalog_refusal": Refusal.objects.create(day=timezone.now().date(), reason="scope", count=1),
        "catalog_failedlogin": FailedLogin.objects.create(address="10.0.0.1", failures=1, since=timezone.now()),
        "auth_user": User.objects.create(username="grace"),
        "auth_group": Group.objects.create(name="g"),
        "django_celery_beat_periodictask": PeriodicTask.objects.create(name="t", task="t", interval=hourly),
        "django_celery_beat_intervalschedule": hourly,
        "django_celery_beat_crontabschedule": CrontabSchedule.objects.create(minute="0"),
        "django_celery_beat_clockedschedule": ClockedSchedule.objects.create(clocked_time=timezone.now()),
        "django_celery_beat_solarschedule": SolarSchedule.objects.create(event="sunrise", latitude=1, longitude=1),
    }


def may_open(person: str, model: str, word: str, posts: bool) -> bool:
    """What the table says of a page of the admin."""
    needed = ADMIN_NEEDS[word][posts]
    if needed == "nobody" or (word in NEVER.get(model, ()) and (word != "change" or posts)):
        return False
    return person == "superuser" or may_by_role(person, model, word, needed)


def may_by_role(person: str, model: str, word: str, needed: str) -> bool:
    here, elsewhere = PEOPLE[person]
    is_shared = ADMIN_MODELS[model] == "shared"
    if ADMIN_MODELS[model] == "permission" or (needed == "create" and (is_shared or model in MADE_BY_PERMISSION)):
        return False
    if is_shared and needed == "read":
        return "read" in here | elsewhere
    if model in ("catalog_owner", "catalog_tag", "catalog_entity"):
        return False  # the first two are in no group, and the entity has a group of somebody else's too
    return needed in (here | elsewhere if word in ("changelist", "add") else here)


def address(model: str, word: str, thing: Any) -> str | None:
    name = f"{model}_{word}"
    if name not in set(_admin_patterns()):
        return None
    arguments: list[Any] = [] if word in ("changelist", "add", "erase", "drift", "export", "import") else [thing.pk]
    if word in ("simple_history", "revert"):
        arguments.append(thing.history.first().pk)
    return reverse(f"admin:{name}", args=arguments)


@pytest.mark.parametrize("model", ADMIN_MODELS)
def test_every_person_gets_from_the_admin_what_the_table_says(world: World, model: str) -> None:
    thing = make_things(world)[model]
    asked = 0
    for word in ADMIN_NEEDS:
        url = (
            address("auth_user", "password_change", thing) if word == "password_change" else address(model, word, thing)
        )
        if url is None or (word == "password_change" and model != "auth_user"):
            continue
        for person in PEOPLE:
            for posts in (False, True):
                response = _open(world.browsers[person], url, posts)
                is_open = _is_open(response, url)
                if person in ("superuser", "owner") and word == "delete" and not is_open:
                    continue  # what is in use is not deleted by anybody: tests/catalog/test_admin.py
                wanted = may_open(person, model, word, posts)
                assert is_open == wanted, f"{person}: {'POST' if posts else 'GET'} {url} is {response.status_code}"
                asked += 1
    assert asked > 3 * len(PEOPLE)


def _open(browser: Client, url: str, posts: bool) -> HttpResponse:
    with undone():
        return browser.post(url) if posts else browser.get(url)


def _is_open(response: HttpResponse, url: str) -> bool:
    """Neither refused nor sent to the login, nor to the front page as if the thing was not there."""
    if response.status_code in (403, 404):
        return False
    assert response.status_code in (200, 302), response.status_code
    location = response.headers.get("Location", "")
    return not location.startswith("/admin/login") and location != "/admin/"


def test_nobody_gets_into_the_admin_without_a_login(world: World) -> None:
    for model in ADMIN_MODELS:
        response = Client().get(reverse(f"admin:{model}_changelist"))
        assert response["Location"].startswith("/admin/login/")


def test_lists_of_the_admin_hold_what_a_role_is_for(world: World) -> None:
    def rows(person: str, model: str) -> str:
        page = world.browsers[person].get(reverse(f"admin:{model}_changelist")).content.decode()
        found = re.search(r'<table id="result_list".*?</table>', page, re.DOTALL)
        return found[0] if found else ""

    for person, seen, hidden in [
        ("viewer", "total_purchases", "tickets"),
        ("owner of another group", "tickets", "total_purchases"),
    ]:
        assert seen in rows(person, "catalog_feature")
        assert hidden not in rows(person, "catalog_feature")
    assert "tickets" in rows("superuser", "catalog_feature")


def test_djangos_permissions_count_for_every_thing_of_a_kind(world: World) -> None:
    from django.contrib.auth.models import Permission

    from catalog.access import allowed

    def holding(*names: str) -> User:
        person = User.objects.create(username="-".join(names), is_staff=True)
        person.user_permissions.set(Permission.objects.filter(codename__in=names))
        assert person.user_permissions.count() == len(names)
        return person

    group = world.objects["group"]
    viewer, changer = holding("view_featuregroup"), holding("change_featuregroup")
    assert [allowed(viewer, action, group) for action in ("read", "write", "registry", "manage", "pii:read")] == [
        *[True, False, False, False, False]
    ]
    assert [allowed(changer, action, ["support"]) for action in ("read", "write", "registry", "manage")] == [
        *[True, True, True, False]
    ]
    assert allowed(holding("read_pii_featuregroup"), "pii:read", ["support"])
    owner = User.objects.get(username="owner")
    assert allowed(owner, "manage", group)
    viewer.is_active = owner.is_active = False
    assert not allowed(viewer, "read", group)
    assert not allowed(owner, "read", group)


@pytest.mark.parametrize("kind", ["editor", "owner"])
def test_who_may_change_a_group_cannot_take_another_by_it(world: World, kind: str) -> None:
    from catalog.models import Feature, FeatureGroup, Owner

    group, feature = world.objects["group"], world.objects["group"].features.first()
    page = reverse("admin:catalog_feature_change", args=[feature.pk])
    sent = {"name": feature.name, "group": FeatureGroup.objects.get(name="support").pk, "dtype": "int64"}
    response = world.browsers[kind].post(page, sent | {"type": "numerical", "on_violation": "quarantine"})
    assert response.status_code == 403
    assert Feature.objects.get(pk=feature.pk).group == group

    page = reverse("admin:catalog_featuregroup_change", args=[group.pk])
    text = world.browsers[kind].get(page).content.decode()
    assert ('name="owner"' in text) == (kind == "owner")
    assert ('name="roles-TOTAL_FORMS"' in text and 'name="roles-0-team"' not in text) or kind == "owner"
    assert Owner.objects.get(name="growth").members.count() == 1


def test_several_chosen_things_are_refused_when_one_is_out_of_reach(world: World) -> None:
    from catalog.models import FeatureGroup

    group, other = world.objects["group"], FeatureGroup.objects.get(name="support")
    browser = world.browsers["editor"]
    chosen = {
        "action": "deprecate_selected",
        "_selected_action": [group.pk, other.pk],
        "confirmed": "yes",
        "reason": "r",
    }
    browser.post(reverse("admin:catalog_featuregroup_changelist"), chosen)
    assert FeatureGroup.objects.get(pk=other.pk).status == "active"


# -- The documentation


def test_the_tables_of_the_documentation_are_these() -> None:
    page = (PROJECT / "docs" / "security.md").read_text()
    rows = [tuple(cell.strip(" `") for cell in row.split("|")) for row in re.findall(r"^\|(.*)\|$", page, re.MULTILINE)]
    actions = {row[0]: row[2:] for row in rows if len(row) == 6}
    for action in EVERYTHING:
        wanted = [action in SCOPES, *(action in ROLES[role] for role in ("viewer", "editor", "owner"))]
        assert [cell == "yes" for cell in actions[action]] == wanted, action
    every = ROUTES | PAGES
    wanted_routes = {(name, method, scope or "none") for name, (_, n) in every.items() for method, scope in n.items()}
    assert {row for row in rows if row[0] in every} == wanted_routes
