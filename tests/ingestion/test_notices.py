"""What becomes of runs and pushes is told to who follows their group: once, without an id or a value."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from catalog import notices, runs
from catalog.follows import follow, inbox
from catalog.models import FeatureGroup, Notice, Run, RunState
from engine.errors import Conflict, FeaturehubError, InvalidRows, RunFailed, Unavailable
from ingestion.erasure import run as erasing
from ingestion.erasure.target import Target
from ingestion.ingest import execute, ingest
from ingestion.push import push
from ingestion.settle import Selection, queue_replay
from ingestion.tasks import catch_up, upkeep_all
from tests.factories import make_customer_group, purchase, write_csv

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

GOOD = [purchase(f"G{number}") for number in range(20)]
CANARY = "canary-7f3a"


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group(source="*.csv")


@pytest.fixture
def ada(group: FeatureGroup) -> Iterator[User]:
    """Follows the group; nothing that she is told has an id or a value of a row."""
    person = User.objects.create(username="ada", is_superuser=True)
    follow(person, group)
    yield person
    assert Notice.objects.exists()
    assert not Notice.objects.filter(text__contains=CANARY).exists()


def told(person: User) -> list[tuple[str, str, Run | None]]:
    return [(entry.notice.kind, entry.notice.text, entry.notice.run) for entry in inbox(person)]


def test_a_run_that_failed_is_told_with_its_code_and_again_when_a_retry_fails(
    group: FeatureGroup, sources: Path, ada: User
) -> None:
    (sources / "a.csv").write_text(f"customer_id,purchased_at,{CANARY}\n{CANARY},2024-11-01T10:00:00Z,1\n")
    with pytest.raises(FeaturehubError) as raised:
        ingest(group)
    run = group.runs.get()
    text = f"The ingest run of customer_purchases failed ({raised.value.code})."
    assert told(ada) == [("failed", text, run)]
    runs.retry(run, by="ada")
    with pytest.raises(FeaturehubError):
        execute(run)
    assert told(ada) == [("failed", text, run)] * 2


def test_a_run_with_too_many_bad_rows_is_told_once_with_their_number(
    group: FeatureGroup, sources: Path, ada: User
) -> None:
    write_csv(sources / "a.csv", [purchase(CANARY, total_purchases=-1), purchase("C2")])
    with pytest.raises(RunFailed):
        ingest(group)
    text = "The ingest run of customer_purchases failed (run_failed); 1 of its 2 rows broke a rule."
    assert told(ada) == [("failed", text, group.runs.get())]


def test_an_attempt_that_is_tried_again_is_not_told_and_the_last_one_is(
    group: FeatureGroup, sources: Path, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingestion import sources as source_files

    def refuse(*_: Any) -> Any:
        raise Unavailable("The disk is away.")

    write_csv(sources / "a.csv", GOOD)
    monkeypatch.setattr(source_files, "read", refuse)
    run = Run.queue(group)
    for attempt in range(1, runs.MAX_ATTEMPTS + 1):
        with pytest.raises(Unavailable):
            execute(run)
        assert len(told(ada)) == (attempt == runs.MAX_ATTEMPTS)
    ((kind, text, about),) = told(ada)
    assert (kind, about) == ("failed", run)
    assert text == (
        "The ingest run of customer_purchases is dead: nobody tries it again unless somebody asks for it (unavailable)."
    )


def test_a_run_whose_workers_are_lost_for_good_is_told(group: FeatureGroup, ada: User) -> None:
    run = Run.queue(group)
    past = timezone.now() - timedelta(seconds=1)
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, attempts=runs.MAX_ATTEMPTS, lease_until=past)
    assert runs.settle(run.pk) == RunState.DEAD
    assert runs.settle(run.pk) is None
    assert [(kind, about) for kind, _, about in told(ada)] == [("failed", run)]


def test_a_run_whose_asker_may_not_any_more_is_told(group: FeatureGroup, ada: User) -> None:
    run = Run.queue(group, requested_by="bob", principal="user:999999")
    execute(run)
    assert told(ada) == [("failed", "The ingest run of customer_purchases failed (not_allowed).", run)]


def test_quarantined_rows_of_a_run_are_told_once_and_those_of_its_replay_again(
    group: FeatureGroup, sources: Path, ada: User
) -> None:
    run = ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, purchase(CANARY, customer_segment=CANARY)])])
    assert told(ada) == [
        ("quarantined", "1 of 21 rows of the ingest run of customer_purchases went to quarantine.", run)
    ]
    replay = execute(queue_replay(group, Selection()))
    assert told(ada)[0] == (
        "quarantined",
        "1 of 1 rows of the replay run of customer_purchases went to quarantine.",
        replay,
    )


def test_a_run_that_landed_before_its_worker_was_lost_is_told_by_who_settles_it(
    group: FeatureGroup, sources: Path, ada: User
) -> None:
    run = ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, purchase("C1", total_purchases=-1)])])
    Notice.objects.all().delete()
    past = timezone.now() - timedelta(seconds=1)
    Run.objects.update(state=RunState.RUNNING, committing=run.token, lease_until=past, finished_at=None)
    catch_up()
    assert [(kind, about) for kind, _, about in told(ada)] == [("quarantined", run)]


def test_pushes_that_leave_rows_in_quarantine_are_told_once_for_a_group_and_day(group: FeatureGroup, ada: User) -> None:
    for _ in range(3):
        push(group, [purchase("C1"), purchase(CANARY, total_purchases=-1)], on_error="quarantine")
    with pytest.raises(InvalidRows):  # refused to its sender, and nowhere else
        push(group, [purchase(CANARY, total_purchases=-1)])
    assert told(ada) == []  # a push has no time for it
    for _ in range(2):
        notices.look()
    first = group.runs.order_by("created_at").first()
    assert told(ada) == [("quarantined", "Rows pushed to customer_purchases went to quarantine.", first)]
    tomorrow = timezone.now() + timedelta(days=1)
    notices.look(now=tomorrow)  # nothing of that day, and yesterday's was told
    assert len(told(ada)) == 1
    Run.objects.update(created_at=tomorrow)
    notices.look(now=tomorrow)
    assert len(told(ada)) == 2


def test_an_erasure_that_failed_is_told_to_who_follows_the_entity_without_the_id(
    group: FeatureGroup, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise Conflict("Something is in its way.")

    follow(ada, group.entity)
    run = erasing.queue(group.entity, CANARY, reason="asked", by="ada").run
    monkeypatch.setattr(Target, "of", refuse)
    with pytest.raises(Conflict):
        erasing.execute(run)
    (entry,) = told(ada)
    assert entry == ("failed", f"The erase run of {run.erasure.subject} failed (conflict).", run)


def test_a_cancelled_run_and_one_without_bad_rows_are_nothing_to_tell(group: FeatureGroup, sources: Path) -> None:
    follow(User.objects.create(username="ada", is_superuser=True), group)
    runs.cancel(Run.queue(group), by="ada")
    write_csv(sources / "a.csv", GOOD)
    ingest(group)
    ingest(group)
    notices.look()
    assert not Notice.objects.exists()


def test_housekeeping_forgets_old_notices(group: FeatureGroup) -> None:
    notices.tell_of_status(group, "deprecated")
    Notice.objects.update(at=timezone.now() - timedelta(days=91))
    upkeep_all()
    assert not Notice.objects.exists()
