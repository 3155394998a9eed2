"""Who may see one group sees nothing of another, on any page."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.catalog.pages import HIDDEN, LISTS, SEEN, addresses_of, browser, make_world, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]

#: What every viewer of some group may see of others, as docs/security.md has it: entities, owners, tags, services.
SHARED = ("secret_employee", "secret_payroll", "secret_tag", "secret_model")


@pytest.fixture
def world() -> dict[str, Any]:
    return make_world()


@pytest.fixture
def viewer(world: dict[str, Any]) -> Client:
    from catalog.models import Role

    return browser("vera", Role.VIEWER, world["seen"])


def secrets_in(text: str) -> list[str]:
    for word in SHARED:
        text = text.replace(word, "")
    return [line.strip() for line in text.splitlines() if "secret" in line]


@pytest.mark.parametrize("name", LISTS)
def test_no_list_names_what_is_out_of_reach(world: dict[str, Any], viewer: Client, name: str) -> None:
    page = text_of(viewer.get(LISTS[name]))
    assert secrets_in(page) == []
    everything = text_of(browser("root", is_superuser=True).get(LISTS[name]))
    if name not in ("inbox", "lineage"):  # nothing is followed, and the first entity is drawn
        assert "secret" in everything


@pytest.mark.parametrize("kind", ["feature", "group", "service", "dataset", "entity"])
def test_a_page_in_reach_names_nothing_out_of_it(world: dict[str, Any], viewer: Client, kind: str) -> None:
    """A service and a dataset that read both groups, and a reader of the hidden one, among them."""
    page = text_of(viewer.get(addresses_of(world, "seen")[kind]))
    assert secrets_in(page) == []


@pytest.mark.parametrize("kind", ["feature", "group", "dataset"])
def test_a_page_out_of_reach_is_not_there(world: dict[str, Any], viewer: Client, kind: str) -> None:
    address = addresses_of(world, "hidden")[kind]
    response = viewer.get(address)
    assert response.status_code == 404
    assert (
        secrets_in(
            response.content.decode()
            .replace(address, "")
            .replace(HIDDEN, "")
            .replace("secret_bonus", "")
            .replace("secret_training", "")
        )
        == []
    )  # but for the name that was asked for
    assert text_of(browser("root", is_superuser=True).get(address))


@pytest.mark.parametrize("kind", ["service", "entity"])
def test_what_is_shared_names_no_group_or_feature_out_of_reach(
    world: dict[str, Any], viewer: Client, kind: str
) -> None:
    assert secrets_in(text_of(viewer.get(addresses_of(world, "hidden")[kind]))) == []


def test_home_counts_what_the_person_may_see(world: dict[str, Any], viewer: Client) -> None:
    page = text_of(viewer.get("/"))
    for told in ("3 features", "1 group<", "1 dataset<"):
        assert told in page
    everything = text_of(browser("root", is_superuser=True).get("/"))
    for told in ("5 features", "2 groups<", "2 datasets<"):
        assert told in everything


def test_consumers_impact_and_lineage_leave_out_what_is_made_of_a_hidden_group_too(
    world: dict[str, Any], viewer: Client
) -> None:
    from catalog.models import Acceptance, Run, RunKind, RunState, TrainingDataset

    run = Run.objects.create(kind=RunKind.TRAIN, acceptance=Acceptance.take(), state=RunState.SUCCEEDED)
    both = [f"{SEEN}:total_purchases", f"{HIDDEN}:secret_bonus"]
    TrainingDataset.objects.create(name="secret_mixture", run=run, features=both, event_timestamp="t")
    for address in addresses_of(world, "seen").values():
        assert secrets_in(text_of(viewer.get(address))) == []
    assert "secret_mixture" in text_of(browser("root", is_superuser=True).get(addresses_of(world, "seen")["feature"]))


def test_an_old_notice_of_a_group_is_not_shown_to_who_may_not_see_it_any_more(world: dict[str, Any]) -> None:
    from catalog.follows import follow, tell
    from catalog.models import GroupRole, NoticeKind, Role

    client = browser("vera", Role.VIEWER, world["hidden"])
    follow(client.person, world["hidden"])
    tell(NoticeKind.STALE, world["hidden"], "secret words", key="k")
    assert "secret words" in text_of(client.get("/catalog/inbox/"))
    GroupRole.objects.filter(group=world["hidden"]).update(group=world["seen"])
    page = text_of(client.get("/catalog/inbox/"))
    assert secrets_in(page) == []


def test_who_may_read_nothing_is_refused_on_every_page(world: dict[str, Any]) -> None:
    stranger = browser("stranger")
    for address in [*LISTS.values(), *addresses_of(world, "seen").values()]:
        assert stranger.get(address).status_code == 403, address
