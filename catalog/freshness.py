"""How old the newest event of a group is, and which groups are stale; one query for any number of them.

What lands says how new it is (`observe`): a run at its end, a drain for its batch. Nothing of it is done for a single
row or on the way of a push. A version that has no rows yet is empty, which is another thing than stale.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection
from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from catalog.models import FeatureGroup, GroupFreshness, Status

#: Only what is served can be stale.
_SERVED = (Status.ACTIVE, Status.DEPRECATED)
_RAISE = """
    INSERT INTO catalog_groupfreshness (group_id, group_version, newest_event_at, updated_at) VALUES (%s, %s, %s, %s)
    ON CONFLICT (group_id) DO UPDATE SET group_version = excluded.group_version,
        newest_event_at = excluded.newest_event_at, updated_at = excluded.updated_at
    WHERE excluded.group_version > catalog_groupfreshness.group_version
        OR (excluded.group_version = catalog_groupfreshness.group_version
            AND excluded.newest_event_at > catalog_groupfreshness.newest_event_at)
"""


def observe(group_id: int, version: int, newest: datetime) -> None:
    """Rows of a group version have landed, the newest of an event at `newest` (aware).

    What is known is only ever raised: an older time of the same version, or an older version, changes nothing,
    whichever of two writers comes last.
    """
    times = [connection.ops.adapt_datetimefield_value(moment) for moment in (newest, timezone.now())]
    with connection.cursor() as cursor:
        cursor.execute(_RAISE, [group_id, version, *times])


def newest_of(group: FeatureGroup) -> datetime | None:
    """The newest event time of the version that is served; None while it has no rows."""
    found = GroupFreshness.objects.filter(group=group, group_version=group.version)
    return found.values_list("newest_event_at", flat=True).first()


def age_of(group: FeatureGroup) -> timedelta | None:
    """How long ago the newest event of the served version was; None while it has no rows.

    Below zero within the allowed clock skew.
    """
    newest = newest_of(group)
    return None if newest is None else timezone.now() - newest


def with_age(groups: QuerySet[FeatureGroup], *, now: datetime | None = None) -> QuerySet[FeatureGroup]:
    """Those of the groups whose served version has rows, each with its `newest_event_at` and `age` (a timedelta)."""
    age = Value(now or timezone.now(), output_field=DateTimeField()) - F("observed__newest_event_at")
    return groups.filter(observed__group_version=F("version")).annotate(
        newest_event_at=F("observed__newest_event_at"),
        age=ExpressionWrapper(age, output_field=DurationField()),
    )


def stale(groups: QuerySet[FeatureGroup], *, now: datetime | None = None) -> QuerySet[FeatureGroup]:
    """Those of the groups that are stale, as `with_age` gives them.

    That is an active or deprecated group whose newest event is older than its `freshness` target or, without one, than
    its TTL: then all that it serves is withheld. A group with neither is never stale.
    """
    # The age is compared, since a time so long before now or after an event may be none that there is.
    limit = Coalesce(F("freshness"), F("ttl"))
    return with_age(groups, now=now).filter(status__in=_SERVED, age__gt=limit)  # type: ignore[misc]  # annotated


def unobserved(groups: QuerySet[FeatureGroup]) -> QuerySet[FeatureGroup]:
    """Those of whose served version nothing is known here: it has no rows, or they landed before this was kept."""
    return groups.exclude(observed__group_version=F("version"))
