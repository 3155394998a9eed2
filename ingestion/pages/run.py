"""The page of a run, what it shows while the run is under way, and what may be done: start, retry, cancel."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from catalog import runs
from catalog.access import READ, WRITE, AnyCaller, allowed, name_of, principal_of, require
from catalog.models import FeatureGroup, Run, RunState
from catalog.pages.addresses import page_of
from catalog.pages.viewing import form_page, page, show
from catalog.registry.kinds import FEATURE_GROUPS
from catalog.registry.kinds import find as find_thing
from catalog.timing import due_times
from engine.errors import (
    Conflict,
    CorruptData,
    FeaturehubError,
    InvalidRows,
    InvalidSource,
    InvalidSpine,
    LeaseLost,
    NotAllowed,
    NotFound,
    RunFailed,
    SchemaMoved,
    StorageFailed,
    StorageFull,
    Unavailable,
)
from ingestion.api import start_run
from ingestion.models import QuarantinedRule
from ingestion.pages.broken import Broken, broken_of
from ingestion.pages.progress import UNDER_WAY, progress_of
from ingestion.pages.runs import readable
from ingestion.push import require_writable

#: Files and rules of a run that its page names.
FILES = 50
RULES = 20

#: What ended a run, in a sentence, by the error's code.
_CAUSES = {
    InvalidRows.code: "Its rows do not fit the types or the rules of the group.",
    InvalidSource.code: "Its source could not be read as it is declared.",
    InvalidSpine.code: "Its spine lacks a key or a time, or has a wrong one.",
    RunFailed.code: "It was stopped before anything of it became visible.",
    LeaseLost.code: "Another worker had taken it up.",
    Conflict.code: "Something else was under way that it would have collided with.",
    SchemaMoved.code: "The group kept changing while its rows were computed.",
    NotAllowed.code: "Whoever asked for it may not write to the group any more.",
    CorruptData.code: "Stored bytes or files cannot be read.",
    StorageFailed.code: "The folder of the offline store could not be written.",
    StorageFull.code: "The folder of the offline store has no room left.",
    Unavailable.code: "A store or the broker did not answer.",
    runs.WORKER_LOST: "The workers that carried it out ended on the way, several times.",
    runs.CANCELLED: "It was cancelled before it landed; nothing of it is visible.",
    "server_error": "An error of the hub itself ended it; the log of its worker has the details.",
}
RETRIABLE = (RunState.FAILED, RunState.DEAD, RunState.CANCELLED)


def find_run(caller: AnyCaller, id: UUID) -> Run:
    """The run of that id, for a caller who may read it; raises NotFound: what is out of reach is not there."""
    run = Run.objects.select_related("group__source", "dataset", "erasure__entity").filter(pk=id).first()
    if run is None or not allowed(caller, READ, run):
        raise NotFound(f"There is no run {id}.")
    return run


def shown_of(run: Run, caller: AnyCaller) -> dict[str, Any]:
    """All that changes while the run goes on; what is known only at its end is asked for only then."""
    files = list(run.source_files.order_by("pk")[: FILES + 1])
    context: dict[str, Any] = {
        "run": run,
        "files": files[:FILES],
        "more_files": run.source_files.count() - FILES if len(files) > FILES else 0,
        "progress": progress_of(run),
        "may_write": allowed(caller, WRITE, run),
        "may_cancel": run.state in UNDER_WAY,
        "may_retry": run.state in RETRIABLE and run.kind in runs.KINDS_OF_WORKERS,
    }
    return context if run.state in UNDER_WAY else context | _at_its_end(run, caller)


def _at_its_end(run: Run, caller: AnyCaller) -> dict[str, Any]:
    cause, _, rest = run.error.partition("\n")
    return {
        "cause": _CAUSES.get(run.error_code, "It did not succeed."),
        "error_line": cause,
        "error_more": rest,
        "previous": _previous_good(run, caller) if run.error else None,
        "rejected": _rejected(run, caller),
        "more_rules": max(0, run.quarantined.count() - RULES) if run.rows_quarantined else 0,
    }


def _previous_good(run: Run, caller: AnyCaller) -> Run | None:
    if run.group_id is None:
        return None
    before = Run.objects.filter(group=run.group_id, kind=run.kind, created_at__lt=run.created_at)
    return before.filter(state=RunState.SUCCEEDED).order_by("-created_at").first()


def _rejected(run: Run, caller: AnyCaller) -> list[Broken]:
    """The rules that rows of the run broke, most rows first, with the first rows of each."""
    if run.group_id is None or not run.rows_quarantined:
        return []
    rules = QuarantinedRule.objects.with_state().filter(run=run).select_related("run__group", "replay")
    return broken_of(list(rules.order_by("-row_count", "column", "rule")[:RULES]), caller)


@page
def run_page(request: HttpRequest, caller: AnyCaller, id: UUID) -> HttpResponse:
    return show(request, caller, "ingestion/run.html", shown_of(find_run(caller, id), caller), here="catalog-runs")


@page
def run_part(request: HttpRequest, caller: AnyCaller, id: UUID) -> HttpResponse:
    """What changes while the run goes on, asked for again and again; by itself it is no page.

    `told` is the step that a screen reader was told of last.
    """
    if "HX-Request" not in request.headers:
        return redirect("catalog-run", id=id)
    context = shown_of(find_run(caller, id), caller)
    context["tells"] = request.GET.get("told", "") != context["progress"].step
    return show(request, caller, "ingestion/parts/run.html", context)


@form_page
def retry_run(request: HttpRequest, caller: AnyCaller, id: UUID) -> HttpResponse:
    """Queue an ended run again. Who comes here by a link, as after a login, is led to the run's page."""
    run = find_run(caller, id)
    if request.method != "POST":
        return redirect("catalog-run", id=id)
    require(caller, WRITE, run)
    try:
        runs.retry(run, by=name_of(caller))
        messages.success(request, "The run is queued again, in its old place in the version order.")
    except FeaturehubError as error:
        messages.error(request, error.detail)
    return redirect("catalog-run", id=id)


