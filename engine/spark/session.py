"""A Spark session to work with, its jobs watched and its failures named."""

from __future__ import annotations

import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import InheritableThread, SparkContext, SparkStageInfo
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from engine.errors import RunFailed

#: How often the work of a cluster is looked after.
LOOK_SECONDS = 1.0
#: How long jobs that are not wanted any more are cancelled, again and again, before they are left to themselves.
CANCEL_SECONDS = 30

Result = TypeVar("Result")
#: Called while a cluster works, with its tasks that are done and those that are known of; what it raises ends the work.
Watch = Callable[[int, int], None]


def opened() -> SparkSession:
    """This process's session, made by Spark's own settings if there is none.

    The executors run this very Python, unless PYSPARK_PYTHON says another. Raises RunFailed when none can be had.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # It says so wherever pandas is newer than what its own frames of pandas know; the hub hands it none.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    with named_failures("Spark"):
        return SparkSession.builder.getOrCreate()


@contextmanager
def named_failures(what: str) -> Iterator[None]:
    """What Spark raises, as RunFailed saying that `what` did not finish, with the innermost reason in one line."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise RunFailed(f"{what} did not finish: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first lines of an error and of the Java exceptions that caused it, each said once."""
    if not isinstance(error, Py4JJavaError):
        return _line(str(error))
    reasons: list[str] = []
    cause = error.java_exception
    while cause is not None and len(reasons) < 10:
        reasons.append(_line(str(cause.getMessage())))
        cause = cause.getCause()
    return "; ".join(dict.fromkeys(reasons))


def _line(message: str) -> str:
    """The first line; of a Python traceback, the one after the stack."""
    _, _, traceback = message.partition("Traceback (most recent call last):")
    ends = [line for line in traceback.splitlines() if line and not line[0].isspace()]
    return ends[0] if ends else message.strip().partition("\n")[0]


def watched(session: SparkSession, work: Callable[[], Result], watch: Watch) -> Result:
    """What `work` answers, whose Spark jobs run in a thread of their own; `watch` is called here, each second.

    Raises what `work` raises; the jobs of work that `watch` ends are cancelled, and their tasks have ended as far as
    Spark says so within CANCEL_SECONDS.
    """
    context, group = session.sparkContext, f"featurehub-{uuid.uuid4()}"
    done: Future[Result] = Future()

    def carry_out() -> None:
        context.setJobGroup(group, group, interruptOnCancel=True)
        try:
            done.set_result(work())
        except BaseException as error:  # it is raised on in the thread that waits
            done.set_exception(error)

    thread = InheritableThread(target=carry_out, name=group, daemon=True, session=session)
    thread.start()
    try:
        while not _has_ended(thread, LOOK_SECONDS):
            watch(*_progress(context, group))
    except BaseException:
        for _ in range(CANCEL_SECONDS):  # a job that begins after one was cancelled runs
            context.cancelJobGroup(group)
            if _has_ended(thread, 1.0) and not any(stage.numActiveTasks for stage in _stages(context, group)):
                break
        raise
    return done.result()


def _has_ended(thread: InheritableThread, seconds: float) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


def _stages(context: SparkContext, group: str) -> list[SparkStageInfo]:
    tracker = context.statusTracker()
    jobs = [job for number in tracker.getJobIdsForGroup(group) if (job := tracker.getJobInfo(number))]
    return [stage for job in jobs for number in job.stageIds if (stage := tracker.getStageInfo(number))]


def _progress(context: SparkContext, group: str) -> tuple[int, int]:
    stages = _stages(context, group)
    return sum(stage.numCompletedTasks for stage in stages), sum(stage.numTasks for stage in stages)
