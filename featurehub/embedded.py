"""The development stack of one home folder: `redis()` for a command, `python -m featurehub.embedded` for all of it.

The stack's own process stays without Django: it holds the locks and the private Redis, prepares the database in a
child (preparation.py), starts web, worker and beat, and on SIGINT, SIGTERM or SIGHUP stops them and their children.
It forks, and forking a process that has used Polars deadlocks: that is why the demo data is loaded in a child.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

import psutil
from django.core.exceptions import ImproperlyConfigured
from honcho.manager import Manager

from featurehub import private_redis, web_limits
from featurehub.environment import PROJECT, Environment, is_loopback, read_environment

DEMO_VECTOR = "/features/customer/00002"  # a customer of the demo data
# Below the 5 seconds after which honcho kills a process group: web's children have to be gone by then.
WEB_SECONDS_TO_STOP = 3
SECONDS_BETWEEN_LOOKS_AT_REDIS = 1.0
SECONDS_BETWEEN_LOOKS_AT_HEALTH = 0.2
SECONDS_UNTIL_A_WORD_ABOUT_HEALTH = 30.0
# honcho forks its processes when its loop begins; a thread that only waits then holds nothing that a child could need.
SECONDS_TO_FORK = 0.5


class CannotStart(RuntimeError):
    """Why the stack does not start, and what to change."""


class Stack(Manager):
    """honcho's manager, with a stop that may also come while the processes are being started."""

    def terminate(self) -> None:
        if all("pid" in process for process in self._processes.values()):
            super().terminate()
        else:  # honcho would look for process ids that it does not know yet
            threading.Timer(0.05, self.terminate).start()


def redis() -> AbstractContextManager[str]:
    """While the context lasts the private Redis of this hub's home runs; gives the URL of its database 0."""
    return private_redis.running(read_environment(os.environ).home)


def main() -> int:
    """Run the stack until a signal or the end of one of its processes; gives the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup asked for that
            signal.signal(number, _exit_on_signal)
    try:
        environment = read_environment(os.environ)
        _refuse_production(environment)
        environment.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _only_run_in(environment.home):
            _refuse_busy_port(environment)
            _say(f"Home {environment.home}: starting the private Redis")
            with private_redis.running(environment.home):
                return _run(environment)
    except (CannotStart, ImproperlyConfigured, private_redis.PrivateRedisFailed) as problem:
        _say(str(problem))
        return 1
    except subprocess.CalledProcessError as failed:
        _say("The preparation failed; what went wrong stands above.")
        return failed.returncode
    except KeyboardInterrupt:
        return 130


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _refuse_production(environment: Environment) -> None:
    if not environment.embedded:
        raise CannotStart(
            "DATABASE_URL and REDIS_URL are set, and this command is the embedded stack, which has its own: unset both,"
            " or start web, worker and beat as the Procfile does."
        )


@contextmanager
def _only_run_in(home: Path) -> Iterator[None]:
    """Hold the run lock of `home`; raises CannotStart, naming the process, while another stack runs there."""
    with (home / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CannotStart(_who_runs_in(home, lock.read().strip())) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _who_runs_in(home: Path, recorded: str) -> str:
    """Why the run lock is taken, and how to free it."""
    if not recorded.isdigit() or psutil.pid_exists(int(recorded)):
        return (
            f"featurehub already runs in {home} (process {recorded or 'unknown'}): stop it first, or give this one"
            " another FEATUREHUB_HOME and PORT."
        )
    left = " ".join(str(process_id) for process_id in _processes_left_in(home))
    return (
        f"The featurehub of {home} (process {recorded}) was killed and left processes behind: `kill {left}` ends them."
    )


def _processes_left_in(home: Path) -> list[int]:
    """The servers of a stack whose own process was killed: honcho's forks of it still hold the run lock."""
    left = []
    for process in psutil.process_iter():
        try:
            if any(Path(file.path) == home / "run.lock" for file in process.open_files()):
                left += [child.pid for child in process.children()]
        except psutil.Error:  # another user's, or it ended meanwhile
            continue
    return sorted(left)


def _refuse_busy_port(environment: Environment) -> None:
    host, port = environment.host, environment.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as unknown:
        raise CannotStart(f"HOST={host}: must be an address of this machine ({unknown.strerror})") from unknown
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as refused:
            if refused.errno == errno.EADDRINUSE:
                raise CannotStart(
                    f"Port {port} of {host} is in use: stop what listens there, or choose another, as in"
                    f" `PORT={port + 1 if port < 65535 else port - 1} make run`."
                ) from refused
            raise CannotStart(f"HOST={host} PORT={port}: cannot listen there ({refused.strerror})") from refused


def _run(environment: Environment) -> int:
    variables = _variables_of_children(environment)
    login = _prepare(variables)
    manager = Stack()
    for name, command in commands(environment).items():
        manager.add_process(name, f"exec {shlex.join(command)}", env=variables, cwd=str(PROJECT))
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_keep_redis, args=(environment.home, stopping)),
        threading.Thread(target=_announce, args=(environment, variables, login, stopping)),
    ]
    for thread in threads:
        thread.start()
    try:
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # honcho handles only the other two
            signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        manager.loop()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    return int(manager.returncode or 0)


