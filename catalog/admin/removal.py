"""What may be deleted: drafts without stored rows that nothing refers to. Everything else is archived."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.http import HttpRequest

from catalog.admin.guarded import GuardedAdmin
from catalog.models import Entity, Feature, FeatureGroup, FeatureService, Status


def may_be_deleted(thing: models.Model) -> bool:
    """Whether deleting `thing` takes nothing from a reader and orphans no stored row."""
    if isinstance(thing, Feature):
        return _is_unused_feature(thing)
    if isinstance(thing, FeatureGroup):
        is_read = Feature.objects.filter(group=thing).filter(_referred_to()).exists()
        is_stored = thing.schemas.exists() or thing.runs.exists()
        return thing.status == Status.DRAFT and not is_stored and not is_read
    if isinstance(thing, FeatureService):
        return thing.status == Status.DRAFT
    if isinstance(thing, Entity):
        return not thing.groups.exists()
    return True


def _is_unused_feature(feature: Feature) -> bool:
    if feature.effective_status != Status.DRAFT or is_stored(feature):
        return False
    return not Feature.objects.filter(pk=feature.pk).filter(_referred_to()).exists()


def _referred_to() -> models.Q:
    return models.Q(chosen_by__isnull=False) | models.Q(replaces__isnull=False)


def is_stored(feature: Feature) -> bool:
    """Whether rows may hold values of the feature: a schema that a writer recorded has it."""
    written = feature.group.schemas.values_list("columns", flat=True)
    return any(feature.name == column[0] for columns in written for column in columns["features"])


class GuardedRemoval(GuardedAdmin):
    """Deleting is offered on the page of a thing that may be deleted, never for a selection."""

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or may_be_deleted(obj))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions
