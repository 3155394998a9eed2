"""The entries of the main navigation, in the order in which people need them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.contrib.auth.models import AbstractBaseUser
from django.urls import reverse

from catalog import follows


@dataclass(frozen=True, slots=True)
class Item:
    """One entry; `name` is its route, `count` how much waits there."""

    name: str
    title: str
    icon: str
    count: int = 0

    @property
    def address(self) -> str:
        return reverse(self.name)


ITEMS = (
    Item("home", "Home", "home"),
    Item("catalog-features", "Features", "data_object"),
    Item("catalog-groups", "Groups", "table"),
    Item("catalog-entities", "Entities", "key"),
    Item("catalog-services", "Services", "deployed_code"),
    Item("catalog-datasets", "Datasets", "dataset"),
    Item("catalog-lineage", "Lineage", "account_tree"),
    Item("catalog-runs", "Runs", "play_circle"),
    Item("catalog-quarantine", "Quarantine", "report"),
)
_INBOX = Item("catalog-inbox", "Inbox", "inbox")


def items_for(person: AbstractBaseUser | None) -> tuple[Item, ...]:
    """The entries, for somebody who is logged in with the inbox and how much in it is new."""
    return ITEMS if person is None else (*ITEMS, replace(_INBOX, count=follows.unread_count(person)))
