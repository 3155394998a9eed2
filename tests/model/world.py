"""What the model checker works on: two groups of a few customers, and the rows that its clients make up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from catalog.definitions.schedules import INGEST_TASK
from catalog.models import FeatureGroup
from tests.factories import add_feature, make_customer_group
from tests.model.history import Row

#: Has a source and a schedule; the created timestamp is the hub's.
PURCHASES = "customer_purchases"
#: Brings created timestamps along, and has a TTL.
LIMITS = "customer_limits"
GROUPS = (PURCHASES, LIMITS)
SOURCE = "drops/*"
TTL = {PURCHASES: None, LIMITS: timedelta(days=2)}
#: Few, so that clients get in each other's way.
KEYS = tuple(f"C{number:02}" for number in range(30))
#: Every event of these is older than the TTL.
OLD_KEYS = frozenset(KEYS[9::10])
FIRST_EVENT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20)

SECONDS_BETWEEN_RUNS = 2
SECONDS_BETWEEN_CATCH_UPS = 1
SECONDS_BETWEEN_UPKEEPS = 5


def make_groups() -> list[FeatureGroup]:
    """The two groups, and schedules for all that the worker does, so frequent that kills meet it at work."""
    features = {"operation": "int64", "number": "int64", "written_for": "string"}
    groups = [
        make_customer_group(PURCHASES, features=features, source=SOURCE, schedule=_task("ingest", INGEST_TASK)),
        make_customer_group(LIMITS, features=features, created_timestamp="recorded_at", ttl=TTL[LIMITS]),
    ]
    for group in groups:
        add_feature(group, "amount", "float64", min_value=0)
        add_feature(group, "label", "string")
        add_feature(group, "proof", "int64", expression="operation * 1000 + number")
    for often in ("catch up often", "catch up at the same time"):
        _task(often, "ingestion.tasks.catch_up")
    _task("upkeep often", "ingestion.tasks.upkeep")
    return groups


def _task(name: str, task: str) -> PeriodicTask:
    seconds = {INGEST_TASK: SECONDS_BETWEEN_RUNS, "ingestion.tasks.upkeep": SECONDS_BETWEEN_UPKEEPS}
    every = IntervalSchedule.objects.create(every=seconds.get(task, SECONDS_BETWEEN_CATCH_UPS), period="seconds")
    arguments = json.dumps({"group": PURCHASES} if task == INGEST_TASK else {})
    return PeriodicTask.objects.create(
        name=name, task=task, kwargs=arguments, interval=every, expire_seconds=SECONDS_BETWEEN_CATCH_UPS
    )


class Maker:
    """Makes up the rows of one client. Its events go on with time and now and then back; they lie on whole seconds, so
    that many tie with those of other clients."""

    def __init__(self, rng: random.Random, *, first_operation: int) -> None:
        self.rng = rng
        self._operations = iter(range(first_operation, first_operation + 1_000_000))
        self._made = 0

    def operation(self) -> int:
        return next(self._operations)

    def rows(self, group: str, operation: int, count: int) -> tuple[Row, ...]:
        """So many rows of random customers; of three or more one may stand there twice."""
        made = [self.row(group, operation, number) for number in range(count)]
        if count >= 3 and self.rng.random() < 0.3:
            made.insert(self.rng.randrange(count), made[-1])
        return tuple(made)

    def row(self, group: str, operation: int, number: int, *, deleted: bool = False, is_valid: bool = True) -> Row:
        key = self.rng.choice(KEYS)
        event = self._event(key)
        amount = self.rng.choice([None, 0.0, 1.5, float(number)]) if is_valid else -1.0
        created = event + timedelta(seconds=self.rng.choice([0, 0, 1, 7])) if self._brings_created(group) else None
        if deleted:
            return Row(group, key, event, operation, number, deleted=True)
        return Row(group, key, event, operation, number, amount, created, is_valid=is_valid)

    def _event(self, key: str) -> datetime:
        self._made += 1
        seconds = max(0, self._made // 4 + self.rng.randint(-8, 3))
        return FIRST_EVENT + timedelta(seconds=seconds) - timedelta(days=3 if key in OLD_KEYS else 0)

    def _brings_created(self, group: str) -> bool:
        return group == LIMITS and self.rng.random() < 0.8


def raw(row: Row) -> dict[str, object]:
    """A row as it is sent: all that the group does not compute."""
    sent = {name: value for name, value in row.values.items() if name != "proof"}
    sent |= {"customer_id": row.key, "purchased_at": row.event}
    return sent | ({"recorded_at": row.created} if row.group == LIMITS else {})


def as_text(value: object) -> object:
    """The value as JSON has it."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def raw_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [{name: as_text(value) for name, value in raw(row).items()} for row in rows]


def parsed(text: object) -> datetime | None:
    """An event timestamp of an answer."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def chunks(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def now() -> datetime:
    return timezone.now()
