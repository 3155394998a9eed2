"""What is known to be damaged offline: recorded for people and for /health, and read by whoever plans a read."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from catalog import stores
from catalog.models import FeatureGroup, OfflineDamage
from engine.errors import CorruptData
from engine.offline.scrub import Damage, scrub
from ingestion.tables import known_version

log = logging.getLogger(__name__)


@transaction.atomic
def record(group: FeatureGroup, version: int, found: list[Damage], *, is_missing_online: bool = False) -> None:
    """Make the group version's records those of `found`; what is missing online stays so until it is brought there."""
    for damage in found:
        log.error("%s is damaged offline: %s", group.name, damage.detail)
        values = {"detail": damage.detail} | ({"is_missing_online": True} if is_missing_online else {})
        OfflineDamage.objects.update_or_create(group=group, group_version=version, path=damage.path, defaults=values)
    mended = group.offline_damages.filter(group_version=version).exclude(path__in=[damage.path for damage in found])
    mended.filter(is_missing_online=False).delete()


def hold_back(group: FeatureGroup, error: CorruptData, *, progress: Callable[[], None]) -> None:
    """Record that a rebuild could not bring the group's rows online, and why: reads of it are refused from now on."""
    table = stores.offline(group.name, group.version)
    found = scrub(table, committed_to=known_version(group, group.version), progress=progress)
    record(group, group.version, found or [Damage(str(table.folder), error.detail)], is_missing_online=True)


def followed_groups() -> QuerySet[FeatureGroup]:
    """The groups whose tables are followed online: one that is held back waits until a scrub finds it whole again."""
    held = OfflineDamage.objects.filter(group=OuterRef("pk"), group_version=OuterRef("version"), is_missing_online=True)
    return FeatureGroup.objects.filter(~Exists(held)).select_related("entity")


def is_whole_online(group: FeatureGroup) -> None:
    """Record that every row of the group's table has just been brought online."""
    for mended in group.offline_damages.filter(group_version=group.version, is_missing_online=True):
        mended.delete()
