"""Whatever lands says how new its newest event is: runs at their end, drains, and upkeep for those that were killed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.freshness import newest_of
from catalog.models import FeatureGroup, GroupFreshness, RunState
from engine import faults
from engine.errors import RunFailed
from ingestion import drain, upkeep
from ingestion.backfill import queue_backfill
from ingestion.ingest import execute, ingest
from ingestion.push import delete, push
from ingestion.settle import Selection, queue_replay
from ingestion.tasks import catch_up, upkeep_all
from tests.factories import ELEVEN, NOON, TEN, make_customer_group, purchase, write_csv
from tests.ingestion import contents

pytestmark = pytest.mark.database

AT_TEN, AT_ELEVEN, AT_NOON = (datetime(2024, 11, 1, hour, tzinfo=UTC) for hour in (10, 11, 12))


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group(source="*.csv")


def test_a_run_says_how_new_its_accepted_rows_are(group: FeatureGroup, sources: Path) -> None:
    rejected = purchase("C3", NOON, total_purchases=-1)
    write_csv(sources / "a.csv", [purchase(f"C{n}", TEN) for n in range(20)] + [purchase("C2", ELEVEN), rejected])
    ingest(group)
    assert newest_of(group) == AT_ELEVEN
    group.features.filter(name="total_purchases").update(validation={})
    execute(queue_replay(group, Selection()))
    assert newest_of(group) == AT_NOON


def test_a_run_that_fails_says_nothing(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase("C1", TEN), purchase("C2", ELEVEN, total_purchases=-1)])
    with pytest.raises(RunFailed):
        ingest(group, on_error="reject")
    assert newest_of(group) is None


def test_a_drain_says_it_for_its_batch_and_a_push_does_not_by_itself(group: FeatureGroup) -> None:
    push(group, [purchase("C1", TEN), purchase("C2", ELEVEN)])
    push(group, [purchase("C3", TEN)])
    assert newest_of(group) is None
    drain.drain(group)
    assert newest_of(group) == AT_ELEVEN
    delete(group, {"customer_id": "C1"}, at=NOON)
    drain.drain(group)
    assert newest_of(group) == AT_NOON


def test_a_late_row_leaves_it_as_it_is(group: FeatureGroup) -> None:
    for at in (NOON, TEN):
        push(group, [purchase("C1", at)])
        drain.drain(group)
    assert newest_of(group) == AT_NOON


def test_a_backfill_says_it_for_the_new_version(group: FeatureGroup) -> None:
    push(group, [purchase("C1", ELEVEN)])
    drain.drain(group)
    FeatureGroup.objects.filter(pk=group.pk).update(version=2)
    group.refresh_from_db()
    assert newest_of(group) is None
    run = execute(queue_backfill(group))
    assert run.state == RunState.SUCCEEDED
    assert newest_of(group) == AT_ELEVEN


class Killed(BaseException):
    """Ends a worker as a kill does."""


def test_upkeep_says_it_for_a_drain_that_was_killed_after_its_commit(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(place: str) -> None:
        if place == "drain.after_delta_commit":
            raise Killed

    push(group, [purchase("C1", TEN)])
    drain.drain(group)
    push(group, [purchase("C1", ELEVEN)])
    with monkeypatch.context() as patched:
        patched.setattr(faults, "hit", die)
        with pytest.raises(Killed):
            drain.drain(group)
    assert newest_of(group) == AT_TEN
    upkeep_all()
    assert newest_of(group) == AT_ELEVEN


def test_an_older_hub_learns_it_from_the_log_of_its_tables(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase("C1", TEN), purchase("C2", ELEVEN)])
    ingest(group)
    GroupFreshness.objects.all().delete()
    empty = make_customer_group("empty", features={})
    assert list(upkeep.unobserved_groups()) == [group]
    for stored in contents.folder(group).glob("*.parquet"):  # none of them is read for it
        stored.unlink()
    catch_up()
    assert (newest_of(group), newest_of(empty)) == (AT_ELEVEN, None)
    assert not upkeep.unobserved_groups().exists()


def test_a_redis_that_is_down_does_not_keep_it_back(
    group: FeatureGroup, sources: Path, redis_down: Callable[[], AbstractContextManager[None]]
) -> None:
    write_csv(sources / "a.csv", [purchase("C1", TEN)])
    with redis_down():
        ingest(group)
    assert newest_of(group) == AT_TEN


def test_events_before_the_year_1000_are_read_from_the_log(group: FeatureGroup) -> None:
    push(group, [purchase("C1", "0999-12-31T00:00:00Z")])
    drain.drain(group)
    GroupFreshness.objects.all().delete()
    upkeep.observe_stored(group)
    assert newest_of(group) == datetime(999, 12, 31, tzinfo=UTC)
