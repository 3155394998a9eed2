"""A Spark cluster of this test session's own, where pyspark and Java are installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

INSTALLED = importlib.util.find_spec("pyspark") is not None
#: The processes at both ends are small, and nothing but this machine can reach them.
SETTINGS = {
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


def missing() -> str:
    """What is not installed that Spark needs, as a reason to skip; nothing if all is there."""
    if not INSTALLED:
        return "pyspark is not installed: `make spark` installs it"
    return "" if shutil.which("java") else "Spark needs Java 17, which is not on the PATH"


def hide_java(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have this process find no Java, as on a machine without one."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(folder))


def of_commands(folder: Path) -> dict[str, str]:
    """The environment in which a command's own Spark works as such: in its process, by settings in `folder`."""
    defaults = {**SETTINGS, "spark.master": "local[2]", "spark.local.dir": str(folder)}
    (folder / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in defaults.items()))
    return {"SPARK_CONF_DIR": str(folder), "SPARK_LOCAL_IP": "127.0.0.1"}


@contextmanager
def running() -> Iterator[Any]:
    """A session on a cluster of a master and two workers of one core and 1 GB, whose executors are processes."""
    import pyspark
    from py4j.protocol import Py4JNetworkError
    from pyspark.sql import SparkSession

    before = {name: os.environ.get(name) for name in ("SPARK_LOCAL_IP", "PYSPARK_PYTHON")}
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    with tempfile.TemporaryDirectory(prefix="spark-", ignore_cleanup_errors=True) as folder:
        builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("featurehub tests")
        session = builder.config(map={**SETTINGS, "spark.local.dir": folder}).getOrCreate()
        # Such a cluster's workers keep the executors' logs beside the installed package, whatever the settings say.
        logs = Path(pyspark.__file__).parent / "work" / session.sparkContext.applicationId
        try:
            yield session
        finally:
            with suppress(Py4JNetworkError, ConnectionError):  # Java may be gone before it has said that it stops
                session.stop()
            shutil.rmtree(logs)
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def executors() -> list[psutil.Process]:
    """The processes of this session's executors."""
    below = psutil.Process().children(recursive=True)
    words = {process: process.as_dict(["cmdline"], ad_value=[])["cmdline"] for process in below}  # none of a zombie
    return [process for process in below if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in words[process]]
