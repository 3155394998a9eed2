"""Makes a change of the catalog visible: the version rises in its transaction and is published before the answer.

Readers learn the version in the command that reads their values (engine/online/store.py), so the next request in
every process shows the change. Changes that no reader could notice, such as a description, do not move it. Writers ask
the database (catalog/writable.py).
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import models, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from catalog import stores
from catalog.models import (
    PII,
    CatalogState,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    GroupInput,
    JoinKey,
    OfflineDamage,
    RequestInput,
    ServiceFeature,
    StoredSchema,
    Tag,
)
from engine.errors import Unavailable
from engine.online.store import State

log = logging.getLogger(__name__)

#: What a reader could notice of each model.
NOTICED: dict[type[models.Model], tuple[str, ...]] = {
    Entity: ("name",),
    JoinKey: ("entity_id", "name", "dtype", "position"),
    FeatureGroup: ("name", "version", "entity_id", "status", "ttl", "deprecated_at"),
    # Its expression, since that says whether it is computed on request, and then how.
    Feature: (
        *("name", "group_id", "position", "dtype", "status", "expression"),
        *("replaced_by_id", "deprecated_at", "sunset_at"),
    ),
    RequestInput: ("group_id", "name", "dtype", "position"),
    FeatureService: ("name", "version", "status"),
    ServiceFeature: ("service_id", "feature_id", "position"),
    StoredSchema: ("group_id", "version", "number"),
    OfflineDamage: ("group_id", "group_version", "is_missing_online"),
}
#: What a writer works from; of these every change counts.
WRITTEN_BY: tuple[type[models.Model], ...] = (
    *(Entity, JoinKey, FeatureGroup, GroupInput, RequestInput, Feature, StoredSchema),
)


def connect() -> None:
    """Listen to every change of the models above."""
    for model in WRITTEN_BY:
        post_save.connect(_redefine, sender=model, dispatch_uid="catalog.writable")
        post_delete.connect(_redefine, sender=model, dispatch_uid="catalog.writable")
    for model in NOTICED:
        pre_save.connect(_before_save, sender=model, dispatch_uid="catalog.publishing")
        post_save.connect(_after_save, sender=model, dispatch_uid="catalog.publishing")
        post_delete.connect(_after_delete, sender=model, dispatch_uid="catalog.publishing")

    for thing in (Feature, FeatureGroup):
        m2m_changed.connect(_tags_changed, sender=thing.tags.through, dispatch_uid="catalog.publishing")
    for moment in (pre_save, post_save, post_delete):
        moment.connect(_tag_changed, sender=Tag, dispatch_uid="catalog.publishing")


def _tags_changed(action: str, pk_set: set[int] | None, reverse: bool, **_: Any) -> None:
    """Of all tags a reader notices one: it says that values are about persons."""
    if action not in ("post_add", "post_remove", "pre_clear") or reverse:
        return
    if pk_set is None or Tag.objects.filter(pk__in=pk_set, name=PII).exists():
        changed()


def _tag_changed(instance: Tag, **_: Any) -> None:
    """Saved under that name or deleted; before it is saved, when it had the name."""
    if instance.pk and (instance.name == PII or Tag.objects.filter(pk=instance.pk, name=PII).exists()):
        changed()


def _redefine(**_: Any) -> None:
    CatalogState.redefine()


def _before_save(sender: type[models.Model], instance: models.Model, **_: Any) -> None:
    fields = NOTICED[sender]
    saved = sender._default_manager.filter(pk=instance.pk).values_list(*fields).first() if instance.pk else None
    instance._noticed = saved != tuple(getattr(instance, field) for field in fields)  # type: ignore[attr-defined]


def _after_save(instance: models.Model, raw: bool = False, **_: Any) -> None:
    if instance._noticed:  # type: ignore[attr-defined]
        changed()


def _after_delete(**_: Any) -> None:
    changed()


def changed() -> None:
    """Raise the catalog version in the running transaction and publish it when that commits."""
    CatalogState.bump()
    connection = transaction.get_connection()
    if not any(entry[1] is publish for entry in connection.run_on_commit):
        transaction.on_commit(publish)


def publish() -> None:
    """Tell readers the database's catalog version.

    A Redis that is down or cold is left alone: reads from it fail until it is back and rebuilt, and a process
    that saw it fail asks the database.
    """
    current = CatalogState.current()
    try:
        stores.online().publish(State(current.version, current.epoch))
    except Unavailable as error:
        log.warning("catalog version %s is not published yet: %s", current.version, error.detail)
