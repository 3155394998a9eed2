"""Every page of the admin that there is something to see on."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.admin import site
from django.test import Client
from django.urls import NoReverseMatch, reverse


def pages_of(browser: Client) -> Iterator[tuple[str, bytes]]:
    """The front page, each list, and each thing's page and its history; with what they answer."""
    yield from ((path, browser.get(path).content) for path in ("/admin/", "/"))
    for model in site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        addresses = [(f"{name}_changelist", [])]
        things = model._default_manager.all()[:40]
        addresses += [(f"{name}_{page}", [thing.pk]) for thing in things for page in ("change", "history", "delete")]
        for address, arguments in addresses:
            try:
                path = reverse(address, args=arguments)
            except NoReverseMatch:
                continue
            yield path, browser.get(path).content