@form_page
def cancel_run(request: HttpRequest, caller: AnyCaller, id: UUID) -> HttpResponse:
    """Ask first; once confirmed, end the run before it lands."""
    run = find_run(caller, id)
    require(caller, WRITE, run)
    if request.method != "POST" and run.state in UNDER_WAY:
        return show(request, caller, "ingestion/cancel.html", {"run": run}, here="catalog-runs")
    try:
        runs.cancel(run, by=name_of(caller))
        messages.success(request, "The run is cancelled; nothing of it becomes visible.")
    except FeaturehubError as error:
        messages.error(request, error.detail)
    return redirect("catalog-run", id=id)


@form_page
def run_now(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    """Say first what a run of the group would do; once confirmed, start it."""
    group: FeatureGroup = find_thing(FEATURE_GROUPS, [name], caller)
    require(caller, WRITE, group)
    refusal = _refusal(group)
    if request.method == "POST" and not refusal:
        try:
            return redirect(page_of(start_run(group, by=name_of(caller), principal=principal_of(caller))))
        except FeaturehubError as error:
            messages.error(request, error.detail)
    context = {
        "group": group,
        "refusal": refusal,
        "under_way": readable(caller).filter(group=group, state__in=UNDER_WAY).order_by("-created_at").first(),
        "last": group.runs.filter(state=RunState.SUCCEEDED).order_by("-created_at").first(),
        "due": due_times(group.schedule, 1, now=timezone.now()) if group.schedule else [],
    }
    return show(request, caller, "ingestion/run_now.html", context, here="catalog-groups")


def _refusal(group: FeatureGroup) -> str:
    """Why a run of the group cannot be started; empty when it can."""
    try:
        require_writable(group)
    except Conflict as error:
        return error.detail
    return "" if group.source else f"{group.name} has no source to ingest from; rows are pushed to it."
