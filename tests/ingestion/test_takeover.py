"""Runs that meet: one that is at it, one whose worker is gone, and one that wakes after it was given up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from catalog.models import FeatureGroup, Run, RunState
from engine.errors import Conflict, CorruptData, FeaturehubError, LeaseLost
from ingestion.ingest import execute, ingest
from ingestion.models import SourceFile
from ingestion.tasks import catch_up, ingest_run
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import contents, processes

pytestmark = pytest.mark.database


class Killed(BaseException):
    """Ends a worker as a kill does: nothing after it runs that an `except Exception` would."""


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    return make_customer_group(source="*.csv")


def killed_before_its_commit(group: FeatureGroup) -> Run:
    def die(_: Run) -> None:
        raise Killed

    with pytest.raises(Killed):
        ingest(group, progress=die)
    return group.runs.get()


def killed_after_its_commit(group: FeatureGroup) -> Run:
    """A run whose rows landed, but nobody wrote down that they did, and nothing of it is online."""
    run = ingest(group)
    held = {"token": run.token, "committing": run.token, "lease_until": timezone.now() + timedelta(seconds=30)}
    Run.objects.update(state=RunState.RUNNING, finished_at=None, delta_version=None, **held)
    contents.forget_online(group)
    group.online_cursors.update(delta_version=-1)
    return run


def silence(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def state(run: Run) -> tuple[str, str]:
    recorded = Run.objects.get(pk=run.pk)
    return recorded.state, recorded.error_code


def customers(group: FeatureGroup) -> list[str]:
    return sorted(row["customer_id"] for row in contents.offline(group))


def test_a_content_that_a_live_run_reads_is_a_conflict(group: FeatureGroup, sources: Path) -> None:
    first = killed_before_its_commit(group)  # not yet silent: for all that others know it is at it
    with pytest.raises(Conflict, match=rf"a\.csv is being read by run {first.pk}; try again when it has ended"):
        ingest(group)
    assert state(first) == (RunState.RUNNING, "")
    assert group.runs.filter(state=RunState.FAILED, error_code="conflict").count() == 1
    assert SourceFile.objects.get().run_id == first.pk


def test_a_conflict_gives_back_what_the_second_run_had_claimed(group: FeatureGroup, sources: Path) -> None:
    first = killed_before_its_commit(group)
    write_csv(sources / "0.csv", [purchase("C0")])  # sorted before a.csv, so claimed before the conflict is met
    with pytest.raises(Conflict):
        ingest(group)
    assert [entry.run_id for entry in SourceFile.objects.all()] == [first.pk]


def test_a_silent_run_that_did_not_land_is_queued_again_and_its_content_may_be_read_by_another(
    group: FeatureGroup,
) -> None:
    lost = killed_before_its_commit(group)
    silence(lost)
    run = ingest(group)
    assert (run.state, run.rows_accepted) == (RunState.SUCCEEDED, 2)
    assert state(lost) == (RunState.QUEUED, "")
    assert execute(Run.objects.get(pk=lost.pk)).message == "No new data: every file of the source has been read before."
    assert [row["_run"] for row in contents.offline(group)] == [str(run.id)] * 2
    assert len(contents.online(group)) == 2


def test_a_silent_run_that_landed_has_succeeded_and_its_rows_are_there_once(group: FeatureGroup) -> None:
    lost = killed_after_its_commit(group)
    silence(lost)
    run = ingest(group)
    assert run.message == "No new data: every file of the source has been read before."
    assert state(lost) == (RunState.SUCCEEDED, "")
    assert [row["_run"] for row in contents.offline(group)] == [str(lost.id)] * 2
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2"]


def test_a_landed_run_is_settled_while_redis_is_down(
    group: FeatureGroup, sources: Path, redis_down: Callable[[], AbstractContextManager[None]]
) -> None:
    lost = killed_after_its_commit(group)
    silence(lost)
    write_csv(sources / "b.csv", [purchase("C3")])
    with redis_down():
        run = ingest(group)
    assert run.message == "Committed offline; the online store follows when Redis is back."
    assert state(lost) == (RunState.SUCCEEDED, "")
    assert customers(group) == ["C1", "C2", "C3"]


@pytest.mark.parametrize("died", [killed_before_its_commit, killed_after_its_commit])
def test_the_same_run_id_after_a_crash_adds_its_rows_once(
    group: FeatureGroup, died: Callable[[FeatureGroup], Run]
) -> None:
    lost = died(group)
    silence(lost)
    run = execute(Run.objects.get(pk=lost.pk))
    assert (run.state, run.rows_read, run.rows_accepted) == (RunState.SUCCEEDED, 2, 2)
    assert [row["_run"] for row in contents.offline(group)] == [str(lost.id)] * 2
    assert {row["_accepted"] for row in contents.offline(group)} == {lost.acceptance_id}
    assert len(contents.online(group)) == 2


def test_a_run_that_somebody_is_at_is_not_executed_a_second_time(group: FeatureGroup) -> None:
    first = killed_before_its_commit(group)
    with pytest.raises(Conflict, match="is being carried out by another worker"):
        execute(Run.objects.get(pk=first.pk))
    assert state(first) == (RunState.RUNNING, "")


def test_a_run_that_wakes_after_it_was_given_up_lands_nothing(group: FeatureGroup) -> None:
    """It sleeps in its last batch; another takes its file over and lands; then it wakes and goes on."""
    other: list[Run] = []

    def sleep_until_given_up(run: Run) -> None:
        silence(run)
        other.append(ingest(group))

    with pytest.raises(LeaseLost, match="was given up; it is queued now"):
        ingest(group, progress=sleep_until_given_up)
    assert [row["_run"] for row in contents.offline(group)] == [str(other[0].id)] * 2
    assert SourceFile.objects.get().run_id == other[0].pk
    assert {run.state for run in group.runs.exclude(pk=other[0].pk)} == {RunState.QUEUED}
    assert len(contents.data_files(group)) == 1


def test_silent_runs_are_taken_up_without_waiting_for_the_next_file(group: FeatureGroup) -> None:
    lost = killed_before_its_commit(group)
    catch_up()
    assert state(lost) == (RunState.RUNNING, "")
    silence(lost)
    catch_up()
    assert state(lost) == (RunState.QUEUED, "")
    assert ingest_run.apply([str(lost.pk)]).successful()
    assert (state(lost), customers(group)) == ((RunState.SUCCEEDED, ""), ["C1", "C2"])


INGEST_AND_DIE = """
import django, os, signal
django.setup()
from ingestion.ingest import ingest
from ingestion.push import find_group

