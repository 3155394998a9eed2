"""Other processes on the database and the stores of the test that starts them (which needs `transaction=True`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from tests import databases

PROJECT = Path(__file__).resolve().parent.parent.parent


def environment() -> dict[str, str]:
    """The variables that the settings of such a process read."""
    return os.environ | {
        "DATABASE_URL": databases.url(),
        "FEATUREHUB_OFFLINE_URL": str(settings.FEATUREHUB_OFFLINE_PATH),
        "FEATUREHUB_SOURCE_ROOTS": ",".join(map(str, settings.FEATUREHUB_SOURCE_ROOTS)),
    }


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` to its end, however it ends."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
