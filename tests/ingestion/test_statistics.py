"""Statistics of what was ingested: one set for each run and for each day of pushes, of the accepted rows alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog import stores
from catalog.models import Feature, FeatureGroup, FeatureStatistics, Run, RunState, Tag
from catalog.statistics import latest
from engine.faults import Fault
from engine.schema import ACCEPTED, ORDINAL
from engine.statistics import Statistics
from ingestion import drain, upkeep
from ingestion import sources as reading
from ingestion import statistics as writing
from ingestion.backfill import queue_backfill
from ingestion.ingest import execute, ingest
from ingestion.models import Drain
from ingestion.push import delete, find_group, push
from ingestion.push_rows import rows_of
from ingestion.settle import Selection, queue_replay
from ingestion.tasks import upkeep_all
from ingestion.versions import drop_version
from tests import spark
from tests.factories import add_feature, make_customer_group, make_entity, purchase, write_csv, write_parquet
from tests.ingestion import processes, workers
from tests.ingestion.test_backfill import raised

#: A lease is renewed by a thread of its own, which a test's transaction would hold up.
pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

MANY = 1_000


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group(source="*.csv")


def of(group: FeatureGroup, name: str) -> Statistics:
    """The latest statistics of a feature."""
    feature = group.features.get(name=name)
    return latest([feature])[feature.pk].statistics


def test_a_run_describes_its_accepted_rows_and_not_the_rejected_ones(
    group: FeatureGroup, sources: Path, settings: Any
) -> None:
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 0.9
    rows = [purchase(f"C{n}", total_purchases=n, customer_segment="gold" if n % 2 else None) for n in range(1, 5)]
    write_csv(sources / "a.csv", [*rows, purchase("C9", total_purchases=-1_000_000)])
    run = ingest(group)
    assert (run.rows_accepted, run.rows_quarantined) == (4, 1)
    total, average, segment = (
        of(group, name) for name in ("total_purchases", "avg_purchase_value", "customer_segment")
    )
    assert (total.count, total.nulls, total.minimum, total.maximum, total.mean) == (4, 0, 1, 4, 2.5)
    # 100 / 1, 100 / 2, 100 / 3, 100 / 4
    assert (average.minimum, average.maximum, average.quantiles["p50"]) == (25.0, 100.0, 100 / 3)
    assert (segment.nulls, segment.top) == (2, (("gold", 2),))
    assert set(run.statistics.values_list("accepted_from", "accepted_to")) == {(run.acceptance_id,) * 2}


def test_many_batches_are_written_down_once(
    group: FeatureGroup, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS_PER_BATCH", 10)
    write_parquet(sources / "a.parquet", [purchase(f"C{n}", total_purchases=n) for n in range(100)])
    with CaptureQueriesContext(connection) as asked:
        run = ingest(group, paths=[sources / "a.parquet"])
    writes = [query["sql"] for query in asked if "INSERT INTO" in query["sql"] and "featurestatistics" in query["sql"]]
    assert len(writes) == 1
    assert len(stores.offline(group.name, 1).files()) == 10
    found = of(group, "total_purchases")
    assert (found.count, found.minimum, found.maximum, found.quantiles["p50"], found.is_exact) == (100, 0, 99, 49, True)
    assert run.statistics.count() == 3


def test_a_run_without_rows_leaves_the_latest_as_they_were(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    ingest(group)
    assert (Run.objects.count(), FeatureStatistics.objects.count()) == (2, 3)


def test_a_run_that_fails_leaves_none(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase(f"C{n}", total_purchases=-1) for n in range(5)])
    with pytest.raises(Exception, match="broke a rule"):
        ingest(group)
    assert not FeatureStatistics.objects.exists()


@pytest.mark.parametrize("point", ["run.after_file", "run.before_delta_commit", "run.after_delta_commit"])
def test_a_run_that_is_killed_and_taken_up_leaves_one_set(group: FeatureGroup, sources: Path, point: str) -> None:
    write_csv(sources / "a.csv", [purchase("C1", total_purchases=3), purchase("C2", total_purchases=5)])
    run = Run.queue(group)
    code = (
        "import django; django.setup()\n"
        "from catalog.models import Run; from ingestion.ingest import execute\n"
        f"execute(Run.objects.select_related('group__source', 'acceptance').get(pk='{run.pk}'))"
    )
    environment = processes.environment() | workers.fault(f"{point}:1:kill")
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=processes.PROJECT,
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert latest(group.features.all()) == {}  # of a run that has not succeeded nothing is told
    Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    execute(run)
    assert run.state == RunState.SUCCEEDED
    assert FeatureStatistics.objects.count() == 3
    assert (of(group, "total_purchases").count, of(group, "total_purchases").mean) == (2, 4.0)


def test_a_repeated_attempt_puts_its_statistics_in_the_place_of_the_first(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase()])
    run = ingest(group)
    before = list(run.statistics.order_by("feature_id").values("feature_id", "row_count", "told"))
    collected = writing.begun(group, [feature.column() for feature in group.features.all()])
    writing.record(run, collected)
    assert not run.statistics.exists()
    assert len(before) == 3


# -- Pushes


def test_pushes_of_a_day_are_described_together(group: FeatureGroup) -> None:
    for number in range(5):
        push(group, [purchase(f"C{number}", total_purchases=number), purchase(f"D{number}", customer_segment=None)])
        drain.drain(group)
    found = of(group, "total_purchases")
    assert (found.count, found.minimum, found.maximum) == (10, 0, 4)
    assert found.quantiles["p50"] == 4  # 0, 1, 2, 3, and six times 4
    assert of(group, "customer_segment").top == (("gold", 5),)
    assert of(group, "customer_segment").nulls == 5
    row = FeatureStatistics.objects.filter(feature__name="total_purchases").get()
    assert (row.day, row.run) == (timezone.now().date(), None)
    assert (row.accepted_to - row.accepted_from) == 4


def test_each_day_has_its_own(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    drain.drain(group)
    FeatureStatistics.objects.update(day=timezone.now().date() - timedelta(days=1))
    push(group, [purchase(total_purchases=5)])
    drain.drain(group)
    assert FeatureStatistics.objects.filter(feature__name="total_purchases").count() == 2
    assert of(group, "total_purchases").mean == 5.0


def test_a_drain_that_was_cut_short_counts_once(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=1)])
    with workers.failing_at("drain.before_landed"), pytest.raises(Fault):
        drain.drain(group)
    assert not FeatureStatistics.objects.exists()
    unfinished = Drain.objects.get()
    drain.drain(group)
    assert of(group, "total_purchases").count == 1
    # Somebody who was at the same drain comes to its end, too.
    columns = [feature.column() for feature in group.features.all()]
    collected = writing.counted(unfinished, [(columns, rows_of(unfinished.batches.get()))])
    assert collected.columns["total_purchases"].count == 1
    writing.end_drain(unfinished, collected)
    assert of(group, "total_purchases").count == 1


def test_rows_of_an_older_schema_and_tombstones_say_nothing_of_what_they_lack(group: FeatureGroup) -> None:
    push(group, [purchase("C1", total_purchases=1)])
    add_feature(group, "visits", "int64")
    push(find_group(group.name), [purchase("C2", visits=7)])
    delete(find_group(group.name), {"customer_id": "C1"}, at=datetime(2024, 11, 2, tzinfo=UTC))
    drain.drain(group)
    assert (of(group, "visits").count, of(group, "visits").nulls) == (1, 0)
    assert of(group, "total_purchases").count == 2


def test_what_a_day_holds_stays_small(group: FeatureGroup) -> None:
    add_feature(group, "note", "string")
    group = find_group(group.name)
    for part in range(3):
        push(group, [purchase(f"C{n}", total_purchases=n, note=f"{part} {n} " + "x" * 500) for n in range(MANY)])
        drain.drain(group)
    sizes = {row.feature.name: len(bytes(row.state or b"")) for row in FeatureStatistics.objects.all()}
    assert max(sizes.values()) < 150_000, sizes
    assert of(group, "note").distinct == pytest.approx(3 * MANY, rel=0.15)
    assert of(group, "total_purchases").described == 3 * MANY


# -- Other runs


def test_replays_and_backfills_count(group: FeatureGroup, sources: Path, settings: Any) -> None:
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 0.9
    write_csv(sources / "a.csv", [purchase("C1", total_purchases=4), purchase("C2", total_purchases=-8)])
    ingest(group)
    group.features.filter(name="total_purchases").update(validation={})
    replay = execute(queue_replay(find_group(group.name), Selection()))
    assert (replay.rows_accepted, of(group, "total_purchases").minimum) == (1, -8)
    group = raised(find_group(group.name))
    assert latest(group.features.all()) == {}  # nothing yet is of the new version
    delete(group, {"customer_id": "C9"}, at=datetime(2024, 11, 1, tzinfo=UTC))
    execute(queue_backfill(group))
    assert of(group, "total_purchases").count == 2
    assert of(group, "avg_purchase_value").maximum == 50.0  # 100 * 2 / 4


def test_a_backfill_on_spark_describes_the_same(
    group: FeatureGroup, sources: Path, request: pytest.FixtureRequest
) -> None:
    if reason := spark.missing():
        pytest.skip(reason)
    request.getfixturevalue("spark_session")
    write_csv(sources / "a.csv", [purchase(f"C{n}", total_purchases=n) for n in range(1, 500)])
    ingest(group)
    group.features.get(name="customer_segment").tags.add(Tag.objects.create(name="pii"))
    group = raised(group)
    run = execute(queue_backfill(group, on_spark=True))
    assert run.state == RunState.SUCCEEDED, run.error
    found = {row.feature.name: row.statistics for row in run.statistics.select_related("feature__group")}
    run.statistics.all().delete()
    group = FeatureGroup.objects.get(pk=group.pk)
    here = writing.begun(group, [feature.column() for feature in group.features.all()])
    for file in stores.offline(group.name, 2).files():
        here.add(pl.read_parquet(file))
    wanted = {name: counted.statistics() for name, counted in here.columns.items()}
    assert found["total_purchases"].quantiles == wanted["total_purchases"].quantiles
    assert found["avg_purchase_value"].histogram == wanted["avg_purchase_value"].histogram
    assert found["customer_segment"] == Statistics("category", 499, 0)


def test_a_dropped_version_takes_its_statistics_along(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    group = raised(group)
    execute(queue_backfill(group))
    assert set(FeatureStatistics.objects.values_list("group_version", flat=True)) == {1, 2}
    drop_version(group, 1, by="ada")
    assert set(FeatureStatistics.objects.values_list("group_version", flat=True)) == {2}


def test_an_accepted_loss_takes_what_was_said_of_the_lost_rows(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase(total_purchases=77)])
    ingest(group)
    Path(stores.offline(group.name, 1).files()[0]).unlink()
    assert upkeep.accept_loss(group, by="ada")
    assert of(group, "total_purchases") == Statistics("number", 1, 0)


# -- Values about persons


def tagged(what: Any) -> None:
    what.tags.add(Tag.objects.get_or_create(name="pii")[0])


@pytest.mark.parametrize("which", ["feature", "group", "entity"])
def test_of_what_is_tagged_pii_nothing_but_counts_is_kept(group: FeatureGroup, sources: Path, which: str) -> None:
    feature = group.features.get(name="customer_segment")
    tagged({"feature": feature, "group": group, "entity": group.entity}[which])
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2", customer_segment=None)])
    ingest(group)
    push(group, [purchase("C3")])
    drain.drain(group)
    rows = FeatureStatistics.objects.filter(feature=feature).order_by("computed_at")
    assert [(row.row_count, row.null_count, row.told, row.state) for row in rows] == [
        (2, 1, None, None),
        (1, 0, None, None),
    ]
    others = FeatureStatistics.objects.filter(feature__name="total_purchases")
    assert all((row.told is None) == (which != "feature") for row in others)


def test_tagged_later_nothing_is_told_from_then_on_and_upkeep_removes_it(group: FeatureGroup) -> None:
    push(group, [purchase(total_purchases=77)])
    drain.drain(group)
    feature = group.features.get(name="total_purchases")
    assert of(group, "total_purchases").maximum == 77
    tagged(feature)
    assert of(group, "total_purchases") == Statistics("number", 1, 0)
    push(group, [purchase(total_purchases=78)])
    drain.drain(group)
    row = FeatureStatistics.objects.get(feature=feature)
    assert (row.row_count, row.told, row.state) == (2, None, None)
    FeatureStatistics.objects.filter(feature=feature).update(told={"kept": "before"})
    upkeep_all()
    row.refresh_from_db()
    assert (row.row_count, row.told) == (2, None)
    assert Feature.objects.get(pk=feature.pk).statistics.count() == 1


def test_an_entity_of_another_tag_is_described(group: FeatureGroup, sources: Path) -> None:
    make_entity("customer", {}).tags.add(Tag.objects.create(name="growth"))
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    assert of(group, "total_purchases").described == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_run_does_not_grow_with_what_it_describes(group: FeatureGroup) -> None:
    """300 batches of 10,000 rows of different texts through what a run counts with."""
    add_feature(group, "note", "string")
    collected = writing.begun(group, [feature.column() for feature in group.features.all()])
    ordinals = pl.Series(ORDINAL, range(10_000))
    sizes = []
    for batch in range(300):
        rows = pl.DataFrame(
            {
                "note": pl.Series([f"{batch}-{n}-{'y' * 40}" for n in range(10_000)]),
                "total_purchases": ordinals * 7 + batch,
                ACCEPTED: pl.Series([batch] * 10_000),
                ORDINAL: ordinals,
            }
        )
        collected.add(rows)
        if batch in (99, 299):
            sizes.append(_resident_megabytes())
    assert sizes[1] - sizes[0] < 60, sizes
    assert collected.columns["note"].statistics().described == 3_000_000


def _resident_megabytes() -> float:
    pages = int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
