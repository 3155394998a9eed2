"""The pages of runs: what they show and to whom, what their buttons do, and that their number costs nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError
from pytest_django import Settings

from catalog.access import create_key
from catalog.models import Acceptance, FeatureGroup, Role, Run, RunKind, RunState, TrainingDataset
from catalog.pages.viewing import POLICY
from engine.errors import FeaturehubError
from ingestion.ingest import execute, ingest
from ingestion.pages import runs as listing
from ingestion.pages.progress import progress_of
from ingestion.tasks import ingest_run
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion.pages import browser_of, text_of, token_of

RUNS = "/catalog/runs/"
HTMX = {"HX-Request": "true"}
SCRIPT = "<script>alert(1)</script>"
GOOD = [purchase(f"G{n}") for n in range(30)]


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group(source="*.csv")


@pytest.fixture
def other(group: FeatureGroup) -> FeatureGroup:
    return make_customer_group("support", features={"tickets": "int64"})


@pytest.fixture
def viewer(group: FeatureGroup) -> Client:
    return browser_of("vera", (group, Role.VIEWER))


@pytest.fixture
def editor(group: FeatureGroup) -> Client:
    return browser_of("ed", (group, Role.EDITOR))


@pytest.fixture
def told_workers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the runs that a worker was told of, in place of the broker."""
    told: list[str] = []
    monkeypatch.setattr(ingest_run, "delay", told.append)
    return told


def make_run(group: FeatureGroup | None, state: str = RunState.SUCCEEDED, **fields: Any) -> Run:
    started = timezone.now() - timedelta(seconds=100)
    settled = {"group_version": 1, "started_at": started, "kind": RunKind.INGEST} | fields
    return Run.objects.create(group=group, state=state, acceptance=Acceptance.take(), **settled)


def page_of(run: Run) -> str:
    return reverse("catalog-run", args=[run.pk])


def links(answer: Any, *runs: Run) -> list[bool]:
    """Whether a page links each of the runs."""
    return [page_of(run) in answer.content.decode() for run in runs]


# -- The list


def test_without_a_run_the_list_says_what_a_run_is_and_what_to_do(group: FeatureGroup, viewer: Client) -> None:
    said = text_of(viewer.get(RUNS))
    assert "There are no runs yet." in said
    assert "Choose a group" in said


def test_filters_of_the_address_narrow_the_list(group: FeatureGroup, other: FeatureGroup) -> None:
    browser = browser_of("ada", is_superuser=True)
    good, bad = make_run(group), make_run(group, RunState.FAILED, error="It broke.")
    replay, old = make_run(other, kind=RunKind.REPLAY), make_run(group)
    Run.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=40))
    every = (good, bad, replay, old)
    since = (timezone.now() - timedelta(days=2)).date()
    assert links(browser.get(RUNS), *every) == [True, True, True, True]
    assert links(browser.get(f"{RUNS}?state=failed&state=dead"), *every) == [False, True, False, False]
    assert links(browser.get(f"{RUNS}?kind=replay"), *every) == [False, False, True, False]
    assert links(browser.get(f"{RUNS}?group=support"), *every) == [False, False, True, False]
    assert links(browser.get(f"{RUNS}?since={since}"), *every) == [True, True, True, False]
    nothing = browser.get(f"{RUNS}?group=support&state=dead")
    assert links(nothing, *every) == [False] * 4
    assert "Nothing matches." in text_of(nothing)
    assert "Show all runs" in text_of(nothing)


def test_runs_under_way_stand_on_top_with_their_progress(group: FeatureGroup, viewer: Client) -> None:
    running = make_run(group, RunState.RUNNING, bytes_total=1000, bytes_read=250, rows_read=500)
    make_run(group)
    answer = viewer.get(RUNS)
    said = text_of(answer)
    assert said.index("Under way") < said.index("succeeded")
    assert "25 %, about 5 min left" in said  # 100 seconds for a quarter
    assert "1 ended run" in said
    part = viewer.get(reverse("catalog-runs-under-way"), headers=HTMX)
    assert links(part, running) == [True]
    assert b'hx-trigger="every 2s"' in part.content
    Run.objects.update(state=RunState.SUCCEEDED)
    assert b"hx-trigger" not in viewer.get(reverse("catalog-runs-under-way"), headers=HTMX).content


def test_a_part_asked_for_by_itself_leads_to_its_page(group: FeatureGroup, viewer: Client) -> None:
    run = make_run(group)
    for part, page in {reverse("catalog-runs-under-way"): RUNS, f"{page_of(run)}now/": page_of(run)}.items():
        answer = viewer.get(part)
        assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, page)


