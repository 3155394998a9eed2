"""How far a run is, for people: what is done, how fast, how long it will take, and what a screen reader is told."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.models import Run, RunKind, RunState

UNDER_WAY = (RunState.QUEUED, RunState.RUNNING)
#: A live region speaks when this much more is done, in percent.
_STEP = 25


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one run now.

    percent:         from 0 to 100; None where it cannot be told.
    rows_per_second: None before it has read rows for some time.
    seconds_left:    at the speed until now; None where it cannot be told.
    step:            changes when a live region is to speak again; `said` is what it says.
    """

    is_under_way: bool
    percent: int | None
    rows_per_second: float | None
    seconds_left: float | None
    step: str
    said: str


def progress_of(run: Run) -> Progress:
    share, seconds = run.progress, run.duration_seconds
    percent = None if share is None else min(100, int(100 * share))
    left = None
    if run.state == RunState.RUNNING and seconds and share and share < 1:
        left = seconds * (1 - share) / share
    rows = run.rows_accepted if run.kind == RunKind.TRAIN else run.rows_read
    step, said = _told(run, percent)
    return Progress(run.state in UNDER_WAY, percent, rows / seconds if seconds and rows else None, left, step, said)


def _told(run: Run, percent: int | None) -> tuple[str, str]:
    if run.state == RunState.QUEUED:
        return "queued", "The run waits for a worker."
    if run.state == RunState.RUNNING:
        step = (percent or 0) // _STEP * _STEP
        return str(step), f"The run is running, {step} % done." if step else "The run is running."
    counts = f"{run.rows_read:,} rows read, {run.rows_accepted:,} accepted, {run.rows_quarantined:,} quarantined."
    return run.state, f"The run has {_ENDED[run.state]}. {counts}"


_ENDED: dict[str, str] = {
    RunState.SUCCEEDED: "succeeded",
    RunState.FAILED: "failed",
    RunState.DEAD: "died after several attempts",
    RunState.CANCELLED: "been cancelled",
}
