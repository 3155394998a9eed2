"""A PostgreSQL cluster of one test session: in a folder of its own, on a private socket, never on a port.

`python -m tests.postgresql` runs the tests that are marked `database` on one, where PostgreSQL is installed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

#: The variable that sends a test session to PostgreSQL instead of SQLite.
CHOICE = "TESTS_ON"
NOT_INSTALLED = (
    "PostgreSQL is not installed here (no initdb on PATH or in /usr/lib/postgresql/*/bin): "
    "the tests marked `database` run on SQLite only."
)
USER = "featurehub"
SECONDS_TO_START = 30.0
SECONDS_TO_STOP = 30.0


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest where there are several; None when it is not installed.

    Debian keeps them off the PATH.
    """
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(versions, key=lambda folder: float(folder.parent.name), default=None)


class Cluster:
    """One cluster, made by the first `start`; the process that starts it owns it and stops it."""

    def __init__(self) -> None:
        # Not the home of the session, which only this user may enter, and as short as the path of a socket must be.
        self.folder = Path(tempfile.mkdtemp(prefix="fh-pg-", dir="/tmp"))
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = _unprivileged()
        if self._owner:
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)

    def url(self, database: str) -> str:
        """The DATABASE_URL of one database of the cluster."""
        return f"postgres://{USER}@{quote(str(self.folder), safe='')}/{database}"

    @property
    def process_id(self) -> int:
        assert self.process is not None
        return self.process.pid

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection beside Django's, each statement its own transaction."""
        return psycopg.connect(host=str(self.folder), user=USER, dbname="postgres", autocommit=True)

    def start(self) -> None:
        """Start the cluster, after a crash too, and wait until it is the one that answers."""
        if not self._data.exists():
            made = self._run(
                "initdb", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"
            )
            assert made.wait() == 0, self._log.read_text()
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._answers():
            assert time.monotonic() < deadline, self._log.read_text()
            # After a kill it does not start before the last process of the killed one is gone.
            if self.process is None or self.process.poll() is not None:
                self.process = self._run("postgres", *_options(self.folder))
            time.sleep(0.02)

    def stop(self) -> None:
        """End every connection and the cluster."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the postmaster as `kill -9` does; its processes notice and end."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        folder = programs()
        assert folder is not None, NOT_INSTALLED
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(folder / program), "-D", str(self._data), *arguments],
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not reach it before those who still write to it
                **(
                    {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []} if self._owner else {}
                ),
            )

    def _answers(self) -> bool:
        if self.process is None:
            return False
        try:
            with self.connect() as connection:
                row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        except psycopg.OperationalError:
            return False
        assert row is not None
        return str(row[0]).split()[0] == str(self.process.pid)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(SECONDS_TO_STOP)
            self.process = None


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom the cluster runs as: PostgreSQL refuses root. None: the caller."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _options(folder: Path) -> list[str]:
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "unix_socket_permissions": "0700",
        "fsync": "on",  # as in production: what is acknowledged is on the disk
        "max_connections": "50",
        "shared_buffers": "64MB",
    }
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def main(arguments: list[str]) -> int:
    """Run the marked tests; 0 as well where PostgreSQL is missing, which the run on SQLite has said by then."""
    if programs() is None:
        return 0
    os.environ[CHOICE] = "postgresql"
    ended = pytest.main(["-m", "database and not soak", *arguments])
    is_choice_without_marked = bool(arguments) and ended == pytest.ExitCode.NO_TESTS_COLLECTED
    return 0 if is_choice_without_marked else int(ended)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
