"""Journeys start real processes on a home of their own, as a user would: the embedded stack, from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featurehub.environment import PROJECT

Run = Callable[..., str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    """Runs `python <arguments>` in the project with `home` as its embedded hub's home; gives what it prints."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TZ", "JAVA_HOME")}
    environment = kept | {"FEATUREHUB_HOME": str(home), "PYTHONPATH": str(PROJECT)}

    def python(*arguments: object, code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=PROJECT,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return python
