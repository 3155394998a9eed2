"""Places where a test ends, pauses or fails a process, to see that nothing is lost, doubled or reordered.

Each stands beside a step that commits something. `FH_FAULT=<point>:<N>:<action>` acts at the N-th time that a process
comes by the point, and only with `FH_FAULTS_ARMED=1` beside it; without both a point does nothing. Actions: `kill` (as
kill -9), `raise`, `stop` (until somebody continues the process) and `sleep` (half a second, or `sleep=<seconds>`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

#: Every point, in the order in which a row meets them.
POINTS = (
    "push.after_log_commit",
    "push.before_upsert",
    "push.after_upsert",
    "drain.after_claim",
    "drain.after_file",
    "drain.before_delta_commit",
    "drain.after_delta_commit",
    "drain.before_landed",
    "forget.after_commit",
    "materialize.before_position",
    "materialize.before_cursor",
    "schedule.after_tick",
    "replay.after_claim",
    "discard.after_commit",
    "run.after_claim",
    "run.after_entry",
    "run.after_file",
    "run.before_delta_commit",
    "run.after_delta_commit",
    "run.before_materialize",
    "run.after_materialize",
    "run.before_fail",
    "compact.before_delta_commit",
    "compact.after_delta_commit",
    "scrub.before_record",
    "accept.after_delta_commit",
    "drop.after_aside",
    "drop.after_online",
    "drop.after_files",
    "erase.after_queue",
    "erase.after_log",
    "erase.after_rejected",
    "erase.after_file",
    "erase.before_delta_commit",
    "erase.after_delta_commit",
    "erase.after_manifests",
    "erase.after_dataset_file",
    "erase.after_online",
    "erase.after_removal",
    "erase.after_blank",
    "erase.before_end",
    "rebuild.after_epoch",
    "rebuild.after_close",
    "rebuild.before_open",
)
ACTIONS = ("kill", "raise", "stop", "sleep")

_passed: Counter[str] = Counter()
_counting = threading.Lock()


class Fault(Exception):
    """What `raise` raises: no error of ours, as whatever nobody foresaw is none."""


def hit(point: str) -> None:
    """Come by a point."""
    if os.environ.get("FH_FAULTS_ARMED") == "1" and "FH_FAULT" in os.environ:
        _come_by(point, os.environ["FH_FAULT"])


def _come_by(point: str, plan: str) -> None:
    wanted, number, action = plan.split(":")
    name, _, seconds = action.partition("=")
    if point not in POINTS or wanted not in POINTS or name not in ACTIONS:
        right = f"the points are {', '.join(POINTS)}; the actions {', '.join(ACTIONS)}"
        raise ValueError(f"FH_FAULT={plan} at {point}: {right}")
    with _counting:
        _passed[point] += 1
        is_now = point == wanted and _passed[point] == int(number)
    if is_now:
        _act(point, name, float(seconds or 0.5))


def _act(point: str, action: str, seconds: float) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(seconds)
    else:
        raise Fault(f"a fault at {point}")
