"""A catalog of a chosen size with the history, runs, uses and statistics that it would have: rows of the database.

Written in bulk, each definition with the rows of history that saving it and tagging it would have made. Everything
follows from the numbers of things, so two catalogs of one size are alike. Import it once Django is set up.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from random import Random
from typing import Any

import polars as pl
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from catalog.keys import create_key
from catalog.models import (
    Acceptance,
    DataSource,
    Entity,
    Erasure,
    Feature,
    FeatureGroup,
    FeatureService,
    FeatureStatistics,
    FeatureUse,
    Follow,
    GroupFreshness,
    GroupRole,
    Inbox,
    JoinKey,
    Notice,
    NoticeKind,
    Owner,
    ReviewRequest,
    Role,
    Run,
    RunKind,
    RunState,
    ServiceFeature,
    Status,
    Tag,
    TrainingDataset,
)
from catalog.models.feature import default_type
from engine import statistics
from engine.schema import Dtype

BATCH = 1_000
#: Who looks at the pages: one who may see everything, one with a role in a single group.
EVERYBODY, VIEWER = "scale_admin", "scale_viewer"

ENTITIES = ["customer", "merchant", "product", "session", "device", "store", "courier", "order", "account", "campaign"]
SUBJECTS = ["purchase", "payment", "visit", "refund", "basket", "delivery", "login", "search", "review", "complaint"]
FIGURES = ["total", "mean", "largest", "last", "share", "count", "spread", "trend", "distinct", "median"]
WINDOWS = ["1h", "1d", "7d", "30d", "90d"]
TAGS = ["fraud", "churn", "pricing", "ranking", "credit", "growth", "supply", "support", "search", "marketing"]
DTYPES = ["float64", "int64", "float64", "string", "bool", "timestamp"]
#: Of twenty features; the others follow their group.
STATUSES = {7: Status.DEPRECATED, 13: Status.DRAFT, 17: Status.ARCHIVED}


@dataclass(frozen=True, slots=True)
class Size:
    """How many there are of each; `readers` and `statistics` are of each feature, `days` those with reads."""

    groups: int = 500
    features_of_each: int = 20
    entities: int = 20
    owners: int = 40
    tags: int = 60
    services: int = 200
    datasets: int = 300
    runs: int = 100_000
    readers: int = 20
    days: int = 30
    statistics: int = 3
    notices: int = 2_000
    reviews: int = 20


FULL = Size()


def fill(size: Size = FULL) -> None:
    """Add such a catalog to the database, in one transaction; its names are free in an empty one."""
    with transaction.atomic():
        _Filling(size).fill()


def is_filled() -> bool:
    """Whether the database has one."""
    return User.objects.filter(username=EVERYBODY).exists()


def _named(words: Sequence[str], number: int) -> str:
    return words[number % len(words)] + (f"_{number // len(words)}" if number >= len(words) else "")


class _Filling:
    def __init__(self, size: Size) -> None:
        self.size = size
        self.random = Random(17)
        self.now = timezone.now()
        self.person = User.objects.create(username=EVERYBODY, is_superuser=True, is_staff=True)

    def fill(self) -> None:
        self.tags = Tag.objects.bulk_create(Tag(name=_named(TAGS, n)) for n in range(self.size.tags))
        self.owners = self.recorded(
            Owner(name=f"team_{_named(SUBJECTS, n)}", email=f"team{n}@example.com") for n in range(self.size.owners)
        )
        self.entities = self.recorded(
            Entity(name=_named(ENTITIES, n), owner=self.owner(n), description="What rows are about.")
            for n in range(self.size.entities)
        )
        self.recorded(JoinKey(entity=entity, name=f"{entity.name}_id") for entity in self.entities)
        self.groups = self.make_groups()
        self.features = self.make_features()
        self.tagged(self.groups, every=3)
        self.tagged(self.features, every=2)
        self.services = self.make_services()
        self.runs = self.make_runs()
        self.make_freshness()
        self.make_uses()
        self.make_statistics()
        self.make_datasets()
        self.make_people()

    # -- Definitions

    def owner(self, number: int) -> Owner | None:
        """One in eight has none."""
        return None if number % 8 == 3 else self.owners[number % len(self.owners)]

    def recorded(self, rows: Iterable[Any], *, reason: str = "apply") -> list[Any]:
        """The rows, made, each with its row of history; who made them is the person."""
        made: list[Any] = []
        source = iter(rows)
        while batch := list(islice(source, BATCH)):
            kind = type(batch[0])
            kind._default_manager.bulk_create(batch)
            past = self.now - timedelta(days=90) + timedelta(seconds=len(made))
            kind.history.bulk_history_create(
                batch, default_user=self.person, default_change_reason=reason, default_date=past
            )
            made += batch
        return made

    def tagged(self, things: Sequence[Any], *, every: int) -> None:
        """Two tags for each, and three for some; as setting them does, another row of history with its tags."""
        kind = type(things[0])
        own, history = kind.tags.through, kind.history.model
        field = kind._meta.model_name
        pairs = ((thing, tag) for number, thing in enumerate(things) for tag in self.tags_of(number, every))
        chosen: list[Any] = []
        for batch in _batches(pairs):
            chosen += own._default_manager.bulk_create(own(**{field: thing, "tag": tag}) for thing, tag in batch)
        kind.history.bulk_history_create(
            things, batch_size=BATCH, update=True, default_user=self.person, default_date=self.now - timedelta(days=60)
        )
        newest = dict(history.objects.filter(history_type="~").order_by("history_id").values_list("id", "history_id"))
        past, of = history.tags.model, f"{field}_id"
        for batch in _batches(chosen):
            past.objects.bulk_create(
                past(history_id=newest[getattr(row, of)], id=row.pk, tag_id=row.tag_id, **{of: getattr(row, of)})
                for row in batch
            )

    def tags_of(self, number: int, every: int) -> list[Tag]:
        count = 3 if number % every == 0 else 2
        return [self.tags[(number * 7 + step * 11) % len(self.tags)] for step in range(min(count, len(self.tags)))]

    def make_groups(self) -> list[FeatureGroup]:
        sources = self.recorded(
            DataSource(name=f"{self.group_name(n)}_files", path=f"{self.group_name(n)}/*.parquet")
            for n in range(self.size.groups)
            if n % 3
        )
        by_name = {source.name: source for source in sources}
        return self.recorded(
            FeatureGroup(
                name=self.group_name(n),
                entity=self.entities[n % len(self.entities)],
                owner=self.owner(n),
                status=Status.DEPRECATED if n % 50 == 31 else Status.DRAFT if n % 50 == 44 else Status.ACTIVE,
                ttl=timedelta(days=30),
                freshness=timedelta(days=1) if n % 2 else None,
                description=f"Everything about each {SUBJECTS[n % len(SUBJECTS)]}, computed every night.",
                source=by_name.get(f"{self.group_name(n)}_files"),
            )
            for n in range(self.size.groups)
        )

    def group_name(self, number: int) -> str:
        return f"{_named(ENTITIES, number % self.size.entities)}_{SUBJECTS[number % len(SUBJECTS)]}_{number}"

    def make_features(self) -> list[Feature]:
        made: list[Feature] = self.recorded(self.new_features())
        old = [feature for feature in made if feature.status == Status.DEPRECATED]
        by_name = {(feature.group_id, feature.position): feature for feature in made}
        for feature in old:
            feature.replaced_by = by_name[feature.group_id, feature.position - 1]
            feature.deprecation_reason = "Another one counts refunds, too."
            feature.deprecated_at = self.now - timedelta(days=9)
        fields = ["replaced_by", "deprecation_reason", "deprecated_at"]
        Feature.objects.bulk_update(old, fields, batch_size=BATCH)
        Feature.history.bulk_history_create(old, update=True, default_user=self.person, default_change_reason="old")
        return made

    def new_features(self) -> Iterator[Feature]:
        for number, group in enumerate(self.groups):
            subject = SUBJECTS[number % len(SUBJECTS)]
            names = [
                f"{FIGURES[at % len(FIGURES)]}_{subject}_{WINDOWS[at // len(FIGURES) % len(WINDOWS)]}_{number}_{at}"
                for at in range(self.size.features_of_each)
            ]
            for at, name in enumerate(names):
                is_computed = at % 4 == 3
                dtype = "float64" if is_computed else DTYPES[at % len(DTYPES)]
                yield Feature(
                    group=group,
                    name=name,
                    position=at,
                    dtype=dtype,
                    type=default_type(Dtype.parse(dtype)),
                    status=STATUSES.get(at, "") if number % 4 == 0 else "",
                    expression=f"{names[0]} / 2.0" if is_computed else "",
                    owner=self.owner(at) if at % 5 == 0 else None,
                    description=f"The {FIGURES[at % len(FIGURES)]} of what a {group.entity.name} did in {subject}.",
                    validation={"not_null": True} if at % 6 == 0 else {},
                )

    def make_services(self) -> list[FeatureService]:
        made = self.recorded(
            FeatureService(name=f"model_{_named(TAGS, n)}", owner=self.owner(n), description="What a model reads.")
            for n in range(self.size.services)
        )
        served = [f for f in self.features if f.status == "" and f.group.status == Status.ACTIVE]
        chosen = (
            ServiceFeature(service=service, feature=feature, position=at)
            for number, service in enumerate(made)
            for at, feature in enumerate(self.features_of(number, served))
        )
        self.recorded(chosen)
        self.tagged(made, every=4)
        return made

    def features_of(self, number: int, served: Sequence[Feature]) -> list[Feature]:
        """Three of one group, and others from here and there: thirty in all."""
        start = number * self.size.features_of_each % len(served)
        own = served[start : start + 3]
        others = self.random.sample(served, min(27, len(served)))
        return list(dict.fromkeys([*own, *others]))

    # -- What happens

    def make_runs(self) -> list[Run]:
        """All kinds and states, most of them ingestions that succeeded; the newest of a group fails now and then."""
        made: list[Run] = []
        for batch in _batches(range(self.size.runs)):
            taken = Acceptance.objects.bulk_create(Acceptance(accepted_at=self.run_time(n)) for n in batch)
            made += Run.objects.bulk_create(self.new_run(n, place) for n, place in zip(batch, taken, strict=True))
        Run.objects.update(created_at=F("started_at"))
        entity = self.entities[0]
        Erasure.objects.bulk_create(
            Erasure(entity=entity, run=run, key_hash=f"{n:064x}", salt="0" * 64, until=self.now, reason="asked for")
            for n, run in enumerate(run for run in made if run.kind == RunKind.ERASE)
        )
        return made

    def run_time(self, number: int) -> datetime:
        """Evenly spread over 90 days, the last one now."""
        return self.now - timedelta(days=90) * ((self.size.runs - number) / max(self.size.runs, 1))

    def new_run(self, number: int, acceptance: Acceptance) -> Run:
        kinds = {11: RunKind.MATERIALIZE, 12: RunKind.PUSH, 13: RunKind.REPLAY, 14: RunKind.BACKFILL}
        kind = RunKind.ERASE if number % 5_000 == 4_999 else kinds.get(number % 20, RunKind.INGEST)
        ends = {3: RunState.FAILED, 41: RunState.DEAD, 77: RunState.CANCELLED}
        state = ends.get(number % 97, RunState.SUCCEEDED)
        if self.size.runs - number <= 5:
            state = RunState.QUEUED
        group = None if kind == RunKind.ERASE else self.groups[number % len(self.groups)]
        at = self.run_time(number)
        failed = state in (RunState.FAILED, RunState.DEAD)
        return Run(
            id=uuid.UUID(int=self.random.getrandbits(128), version=4),
            kind=kind,
            group=group,
            group_version=1 if group else 0,
            state=state,
            acceptance=acceptance,
            requested_by="schedule" if number % 3 else EVERYBODY,
            rows_read=10_000,
            rows_accepted=0 if failed else 9_990,
            rows_quarantined=0 if failed else 10,
            error="The file ends in the middle of a row." if failed else "",
            error_code="invalid_source" if failed else "",
            started_at=at,
            finished_at=None if state == RunState.QUEUED else at + timedelta(seconds=4),
            attempts=1,
        )

    def make_freshness(self) -> None:
        GroupFreshness.objects.bulk_create(
            GroupFreshness(
                group=group,
                group_version=1,
                newest_event_at=self.now - timedelta(hours=40 if number % 9 == 1 else 2),
                updated_at=self.now,
            )
            for number, group in enumerate(self.groups)
            if number % 25
        )

    def make_uses(self) -> None:
        """Every feature is read daily by one key, each tenth by five."""
        keys = [create_key(name=f"app {n}", scopes=["read"])[0] for n in range(self.size.readers)]
        today = self.now.date()
        uses = (
            FeatureUse(
                feature=feature,
                reader=f"key:{keys[(number + step) % len(keys)].public_id}",
                day=today - timedelta(days=day),
                requests=(number * 37 + day * 11) % 5_000 + 1,
            )
            for number, feature in enumerate(self.features)
            for step in range(min(5 if number % 10 == 0 else 1, len(keys)))
            for day in range(self.size.days)
        )
        for batch in _batches(uses, 5_000):
            FeatureUse.objects.bulk_create(batch)

    def make_statistics(self) -> None:
        """Of the last runs of each group that succeeded; some thousand values of its dtype, described once."""
        told = {dtype: _described(dtype) for dtype in set(DTYPES)}
        landed: dict[int, list[Run]] = {}
        for run in reversed(self.runs):
            last = landed.setdefault(run.group_id or 0, [])
            if run.kind == RunKind.INGEST and run.state == RunState.SUCCEEDED and len(last) < self.size.statistics:
                last.append(run)
        rows = (
            self.new_statistics(feature, run, told[feature.dtype])
            for feature in self.features
            for run in landed.get(feature.group_id, [])
        )
        for batch in _batches(rows):
            FeatureStatistics.objects.bulk_create(batch)

    def new_statistics(self, feature: Feature, run: Run, told: statistics.Statistics) -> FeatureStatistics:
        row = FeatureStatistics(
            feature=feature,
            group_version=1,
            run=run,
            computed_at=run.started_at,
            accepted_from=run.acceptance_id,
            accepted_to=run.acceptance_id,
        )
        row.keep(told)
        return row

    def make_datasets(self) -> None:
        """Each made by a run of its own, of a service, with the files that its groups had."""
        places = Acceptance.objects.bulk_create(Acceptance(accepted_at=self.now) for _ in range(self.size.datasets))
        state = {"kind": RunKind.TRAIN, "state": RunState.SUCCEEDED, "started_at": self.now, "finished_at": self.now}
        runs = Run.objects.bulk_create(Run(acceptance=place, **state) for place in places)
        services = [self.services[n % len(self.services)] for n in range(self.size.datasets)]
        chosen: dict[int, list[Feature]] = {}
        for one in ServiceFeature.objects.select_related("feature__group").order_by("position"):
            chosen.setdefault(one.service_id, []).append(one.feature)
        for number, (run, service) in enumerate(zip(runs, services, strict=True)):
            TrainingDataset.objects.create(
                name=f"training_{number}",
                run=run,
                service=str(service),
                event_timestamp="event_timestamp",
                manifest=_manifest(chosen[service.pk]),
                file="rows.parquet",
                size_bytes=1_000_000,
            )

    # -- Who looks

    def make_people(self) -> None:
        viewer = User.objects.create(username=VIEWER)
        team = Owner.objects.create(name="scale_viewers")
        team.members.add(viewer)
        GroupRole.objects.create(group=self.groups[0], team=team, role=Role.VIEWER)
        followed = self.groups[: max(1, len(self.groups) // 10)]
        Follow.objects.bulk_create(Follow(user=self.person, group=group) for group in followed)
        notices = Notice.objects.bulk_create(
            Notice(kind=NoticeKind.STALE, text="is stale.", group=followed[n % len(followed)], key=f"scale {n}")
            for n in range(self.size.notices)
        )
        Inbox.objects.bulk_create(
            Inbox(user=self.person, notice=notice, read_at=None if n % 4 else self.now)
            for n, notice in enumerate(notices)
        )
        drafts = [feature for feature in self.features if feature.status == Status.DRAFT][: self.size.reviews]
        ReviewRequest.objects.bulk_create(
            ReviewRequest(feature=draft, definition="0" * 64, asked_by="user:0", asked_by_name="ada")
            for draft in drafts
        )


def _batches(rows: Iterable[Any], size: int = BATCH) -> Iterator[list[Any]]:
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


def _described(dtype: str) -> statistics.Statistics:
    """What is told of two thousand values of a dtype."""
    numbers = range(2_000)
    values: dict[str, list[Any]] = {
        "float64": [number / 7 for number in numbers],
        "int64": list(numbers),
        "string": [f"value {number % 40}" for number in numbers],
        "bool": [number % 3 == 0 for number in numbers],
        "timestamp": [
            datetime(2026, 1, 1, tzinfo=timezone.get_default_timezone()) + timedelta(hours=n) for n in numbers
        ],
    }
    return statistics.of(pl.Series("v", values[dtype]), Dtype.parse(dtype))


def _manifest(features: Sequence[Feature]) -> dict[str, Any]:
    """As serving/manifest.py writes one, with forty files of each group."""
    of_groups: dict[str, list[Feature]] = {}
    for feature in features:
        of_groups.setdefault(feature.group.name, []).append(feature)
    file = {"name": f"part-{'0' * 32}.parquet", "size": 1_000_000, "rows": 10_000, "sha256": "0" * 64}
    parts = [
        {
            "group": group,
            "version": 1,
            "delta_version": 40,
            "definition_sha256": "0" * 64,
            "join_keys": [["id", "string"]],
            "ttl_us": None,
            "files": [file] * 40,
            "features": [
                {"name": feature.name, "output": feature.name, "dtype": feature.dtype, "schema_ids": None}
                for feature in own
            ],
        }
        for group, own in of_groups.items()
    ]
    outputs = [feature.name for feature in features]
    result = {"rows": 100_000, "sha256": "0" * 64, "nulls": dict.fromkeys(outputs, 10), "columns": []}
    return {"format": 1, "groups": parts, "outputs": outputs, "result": result}
