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


REGISTRY = "^/api/v1/registry"
ALL = "coverage,fuzzing"


def fuzz(server: LiveServer, hub: Hub, folder: Path, *chosen: str, examples: int, phases: str = ALL) -> str:
    """What Schemathesis says at the end; AssertionError with all of it when it found a 5xx."""
    checks = ["--checks", "not_a_server_error", "--phases", phases, "--max-examples", str(examples)]
    how = ["--seed", "7", "--request-timeout", "30", "--no-color", "--suppress-health-check", "all", *chosen]
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
    report = fuzz(live_server, committed_hub, tmp_path, "--exclude-path-regex", REGISTRY, examples=4)
    assert cases(report) > 200


def test_no_request_to_the_registry_is_answered_with_a_server_error(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    """Random bodies alone: one case for each limit of each key of a definition takes minutes."""
    chosen = ["--include-path-regex", REGISTRY]
    assert cases(fuzz(live_server, committed_hub, tmp_path, *chosen, examples=4, phases="fuzzing")) > 100


@pytest.mark.soak
def test_for_minutes_no_request_is_answered_with_a_server_error(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    assert cases(fuzz(live_server, committed_hub, tmp_path, examples=400)) > 5_000
