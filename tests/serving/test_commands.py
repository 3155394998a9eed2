"""`manage.py vector` and `manage.py train`: what they print for people and programs, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from django.conf import settings as django_settings
from django.core.management import call_command

from tests.serving.conftest import YESTERDAY, Hub


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit code of a command and what it wrote on its two streams."""
    out, err, code = StringIO(), StringIO(), 0
    try:
        call_command(*arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    return code, out.getvalue(), err.getvalue()


def test_a_vector_is_shown_a_line_per_feature_with_status_and_time(hub: Hub) -> None:
    code, out, err = run("vector", "customer", "C1", "--features", "average,tickets")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    day = YESTERDAY.isoformat().replace("+00:00", "Z")
    assert lines == [["average", "25.0", "PRESENT", day], ["tickets", "2", "PRESENT", day]]


def test_a_missing_value_is_shown_as_a_dash(hub: Hub) -> None:
    _, out, _ = run("vector", "customer", "C2", "--features", "total,tickets")
    assert [line.split()[1:3] for line in out.splitlines()] == [["-", "NULL_VALUE"], ["-", "NOT_FOUND"]]
    assert out.splitlines()[1].endswith("  -")


def test_json_is_the_flat_object_of_the_http_answer(hub: Hub) -> None:
    for arguments, query in (
        ([], ""),
        (["--service", "churn"], "?feature_service=churn"),
        (["--features", "taste,recent"], "?features=taste,recent"),
    ):
        code, out, _ = run("vector", "customer", "C1", "--json", *arguments)
        answer = json.loads(hub.get(f"/features/customer/C1{query}").content)
        assert (code, list(json.loads(out).items())) == (0, list(answer.items()))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["customer", "nobody"], "entity_not_found", "no row of this customer"),
        (["custmer", "C1"], "not_found", "customer"),
        (["customer", "C1", "--features", "totl"], "unknown_name", "Did you mean total"),
        (["customer", "C1", "--service", "chrn"], "unknown_name", "churn"),
        (["product", "007"], "invalid_input", "not 007"),
    ],
)
def test_what_cannot_be_read_ends_with_1_and_says_why(hub: Hub, arguments: list[str], code: str, told: str) -> None:
    exit_code, out, err = run("vector", *arguments)
    assert (exit_code, out) == (1, "")
    assert told in err
    exit_code, out, err = run("vector", *arguments, "--json")
    assert exit_code == 1
    assert json.loads(out)["code"] == code


def test_a_cold_store_ends_with_1(hub: Hub, redis_client: redis.Redis) -> None:
    redis_client.flushall()
    code, out, _ = run("vector", "customer", "C1", "--json")
    assert (code, json.loads(out)["code"]) == (1, "online_store_cold")


@pytest.fixture
def spine(tmp_path: Path) -> Path:
    path = tmp_path / "spine.csv"
    path.write_text(f"customer_id,at\nC1,{YESTERDAY.isoformat()}\nnobody,{YESTERDAY.isoformat()}\n")
    return path


def test_a_dataset_is_written_and_its_rows_are_counted(hub: Hub, spine: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    arguments = ["train", "churn", "--spine", str(spine), "--out", str(target), "--timestamp", "at", "--statuses"]
    assert run(*arguments) == (0, f"2 rows written to {target}\n", "")
    written = pq.read_table(target)
    assert written.column_names == ["customer_id", "at", "average", "total", "average__status", "total__status"]
    assert written["total"].to_pylist() == [4, None]
    assert written["total__status"].to_pylist() == ["PRESENT", "NOT_FOUND"]
    code, out, _ = run(*arguments, "--json")
    assert (code, json.loads(out)) == (0, {"rows": 2, "path": str(target)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"service": "chrn"}, ("unknown_name", "churn")),
        ({"spine": "nowhere.csv"}, ("invalid_spine", "nowhere.csv")),
        ({"timestamp": "when"}, ("invalid_spine", "when")),
        ({"out": "/nowhere/out.parquet"}, ("invalid_input", "no folder /nowhere")),
    ],
)
def test_a_dataset_that_cannot_be_built_ends_with_1_and_leaves_no_file(
    hub: Hub, spine: Path, tmp_path: Path, change: dict[str, str], problem: tuple[str, str]
) -> None:
    code, told = problem
    asked: dict[str, Any] = {"service": "churn", "spine": str(spine), "out": str(tmp_path / "o.parquet")} | change
    arguments = ["train", asked["service"], "--spine", asked["spine"], "--out", asked["out"]]
    arguments += ["--timestamp", asked.get("timestamp", "at")]
    exit_code, _, err = run(*arguments)
    assert (exit_code, told in err) == (1, True), err
    exit_code, out, _ = run(*arguments, "--json")
    assert (exit_code, json.loads(out)["code"]) == (1, code)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["spine.csv"]


@pytest.mark.parametrize(
    "arguments", [["vector", "customer"], ["vector", "c", "1", "--features", "a", "--service", "s"], ["train", "churn"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=django_settings.BASE_DIR,
        env=os.environ | {"FEATUREHUB_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "usage:" in done.stderr
