"""Who reads which features: counted by the web processes as they answer, written down a few seconds later.

A request costs one addition in memory. What was counted in the last seconds before a process is killed is lost.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Max, QuerySet, Sum
from django.utils import timezone

from catalog.access import ANONYMOUS_READER, AnyCaller, principal_of
from catalog.models import ApiKey, Feature, FeatureUse

#: Who has read a feature within these days still reads it.
DAYS = 30
#: Older counts are forgotten.
KEPT_DAYS = 400
ANONYMOUS = "anonymous"

_lock = threading.Lock()
_counted: Counter[tuple[tuple[str, ...], str]] = Counter()

_ADD = """
    INSERT INTO catalog_featureuse (feature_id, reader, day, requests) VALUES (%s, %s, %s, %s)
    ON CONFLICT (feature_id, reader, day) DO UPDATE SET requests = catalog_featureuse.requests + excluded.requests
"""


def count(features: tuple[str, ...], caller: AnyCaller) -> None:
    """One request of `caller` has read these features, each `group:name`."""
    reader = ANONYMOUS if caller is ANONYMOUS_READER else principal_of(caller)
    with _lock:
        _counted[features, reader] += 1


def record() -> int:
    """Write down what was counted since the last call, under today (UTC); how many rows that changed.

    Raises what the database raises, and keeps the counts then.
    """
    with _lock:
        taken = _counted.copy()
        _counted.clear()
    try:
        return _add(taken, timezone.now().date()) if taken else 0
    except Exception:
        with _lock:
            _counted.update(taken)
        raise


def _add(taken: Counter[tuple[tuple[str, ...], str]], today: date) -> int:
    totals: Counter[tuple[str, str]] = Counter()
    for (features, reader), requests in taken.items():
        for feature in features:
            totals[feature, reader] += requests
    ids = _ids_of({feature for feature, _ in totals})
    rows = [(ids[name], reader, today, requests) for (name, reader), requests in totals.items() if name in ids]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(_ADD, sorted(rows))  # in one order, so that two processes never wait for each other
    return len(rows)


def _ids_of(names: Iterable[str]) -> dict[str, int]:
    groups = {name.partition(":")[0] for name in names}
    known = Feature.objects.filter(group__name__in=groups).values_list("group__name", "name", "pk")
    return {f"{group}:{name}": pk for group, name, pk in known}


def forget_old() -> int:
    """Remove counts beyond KEPT_DAYS; how many."""
    return FeatureUse.objects.filter(day__lt=timezone.now().date() - timedelta(days=KEPT_DAYS)).delete()[0]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who has read something in the last DAYS, as people know them: how often, and when last (UTC)."""

    name: str
    requests: int
    last_day: date

    def __str__(self) -> str:
        return f"{self.name} ({self.requests:,} requests, the last on {self.last_day})"


def readers(features: QuerySet[Feature]) -> list[Reader]:
    """Who has read one of the features in the last DAYS and could go on; the latest first.

    A key that was revoked or has expired, and a person who may not log in any more, read nothing again.
    """
    since = timezone.now().date() - timedelta(days=DAYS)
    uses = FeatureUse.objects.filter(feature__in=features, day__gte=since).order_by().values("reader")
    found = list(uses.annotate(last=Max("day"), requests_of_all=Sum("requests")).order_by("-last", "reader"))
    names = _names({row["reader"] for row in found})
    return [
        Reader(names[row["reader"]], row["requests_of_all"], row["last"]) for row in found if row["reader"] in names
    ]


def readers_by_feature(features: Collection[Feature]) -> list[tuple[str, list[str]]]:
    """Who has read some features in the last DAYS and could go on, each with the names of those that it read."""
    since = timezone.now().date() - timedelta(days=DAYS)
    uses = FeatureUse.objects.filter(feature__in=features, day__gte=since).order_by()
    pairs = list(uses.values_list("reader", "feature").distinct())
    names, known = _names({reader for reader, _ in pairs}), {feature.pk: str(feature) for feature in features}
    read: dict[str, list[str]] = {}
    for reader, feature in sorted(pairs):
        if reader in names:
            read.setdefault(names[reader], []).append(known[feature])
    return sorted(read.items())


def _names(readers: set[str]) -> dict[str, str]:
    """What people call the readers that could go on: a key by its name and owner, a person by name."""
    told = {ANONYMOUS: "anonymous callers"}
    ids = [reader.removeprefix("key:") for reader in readers if reader.startswith("key:")]
    live = ApiKey.objects.filter(public_id__in=ids, revoked_at=None).exclude(expires_at__lte=timezone.now())
    for key in live.select_related("owner"):
        told[f"key:{key.public_id}"] = f"the key {key.name!r}" + (f" of {key.owner}" if key.owner else "")
    numbers = [reader.removeprefix("user:") for reader in readers if reader.startswith("user:")]
    for user in User.objects.filter(pk__in=numbers, is_active=True):
        told[f"user:{user.pk}"] = user.get_username()
    return told
