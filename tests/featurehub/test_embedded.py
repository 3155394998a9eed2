"""The private Redis of a home, with real servers, and how the stack refuses to start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from featurehub import embedded, private_redis
from featurehub.environment import PROJECT, read_environment

# A user of the private Redis in a process of its own: says the server's process id, then leaves when told to.
USER = """
import sys
from pathlib import Path
from featurehub import private_redis
home = Path(sys.argv[1])
with private_redis.running(home):
    print(private_redis.answering_process_id(home), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own; no server of it outlives the test, whatever the test did."""
    yield tmp_path / "home"
    left = private_redis.answering_process_id(tmp_path / "home")
    if left is not None:
        os.kill(left, signal.SIGKILL)
        pytest.fail(f"redis-server {left} was left running")


def user(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(home)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def process_id_seen_by(started: subprocess.Popen[str]) -> int:
    assert started.stdout is not None
    return int(started.stdout.readline())


def leave(started: subprocess.Popen[str]) -> None:
    started.communicate("leave\n", timeout=30)
    assert started.returncode == 0


def is_gone(process_id: int) -> bool:
    """True when the process has ended, also where nobody collected its status."""
    return not psutil.pid_exists(process_id) or psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not come true within 10 seconds"
        os.sched_yield()


def test_two_users_share_one_server_and_the_last_one_stops_it(home: Path) -> None:
    first, second = user(home), user(home)  # at once: one of them starts it, the other waits for it
    server = process_id_seen_by(first)
    assert process_id_seen_by(second) == server
    leave(first)
    assert private_redis.answering_process_id(home) == server
    leave(second)
    assert private_redis.answering_process_id(home) is None
    assert is_gone(server)


def test_the_server_is_a_file_backed_one_that_never_evicts_and_has_no_port(home: Path) -> None:
    with private_redis.running(home) as url, redis.Redis.from_url(url) as client:
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "databases": "16",
            "protected-mode": "yes",
            "save": "",
        }
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert client.info("server")["process_id"] == private_redis.recorded_process_id(home)


def test_what_was_written_is_there_for_the_next_user(home: Path) -> None:
    with private_redis.running(home) as url, redis.Redis.from_url(url) as client:
        client.set("customer:C1", "gold")
    with private_redis.running(home) as url, redis.Redis.from_url(url) as client:
        assert client.get("customer:C1") == b"gold"


def test_after_kill_9_the_next_user_starts_it_again_with_its_data_while_the_first_still_uses_it(home: Path) -> None:
    with private_redis.running(home) as url, redis.Redis.from_url(url) as client:
        client.set("customer:C1", "gold")
        killed = private_redis.recorded_process_id(home)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: is_gone(killed))
        assert private_redis.socket_path(home).exists()  # stale, as is the file with the process id
        with private_redis.running(home) as again, redis.Redis.from_url(again) as next_client:
            assert next_client.get("customer:C1") == b"gold"
            assert private_redis.answering_process_id(home) not in {killed, None}
        assert client.get("customer:C1") == b"gold"


def test_a_killed_user_keeps_nobody_from_stopping_the_server(home: Path) -> None:
    killed = user(home)
    server = process_id_seen_by(killed)
    killed.kill()
    killed.communicate()
    assert private_redis.answering_process_id(home) == server
    with private_redis.running(home):
        assert private_redis.answering_process_id(home) == server
    assert private_redis.answering_process_id(home) is None


def test_a_home_whose_path_is_too_long_for_a_socket_works(tmp_path: Path) -> None:
    long_home = tmp_path / ("long" * 30)
    path = private_redis.socket_path(long_home)
    assert len(os.fsencode(path)) <= private_redis.LONGEST_SOCKET_PATH
    assert path != private_redis.socket_path(tmp_path / ("long" * 30 + "er"))
    with private_redis.running(long_home) as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert private_redis.answering_process_id(long_home) is None
    path.parent.rmdir()


def test_a_socket_folder_that_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    long_home = tmp_path / ("link" * 30)
    folder = private_redis.socket_path(long_home).parent
    folder.symlink_to(tmp_path)
    try:
        with (
            pytest.raises(private_redis.PrivateRedisFailed, match="has to be a folder of this user"),
            private_redis.running(long_home),
        ):
            pass
    finally:
        folder.unlink()


def test_another_server_on_the_socket_is_refused_and_not_stopped(home: Path) -> None:
    with private_redis.running(home):
        server = private_redis.recorded_process_id(home)
        record = home / "redis" / "redis.pid"
        record.write_text("1\n")
        with pytest.raises(private_redis.PrivateRedisFailed, match=f"answers process {server}, but .* records 1"):
            private_redis.ensure_started(home)
        record.write_text(f"{server}\n")


def test_a_server_that_cannot_read_its_file_is_an_error_with_the_end_of_its_log(home: Path) -> None:
    (home / "redis").mkdir(parents=True)
    (home / "redis" / "appendonly.aof").write_text("not an append-only file\r\n")
    (home / "redis" / "appendonlydir").write_text("a file where redis 7 wants a folder")
    with pytest.raises(private_redis.PrivateRedisFailed, match=r"did not start .* Its log .* ends with: "):
        private_redis.ensure_started(home)


def test_a_path_with_spaces_and_percent_signs_is_read_back_from_the_url(tmp_path: Path) -> None:
    odd = tmp_path / "a b%20c"
    with private_redis.running(odd) as url, redis.Redis.from_url(url) as client:
        assert client.ping()


def embedded_environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    return {**kept, "FEATUREHUB_HOME": str(home), **variables}


def start_stack(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "featurehub.embedded"],
        cwd=PROJECT,
        env=embedded_environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_busy_port_is_named_before_anything_starts(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        refused = start_stack(home, PORT=str(port))
    assert refused.returncode == 1
    assert f"Port {port} of 127.0.0.1 is in use" in refused.stderr
    assert "PORT=" in refused.stderr
    assert not (home / "redis").exists()


def test_a_second_stack_in_one_home_is_refused_by_the_process_that_runs(home: Path) -> None:
    home.mkdir()
    with embedded._only_run_in(home):
        refused = start_stack(home)
    assert refused.returncode == 1
    assert f"featurehub already runs in {home} (process {os.getpid()})" in refused.stderr


def test_the_stack_is_refused_where_a_production_database_is_named(home: Path) -> None:
    production = {
        "DATABASE_URL": "sqlite:////x",
        "REDIS_URL": "redis://x",
        "SECRET_KEY": "0123456789" * 5,
        "ALLOWED_HOSTS": "x",
    }
    refused = start_stack(home, **production)
    assert refused.returncode == 1
    assert "unset both" in refused.stderr
    assert not home.exists()


def test_nonsense_in_the_environment_is_an_error_without_a_traceback(home: Path) -> None:
    refused = start_stack(home, PORT="abc")
    assert refused.returncode == 1
    assert "PORT=abc: must be a whole number from 1 to 65535" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_web_process_listens_where_it_is_told_and_comes_back_when_killed() -> None:
    web = embedded.commands(read_environment({"HOST": "[::1]", "PORT": "8123", "FEATUREHUB_WEB_WORKERS": "3"}))["web"]
    assert web[web.index("--host") + 1] == "::1"
    assert web[web.index("--port") + 1] == "8123"
    assert web[web.index("--workers") + 1] == "3"
    assert "--respawn-failed-workers" in web
