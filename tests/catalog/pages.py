"""What tests of the pages begin with: two groups, a service, a dataset, and people with a browser each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from catalog.models import (
    Acceptance,
    FeatureGroup,
    FeatureService,
    FeatureUse,
    GroupFreshness,
    GroupRole,
    Owner,
    Role,
    Run,
    RunKind,
    RunState,
    Tag,
    TrainingDataset,
)
from tests.factories import make_customer_group, make_entity

#: Words of a group that its viewers see, and of one that they do not.
SEEN, HIDDEN = "customer_purchases", "secret_salaries"


def make_world() -> dict[str, Any]:
    """Two groups of different entities, each with an owner, a service, a dataset, a failed run and a reader."""
    growth, payroll = Owner.objects.create(name="growth"), Owner.objects.create(name="secret_payroll")
    seen = make_customer_group(SEEN, source="c.csv", owner=growth, description="What customers buy.")
    hidden = make_customer_group(
        HIDDEN, features={"secret_bonus": "float64", "secret_rank": "int64"}, owner=payroll, description="secret_words"
    )
    hidden.entity = make_entity("secret_employee", {"employee_id": "string"})
    hidden.save()
    for group in (seen, hidden):
        name = group.name.partition("_")[0]
        feature = group.features.order_by("position").first()
        assert feature is not None
        feature.tags.add(Tag.objects.create(name=f"{name}_tag"))
        service = FeatureService.objects.create(name=f"{name}_model", owner=group.owner)
        service.chosen.create(feature=feature, position=0)
        state = {"state": RunState.FAILED, "error": "broken", "error_code": "invalid_source"}
        Run.objects.create(group=group, acceptance=Acceptance.take(), **state)
        made = Run.objects.create(kind=RunKind.TRAIN, acceptance=Acceptance.take(), state=RunState.SUCCEEDED)
        TrainingDataset.objects.create(
            name=f"{name}_training", run=made, features=[str(feature)], event_timestamp="event_timestamp"
        )
        FeatureUse.objects.create(feature=feature, reader="anonymous", day=timezone.now().date(), requests=7)
        old = timezone.now() - timedelta(days=400)
        GroupFreshness.objects.create(group=group, group_version=1, newest_event_at=old, updated_at=old)
        FeatureGroup.objects.filter(pk=group.pk).update(ttl=timedelta(days=1))
    return {"seen": seen, "hidden": hidden, "growth": growth}


def browser(name: str, role: Role | None = None, group: FeatureGroup | None = None, **fields: Any) -> Client:
    """The browser of somebody who is logged in, with a role of their own team in a group."""
    person = User.objects.create(username=name, **fields)
    if role and group:
        team = Owner.objects.create(name=f"team_{name}")
        team.members.add(person)
        GroupRole.objects.create(group=group, team=team, role=role)
    client = Client(raise_request_exception=True)
    client.force_login(person)
    client.person = person  # type: ignore[attr-defined]
    return client


def text_of(response: HttpResponse) -> str:
    assert response.status_code == 200, (response.status_code, response.content[:500])
    return response.content.decode()


def addresses_of(world: dict[str, Any], which: str) -> dict[str, str]:
    """Every page that is about one of the groups, or about what is made of it."""
    group = world[which]
    word, feature = group.name.partition("_")[0], group.features.order_by("position").first()
    return {
        "feature": f"/catalog/features/{group.name}/{feature.name}/",
        "group": f"/catalog/groups/{group.name}/",
        "service": f"/catalog/services/{word}_model/",
        "dataset": f"/catalog/datasets/{word}_training/",
        "entity": f"/catalog/entities/{group.entity.name}/",
    }


LISTS = {
    "home": "/",
    "features": "/catalog/features/",
    "search": "/catalog/features/?q=e",
    "by reads": "/catalog/features/?sort=reads",
    "groups": "/catalog/groups/",
    "entities": "/catalog/entities/",
    "services": "/catalog/services/",
    "datasets": "/catalog/datasets/",
    "lineage": "/catalog/lineage/",
    "inbox": "/catalog/inbox/",
    "palette": "/catalog/find/?q=e",
}


class _Inline(HTMLParser):
    """What a policy without `unsafe-inline` does not run: scripts and styles in a page, handlers, javascript: URLs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [f"<{tag} {name}>" for name in given if name.startswith("on") or name == "style"]
        self.found += [
            f"<{tag} {name}=javascript:>" for name, v in attrs if (v or "").strip().startswith("javascript:")
        ]
        self.found += [f"<{tag} {name}>" for name in given if name.startswith(("hx-on", "hx-vals", "hx-vars"))]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.found.append(f"<{tag}>")

    handle_startendtag = handle_starttag


def inline_in(html: str) -> list[str]:
    parser = _Inline()
    parser.feed(html)
    return parser.found


def choices_of(html: str, facet: str) -> dict[str, int]:
    """A facet's values with their counts, as the page has them."""
    pattern = rf'name="{facet}" value="([^"]*)"[^>]*><span>[^<]*</span><span class="facet-count">([\d,]+)<'
    return {value: int(count.replace(",", "")) for value, count in re.findall(pattern, html)}


def features_in(html: str) -> Iterator[str]:
    """The features of a list, in its order."""
    for group, name in re.findall(
        r'<th scope="row" class="wide"><a href="/catalog/features/([^/"]+)/([^/"]+)/">', html
    ):
        yield f"{group}:{name}"
