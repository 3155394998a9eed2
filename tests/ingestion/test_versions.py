"""Dropping an old version of a group: refused while somebody needs it, else gone from both stores, killed or not."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client
from django.urls import reverse

from catalog import stores
from catalog.models import FeatureGroup, Run, RunState, TrainingDataset
from engine import faults
from engine.errors import Conflict, InvalidInput, NotFound, Unavailable
from engine.offline import removal
from engine.offline.compaction import FILES_AT_LEAST
from ingestion import drain, materialize, upkeep, versions
from ingestion.backfill import queue_backfill
from ingestion.ingest import execute, ingest
from ingestion.models import OnlineCursor, SourceFile
from ingestion.push import push
from ingestion.tasks import catch_up
from ingestion.verify import verify
from serving import datasets, training
from serving.training import Asked
from tests.factories import NOON, TEN, make_customer_group, purchase, write_csv
from tests.ingestion import contents, processes, workers
from tests.ingestion.test_backfill import raised

pytestmark = pytest.mark.database

DROPS = [point for point in faults.POINTS if point.startswith("drop.")]
TOTAL = Asked(features=("total_purchases",))


@pytest.fixture
def old(sources: Path) -> FeatureGroup:
    """Version 1: two customers of a file and one that was pushed, in both stores."""
    write_csv(sources / "a.csv", [purchase("C1", TEN), purchase("C2", TEN)])
    group = make_customer_group(source="*.csv")
    ingest(group)
    push(group, [purchase("C3", NOON)])
    catch_up()
    return group


@pytest.fixture
def group(old: FeatureGroup) -> FeatureGroup:
    """Version 2, computed over version 1 and brought online, with a row of its own."""
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    execute(queue_backfill(group))
    push(group, [purchase("C4", NOON)])
    catch_up()
    return group


def of_version(group: FeatureGroup, version: int) -> FeatureGroup:
    """The group as `contents` looks at another version of it."""
    at = FeatureGroup.objects.get(pk=group.pk)
    at.version = version
    return at


def spine(*customers: str) -> pa.Table:
    times = pa.array([datetime(2024, 11, 2, tzinfo=UTC)] * len(customers), pa.timestamp("us", "UTC"))
    return pa.table({"customer_id": list(customers), "event_timestamp": times})


def assert_dropped(group: FeatureGroup, before: object) -> None:
    """Nothing of version 1 is left, and version 2 is as it was `before`."""
    first = of_version(group, 1)
    assert sorted(path.name for path in contents.folder(group).parent.iterdir()) == ["v2"]
    assert contents.online_rows(first) == {}
    assert stores.online().positions([(group.name, 1), (group.name, 2)])[0] == -1
    for model in (OnlineCursor, SourceFile):
        assert set(model.objects.values_list("group_version", flat=True)) == {2}
    assert what_is_stored(group) == before


def what_is_stored(group: FeatureGroup) -> object:
    second = of_version(group, 2)
    return contents.offline(second), contents.online_rows(second), contents.data_files(second)


def reasons(group: FeatureGroup, version: int = 1) -> str:
    """Why a drop is refused, also as a dry run; and refused it leaves everything."""
    before = contents.offline(of_version(group, 1)), contents.online_rows(of_version(group, 1))
    told = []
    for refuse in (lambda: versions.plan_drop(group, version), lambda: versions.drop_version(group, version, by="ada")):
        with pytest.raises(Conflict, match="cannot be dropped") as refused:
            refuse()
        told.append(str(refused.value))
    assert told[0] == told[1]
    assert (contents.offline(of_version(group, 1)), contents.online_rows(of_version(group, 1))) == before
    return told[0]


# What goes and what stays.


def test_both_stores_lose_the_version_and_nothing_else(group: FeatureGroup) -> None:
    before = what_is_stored(group)
    assert len(contents.online_rows(of_version(group, 1))) == 3
    planned = versions.plan_drop(group, 1)
    assert (planned.version.rows, planned.online, planned.version.computed_into) == (3, 3, (2,))
    files = [path for path in contents.folder(of_version(group, 1)).rglob("*") if path.is_file()]
    assert planned.version.bytes == sum(path.stat().st_size for path in files)
    assert len(contents.online_rows(of_version(group, 1))) == 3
    assert versions.drop_version(group, 1, by="ada") == planned
    assert_dropped(group, before)
    with pytest.raises(NotFound, match=r"version 1 .* versions with rows: 2"):
        versions.drop_version(group, 1, by="ada")


def test_who_dropped_what_and_when_is_in_the_history(group: FeatureGroup) -> None:
    size = versions.describe(group, 1).size
    versions.drop_version(group, 1, by="ada")
    newest = group.history.first()
    assert newest.history_change_reason == f"version 1 dropped by ada: {size}"
    assert datetime.now(UTC) - newest.history_date < timedelta(minutes=1)
    assert (newest.version, FeatureGroup.objects.get(pk=group.pk).version) == (2, 2)


def test_the_other_versions_go_on_as_if_it_had_never_been_there(group: FeatureGroup, redis_clean: redis.Redis) -> None:
    answers = training.build(TOTAL, spine("C1", "C3", "C4", "C9"))
    versions.drop_version(group, 1, by="ada")
    assert training.build(TOTAL, spine("C1", "C3", "C4", "C9")).equals(answers)
    assert verify(group).total == 0
    for number in range(FILES_AT_LEAST):
        push(group, [purchase(f"D{number}", NOON)])
        drain.drain(group)
    assert upkeep.upkeep(group).compacted >= FILES_AT_LEAST
    assert upkeep.scrub(group) == []
    redis_clean.flushall()
    assert materialize.is_cold()
    catch_up()
    assert verify(group).total == 0
    assert len(contents.online_rows(group)) == FILES_AT_LEAST + 4
    assert ingest(group).message.startswith("No new data")


def test_keys_of_a_version_whose_number_begins_alike_stay(group: FeatureGroup, redis_clean: redis.Redis) -> None:
    prefix = settings.FEATUREHUB_KEY_PREFIX
    others = [f"{prefix}:{group.name}:11:{{s2:C1}}", f"{prefix}:other_{group.name}:1:{{s2:C1}}"]
    redis_clean.mset(dict.fromkeys(others, b"a row"))
    versions.drop_version(group, 1, by="ada")
    assert redis_clean.exists(*others) == 2


def test_many_keys_are_taken_in_bounded_calls_at_the_pace_of_bulk_work(
    group: FeatureGroup, redis_clean: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = stores.online().row_prefix(group.name, 1).decode()
    redis_clean.mset({f"{prefix}s{number}:{number}}}": b"" for number in range(2_345)})
    paced: list[int] = []
    monkeypatch.setattr(stores.online().pace, "wait", paced.append)
    before = redis_clean.info("commandstats")
    assert versions.drop_version(group, 1, by="ada").online == 2_348
    after = redis_clean.info("commandstats")
    assert after["cmdstat_unlink"]["calls"] - before.get("cmdstat_unlink", {"calls": 0})["calls"] >= 5
    assert "cmdstat_keys" not in after or after["cmdstat_keys"] == before.get("cmdstat_keys")
    assert max(paced) <= 1_000
    assert sum(paced) >= 2 * 2_348  # looked at, and taken away


def test_a_damaged_version_can_be_dropped(group: FeatureGroup) -> None:
    before = what_is_stored(group)
    stores.offline(group.name, 1).log.path(0).write_text("no JSON")
    assert versions.describe(group, 1).rows is None
    versions.drop_version(group, 1, by="ada")
    assert_dropped(group, before)
    assert group.history.first().history_change_reason.startswith("version 1 dropped by ada: an unknown number of rows")


# What refuses it.


def test_the_served_version_is_refused(group: FeatureGroup) -> None:
    with pytest.raises(Conflict, match="it is the one that is written and served"):
        versions.drop_version(group, 2, by="ada")
    assert len(contents.online_rows(group)) == 4


def test_the_version_before_an_apply_is_refused_while_it_is_served(old: FeatureGroup) -> None:
    assert "written and served" in reasons(old)


def test_a_version_of_which_nothing_is_stored_is_refused_naming_the_others(group: FeatureGroup) -> None:
    for version in (7, 0):
        with pytest.raises(NotFound, match="versions with rows: 1, 2"):
            versions.plan_drop(group, version)


def test_a_dataset_that_was_made_of_it_is_named_until_it_is_dropped(old: FeatureGroup) -> None:
    dataset = datasets.register("churn", TOTAL, spine("C1"))
    datasets.execute(dataset.run)
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    execute(queue_backfill(group))
    newer = datasets.register("newer", TOTAL, spine("C1"))
    datasets.execute(newer.run)
    assert "could not be made again (churn)" in reasons(group)
    datasets.drop(datasets.find("churn"))
    assert versions.drop_version(group, 1, by="ada").version.rows == 3


@pytest.mark.parametrize("asked", ["feature", "group:feature", "service"])
def test_a_dataset_that_is_being_made_is_waited_for(group: FeatureGroup, asked: str) -> None:
    features = {"feature": ["total_purchases"], "group:feature": [f"{group.name}:total_purchases"]}.get(asked, [])
    run = Run.queue(None, kind="train")
    service = "churn_v1@1" if asked == "service" else ""
    if service:
        from catalog.models import FeatureService

        made = FeatureService.objects.create(name="churn_v1")
        made.chosen.create(feature=group.features.get(name="total_purchases"), position=0)
    TrainingDataset.objects.create(
        name="churn", run=run, service=service, features=features, event_timestamp="event_timestamp"
    )
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    assert "are being made (churn)" in reasons(group)
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)  # it will read the version that is served then
    versions.drop_version(group, 1, by="ada")


def test_a_dataset_of_another_group_is_no_matter(group: FeatureGroup) -> None:
    make_customer_group("other", features={"visits": "int64"})
    run = Run.queue(None, kind="train")
    TrainingDataset.objects.create(name="churn", run=run, features=["visits"], event_timestamp="event_timestamp")
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    versions.drop_version(group, 1, by="ada")
    assert not stores.offline(group.name, 1).files()


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
@pytest.mark.parametrize("field", ["group_version", "from_version"])
def test_a_run_that_has_not_ended_is_named(group: FeatureGroup, state: RunState, field: str) -> None:
    run = Run.queue(group)
    Run.objects.filter(pk=run.pk).update(state=state, **{field: 1})
    assert f"run {run.pk} (ingest) is {state}" in reasons(group)
    Run.objects.filter(pk=run.pk).update(state=RunState.FAILED)
    versions.drop_version(group, 1, by="ada")


def test_pushed_rows_that_are_not_in_its_table_yet_are_waited_for(old: FeatureGroup) -> None:
    push(old, [purchase("C5"), purchase("C6")])
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    assert "2 rows that were pushed to it are not in its table yet" in reasons(group)
    drain.drain(group)
    assert versions.drop_version(group, 1, by="ada").version.rows == 5


def test_a_drain_that_was_cut_off_is_waited_for(old: FeatureGroup) -> None:
    push(old, [purchase("C5")])
    with workers.failing_at("drain.after_delta_commit"), pytest.raises(faults.Fault):
        drain.drain(old)
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    assert "not in its table yet" in reasons(group)
    drain.drain(group)
    versions.drop_version(group, 1, by="ada")


def test_while_redis_is_down_nothing_is_begun(group: FeatureGroup, redis_down: object) -> None:
    before = contents.offline(of_version(group, 1))
    with redis_down(), pytest.raises(Unavailable):  # type: ignore[operator]
        versions.drop_version(group, 1, by="ada")
    assert contents.offline(of_version(group, 1)) == before
    assert "dropped" not in (group.history.first().history_change_reason or "")


# What is computed from it.


def test_after_the_drop_no_backfill_begins_from_it(old: FeatureGroup) -> None:
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    versions.drop_version(group, 1, by="ada")
    with pytest.raises(InvalidInput, match="version 1 has no rows"):
        queue_backfill(group, from_version=1)


def test_a_backfill_that_is_retried_after_the_drop_fails_and_says_why(old: FeatureGroup) -> None:
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    run = queue_backfill(group)
    Run.objects.filter(pk=run.pk).update(state=RunState.FAILED)
    versions.drop_version(group, 1, by="ada")
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    with pytest.raises(Conflict, match="Version 1 of customer_purchases has been dropped"):
        execute(Run.objects.get(pk=run.pk))
    assert Run.objects.get(pk=run.pk).state == RunState.FAILED


QUEUE_IN_A_CHILD = """
import django
django.setup()
from ingestion.backfill import queue_backfill
from ingestion.push import find_group