def test_pages_are_cut_newest_first_and_one_beyond_the_last_is_the_last(group: FeatureGroup, viewer: Client) -> None:
    runs = [make_run(group) for _ in range(51)]
    first, second = viewer.get(RUNS), viewer.get(f"{RUNS}?page=2")
    assert links(first, runs[0], runs[1], runs[50]) == [False, True, True]
    assert links(second, runs[0], runs[1], runs[50]) == [True, False, False]
    assert viewer.get(f"{RUNS}?page=9999").content.count(b"<tbody><tr>") == second.content.count(b"<tbody><tr>")
    assert "51 to 51 of 51" in text_of(viewer.get(f"{RUNS}?page=9999"))


def test_of_very_many_runs_the_list_only_says_that_there_are_more(
    group: FeatureGroup, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST", 3)
    runs = [make_run(group) for _ in range(5)]
    assert "The newest 3 of more runs" in text_of(viewer.get(RUNS))
    assert links(viewer.get(f"{RUNS}?state=succeeded"), runs[4]) == [True]


def test_odd_filters_never_break_the_list(group: FeatureGroup, viewer: Client) -> None:
    make_run(group)
    for query in (
        *("state=nonsense", "kind=%00", "group=%00", "group=" + "x" * 5000, "page=0", "page=-1", "page=x"),
        *("since=2026-02-30", "since=yesterday", "since=0001-01-01T00:00:00%2B23:59", "since=9999-12-31"),
        *("page=99999999999999999999", "since=%00", "state=failed&state=failed&kind=train&page=3", "%ff=%fe"),
    ):
        assert viewer.get(f"{RUNS}?{query}").status_code == 200, query
        assert viewer.get(f"{reverse('catalog-runs-under-way')}?{query}", headers=HTMX).status_code == 200, query


def test_the_number_of_queries_does_not_depend_on_the_number_of_runs(group: FeatureGroup, viewer: Client) -> None:
    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert viewer.get(RUNS).status_code == 200
        return len(queries)

    def make(count: int) -> None:
        for number in range(count):
            make_run(group, RunState.RUNNING if number % 5 == 0 else RunState.FAILED, error="x")

    make(5)
    few = asked()
    make(495)
    assert asked() == few


# -- Who sees what


def test_runs_out_of_reach_are_not_there(group: FeatureGroup, other: FeatureGroup, viewer: Client) -> None:
    mine, theirs = make_run(group), make_run(other)
    erasing = make_run(None, kind=RunKind.TRAIN, group_version=0)
    TrainingDataset.objects.create(name="theirs", run=erasing, features=["support:tickets"], event_timestamp="t")
    making = make_run(None, kind=RunKind.TRAIN, group_version=0)
    TrainingDataset.objects.create(
        name="mine", run=making, features=["customer_purchases:total_purchases"], event_timestamp="t"
    )
    assert links(viewer.get(RUNS), mine, theirs, erasing, making) == [True, False, False, True]
    for run, status in ((mine, 200), (theirs, 404), (erasing, 404), (making, 200)):
        assert viewer.get(page_of(run)).status_code == status, run
        assert viewer.get(reverse("catalog-run-part", args=[run.pk]), headers=HTMX).status_code == status
    assert 'href="/catalog/datasets/mine/"' in viewer.get(page_of(making)).content.decode()
    limited = Client(
        headers={"Authorization": f"Bearer {create_key(name='k', scopes=['read'], groups=['support'])[1]}"}
    )
    assert links(limited.get(RUNS), mine, theirs, erasing, making) == [False, True, True, False]
    assert limited.get(page_of(mine)).status_code == 404


def test_nobody_is_led_to_the_login(group: FeatureGroup) -> None:
    run = make_run(group)
    for path in (RUNS, page_of(run), reverse("catalog-run-now", args=[group.name])):
        answer = Client().get(path)
        assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/login/")


def test_anonymous_readers_see_runs_and_change_none(group: FeatureGroup, settings: Settings) -> None:
    settings.FEATUREHUB_ANONYMOUS_READS = True
    run, anybody = make_run(group, RunState.FAILED, error="It broke."), Client(raise_request_exception=False)
    assert anybody.get(page_of(run)).status_code == 200
    assert b"Retry" not in anybody.get(page_of(run)).content
    assert anybody.post(reverse("catalog-run-retry", args=[run.pk])).status_code == 403
    assert Run.objects.get().state == RunState.FAILED


def test_buttons_are_there_for_who_may_write(group: FeatureGroup, viewer: Client, editor: Client) -> None:
    failed, running = make_run(group, RunState.FAILED, error="x"), make_run(group, RunState.RUNNING)
    retry, cancel = (
        reverse(f"catalog-run-{what}", args=[run.pk]) for what, run in (("retry", failed), ("cancel", running))
    )
    for browser, expected in ((viewer, False), (editor, True)):
        assert (retry in browser.get(page_of(failed)).content.decode()) is expected
        assert (cancel in browser.get(page_of(running)).content.decode()) is expected
    assert viewer.post(retry).status_code == 403
    assert viewer.get(cancel).status_code == 403
    assert viewer.post(cancel).status_code == 403
    assert viewer.get(reverse("catalog-run-now", args=[group.name])).status_code == 403
    assert viewer.post(reverse("catalog-run-now", args=[group.name])).status_code == 403
    assert {run.state for run in Run.objects.all()} == {RunState.FAILED, RunState.RUNNING}


# -- The page of a run


def test_a_failed_run_says_why_and_leads_to_the_last_good_one(group: FeatureGroup, viewer: Client) -> None:
    good = make_run(group)
    failed = make_run(
        group, RunState.FAILED, error="Two problems.\n/a: is bad\n/b: is worse", error_code="invalid_source"
    )
    answer = viewer.get(page_of(failed))
    said = text_of(answer)
    assert "Its source could not be read as it is declared. Two problems. Everything that was said /a: is bad" in said
    assert "Code invalid_source ." in said
    assert links(answer, good) == [True]
    assert f"/catalog/groups/{group.name}/#runs" in answer.content.decode()


def test_a_run_of_too_many_bad_rows_shows_the_first_of_them(group: FeatureGroup, sources: Path, viewer: Client) -> None:
    bad = [purchase(f"B{n}", total_purchases=-n) for n in range(1, 20)]
    with pytest.raises(FeaturehubError):
        ingest(group, paths=[write_csv(sources / "bad.csv", bad)])
    said = text_of(viewer.get(page_of(Run.objects.get())))
    assert "19 of 19 rows broke a rule" in said
    assert "total_purchases at least 0" in said
    assert "0 -1 B1" in said
    assert "B4" not in said


def test_a_good_run_names_its_files_and_its_version(group: FeatureGroup, sources: Path, viewer: Client) -> None:
    run = ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, purchase("C1", total_purchases=-1)])])
    said = text_of(viewer.get(page_of(run)))
    assert str(sources / "a.csv") in said
    assert f"Delta version {run.delta_version}" in said
    assert "Accepted 30 rows" in said
    assert run.source_files.get().sha256[:12] in said


