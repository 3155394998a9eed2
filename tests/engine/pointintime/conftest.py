"""The point-in-time join on each engine under one name, so that one suite asks all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.pointintime import duckdb
from engine.pointintime.rule import GroupHistory
from tests.engine.pointintime.histories import Histories, spine_of


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A join on Spark takes seconds, so what can hardly differ from its neighbour there is left to the long tests."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        is_alike = (
            params.get("statistics") is False
            or params.get("seed", 0) > 0
            or params.get("known_at") is False
            or params.get("newer_is_written") == "last"
            or params.get("name", "select") != "select"
            or params.get("kind", pa.int8()) != pa.int8()
        )
        if params.get("joined") == "spark" and is_alike:
            item.add_marker(pytest.mark.soak)


@pytest.fixture
def histories(tmp_path: Path) -> Histories:
    return Histories(tmp_path)


@pytest.fixture(params=["duckdb", "spark"])
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., pa.Table]:
    """The join on an engine with its folder set; the spine may be rows. A module may ask for one engine only."""
    join, options = duckdb.join, {"temp_directory": tmp_path / "spill"}
    if request.param == "spark":
        options["session"] = request.getfixturevalue("spark_session")
        from engine.pointintime import spark  # only where pyspark is installed

        join = spark.join

    def run(spine: Any, *groups: GroupHistory, **more: Any) -> pa.Table:
        table = spine_of(*spine) if isinstance(spine, list) else spine
        return join(table, groups, **options, **more)

    return run