group = find_group("customer_purchases")
print("ready", flush=True)
queue_backfill(group)
"""


@pytest.mark.django_db(transaction=True)
def test_a_backfill_that_is_queued_beside_a_drop_waits_for_it_and_is_refused(old: FeatureGroup) -> None:
    group = raised(FeatureGroup.objects.get(pk=old.pk))
    command = [sys.executable, "-c", QUEUE_IN_A_CHILD]
    with subprocess.Popen(
        command, cwd=processes.PROJECT, env=processes.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        with transaction.atomic():
            versions._held(group)
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)  # long enough to see that there are rows, and to queue the run if it did not wait
            removal.put_aside(stores.offline(group.name, 1))
        _, said = child.communicate(timeout=60)
    assert "older versions with rows: none" in said.decode()
    assert not group.runs.filter(kind="backfill").exists()


# Cut off.


DROP_IN_A_CHILD = """
import django
django.setup()
from catalog.models import FeatureGroup
from ingestion import versions

versions.drop_version(FeatureGroup.objects.get(), 1, by="a process that is killed")
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", DROPS)
def test_a_drop_that_is_killed_at_any_point_is_finished_by_a_second_call(group: FeatureGroup, point: str) -> None:
    before = what_is_stored(group)
    child = subprocess.run(
        [sys.executable, "-c", DROP_IN_A_CHILD],
        cwd=processes.PROJECT,
        env=processes.environment() | workers.fault(f"{point}:1:kill"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not contents.folder(of_version(group, 1)).exists()
    catch_up()  # others go on meanwhile
    assert verify(group).total == 0
    assert what_is_stored(group) == before
    versions.drop_version(group, 1, by="ada")
    assert_dropped(group, before)
    told = [entry.history_change_reason for entry in group.history.all()[:2]]
    assert told[0].startswith("the rest of version 1 dropped by ada")
    assert told[1].startswith("version 1 dropped by a process that is killed: 3 rows")


@pytest.mark.parametrize("point", DROPS)
def test_a_drop_that_fails_at_any_point_is_finished_by_a_second_call(
    group: FeatureGroup, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = what_is_stored(group)
    monkeypatch.setattr(faults, "_passed", Counter())
    with workers.failing_at(point), pytest.raises(faults.Fault):
        versions.drop_version(group, 1, by="ada")
    versions.drop_version(group, 1, by="ada")
    assert_dropped(group, before)


def test_a_removal_that_was_killed_among_the_files_is_finished(group: FeatureGroup) -> None:
    before = what_is_stored(group)
    with workers.failing_at("drop.after_online"), pytest.raises(faults.Fault):
        versions.drop_version(group, 1, by="ada")
    (aside,) = [path for path in contents.folder(group).parent.iterdir() if path.name.startswith(".v1-dropped-")]
    next(aside.glob("*.parquet")).unlink()
    assert versions.describe(group, 1).bytes > 0
    versions.drop_version(group, 1, by="ada")
    assert_dropped(group, before)


# The ways there.


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("versions", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_lists_shows_what_would_go_and_drops(group: FeatureGroup) -> None:
    size = versions.describe(group, 1).size
    assert command(group.name).splitlines() == [
        f"customer_purchases 1  {size}  computed into 2",
        f"customer_purchases 2  {versions.describe(group, 2).size}  served",
    ]
    would = command(group.name, "drop", "1", "--dry-run")
    assert would == f"customer_purchases 1: would drop {size}, 3 online keys\n"
    told = json.loads(command(group.name, "drop", "1", "--json"))
    assert (told["version"], told["rows"], told["online"], told["dropped"]) == (1, 3, 3, True)
    assert [each["version"] for each in json.loads(command(group.name, "--json"))] == [2]
    with pytest.raises(SystemExit):
        command(group.name, "drop", "2")
    with pytest.raises(CommandError, match="number of a version"):
        command(group.name, "drop")


def test_the_command_says_when_the_history_is_kept_nowhere_else(old: FeatureGroup) -> None:
    raised(FeatureGroup.objects.get(pk=old.pk))
    assert "No version was computed from it" in command(old.name, "drop", "1", "--dry-run")


@pytest.fixture
def browser() -> Client:
    client = Client()
    client.force_login(User.objects.create(username="ada", is_superuser=True, is_staff=True))
    return client


def page(name: str, *arguments: object) -> str:
    return reverse(f"admin:ingestion_onlinecursor_{name}", args=arguments)


def test_the_admin_lists_versions_asks_first_and_drops(group: FeatureGroup, browser: Client) -> None:
    before = what_is_stored(group)
    listed = browser.get(page("changelist")).content.decode()
    assert "Stored versions" in listed
    first, second = (OnlineCursor.objects.get(group_version=version) for version in (1, 2))
    asked = browser.get(page("drop", first.pk)).content.decode()
    assert versions.describe(group, 1).size in asked
    assert "Drop version 1 of customer_purchases?" in asked
    assert contents.online_rows(of_version(group, 1))
    said = browser.post(page("drop", first.pk), {"confirmed": "yes"}, follow=True).content.decode()
    assert "3 online keys" in said
    assert_dropped(group, before)
    assert group.history.first().history_user.username == "ada"
    refused = browser.get(page("drop", second.pk), follow=True).content.decode()
    assert "it is the one that is written and served" in refused


def test_who_may_not_change_groups_drops_nothing(group: FeatureGroup) -> None:
    from django.contrib.auth.models import Permission

    user = User.objects.create(username="eve", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_onlinecursor"))
    client = Client()
    client.force_login(user)
    first = OnlineCursor.objects.get(group_version=1)
    assert client.get(page("change", first.pk)).status_code == 200
    assert client.post(page("drop", first.pk), {"confirmed": "yes"}).status_code in (302, 403)
    assert len(contents.online_rows(of_version(group, 1))) == 3