def test_progress_is_asked_for_until_the_end_and_told_in_coarse_steps(group: FeatureGroup, viewer: Client) -> None:
    run = make_run(group, RunState.RUNNING, bytes_total=1000, bytes_read=260, rows_read=500)
    part = reverse("catalog-run-part", args=[run.pk])
    page = viewer.get(page_of(run)).content.decode()
    assert f'hx-get="{part}?told=25" hx-trigger="every 2s" hx-swap="outerHTML"' in page
    assert '<progress max="100" value="26" aria-label="Progress of the run">' in page
    assert 'aria-live="polite">The run is running, 25 % done.<' in page
    assert b"hx-swap-oob" not in viewer.get(f"{part}?told=25", headers=HTMX).content
    Run.objects.update(bytes_read=510)
    told = viewer.get(f"{part}?told=25", headers=HTMX).content.decode()
    assert '<div hx-swap-oob="innerHTML:#run-told">The run is running, 50 % done.</div>' in told
    Run.objects.update(state=RunState.SUCCEEDED, finished_at=timezone.now())
    last = viewer.get(f"{part}?told=50", headers=HTMX).content.decode()
    assert "hx-trigger" not in last
    assert "The run has succeeded. 500 rows read" in last


def test_what_is_not_known_of_the_progress_is_not_made_up(group: FeatureGroup) -> None:
    queued = progress_of(Run(group=group, state=RunState.QUEUED))
    assert (queued.percent, queued.rows_per_second, queued.seconds_left) == (None, None, None)
    started = Run(group=group, state=RunState.RUNNING, started_at=timezone.now())
    assert (progress_of(started).percent, progress_of(started).seconds_left) == (None, None)


def test_strings_of_others_show_as_text(group: FeatureGroup, viewer: Client) -> None:
    run = make_run(
        group,
        RunState.FAILED,
        error=f"{SCRIPT}\n{SCRIPT}",
        error_code=SCRIPT,
        requested_by=SCRIPT,
        message=SCRIPT,
        worker=SCRIPT,
        warnings=[{"column": SCRIPT, "rule": SCRIPT, "detail": SCRIPT, "rows": 1}],
    )
    run.source_files.create(group=group, group_version=1, path=f"/{SCRIPT}", size=1, sha256="0" * 64)
    for path in (RUNS, page_of(run), f"{RUNS}?group={SCRIPT}"):
        answer = viewer.get(path)
        assert SCRIPT.encode() not in answer.content, path
        assert answer["Content-Security-Policy"] == POLICY
    assert text_of(viewer.get(page_of(run))).count(SCRIPT) >= 8


