"""A redis-server of one test that can be taken back to what it held before, as a restored file or a replica does."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import redis

from featurehub import private_redis


class Rewinding:
    """The private server of `home`, whose files can be saved and restored; the caller keeps it running."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = private_redis.url(home)
        self._saved = home / "saved"

    @property
    def process_id(self) -> int:
        found = private_redis.recorded_process_id(self.home)
        assert found is not None
        return found

    def save(self) -> None:
        """Keep what the server holds now."""
        with redis.Redis.from_url(self.url) as client:
            # An append-only file of its own, whole: the running one is written a second late.
            client.bgrewriteaof()
            for _ in range(1_000):
                if not client.info("persistence")["aof_rewrite_in_progress"]:
                    break
                time.sleep(0.01)
            client.config_set("appendfsync", "always")
            client.set("saved", b"1")
        shutil.rmtree(self._saved, ignore_errors=True)
        self._saved.mkdir()
        for file in self._files():
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, self._saved / file.name)

    def go_back(self) -> None:
        """kill -9, and start from what was saved."""
        self.kill()
        for file in self._files():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        for file in self._saved.iterdir():
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, self.home / "redis" / file.name)
        self.start()

    def kill(self) -> None:
        os.kill(self.process_id, signal.SIGKILL)

    def start(self) -> None:
        private_redis.ensure_started(self.home)
        assert private_redis.answering_process_id(self.home) == self.process_id

    def stop(self) -> None:
        os.kill(self.process_id, signal.SIGSTOP)

    def wake(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process_id, signal.SIGCONT)

    def _files(self) -> list[Path]:
        return [path for path in (self.home / "redis").iterdir() if path.name.startswith("appendonly")]
