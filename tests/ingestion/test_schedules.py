"""Each due time of a schedule makes one run: with two beats, with a late worker, and after a beat was down."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from django.db import connection, transaction
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from catalog.models import FeatureGroup, RunState
from ingestion.models import ScheduleTick
from ingestion.schedules import claim_tick, crontab_due
from ingestion.tasks import ingest_scheduled
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import workers

pytestmark = pytest.mark.database

TEN = datetime(2026, 3, 2, 10, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)


def scheduled(sources: Path, **schedule: object) -> FeatureGroup:
    write_csv(sources / "a.csv", [purchase("C1")])
    task = PeriodicTask.objects.create(
        name="ingest purchases", task=ingest_scheduled.name, kwargs='{"group": "customer_purchases"}', **schedule
    )
    return make_customer_group(source="*.csv", schedule=task)


def every(seconds: int) -> IntervalSchedule:
    return IntervalSchedule.objects.create(every=seconds, period=IntervalSchedule.SECONDS)


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return scheduled(sources, interval=every(60))


def ticks_at(group: FeatureGroup, *moments: datetime) -> list[datetime | None]:
    """The due time that a tick at each moment claims; its run ends at once."""
    claimed: list[datetime | None] = []
    for now in moments:
        run = claim_tick(group, now=now)
        group.runs.update(state=RunState.SUCCEEDED)
        claimed.append(None if run is None else ScheduleTick.objects.get(run=run).due_at)
    return claimed


def test_a_second_tick_within_the_interval_makes_no_run(group: FeatureGroup) -> None:
    moments = [TEN, TEN + MINUTE / 2, TEN + MINUTE, TEN + MINUTE * 1.5]
    assert ticks_at(group, *moments) == [TEN, None, TEN + MINUTE, None]


def test_a_tick_a_little_early_or_late_counts_for_its_due_time(group: FeatureGroup) -> None:
    second = timedelta(seconds=1)
    moments = [TEN, TEN + MINUTE - second, TEN + 2 * MINUTE + 7 * second, TEN + 3 * MINUTE - second]
    assert ticks_at(group, *moments) == [TEN, TEN + MINUTE, TEN + 2 * MINUTE, TEN + 3 * MINUTE]


def test_after_ten_missed_minutes_there_is_one_run_and_not_ten(group: FeatureGroup) -> None:
    late = TEN + 10 * MINUTE
    assert ticks_at(group, TEN, *[late] * 9, late + MINUTE) == [TEN, late, *[None] * 8, late + MINUTE]


def test_a_tick_while_an_earlier_run_is_at_it_makes_none(group: FeatureGroup) -> None:
    assert claim_tick(group, now=TEN) is not None
    assert claim_tick(group, now=TEN + MINUTE) is None
    assert group.runs.count() == 1
    group.runs.update(state=RunState.SUCCEEDED)
    assert claim_tick(group, now=TEN + 2 * MINUTE) is not None


def test_a_group_without_a_schedule_runs_each_time_it_is_asked(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    assert [claim_tick(group) is not None for _ in range(2)] == [True, True]


def test_old_ticks_are_not_kept(group: FeatureGroup) -> None:
    ticks_at(group, TEN, TEN + MINUTE, TEN + timedelta(days=40))
    assert ScheduleTick.objects.count() == 1


@pytest.mark.parametrize(
    ("line", "now", "due"),
    [
        ("0 * * * *", "2026-03-02T10:59", "2026-03-02T10:00"),
        ("*/15 * * * *", "2026-03-02T10:46", "2026-03-02T10:45"),
        ("30 4 * * *", "2026-03-02T04:29", "2026-03-01T04:30"),
        ("0 0 * * 0", "2026-03-02T10:00", "2026-03-01T00:00"),  # Sunday
        ("0 0 1 1 *", "2026-03-02T10:00", "2026-01-01T00:00"),
        ("0 0 29 2 *", "2026-03-02T10:00", "2024-02-29T00:00"),
    ],
)
def test_the_last_due_time_of_a_crontab(line: str, now: str, due: str) -> None:
    names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    minute, hour, day, month, weekday = line.split()
    when = crontab(**dict(zip(names, (minute, hour, weekday, day, month), strict=True)))
    when.tz = UTC
    assert crontab_due(when, now=datetime.fromisoformat(f"{now}Z")) == datetime.fromisoformat(f"{due}Z")


def test_a_crontab_is_read_in_its_own_time_zone_and_claimed_once(sources: Path) -> None:
    nine_in_rome = CrontabSchedule.objects.create(minute="0", hour="9", timezone=ZoneInfo("Europe/Rome"))
    group = scheduled(sources, crontab=nine_in_rome)
    eight = datetime(2026, 3, 2, 8, tzinfo=UTC)
    moments = [eight + timedelta(seconds=2), eight + 3 * MINUTE, eight + timedelta(days=1)]
    assert ticks_at(group, *moments) == [eight, None, eight + timedelta(days=1)]


@pytest.mark.django_db(transaction=True)
def test_of_racing_workers_one_claims_a_due_time(group: FeatureGroup) -> None:
    outcomes: list[bool] = []
    start = threading.Barrier(5)

    def race(number: int) -> None:
        mine = FeatureGroup.objects.select_related("schedule__interval").get(pk=group.pk)
        start.wait()
        try:  # each reads the message at a moment of its own, and it is the first tick of all
            outcomes.append(claim_tick(mine, now=TEN + timedelta(milliseconds=number)) is not None)
        finally:
            connection.close()

    threads = [threading.Thread(target=race, args=[number]) for number in range(4)]
    with transaction.atomic():  # holds the database's write lock, so that all come to it before one gets on
        for thread in threads:
            thread.start()
        start.wait()
        time.sleep(0.5)
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, False, True]
    assert (group.runs.count(), ScheduleTick.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_two_beats_make_one_run_for_each_due_time(sources: Path, tmp_path: Path) -> None:
    group = scheduled(sources, interval=every(2))
    log = tmp_path / "worker.log"
    with workers.worker(log), workers.beat(tmp_path / "one.log"), workers.beat(tmp_path / "two.log"):
        workers.until(lambda: log.read_text().count("this due time was seen to before") >= 2, log)
        workers.until(lambda: group.runs.filter(state=RunState.SUCCEEDED).count() >= 3, log)
    due = list(ScheduleTick.objects.order_by("due_at").values_list("due_at", flat=True))
    assert all(later - earlier >= timedelta(seconds=2) for earlier, later in pairwise(due))
    assert group.runs.count() <= len(due)


@pytest.mark.django_db(transaction=True)
def test_a_beat_that_was_down_for_ten_minutes_makes_one_run(sources: Path, tmp_path: Path) -> None:
    group = scheduled(sources, interval=every(60))
    earlier = timezone.now() - timedelta(minutes=10, seconds=30)
    ticks_at(group, earlier)
    PeriodicTask.objects.filter(pk=group.schedule_id).update(last_run_at=earlier)
    log = tmp_path / "worker.log"
    with workers.worker(log), workers.beat(tmp_path / "beat.log"):
        workers.until(lambda: group.runs.filter(rows_accepted=1).exists(), log)
    assert group.runs.count() == 2
    assert ScheduleTick.objects.first().due_at == earlier + timedelta(minutes=10)  # type: ignore[union-attr]
