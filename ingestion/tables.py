"""Opening a group's offline table, seen to be the one that was committed to before."""

from __future__ import annotations

from catalog import stores
from catalog.models import FeatureGroup
from engine.errors import CorruptData
from engine.offline.table import OfflineTable
from ingestion.models import OnlineCursor


def known_version(group: FeatureGroup, group_version: int) -> int:
    """A Delta version that the group version's table is known to have had; -1 without any."""
    cursor = OnlineCursor.objects.filter(group=group, group_version=group_version).first()
    return -1 if cursor is None else cursor.delta_version


def open_table(group: FeatureGroup, group_version: int) -> OfflineTable:
    """The table, to be committed to. Raises CorruptData as `require_kept` does."""
    table = stores.offline(group.name, group_version)
    require_kept(table, known_version(group, group_version))
    return table


def require_kept(table: OfflineTable, known: int) -> int:
    """The table's newest version. Raises CorruptData when it is before `known`, a version that the table once had.

    Then its folder is gone or not mounted, or the end of its log is lost, and what is read is not what was accepted. A
    commit would take the numbers of the versions that are missing.
    """
    newest = table.version
    if newest >= known:
        return newest
    found = f"ends at version {newest}" if newest >= 0 else "has no commit"
    raise CorruptData(
        f"The offline table {table.folder} {found}, and version {known} had been committed: is the folder there, and "
        "the right one? A loss that is final is accepted by manage.py scrub --accept-loss."
    )
