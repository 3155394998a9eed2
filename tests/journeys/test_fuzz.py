"""The API against requests that its own OpenAPI document allows, and ones that it does not: no answer is a 5xx."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer

from tests.serving.conftest import Hub, committed_hub

__all__ = ["committed_hub"]


def fuzz(server: LiveServer, hub: Hub, folder: Path, *, examples: int) -> str:
    """What Schemathesis says at the end; AssertionError with all of it when it found a 5xx."""
    checks = ["--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--max-examples", str(examples)]
    how = ["--seed", "7", "--request-timeout", "30", "--no-color", "--suppress-health-check", "all"]
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/api/v1/openapi.json"]
    done = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {hub.key}", *checks, *how],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


def cases(report: str) -> int:
    found = re.search(r"(\d+) generated", report)
    assert found, report
    return int(found[1])


def test_no_request_is_answered_with_a_server_error(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    assert cases(fuzz(live_server, committed_hub, tmp_path, examples=4)) > 200


@pytest.mark.soak
def test_for_minutes_no_request_is_answered_with_a_server_error(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    assert cases(fuzz(live_server, committed_hub, tmp_path, examples=400)) > 5_000
