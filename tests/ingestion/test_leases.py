"""Who holds a run: attempts, heartbeats, cancelling and retrying, and real workers that are killed and paused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from catalog import runs, source_roots
from catalog.models import FeatureGroup, Run, RunState
from engine.errors import Conflict, FeaturehubError, LeaseLost, NotFound, RunFailed, Unavailable
from ingestion import ingest as ingesting
from ingestion.ingest import execute, ingest
from ingestion.models import SourceFile
from ingestion.tasks import catch_up, ingest_run
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import contents, workers

pytestmark = pytest.mark.database


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    return make_customer_group(source="*.csv")


def state(run: Run) -> tuple[str, int, str]:
    recorded = Run.objects.get(pk=run.pk)
    return recorded.state, recorded.attempts, recorded.error_code


def customers(group: FeatureGroup) -> list[str]:
    return sorted(row["customer_id"] for row in contents.offline(group))


def end_lease(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def taken(group: FeatureGroup) -> tuple[Run, runs.Lease]:
    run = Run.queue(group)
    lease = runs.take(run)
    assert lease is not None
    return run, lease


# Taking, losing and settling.


def test_a_taken_run_names_its_worker_and_its_lease_ends_by_the_databases_clock(group: FeatureGroup) -> None:
    run, lease = taken(group)
    assert (run.state, run.attempts, run.token, lease.token) == (RunState.RUNNING, 1, 1, 1)
    assert run.worker.split(":")[1:] == [str(os.getpid()), "MainThread"]
    assert run.lease_until is not None
    assert timedelta(seconds=25) < run.lease_until - timezone.now() <= timedelta(seconds=30)


def test_a_run_that_is_held_is_taken_by_nobody_else(group: FeatureGroup) -> None:
    run, _ = taken(group)
    with pytest.raises(Conflict, match="being carried out by another worker"):
        runs.take(Run.objects.get(pk=run.pk))
    assert runs.settle(run.pk) is None


def test_after_three_lost_workers_a_run_is_dead_and_its_content_free(group: FeatureGroup) -> None:
    run, _ = taken(group)
    for settled in (RunState.QUEUED, RunState.QUEUED, RunState.DEAD):
        end_lease(run)
        assert runs.settle(run.pk) == settled
        runs.take(run)
    assert state(run) == (RunState.DEAD, 3, "worker_lost")
    assert "3 workers ended while they carried it out" in run.error
    assert execute(run).state == RunState.DEAD
    assert ingest(group).rows_accepted == 2


def test_a_worker_that_lost_its_lease_writes_nothing_of_the_run_any_more(group: FeatureGroup) -> None:
    run, lease = taken(group)
    end_lease(run)
    runs.settle(run.pk)
    assert runs.take(Run.objects.get(pk=run.pk)) is not None
    run.rows_read = 7
    works: list[Callable[[], object]] = [lease.check, lease.report, lease.succeed]
    for work in works:
        with pytest.raises(LeaseLost, match="was given up; it is running now"):
            work()
    with pytest.raises(LeaseLost), lease.about_to_commit():
        pytest.fail("nobody holds it")
    assert not lease.fail("too late", "late", retryable=False)
    assert state(run) == (RunState.RUNNING, 2, "")
    assert Run.objects.get(pk=run.pk).rows_read == 0


def test_what_landed_has_succeeded_whoever_holds_the_run(group: FeatureGroup) -> None:
    run, lease = taken(group)
    with lease.about_to_commit():
        pass
    end_lease(run)
    runs.settle(run.pk)
    runs.take(run)
    lease.succeed(landed=True)
    assert state(run) == (RunState.SUCCEEDED, 2, "")


def test_an_error_that_may_pass_is_tried_three_times_and_then_the_run_is_dead(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise Unavailable("the disk of the source is away")

    monkeypatch.setattr(ingesting, "current_schema", fail)
    run = Run.queue(group)
    for expected in (RunState.QUEUED, RunState.QUEUED, RunState.DEAD):
        with pytest.raises(Unavailable):
            execute(run)
        assert state(run)[::2] == (expected, "unavailable")
    assert run.error == "the disk of the source is away"
    assert not SourceFile.objects.exists()


@pytest.mark.parametrize("error", [OperationalError("database is locked"), MemoryError()])
def test_what_the_machine_lacked_for_a_moment_is_tried_again(
    group: FeatureGroup, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ingesting, "current_schema", fail)
        run = Run.queue(group)
        with pytest.raises(type(error)):
            execute(run)
    assert state(run) == (RunState.QUEUED, 1, "unavailable")
    assert execute(run).rows_accepted == 2
    assert (state(run), run.error) == ((RunState.SUCCEEDED, 2, ""), "")


def test_an_error_that_stays_is_not_tried_again(group: FeatureGroup, sources: Path) -> None:
    (sources / "b.csv").write_text("customer_id\nC3\n")
    run = Run.queue(group)
    with pytest.raises(FeaturehubError):
        execute(run)
    assert state(run) == (RunState.FAILED, 1, "invalid_rows")


def test_a_run_takes_the_files_it_was_asked_for_also_when_another_takes_it_up(
    group: FeatureGroup, tmp_path: Path
) -> None:
    run = Run.queue(group, paths=[write_csv(tmp_path / "b.csv", [purchase("C9")])])
    assert ingest_run.apply([str(run.pk)]).successful()
    assert customers(group) == ["C9"]


def test_a_run_lost_at_its_commit_does_not_land_in_another_version(group: FeatureGroup) -> None:
    run, lease = taken(group)
    with lease.about_to_commit():
        pass
    end_lease(run)
    group.version = 2
    group.save()
    with pytest.raises(RunFailed, match="moved to version 2 while rows for version 1 were being committed"):
        execute(Run.objects.get(pk=run.pk))
    assert contents.offline(group) == []


def test_content_that_may_yet_be_committed_is_read_by_no_other_run(group: FeatureGroup) -> None:
    """Its worker sleeps at its commit and may wake: a second run of the same rows would add them twice."""
    run, lease = taken(group)
    ingesting.claim(run, [ingesting.sources.inspect(path) for path in source_roots.find("*.csv")])
    with lease.about_to_commit():
        pass
    end_lease(run)
    with pytest.raises(Conflict, match="may have been committed by run"):
        ingest(group)
    with pytest.raises(Conflict, match="is being committed"):
        runs.cancel(run, by="ada")
    assert execute(run).rows_accepted == 2
    assert customers(group) == ["C1", "C2"]


def test_the_heart_renews_the_lease_and_stops_for_one_that_hangs(
    group: FeatureGroup, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lease = taken(group)
    settings.FEATUREHUB_LEASE_SECONDS = 3600
    assert lease._renew()
    run.refresh_from_db()
    assert run.lease_until is not None
    assert run.lease_until > timezone.now() + timedelta(seconds=3000)
    monkeypatch.setattr(runs, "HANGS_AFTER_SECONDS", -1.0)
    assert not lease._renew()


# Cancelling and retrying.


def test_a_queued_run_is_cancelled_and_a_worker_leaves_it(group: FeatureGroup) -> None:
    run = Run.queue(group)
    runs.cancel(run, by="ada")
    assert (state(run), run.error) == ((RunState.CANCELLED, 0, "cancelled"), "Cancelled by ada.")
    assert execute(run).state == RunState.CANCELLED
    assert contents.offline(group) == []


def test_a_running_run_notices_at_its_next_batch_that_it_was_cancelled(group: FeatureGroup, sources: Path) -> None:
    write_csv(sources / "b.csv", [purchase("C3")])  # the second batch
    with pytest.raises(LeaseLost, match=r"Cancelled by ada\. Nothing of run .* is visible"):
        ingest(group, progress=lambda run: runs.cancel(Run.objects.get(pk=run.pk), by="ada"))
    assert state(group.runs.get())[0] == RunState.CANCELLED
    assert contents.data_files(group) == []
    assert ingest(group).rows_accepted == 3  # what it had claimed is free


def test_a_run_that_has_ended_is_not_cancelled(group: FeatureGroup) -> None:
    with pytest.raises(Conflict, match="has succeeded; only a queued or a running one"):
        runs.cancel(ingest(group), by="ada")


def test_a_retried_run_is_the_same_run_in_its_old_place_of_the_version_order(
    group: FeatureGroup, sources: Path
) -> None:
    (sources / "b.csv").write_text("customer_id\nC3\n")
    with pytest.raises(FeaturehubError):
        ingest(group)
    run = group.runs.get()
    (sources / "b.csv").unlink()
    runs.retry(run, by="ada")
    assert (state(run), run.message) == ((RunState.QUEUED, 0, ""), "Retried by ada.")
    assert execute(run).rows_accepted == 2
    assert {row["_accepted"] for row in contents.offline(group)} == {run.acceptance_id}
    with pytest.raises(Conflict, match="is succeeded; only a failed, dead or cancelled run of a worker can be"):
        runs.retry(run, by="ada")


def test_the_command_lists_cancels_and_retries(group: FeatureGroup, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = Run.queue(group), Run.queue(make_customer_group("other"))
    call_command("runs", "cancel", str(run.pk)[:8])
    assert "cancelled  customer_purchases  0 rows  Cancelled by command." in capsys.readouterr().out
    call_command("runs", "--state", "queued", "--json")
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [str(other.pk)]
    call_command("runs", "retry", str(run.pk), "--json")
    assert json.loads(capsys.readouterr().out)[0]["state"] == "queued"
    call_command("runs", "list", "--group", "customer_purchases")
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(SystemExit):
        call_command("runs", "retry", "ffff")
    assert "There is no run ffff" in capsys.readouterr().err


def test_a_beginning_of_several_ids_is_not_guessed(group: FeatureGroup) -> None:
    from ingestion.management.commands.runs import find_run

    Run.queue(group)
    Run.queue(group)
    with pytest.raises(NotFound, match="several runs"):
        find_run("")


def test_the_admin_asks_before_it_cancels_or_retries_and_says_what_came_of_it(
    group: FeatureGroup, admin_client: Client
) -> None:
    run = Run.queue(group)
    page = reverse("admin:catalog_run_changelist")
    for action, expected in (("cancel", RunState.CANCELLED), ("retry", RunState.QUEUED)):
        before = state(run)
        chosen = {"action": f"{action}_selected", "_selected_action": str(run.pk)}
        assert (
            f"{action.capitalize()} run ingest customer_purchases" in admin_client.post(page, chosen).content.decode()
        )
        assert state(run) == before
        answer = admin_client.post(page, chosen | {"confirmed": "yes"}, follow=True)
        assert f"is {expected.value}." in answer.content.decode()
        assert state(run)[0] == expected


def test_the_page_of_a_run_offers_what_its_state_allows(group: FeatureGroup, admin_client: Client) -> None:
    run = Run.queue(group)
    page = reverse("admin:catalog_run_change", args=[run.pk])
    cancel, retry = (reverse(f"admin:catalog_run_{name}", args=[run.pk]) for name in ("cancel", "retry"))
    shown = admin_client.get(page).content.decode()
    assert (cancel in shown, retry in shown) == (True, False)
    assert "Cancel run" in admin_client.get(cancel).content.decode()
    admin_client.post(cancel, {"confirmed": "yes"})
    shown = admin_client.get(page).content.decode()
    assert (cancel in shown, retry in shown) == (False, True)


# What the broker is told.


def told(redis_clean: redis.Redis) -> int:
    """Messages that wait for a worker."""
    with redis.Redis.from_url(settings.BROKER_REDIS_URL) as broker:
        return int(broker.llen(f"{settings.FEATUREHUB_KEY_PREFIX}:celery"))  # type: ignore[arg-type]


def test_a_queued_run_that_nobody_began_is_announced_again_and_then_not_for_a_while(
    group: FeatureGroup, redis_clean: redis.Redis
) -> None:
    run = Run.queue(group)
    catch_up()
    assert told(redis_clean) == 0  # whoever queued it has announced it
    Run.objects.filter(pk=run.pk).update(hint_due_at=timezone.now())
    catch_up()
    catch_up()
    assert told(redis_clean) == 1


# Real workers.


def log_of(tmp_path: Path, name: str = "worker") -> Path:
    return tmp_path / f"{name}.log"


def is_in(run: Run, *states: str) -> Callable[[], bool]:
    return lambda: Run.objects.get(pk=run.pk).state in states


@pytest.mark.django_db(transaction=True)
def test_a_killed_workers_run_is_taken_up_by_the_next_worker_without_an_operator(
    group: FeatureGroup, tmp_path: Path
) -> None:
    run = Run.queue(group)
    ingest_run.delay(str(run.pk))
    with workers.worker(log_of(tmp_path, "first"), **workers.fault("run.after_file:1:stop")) as first:
        workers.wait_stopped(first)
        assert state(run)[:2] == (RunState.RUNNING, 1)
        os.kill(first.pid, signal.SIGKILL)
        with workers.worker(log_of(tmp_path)) as second:
            workers.until(lambda: runs.lost_runs().exists(), log_of(tmp_path))
            catch_up()  # a beat would send it
            workers.until(is_in(run, RunState.SUCCEEDED), log_of(tmp_path))
            assert second.poll() is None
    assert state(run) == (RunState.SUCCEEDED, 2, "")
    assert customers(group) == ["C1", "C2"]


@pytest.mark.django_db(transaction=True)
def test_a_worker_paused_past_its_lease_lands_nothing_when_it_wakes(group: FeatureGroup, tmp_path: Path) -> None:
    run = Run.queue(group)
    ingest_run.delay(str(run.pk))
    with workers.worker(log_of(tmp_path, "first"), **workers.fault("run.before_delta_commit:1:stop")) as first:
        workers.wait_stopped(first)
        with workers.worker(log_of(tmp_path)):
            workers.until(lambda: runs.lost_runs().exists(), log_of(tmp_path))
            catch_up()
            workers.until(is_in(run, RunState.SUCCEEDED), log_of(tmp_path))
        workers.wake(first)
        workers.until(lambda: len(contents.data_files(group)) == 1, log_of(tmp_path, "first"))
    assert state(run) == (RunState.SUCCEEDED, 2, "")
    assert customers(group) == ["C1", "C2"]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_asked_to_end_finishes_its_run(group: FeatureGroup, tmp_path: Path) -> None:
    run = Run.queue(group)
    ingest_run.delay(str(run.pk))
    with workers.worker(log_of(tmp_path), **workers.fault("run.after_file:1:sleep=2.5")) as process:
        workers.until(lambda: contents.data_files(group), log_of(tmp_path))
        process.terminate()
        assert process.wait(30) == 0
    assert state(run) == (RunState.SUCCEEDED, 1, ""), log_of(tmp_path).read_text()
    assert customers(group) == ["C1", "C2"]


@pytest.mark.django_db(transaction=True)
def test_a_run_that_kills_every_worker_dies_and_other_work_goes_on(group: FeatureGroup, tmp_path: Path) -> None:
    """What the kernel does to a worker whose batch takes too much memory is a SIGKILL too."""
    poison = Run.queue(group)
    for attempt in (1, 2, 3):
        ingest_run.delay(str(poison.pk))
        with workers.worker(log_of(tmp_path), **workers.fault("run.after_file:1:kill")) as process:
            assert process.wait(40) == -signal.SIGKILL
        assert state(poison)[:2] == (RunState.RUNNING, attempt)
        workers.until(lambda: runs.lost_runs().exists())
        catch_up()
    assert state(poison) == (RunState.DEAD, 3, "worker_lost")
    healthy = Run.queue(make_customer_group("other", source="*.csv"))
    ingest_run.delay(str(healthy.pk))
    with workers.worker(log_of(tmp_path)) as process:
        workers.until(is_in(healthy, RunState.SUCCEEDED), log_of(tmp_path))
        assert process.poll() is None
    assert state(poison) == (RunState.DEAD, 3, "worker_lost")


@pytest.mark.django_db(transaction=True)
def test_queued_runs_survive_a_broker_that_lost_its_messages(group: FeatureGroup, tmp_path: Path) -> None:
    queued = [Run.queue(make_customer_group(f"group_{n}", source="*.csv")) for n in range(5)]
    for run in queued:
        ingest_run.delay(str(run.pk))
    with redis.Redis.from_url(settings.BROKER_REDIS_URL) as broker:
        broker.flushdb()
    Run.objects.update(hint_due_at=timezone.now())  # half a minute later
    with workers.worker(log_of(tmp_path)):  # which looks for them when it starts
        for run in queued:
            workers.until(is_in(run, RunState.SUCCEEDED), log_of(tmp_path))


@pytest.mark.django_db(transaction=True)
def test_a_message_that_is_delivered_again_while_the_run_goes_on_does_no_harm(
    group: FeatureGroup, tmp_path: Path
) -> None:
    run = Run.queue(group)
    with workers.worker(log_of(tmp_path), **workers.fault("run.after_file:1:sleep=2")):
        ingest_run.delay(str(run.pk))
        workers.until(lambda: contents.data_files(group), log_of(tmp_path))
        ingest_run.delay(str(run.pk))
        workers.until(lambda: "being carried out by another worker" in log_of(tmp_path).read_text(), log_of(tmp_path))
        workers.until(is_in(run, RunState.SUCCEEDED), log_of(tmp_path))
    assert state(run) == (RunState.SUCCEEDED, 1, "")  # its lease of a second was renewed meanwhile
    assert customers(group) == ["C1", "C2"]
