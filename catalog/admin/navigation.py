"""The sidebar of the admin: the hub's nouns in the order people need them, then whatever else is registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

#: Each section's models, with the icon each has.
SECTIONS: dict[str, dict[str, str]] = {
    "Catalog": {
        "catalog.Feature": "data_object",
        "catalog.FeatureGroup": "table",
        "catalog.FeatureService": "deployed_code",
        "catalog.ReviewRequest": "rate_review",
        "catalog.AppliedDefinition": "description",
        "catalog.FeatureUse": "monitoring",
        "catalog.Entity": "key",
        "catalog.DataSource": "database",
    },
    "Training": {
        "catalog.TrainingDataset": "dataset",
    },
    "Ingestion": {
        "catalog.Run": "play_circle",
        "ingestion.QuarantinedRule": "report",
        "ingestion.OnlineCursor": "layers",
        "catalog.OfflineDamage": "broken_image",
        "catalog.Erasure": "person_off",
        "django_celery_beat.PeriodicTask": "event_repeat",
        "django_celery_beat.IntervalSchedule": "timer",
        "django_celery_beat.CrontabSchedule": "calendar_month",
        "django_celery_beat.ClockedSchedule": "alarm",
        "django_celery_beat.SolarSchedule": "wb_twilight",
    },
    "People": {
        "catalog.Owner": "badge",
        "catalog.Tag": "sell",
        "catalog.ApiKey": "vpn_key",
        "auth.User": "person",
        "auth.Group": "group",
        "catalog.Refusal": "block",
        "catalog.FailedLogin": "lock",
    },
}
#: Where the models that no section names are listed.
_REST = {"ingestion": "Ingestion"}
_REST_ICON = "list_alt"


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's navigation: the models that the request's user may see."""
    visible = {model["model"]._meta.label: model for model in _models(request)}
    sections = {
        title: [_item(visible.pop(label), icon) for label, icon in icons.items() if label in visible]
        for title, icons in SECTIONS.items()
    }
    for model in visible.values():
        title = _REST.get(model["model"]._meta.app_label, "Other")
        sections.setdefault(title, []).append(_item(model, _REST_ICON))
    return [{"title": title, "separator": True, "items": items} for title, items in sections.items() if items]


def _models(request: HttpRequest) -> Iterator[dict[str, Any]]:
    for app in admin.site.get_app_list(request):
        yield from app["models"]


def _item(model: dict[str, Any], icon: str) -> dict[str, Any]:
    return {"title": model["name"], "icon": icon, "link": model["admin_url"]}
