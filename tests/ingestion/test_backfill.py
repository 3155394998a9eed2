"""A group's new version computed over the rows of an older one, from what is kept offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog import runs
from catalog.models import FeatureGroup, Run, RunState
from engine.errors import Conflict, InvalidInput
from ingestion import drain
from ingestion.backfill import queue_backfill
from ingestion.ingest import execute, ingest
from ingestion.push import delete, find_group, push
from ingestion.tasks import ingest_run
from tests.factories import NOON, TEN, make_customer_group, purchase, write_csv
from tests.ingestion import contents

ELEVEN_OF_C3 = purchase("C3", "2024-11-01T11:00:00Z")


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    """Version 1 with rows in its table and in the log, one entity deleted; then version 2 computes another average."""
    group = make_customer_group()
    push(group, [purchase("C1", TEN, total_spent=100.0), purchase("C2", TEN), purchase("C3", TEN)])
    push(group, [purchase("C1", NOON, total_spent=300.0)])
    drain.drain(group)
    delete(group, {"customer_id": "C3"}, at=NOON)
    push(group, [purchase("C1", TEN, total_spent=200.0)])  # a correction, still in the log
    return raised(group)


def raised(group: FeatureGroup) -> FeatureGroup:
    average = group.features.get(name="avg_purchase_value")
    average.expression = "total_spent * 2 / total_purchases"
    average.save()
    group.version += 1
    group.save()
    return find_group(group.name)


def rows(group: FeatureGroup, version: int) -> list[tuple[object, ...]]:
    """Customer, average, acceptance and ordinal of each row, in the order in which they came first."""
    at = FeatureGroup.objects.get(pk=group.pk)
    at.version = version
    names = ("_accepted", "_ordinal", "customer_id", "avg_purchase_value")
    return sorted(tuple(row[name] for name in names) for row in contents.offline(at))


def test_every_row_is_computed_anew_in_its_old_place(group: FeatureGroup) -> None:
    run = execute(queue_backfill(group))
    assert (run.state, run.rows_read, run.rows_accepted, run.from_version) == (RunState.SUCCEEDED, 6, 6, 1)
    before, after = rows(group, 1), rows(group, 2)
    assert [row[:3] for row in after] == [row[:3] for row in before]
    assert [row[3] for row in before] == [25.0, 25.0, 25.0, 75.0, None, 50.0]
    assert [row[3] for row in after] == [50.0, 50.0, 50.0, 150.0, None, 100.0]
    assert 150.0 in contents.online_rows(group)["s2:C1"].values


def test_what_was_pushed_to_the_new_version_meanwhile_stays_newer(group: FeatureGroup) -> None:
    run = queue_backfill(group)
    push(group, [purchase("C1", NOON, total_spent=1000.0), purchase("C9", NOON)])
    execute(run)
    online = contents.online_rows(group)
    assert 500.0 in online["s2:C1"].values
    assert {"s2:C1", "s2:C2", "s2:C9"} <= online.keys()


def test_an_older_event_does_not_revive_what_was_deleted_before(group: FeatureGroup) -> None:
    execute(queue_backfill(group))
    tombstone = contents.online_rows(group)["s2:C3"]
    push(group, [ELEVEN_OF_C3])
    assert contents.online_rows(group)["s2:C3"] == tombstone


def test_it_is_done_once(group: FeatureGroup) -> None:
    run = execute(queue_backfill(group))
    with pytest.raises(Conflict, match=str(run.pk)):
        queue_backfill(group)


def test_of_two_that_were_queued_at_once_one_lands(group: FeatureGroup) -> None:
    first = queue_backfill(group)
    second = Run.queue(group, kind="backfill", from_version=1)  # asked for before it could see the first
    assert [execute(first).state, execute(second).state] == [RunState.SUCCEEDED] * 2
    assert len(rows(group, 2)) == 6


def test_one_that_lost_its_worker_is_carried_out_by_the_next(group: FeatureGroup) -> None:
    run = queue_backfill(group)
    assert runs.take(run) is not None
    Run.objects.filter(pk=run.pk).update(lease_until=run.created_at)
    runs.settle(run.pk)
    assert ingest_run.apply([str(run.pk)]).successful()
    assert len(rows(group, 2)) == 6


def test_a_version_without_rows_is_refused_naming_those_that_have_some(group: FeatureGroup) -> None:
    with pytest.raises(InvalidInput, match=r"version 7 has no rows .* older versions with rows: 1"):
        queue_backfill(group, from_version=7)


def test_a_group_without_an_older_version_is_refused(sources: Path) -> None:
    group = make_customer_group()
    push(group, [purchase()])
    with pytest.raises(InvalidInput, match="rows: none"):
        queue_backfill(group)


def test_rows_that_the_new_version_refuses_wait_in_quarantine(group: FeatureGroup) -> None:
    group.features.filter(name="total_purchases").update(validation={"max_value": 3})
    run = execute(queue_backfill(group))
    assert (run.rows_accepted, run.rows_quarantined) == (1, 5)
    assert {rule.rule: rule.row_count for rule in run.quarantined.all()} == {"max_value": 5}


def test_the_files_of_the_older_version_count_as_read(sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    group = make_customer_group(source="*.csv")
    ingest(group)
    group = raised(group)
    execute(queue_backfill(group))
    assert ingest(group).message.startswith("No new data")
    write_csv(sources / "b.csv", [purchase("C3")])
    assert ingest(group).rows_accepted == 1
    assert [row[2] for row in rows(group, 2)] == ["C1", "C2", "C3"]
