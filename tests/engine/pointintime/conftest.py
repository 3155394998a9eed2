"""The point-in-time join on each engine under one name, so that one suite asks all of them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.pointintime import duckdb
from engine.pointintime.rule import GroupHistory
from tests.engine.pointintime.histories import Histories, spine_of

NO_PYSPARK = "pyspark is not installed: `make spark` installs it"
NO_JAVA = "Spark needs Java 17, which is not on the PATH"


@pytest.fixture
def histories(tmp_path: Path) -> Histories:
    return Histories(tmp_path)


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A session on a cluster of a master and two workers of one core and 1 GB, whose executors are processes."""
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip(NO_PYSPARK)
    if shutil.which("java") is None:
        pytest.skip(NO_JAVA)
    from pyspark.sql import SparkSession

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.executor.memory": "700m",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "America/St_Johns",  # an instant is one wherever the cluster stands
    }
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("featurehub tests")
    session = builder.config(map=settings).getOrCreate()
    yield session
    session.stop()
    del os.environ["SPARK_LOCAL_IP"], os.environ["PYSPARK_PYTHON"]


@pytest.fixture(params=["duckdb", "spark"])
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., pa.Table]:
    """The join on an engine with its folder set; the spine may be rows. A module may ask for one engine only."""
    join, options = duckdb.join, {"temp_directory": tmp_path / "spill"}
    if request.param == "spark":
        options["session"] = request.getfixturevalue("spark")
        from engine.pointintime import spark  # only where pyspark is installed

        join = spark.join

    def run(spine: Any, *groups: GroupHistory, **more: Any) -> pa.Table:
        table = spine_of(*spine) if isinstance(spine, list) else spine
        return join(table, groups, **options, **more)

    return run
