"""What is worth telling the people who follow a thing, and the words for it.

What became of a run and a changed status are told in the transaction that records them. That a group has become stale,
and that pushes left rows in quarantine, is found by a look once a minute: the one happens by nobody's doing, and a push
has no time for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from django.db.models import Exists, OuterRef
from django.utils import timezone

from catalog import freshness
from catalog.follows import Thing, tell
from catalog.models import Feature, FeatureGroup, FeatureService, Notice, NoticeKind, Run, RunKind, RunState, Status

_STATUSES = {Status.DEPRECATED: NoticeKind.DEPRECATED, Status.ARCHIVED: NoticeKind.ARCHIVED}


def tell_of_run(run: Run) -> None:
    """Tell what became of a run that has just ended: that it failed, or how many of its rows went to quarantine.

    Each retry that fails again is told again. Of a training dataset's run only its maker needs to know.
    """
    about: Thing | None = run.erasure.entity if run.kind == RunKind.ERASE else run.group
    if about is None:
        return
    if run.state in (RunState.FAILED, RunState.DEAD):
        tell(NoticeKind.FAILED, about, _failure(run), key=f"failed:{run.pk}:{run.token}", run=run)
    elif run.state == RunState.SUCCEEDED and run.rows_quarantined:
        text = (
            f"{run.rows_quarantined:,} of {run.rows_read:,} rows of the {run.kind} run of {run.subject} went to "
            "quarantine."
        )
        tell(NoticeKind.QUARANTINED, about, text, key=f"quarantined:{run.pk}", run=run)


def _failure(run: Run) -> str:
    """Without the error itself, which may quote what a file holds."""
    ended = "failed" if run.state == RunState.FAILED else "is dead: nobody tries it again unless somebody asks for it"
    broken = f"; {run.rows_quarantined:,} of its {run.rows_read:,} rows broke a rule" if run.rows_quarantined else ""
    return f"The {run.kind} run of {run.subject} {ended} ({run.error_code}){broken}."


def tell_of_status(thing: Feature | FeatureGroup | FeatureService, status: str) -> None:
    """Tell that `thing` is about to become deprecated or archived; nothing when it is so already.

    Call in the transaction of the change, after the replacement and the sunset of a feature were set.
    """
    kind = _STATUSES.get(Status(status))
    if kind is None or thing.status == status:
        return
    tell(kind, thing, f"{thing} is {status}{_instead(thing)}.", key=f"{kind}:{_name(thing)}:{timezone.now()}")


def _instead(thing: Feature | FeatureGroup | FeatureService) -> str:
    if not isinstance(thing, Feature):
        return ""
    instead = f"; use {thing.replaced_by} instead" if thing.replaced_by else ""
    return f"{instead}; its sunset is on {thing.sunset_at:%Y-%m-%d}" if thing.sunset_at else instead


def look(*, now: datetime | None = None) -> None:
    """Tell of every group that has become stale or fresh again, and of pushes that left rows in quarantine."""
    now = now or timezone.now()
    _tell_of_stale_groups(now)
    _tell_of_fresh_groups(now)
    for day in (now.date() - timedelta(days=1), now.date()):  # the last pushes of a day may come after its last look
        _tell_of_pushes(day)


def _tell_of_stale_groups(now: datetime) -> None:
    """Once for each newest event: a newer one ends the episode, also when that is too old itself."""
    stale = {_episode(group): group for group in freshness.stale(FeatureGroup.objects.all(), now=now)}
    for key in _untold([f"stale:{episode}" for episode in stale]):
        group = stale[key.removeprefix("stale:")]
        limit = "its freshness target" if group.freshness else "its TTL, so that all it serves is withheld"
        tell(NoticeKind.STALE, group, f"{group} is stale: its newest event is older than {limit}.", key=key)


def _tell_of_fresh_groups(now: datetime) -> None:
    """Of each that was told to be stale, and of nothing else since."""
    fresh_since = Notice.objects.filter(kind=NoticeKind.FRESH, group=OuterRef("group"), at__gte=OuterRef("at"))
    told = Notice.objects.filter(~Exists(fresh_since), kind=NoticeKind.STALE, group=OuterRef("pk"))
    were_stale = freshness.with_age(FeatureGroup.objects.filter(Exists(told)), now=now)
    still = set(freshness.stale(FeatureGroup.objects.filter(Exists(told)), now=now).values_list("pk", flat=True))
    for group in were_stale:
        if group.pk not in still and group.status in (Status.ACTIVE, Status.DEPRECATED):
            tell(NoticeKind.FRESH, group, f"{group} is fresh again.", key=f"fresh:{_episode(group)}")


def _tell_of_pushes(day: date) -> None:
    """Once for each group and day (UTC), with the first run of the day that kept such rows."""
    begin = datetime.combine(day, time(), UTC)
    kept = Run.objects.filter(
        kind=RunKind.PUSH, rows_quarantined__gt=0, created_at__gte=begin, created_at__lt=begin + timedelta(days=1)
    )
    groups = {
        f"quarantined:push:{group.pk}:{day}": group
        for group in FeatureGroup.objects.filter(Exists(kept.filter(group=OuterRef("pk"))))
    }
    for key in _untold(list(groups)):
        group = groups[key]
        first = kept.filter(group=group).order_by("created_at").first()
        tell(NoticeKind.QUARANTINED, group, f"Rows pushed to {group} went to quarantine.", key=key, run=first)


def _untold(keys: list[str]) -> Iterator[str]:
    told = set(Notice.objects.filter(key__in=keys).values_list("key", flat=True))
    return (key for key in keys if key not in told)


def _episode(group: FeatureGroup) -> str:
    """The newest event of a group that `freshness` has found, as part of a key."""
    return f"{group.pk}:{group.version}:{group.newest_event_at:%Y-%m-%dT%H:%M:%S.%f}"  # type: ignore[attr-defined]


def _name(thing: Feature | FeatureGroup | FeatureService) -> str:
    return f"{thing._meta.model_name}:{thing.pk}"
