"""`make run` as a whole: it comes up, says how to get in, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
import requests

from featurehub import embedded, private_redis
from featurehub.environment import PROJECT

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The embedded stack on a free port, without a terminal; whatever of it is left at the end is killed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: text for name, text in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    started = subprocess.Popen(
        [sys.executable, "-m", "featurehub.embedded"],
        cwd=PROJECT,
        env={**kept, "FEATUREHUB_HOME": str(tmp_path / "home"), "PORT": str(port)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield started
    for process in family(started.pid):
        process.kill()
    started.communicate()
    left = private_redis.recorded_process_id(tmp_path / "home")
    if left is not None and private_redis.answering_process_id(tmp_path / "home") == left:
        os.kill(left, signal.SIGKILL)


def only_run(tmp_path: Path) -> AbstractContextManager[None]:
    return embedded._only_run_in(tmp_path / "home")


def family(process_id: int) -> list[psutil.Process]:
    try:
        started = psutil.Process(process_id)
        return [started, *started.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def welcome_of(started: subprocess.Popen[str]) -> str:
    """What the stack printed until it had said everything; fails with all of it when the stack ends before."""
    printed = ""
    assert started.stdout is not None
    for line in started.stdout:
        printed += line
        if line.startswith("  Stop:"):
            return printed
    raise AssertionError(printed)


def answer_of(url: str, key: str) -> object:
    answer = requests.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def redis_that_follows(killed: int, home: Path) -> int:
    """The process id of the server that answers in place of the killed one, within 20 seconds."""
    deadline = time.monotonic() + 20
    while (answering := private_redis.answering_process_id(home)) in {None, killed}:
        assert time.monotonic() < deadline, "no redis-server came back"
        os.sched_yield()
    assert answering is not None
    return answering


def test_make_run_comes_up_heals_and_leaves_no_process_behind(stack: subprocess.Popen[str], tmp_path: Path) -> None:
    welcome = welcome_of(stack)
    url = re.search(r"Catalog: (\S+)/", welcome)
    curl = re.search(r"Try: +curl -H 'Authorization: Bearer (\S+)' (\S+)", welcome)
    assert url is not None
    assert curl is not None
    assert answer_of(f"{url[1]}/health", curl[1])
    assert answer_of(curl[2], curl[1])

    server = private_redis.recorded_process_id(tmp_path / "home")
    assert server is not None
    os.kill(server, signal.SIGKILL)
    assert redis_that_follows(server, tmp_path / "home") != server

    processes = family(stack.pid)
    # The stack, honcho's three, and of web (one and its two), worker and beat at least one each.
    assert len(processes) >= 1 + 3 + 3 + 1 + 1
    stack.send_signal(signal.SIGTERM)
    stack.communicate(timeout=60)
    assert stack.returncode == 143
    assert [process for process in processes if process.is_running()] == []
    assert private_redis.answering_process_id(tmp_path / "home") is None


def test_servers_left_by_a_killed_stack_are_named_and_the_next_one_comes_up_when_they_are_ended(
    stack: subprocess.Popen[str], tmp_path: Path
) -> None:
    welcome_of(stack)
    servers = family(stack.pid)
    stack.kill()
    stack.wait()
    with pytest.raises(embedded.CannotStart, match=r"`kill ([\d ]+)` ends them") as refused, only_run(tmp_path):
        pass
    named = re.search(r"`kill ([\d ]+)`", str(refused.value))
    assert named is not None
    for process_id in named[1].split():
        os.kill(int(process_id), signal.SIGTERM)
    psutil.wait_procs(servers, timeout=20)
    with only_run(tmp_path):
        pass
    with private_redis.running(tmp_path / "home"):
        pass  # and its Redis is taken over, and stopped by its last user
    assert private_redis.answering_process_id(tmp_path / "home") is None