def commands(environment: Environment) -> dict[str, list[str]]:
    """The processes of the stack by name, each as a list of arguments."""
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--app", "featurehub.celery"]
    web = {
        "--interface": "rsgi",
        "--loop": "uvloop",
        "--host": environment.host.strip("[]"),
        "--port": str(environment.port),
        "--workers": str(environment.web_workers),
        "--backpressure": str(web_limits.CONNECTIONS),
        "--workers-kill-timeout": str(WEB_SECONDS_TO_STOP),
    }
    options = [word for option in web.items() for word in option]
    # Without respawning, one web process that dies would end the server.
    flags = ["--respawn-failed-workers", "--no-ws"]
    # One worker has nobody to gossip or mingle with.
    pool = ["--pool", "threads", "--concurrency", "2", "--without-gossip", "--without-mingle"]
    return {
        "web": [*python, "granian", *options, *flags, "featurehub.rsgi:application"],
        "worker": [*celery, "worker", *pool],
        "beat": [*celery, "beat"],
    }


def _variables_of_children(environment: Environment) -> dict[str, str]:
    """What the children see: reads without a key, where only this machine can ask and nobody said otherwise."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "featurehub.settings"}
    if is_loopback(environment.host) and not variables.get("FEATUREHUB_ANONYMOUS_READS"):
        variables["FEATUREHUB_ANONYMOUS_READS"] = "true"
    return variables


def _prepare(variables: Mapping[str, str]) -> dict[str, str]:
    """Make database, static files, demo data, login and key in a child; gives `user`, `password`, `key`."""
    command = [sys.executable, "-m", "featurehub.preparation"]
    done = subprocess.run(command, env=variables, cwd=PROJECT, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def _keep_redis(home: Path, stopping: threading.Event) -> None:
    """Start the private Redis again whenever it was killed, until `stopping`."""
    told = ""
    wait = SECONDS_TO_FORK
    while not stopping.wait(wait):
        wait = SECONDS_BETWEEN_LOOKS_AT_REDIS
        try:
            private_redis.ensure_started(home)
            told = ""
        except (private_redis.PrivateRedisFailed, OSError) as problem:
            if str(problem) != told:
                _say(str(problem))
            told = str(problem)


def _announce(
    environment: Environment, variables: Mapping[str, str], login: Mapping[str, str], stopping: threading.Event
) -> None:
    """Wait until the hub is healthy, then print where it is and how to get in."""
    waited = 0.0
    stopping.wait(SECONDS_TO_FORK)
    while not stopping.wait(SECONDS_BETWEEN_LOOKS_AT_HEALTH):
        answer = _health(environment)
        if answer == "200" and _our_children_listen_on(environment.port):
            print(_welcome(environment, variables, login), flush=True)
            return
        waited += SECONDS_BETWEEN_LOOKS_AT_HEALTH
        if waited >= SECONDS_UNTIL_A_WORD_ABOUT_HEALTH:
            waited = 0.0
            _say(f"Still waiting for {_base_url(environment)}/health to answer 200; now: {answer}")


def _health(environment: Environment) -> str:
    """The status that /health answers with, or why it does not answer."""
    connection = http.client.HTTPConnection(_reachable_host(environment), environment.port, timeout=5)
    try:
        connection.request("GET", "/health", headers={"Host": f"localhost:{environment.port}"})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as problem:
        return str(problem)
    finally:
        connection.close()


def _our_children_listen_on(port: int) -> bool:
    """True when the answer came from this stack: between the look at the port and now another could have taken it."""
    for child in psutil.Process().children(recursive=True):
        try:
            connections = child.net_connections(kind="tcp")
        except psutil.Error:  # it ended meanwhile
            continue
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections):
            return True
    return False


def _reachable_host(environment: Environment) -> str:
    """HOST as a caller on this machine writes it: a server on every address is on the loopback one too."""
    host = environment.host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  names it, does not bind it


def _base_url(environment: Environment) -> str:
    host = _reachable_host(environment)
    return f"http://{f'[{host}]' if ':' in host else host}:{environment.port}"


def _welcome(environment: Environment, variables: Mapping[str, str], login: Mapping[str, str]) -> str:
    base = _base_url(environment)
    anonymous = variables.get("FEATUREHUB_ANONYMOUS_READS", "").lower() in {"true", "1", "yes", "on"}
    rows = [
        ("Catalog", f"{base}/"),
        ("Admin", f"{base}/admin/   user {login['user']}, password {login['password']} (of this run)"),
        ("API", f"{base}/api/docs/"),
        ("API key", f"{login['key']}   (of this run; reads need {'none here' if anonymous else 'it too'})"),
        ("Try", f"curl -H 'Authorization: Bearer {login['key']}' {base}{DEMO_VECTOR}"),
        ("Stop", "Ctrl-C"),
    ]
    return "\n".join(["", "featurehub is ready.", *(f"  {name + ':':9}{text}" for name, text in rows), ""])


if __name__ == "__main__":
    sys.exit(main())
