"""The API against requests that its own document allows, and ones that it does not: each answer is one that it has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer

from tests.serving.conftest import Hub, committed_hub

__all__ = ["committed_hub"]


#: What of the document is held against each answer. That what it allows is taken is not: a schema does not know which
#: groups and features there are.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
    "missing_required_header",
)
#: What may be answered to a request that the document does not allow: 412 too, where the version is compared first.
REFUSALS = [*(400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429), "5xx"]
REGISTRY = "^/api/v1/registry"
ALL = "coverage,fuzzing"
FEW = ("--max-examples", "4")


def fuzz(server: LiveServer, hub: Hub, folder: Path, *chosen: str, phases: str = ALL) -> str:
    """What Schemathesis says at the end; AssertionError with all of it when it found an answer that breaks a check."""
    checks = ["--checks", ",".join(CHECKS), "--continue-on-failure", "--phases", phases]
    how = ["--seed", "7", "--request-timeout", "30", "--no-color", *chosen]
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/api/v1/openapi.json"]
    command += ["--suppress-health-check", "all"]
    (folder / "schemathesis.toml").write_text(f"[checks.negative_data_rejection]\nexpected-statuses = {REFUSALS}\n")
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
    report = fuzz(live_server, committed_hub, tmp_path, *FEW, "--exclude-path-regex", REGISTRY)
    assert cases(report) > 200


def test_no_request_to_the_registry_is_answered_with_a_server_error(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    """Random bodies alone: one case for each limit of each key of a definition takes minutes."""
    chosen = [*FEW, "--include-path-regex", REGISTRY]
    assert cases(fuzz(live_server, committed_hub, tmp_path, *chosen, phases="fuzzing")) > 100


@pytest.mark.soak
def test_for_minutes_no_request_is_answered_with_a_server_error(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    """Five of them, of which the random requests take what is left after one case for each limit of the document."""
    assert cases(fuzz(live_server, committed_hub, tmp_path, "--max-time", "300")) > 1_000
