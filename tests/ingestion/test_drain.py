"""Pushed rows reach the offline table each exactly once, wherever a drain was cut short."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from catalog import stores
from catalog.models import Acceptance, FeatureGroup
from engine.offline.table import OfflineTable
from ingestion import drain
from ingestion.idempotency import Repeatable
from ingestion.models import Drain, PushBatch
from ingestion.push import push
from ingestion.tasks import catch_up
from tests.factories import ELEVEN, TEN, add_feature, make_customer_group, purchase
from tests.ingestion import contents

pytestmark = pytest.mark.database


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def totals(group: FeatureGroup) -> list[int]:
    return sorted(row["total_purchases"] for row in contents.offline(group))


def test_many_pushes_land_in_one_commit_with_the_place_of_each_in_the_order(group: FeatureGroup) -> None:
    for n in range(5):
        push(group, [purchase(total_purchases=n), purchase("C2", total_purchases=n + 10)])
    assert drain.drain(group) == 10
    rows = contents.offline(group)
    assert {(row["_accepted"], row["_ordinal"]) for row in rows} == {
        (batch.acceptance_id, ordinal) for batch in PushBatch.objects.all() for ordinal in (0, 1)
    }
    assert {row["_run"] for row in rows} == {f"push:{batch.acceptance_id}" for batch in PushBatch.objects.all()}
    assert stores.offline(group.name, 1).version == 1  # 0 made the table
    landed = Drain.objects.get()
    assert (landed.batches.count(), landed.landed_at is not None) == (5, True)


def test_draining_again_finds_nothing(group: FeatureGroup) -> None:
    assert drain.drain(group) == 0
    push(group, [purchase()])
    assert [drain.drain(group), drain.drain(group)] == [1, 0]
    assert not drain.waiting_groups().exists()
    assert len(contents.offline(group)) == 1


def test_more_pushes_than_one_drain_takes_are_several_drains(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "BATCHES_PER_DRAIN", 2)
    for n in range(5):
        push(group, [purchase(total_purchases=n)])
    assert drain.drain(group) == 5
    assert [d.batches.count() for d in Drain.objects.order_by("created_at")] == [2, 2, 1]
    assert totals(group) == [0, 1, 2, 3, 4]


def test_a_drain_holds_no_more_rows_than_it_may_but_for_one_push(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "ROWS_PER_DRAIN", 3)
    for size in (2, 2, 5, 1):
        push(group, [purchase(f"C{n}") for n in range(size)])
    assert drain.drain(group) == 10
    taken = [[batch.row_count for batch in d.batches.order_by("pk")] for d in Drain.objects.order_by("created_at")]
    assert taken == [[2, 2], [5], [1]]


def test_a_drain_ends_although_pushes_go_on(group: FeatureGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    push(group, [purchase(total_purchases=0)])
    write_file = OfflineTable.write_file
    pushed = iter(range(1, 4))

    def push_then_write(table: OfflineTable, *args: Any, **kwargs: Any) -> Any:
        push(group, [purchase(total_purchases=next(pushed))])
        return write_file(table, *args, **kwargs)

    monkeypatch.setattr(OfflineTable, "write_file", push_then_write)
    assert drain.drain(group) == 1
    assert drain.drain(group) == 1
    assert totals(group) == [0, 1]


def test_a_drain_killed_after_its_commit_is_finished_without_doubling_a_row(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    drain.drain(group)
    Drain.objects.update(landed_at=None)
    push(group, [purchase(total_purchases=2)])
    catch_up()
    assert totals(group) == [1, 2]
    assert len(contents.data_files(group)) == 2  # what has landed is not even written again
    assert not Drain.objects.filter(landed_at=None).exists()


def test_a_drain_killed_before_its_commit_is_finished_by_the_next(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    killed = Drain.objects.create(group=group, group_version=1)
    PushBatch.objects.update(drain=killed)
    push(group, [purchase(total_purchases=2)])
    assert group in drain.waiting_groups()
    assert drain.drain(group) == 2
    assert totals(group) == [1, 2]


def test_a_drain_without_batches_is_ended(group: FeatureGroup) -> None:
    Drain.objects.create(group=group, group_version=1)
    assert drain.drain(group) == 0
    assert not Drain.objects.filter(landed_at=None).exists()


def test_batches_of_several_schemas_land_in_one_commit(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    add_feature(group, "visits", "int64")
    push(group, [purchase(total_purchases=2, visits=9)])
    assert drain.drain(group) == 2
    rows = contents.offline(group)
    assert [(row["_schema"], row["total_purchases"], row["visits"]) for row in rows] == [(1, 1, None), (2, 2, 9)]
    assert stores.offline(group.name, 1).version == 1


def test_a_column_that_only_an_older_schema_has_becomes_part_of_the_table(group: FeatureGroup) -> None:
    """Else a compaction would lose it: the table has to know every column of every file."""
    visits = add_feature(group, "visits", "int64")
    push(group, [purchase(total_purchases=1, visits=9)])
    visits.delete()
    push(group, [purchase(total_purchases=2)])
    assert drain.drain(group) == 2
    table = OfflineTable(contents.folder(group)).open()
    assert table is not None
    assert "visits" in {field.name for field in table.schema().fields}
    assert [(row["_schema"], row["visits"]) for row in contents.offline(group)] == [(1, 9), (2, None)]


def test_rows_pushed_to_an_earlier_version_land_in_its_own_table(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    group.version = 2
    group.save()
    push(group, [purchase(total_purchases=2)])
    assert drain.drain(group) == 2
    assert totals(group) == [2]
    group.version = 1
    assert totals(group) == [1]


def test_whoever_is_about_to_read_the_history_finds_pushed_rows_in_it(group: FeatureGroup) -> None:
    push(group, [purchase()])
    other = make_customer_group("other")
    push(other, [purchase()])
    stores.history_wanted.send(None, groups=[group.name])
    assert (len(contents.offline(group)), len(contents.offline(other))) == (1, 0)


def test_a_drained_row_online_is_the_pushed_one(group: FeatureGroup) -> None:
    push(group, [purchase(at=ELEVEN, total_purchases=1)])
    push(group, [purchase(at=TEN, total_purchases=2)])
    before = contents.online_rows(group)
    catch_up()
    assert contents.online_rows(group) == before
    contents.forget_online(group)
    group.online_cursors.update(delta_version=-1)
    catch_up()
    assert contents.online_rows(group) == before


def test_the_log_forgets_what_landed_a_day_ago_and_nothing_else(group: FeatureGroup) -> None:
    repeatable = Repeatable("key:1", "rows", "k1", "the request")
    pushed = push(group, [purchase(total_purchases=1)], repeatable=repeatable)
    drain.drain(group)
    Drain.objects.update(landed_at=timezone.now() - timedelta(hours=24))
    push(group, [purchase(total_purchases=2)])
    drain.drain(group)
    push(group, [purchase(total_purchases=3)])
    newest = PushBatch.objects.latest("pk").acceptance_id
    assert [drain.forget_landed(), drain.forget_landed()] == [1, 0]
    assert [batch.acceptance_id for batch in PushBatch.objects.order_by("pk")] == [newest - 1, newest]
    assert (Drain.objects.count(), Acceptance.objects.filter(pk__lt=newest - 1).count()) == (1, 0)
    assert push(group, [purchase(total_purchases=1)], repeatable=repeatable) == pushed
    drain.drain(group)
    assert totals(group) == [1, 2, 3]


def test_a_push_that_rejected_rows_is_forgotten_and_they_are_not(group: FeatureGroup) -> None:
    push(group, [purchase(), purchase(total_purchases=-1)], on_error="quarantine")
    drain.drain(group)
    Drain.objects.update(landed_at=timezone.now() - timedelta(hours=24))
    assert (drain.forget_landed(), PushBatch.objects.count()) == (1, 0)
    assert group.runs.get().quarantined.get().row_count == 1


def test_acceptance_numbers_rise_also_when_the_newest_was_forgotten(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    drain.drain(group)
    before = PushBatch.objects.get().acceptance_id
    Drain.objects.update(landed_at=timezone.now() - timedelta(hours=24))
    assert drain.forget_landed() == 1
    push(group, [purchase(total_purchases=2)])
    assert PushBatch.objects.get().acceptance_id > before


@pytest.mark.django_db(transaction=True)
def test_parallel_drains_while_pushes_go_on_land_every_row_once(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=0)])
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def run(work: object) -> None:
        start.wait()
        try:
            for n in range(6):
                if work == "drain":
                    drain.drain(group)
                else:
                    push(group, [purchase(total_purchases=int(str(work)) + n)])
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in ("drain", "drain", 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    drain.drain(group)
    assert totals(group) == [0, *range(100, 106), *range(200, 206)]


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_finish_the_same_drain_land_it_once(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=n) for n in range(10)])
    killed = Drain.objects.create(group=group, group_version=1)
    PushBatch.objects.update(drain=killed)
    start = threading.Barrier(3)

    def finish() -> None:
        start.wait()
        drain.drain(group)
        connection.close()

    threads = [threading.Thread(target=finish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals(group) == list(range(10))
