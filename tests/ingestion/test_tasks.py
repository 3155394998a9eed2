"""The tasks call the same functions, also in a worker process; and a run's memory does not grow with its file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from catalog.models import FeatureGroup, Run
from featurehub.celery import app
from ingestion.push import push
from ingestion.tasks import catch_up, ingest_run, ingest_scheduled
from tests.factories import TEN, make_customer_group, purchase, write_csv
from tests.ingestion import contents, processes


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    return make_customer_group(source="*.csv")


def test_the_tasks_belong_to_the_projects_app_and_not_to_a_default_one() -> None:
    for task in (ingest_run, ingest_scheduled, catch_up):
        assert task.app.main == "featurehub"
        assert app.tasks[task.name].app is app


def test_a_queued_run_is_carried_out(group: FeatureGroup) -> None:
    run = Run.queue(group, requested_by="ada")
    assert ingest_run.apply([str(run.id)]).successful()
    run.refresh_from_db()
    assert (run.state, run.rows_accepted, run.requested_by) == ("succeeded", 2, "ada")
    assert len(contents.online(group)) == 2


def test_a_task_that_comes_twice_adds_its_rows_once(group: FeatureGroup) -> None:
    run = Run.queue(group)
    for _ in range(2):
        assert ingest_run.apply([str(run.id)]).successful()
    assert len(contents.offline(group)) == 2


def test_a_run_that_fails_is_recorded_and_the_task_is_done(
    group: FeatureGroup, sources: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (sources / "b.csv").write_text("customer_id\nC3\n")
    run = Run.queue(group)
    assert ingest_run.apply([str(run.id)]).successful()
    run.refresh_from_db()
    assert (run.state, run.error_code) == ("failed", "invalid_rows")
    assert "ingesting customer_purchases failed: The columns are not those" in caplog.text


def test_a_schedule_makes_a_run_each_time_and_says_when_there_is_nothing_new(group: FeatureGroup) -> None:
    for _ in range(2):
        assert ingest_scheduled.apply(["customer_purchases"]).successful()
    newest, first = group.runs.order_by("-acceptance_id")
    assert (first.rows_accepted, first.requested_by) == (2, "schedule")
    assert newest.message == "No new data: every file of the source has been read before."


def test_a_schedule_of_a_group_that_is_archived_or_gone_is_logged(
    group: FeatureGroup, caplog: pytest.LogCaptureFixture
) -> None:
    group.status = "archived"
    group.save()
    assert ingest_scheduled.apply(["customer_purchases"]).successful()
    assert ingest_scheduled.apply(["customer_purchase"]).successful()
    assert "customer_purchases is archived" in caplog.text
    assert "There is no feature group named 'customer_purchase'" in caplog.text
    assert not group.runs.exists()


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker of the project's app on the private Redis; stopped as an operator stops it."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = ["-m", "celery", "-A", "featurehub.celery", "worker", "--pool", "threads", "-c", "1", *quiet]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=processes.PROJECT,
            env=processes.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
            process.terminate()
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@pytest.mark.django_db(transaction=True)
def test_a_worker_process_takes_a_run_from_the_broker_and_catches_up(group: FeatureGroup, tmp_path: Path) -> None:
    run = Run.queue(group)
    push(group, [purchase("C3")])
    log = tmp_path / "worker.log"
    with worker(log) as process:
        ingest_run.delay(str(run.id))
        catch_up.delay()
        deadline = time.monotonic() + 60
        while run.finished_at is None or len(contents.offline(group)) < 3:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
            run.refresh_from_db()
    assert process.returncode == 0
    assert (run.state, run.rows_accepted) == ("succeeded", 2), log.read_text()
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2", "s2:C3"]


INGEST_AND_MEASURE = """
import django, json, sys
django.setup()
from pathlib import Path
from ingestion.ingest import ingest
from ingestion.push import find_group
run = ingest(find_group("customer_purchases"), paths=[Path(sys.argv[1])])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([run.rows_accepted, int(peak.split()[1])]))
"""


def peak_mb(path: Path, rows: int) -> float:
    """The most memory that a process of its own had while it ingested `rows` rows of `path`, in MB.

    Read as VmHWM, since ru_maxrss of a new process begins at what its parent had.
    """
    numbers = pl.DataFrame({"n": pl.int_range(rows, eager=True)})
    when = pl.lit(datetime.fromisoformat(TEN))
    columns = [pl.format("C{}", pl.col("n") % 5000), when, pl.col("n") / 4, pl.col("n") % 90, pl.lit("gold")]
    named = [column.alias(name) for column, name in zip(columns, purchase(), strict=True)]
    pq.write_table(
        numbers.select(named).to_arrow(), path, row_group_size=rows, use_dictionary=False, compression="none"
    )
    answer = processes.run_python(INGEST_AND_MEASURE, str(path))
    assert answer.returncode == 0, answer.stderr
    accepted, kilobytes = json.loads(answer.stdout)
    assert accepted == rows
    return kilobytes / 1024


@pytest.mark.django_db(transaction=True)
def test_four_times_the_rows_do_not_take_more_memory(group: FeatureGroup, tmp_path: Path) -> None:
    """The larger file has 70 MB more in its one row group, and what is made of its rows would be several times that."""
    small, large = (peak_mb(tmp_path / f"{rows}.parquet", rows) for rows in (400_000, 1_600_000))
    print(f"peak of 400,000 rows {small:.0f} MB, of 1,600,000 rows {large:.0f} MB")
    assert large - small < 60