ingest(find_group("customer_purchases"), progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_process_was_reading_is_read_by_the_next_run(group: FeatureGroup) -> None:
    killed = processes.run_python(INGEST_AND_DIE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert contents.data_files(group) != []  # written, and part of no table
    assert contents.offline(group) == []
    with pytest.raises(Conflict):
        ingest(group)
    silence(group.runs.get(state=RunState.RUNNING))
    assert ingest(group).rows_accepted == 2
    assert customers(group) == ["C1", "C2"]


@pytest.mark.django_db(transaction=True)
def test_of_racing_runs_of_one_source_one_reads_it(group: FeatureGroup) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def race() -> None:
        start.wait()
        try:
            outcomes.append(f"read {ingest(FeatureGroup.objects.get(pk=group.pk)).rows_read}")
        except FeaturehubError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert outcomes.count("read 2") == 1
    assert set(outcomes) <= {"read 2", "read 0", "conflict"}
    assert customers(group) == ["C1", "C2"]


@pytest.mark.django_db(transaction=True)
def test_one_run_id_executed_in_parallel_adds_its_rows_once(group: FeatureGroup) -> None:
    queued = Run.queue(group)
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def race() -> None:
        run = Run.objects.get(pk=queued.pk)
        start.wait()
        try:
            outcomes.append(execute(run).state)
        except FeaturehubError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"succeeded", "conflict"}
    assert outcomes.count("succeeded") >= 1
    assert state(queued) == (RunState.SUCCEEDED, "")
    assert customers(group) == ["C1", "C2"]


def test_what_fails_after_the_commit_does_not_unsay_it(group: FeatureGroup) -> None:
    """The rows landed: the run has succeeded, its content is not read again, and the error is told."""
    with pytest.raises(CorruptData, match="name schema 1, which the catalog does not have"):
        ingest(group, progress=lambda _: group.schemas.all().delete())
    run = group.runs.get()
    assert run.state == RunState.SUCCEEDED
    assert run.message.startswith("Committed offline; then: Offline rows")
    assert customers(group) == ["C1", "C2"]
    assert SourceFile.objects.count() == 1
