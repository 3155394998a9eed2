"""Imports only go down, no file is a grab-bag, and nothing in our code runs what was stored or sent.

Read from the syntax tree, so that an import inside a function counts like any other.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("engine", "catalog", "ingestion", "serving", "featurehub")
SOURCES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))

DJANGO = ("django", "rest_framework", "celery", "django_celery_beat", "simple_history", "unfold")
#: What a package must not import: all that stands above it, and its neighbour on the same floor.
FORBIDDEN = {
    "engine": (*DJANGO, "catalog", "ingestion", "serving", "featurehub"),
    "catalog": ("ingestion", "serving", "featurehub"),
    "ingestion": ("serving", "featurehub"),
    "serving": ("ingestion", "featurehub"),
    "featurehub": (),
}
#: The HTTP client is installed by people who have neither.
FORBIDDEN_IN_CLIENT = (*DJANGO, "redis", "django_redis", "engine", "catalog", "ingestion", "serving")

GRAB_BAGS = {"utils", "util", "helpers", "helper", "common", "services", "base", "misc"}
UNSAFE_MODULES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
UNSAFE_BUILTINS = {"eval", "exec"}
UNSAFE_ATTRIBUTES = {"read_pickle", "to_pickle"}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}


def package_of(path: Path) -> str:
    """The dotted package that relative imports of a file start from."""
    return ".".join(path.relative_to(PROJECT).parent.parts)


def imported(source: str, package: str) -> Iterator[str]:
    """The dotted name of everything that a module of `package` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and type(arg.value) is str)


def name_of(function: ast.expr) -> str:
    """The last name of what is called: `b` of `a.b(...)`."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def below(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def upward(source: str, package: str, forbidden: tuple[str, ...]) -> list[str]:
    return [name for name in imported(source, package) if below(name, forbidden)]


def unsafe(source: str) -> list[str]:
    """What a module imports or calls that would run stored or sent bytes as code."""
    found = [name for name in imported(source, "engine") if below(name, UNSAFE_MODULES)]
    found += [name for name in imported(source, "engine") if name in {f"yaml.{load}" for load in UNSAFE_YAML}]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in UNSAFE_BUILTINS:
            found.append(node.id)
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            found += [f"{owner}.{node.attr}"] * is_unsafe_attribute(owner, node.attr)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
    return found


def is_unsafe_attribute(owner: str, name: str) -> bool:
    return (
        name in UNSAFE_ATTRIBUTES
        or (owner == "yaml" and name in UNSAFE_YAML)
        or (owner == "builtins" and name in UNSAFE_BUILTINS)
    )


def named(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_there_is_code_in_every_package() -> None:
    assert {package_of(path).split(".")[0] for path in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_only_go_down(path: Path) -> None:
    package = package_of(path)
    assert upward(path.read_text(), package, FORBIDDEN[package.split(".")[0]]) == []


def test_the_client_needs_nothing_of_the_server() -> None:
    client = PROJECT / "featurehub" / "client.py"
    if client.exists():
        assert upward(client.read_text(), "featurehub", FORBIDDEN_IN_CLIENT) == []
    assert (PROJECT / "featurehub" / "__init__.py").read_text() == ""


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_nothing_runs_what_was_stored_or_sent(path: Path) -> None:
    assert unsafe(path.read_text()) == []


def test_no_file_is_a_grab_bag() -> None:
    ours = SOURCES + sorted(path for folder in ("tests", "benchmarks") for path in (PROJECT / folder).rglob("*.py"))
    names = {path: {path.stem, *path.relative_to(PROJECT).parent.parts} for path in ours}
    assert [named(path) for path, parts in names.items() if parts & GRAB_BAGS] == []


# The checks above see what they look for.


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("engine", "import django"),
        ("engine", "from django.db import models"),
        ("engine.online", "def read():\n    from catalog import stores"),
        ("engine.online", "from ...catalog import stores"),
        ("catalog", "import ingestion.push as push"),
        ("catalog", "from . import models\nfrom ..serving import plan"),
        ("catalog.models", "import importlib\nimportlib.import_module('featurehub.settings')"),
        ("ingestion", "if True:\n    from serving.plan import Plan"),
        ("ingestion", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import serving"),
        ("serving", "from ingestion import drain"),
        ("serving", "__import__('ingestion')"),
    ],
)
def test_an_import_that_goes_up_is_seen(package: str, source: str) -> None:
    assert len(upward(source, package, FORBIDDEN[package.split(".", maxsplit=1)[0]])) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("engine", "from engine.schema import Field\nimport djangorama"),
        ("catalog", "from engine import schema\nfrom . import models\nfrom .ingestion import x"),
        ("ingestion", "from catalog import stores"),
        ("serving", "from catalog import stores"),
        ("featurehub", "import ingestion, serving"),
    ],
)
def test_an_import_that_goes_down_is_let_through(package: str, source: str) -> None:
    assert upward(source, package, FORBIDDEN[package.split(".", maxsplit=1)[0]]) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from dill import loads",
        "def f():\n    import cloudpickle.cloudpickle",
        "import importlib\nimportlib.import_module('joblib')",
        "eval('1')",
        "f = exec",
        "import builtins\nbuiltins.eval('1')",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load",
        "import pandas as pd\npd.read_pickle(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
    ],
)
def test_what_runs_stored_bytes_is_seen(source: str) -> None:
    assert unsafe(source) != []


@pytest.mark.parametrize(
    "source", ["import yaml\nyaml.safe_load(text)", "series.list.eval(x)", "import json\njson.load(f)"]
)
def test_what_only_looks_like_it_is_let_through(source: str) -> None:
    assert unsafe(source) == []


# Examples in docstrings.

WITH_EXAMPLES = [path for path in SOURCES if ">>>" in path.read_text() and "management" not in path.parts]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=named)
def test_the_examples_in_docstrings_are_true(path: Path) -> None:
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    module = sys.modules.get(name) or importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0, f"{result.failed} examples of {name} are not true; run python -m doctest to see them"


def test_the_examples_of_the_engine_and_of_the_demo_are_among_them() -> None:
    names = {named(path) for path in WITH_EXAMPLES}
    assert {"engine/entity_key.py", "engine/errors.py", "engine/schema.py", "featurehub/demo.py"} <= names