def test_a_run_that_is_not_there_is_not_found(group: FeatureGroup, editor: Client) -> None:
    id = "11111111-1111-4111-8111-111111111111"
    for what in ("catalog-run", "catalog-run-cancel"):
        assert editor.get(reverse(what, args=[id])).status_code == 404
    assert editor.post(reverse("catalog-run-retry", args=[id])).status_code == 404


# -- What may be done


def test_retry_queues_the_run_again(group: FeatureGroup, editor: Client) -> None:
    run = make_run(group, RunState.DEAD, error="x", attempts=3)
    answer = editor.post(reverse("catalog-run-retry", args=[run.pk]), follow=True)
    run.refresh_from_db()
    assert (run.state, run.attempts, run.message) == (RunState.QUEUED, 0, "Retried by ed.")
    assert "The run is queued again" in text_of(answer)
    again = editor.post(reverse("catalog-run-retry", args=[run.pk]), follow=True)
    assert "only a failed, dead or cancelled run" in text_of(again)


def test_cancel_asks_first(group: FeatureGroup, editor: Client) -> None:
    run = make_run(group, RunState.RUNNING)
    cancel = reverse("catalog-run-cancel", args=[run.pk])
    assert "nothing of it becomes visible" in text_of(editor.get(cancel))
    run.refresh_from_db()
    assert run.state == RunState.RUNNING
    answer = editor.post(cancel, follow=True)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.CANCELLED, "Cancelled by ed.")
    assert "It was cancelled" in text_of(answer)
    assert "has cancelled" in text_of(editor.post(cancel, follow=True))


@pytest.mark.django_db(transaction=True)
def test_run_now_says_what_it_does_and_then_does_it(
    group: FeatureGroup, sources: Path, editor: Client, told_workers: list[str]
) -> None:
    write_csv(sources / "a.csv", GOOD)
    now = reverse("catalog-run-now", args=[group.name])
    assert now in editor.get(f"/catalog/groups/{group.name}/").content.decode()
    assert "Content that was read before is not read again" in text_of(editor.get(now))
    assert not Run.objects.exists()
    answer = editor.post(now)
    run = Run.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, page_of(run))
    assert (run.state, run.requested_by, told_workers) == (RunState.QUEUED, "ed", [str(run.pk)])
    assert run.principal == f"user:{User.objects.get(username='ed').pk}"
    assert execute(run).rows_accepted == 30
    make_run(group, RunState.QUEUED)
    assert "A run of it is queued already" in text_of(editor.get(now))


@pytest.mark.django_db(transaction=True)
def test_run_now_is_refused_in_words(group: FeatureGroup, editor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise OperationalError("nobody there")

    now = reverse("catalog-run-now", args=[group.name])
    monkeypatch.setattr(ingest_run, "delay", broken)
    assert "The broker does not take tasks now" in text_of(editor.post(now))
    assert Run.objects.get().state == RunState.FAILED
    FeatureGroup.objects.update(source=None)
    for answer in (editor.get(now), editor.post(now)):
        assert "has no source to ingest from" in text_of(answer)
    FeatureGroup.objects.update(status="archived")
    assert "is archived and takes no rows" in text_of(editor.post(now))
    assert Run.objects.count() == 1


def test_a_post_without_its_token_is_refused(group: FeatureGroup, told_workers: list[str]) -> None:
    browser = browser_of("eve", (group, Role.EDITOR), csrf=True)
    run = make_run(group, RunState.FAILED, error="x")
    running = make_run(group, RunState.RUNNING)
    retry, cancel = reverse("catalog-run-retry", args=[run.pk]), reverse("catalog-run-cancel", args=[running.pk])
    for path in (retry, cancel, reverse("catalog-run-now", args=[group.name])):
        assert browser.post(path).status_code == 403
    assert {one.state for one in Run.objects.all()} == {RunState.FAILED, RunState.RUNNING}
    token = token_of(browser.get(page_of(run)))
    assert browser.post(retry, {"csrfmiddlewaretoken": token}).status_code == 302
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_other_methods_are_refused(group: FeatureGroup, editor: Client) -> None:
    for name in ("catalog-run", "catalog-run-part", "catalog-run-retry", "catalog-run-cancel"):
        path = reverse(name, args=[make_run(group).pk])
        assert editor.put(path).status_code == 405
        assert editor.delete(path).status_code == 405
    failed = make_run(group, RunState.FAILED, error="x")
    led = editor.get(reverse("catalog-run-retry", args=[failed.pk]))
    assert (led.status_code, led["Location"]) == (302, page_of(failed))
    failed.refresh_from_db()
    assert failed.state == RunState.FAILED
