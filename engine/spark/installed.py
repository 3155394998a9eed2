"""Whether Spark can be used here; this module alone of the package can be imported where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import shutil

from engine.errors import InvalidInput


def require_spark() -> None:
    """Raises InvalidInput, saying what to install, where pyspark or Java is not."""
    if importlib.util.find_spec("pyspark") is None:
        raise InvalidInput(
            "Spark is not installed here: there is no pyspark. `make spark` installs it (requirements-spark.txt); "
            "without --engine spark the work is done on this machine, with the same result."
        )
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        raise InvalidInput("Spark needs Java 17: there is no `java` on the PATH, and JAVA_HOME is not set.")
