"""Snippets work when they are pasted: each is run as it stands in the page, against a server of this test."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from pytest_django.live_server_helper import LiveServer

from tests.ingestion.processes import PROJECT, environment
from tests.serving.conftest import NOW, Hub, push_row
from tests.serving.test_feast_client import FEAST, needs_feast
from tests.serving.test_on_request import define

CODE = re.compile(r'<code id="(?:code-)?([a-z]+)">(.*?)</code>', re.DOTALL)

#: An id that a shell, a CSV file, an address and Python each have to spell with care.
NEWEST = """O'Hara, "Zoë" $HOME/~\\&<b>"""

#: Runs texts one after the other, as somebody does who pastes them, and prints what each prints.
RUN_ALL = """
import contextlib, io, json, sys, warnings
warnings.simplefilter("ignore")
for text in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(text, "pasted", "exec"), {"__name__": "__main__"})
    print(json.dumps(said.getvalue()))
"""


def snippets_at(address: str, key: str) -> dict[str, str]:
    """The text of each snippet of a page, by its name."""
    answer = requests.get(address, headers={"Authorization": f"Bearer {key}", "HX-Request": "true"}, timeout=20)
    assert answer.status_code == 200, answer.text
    assert key not in answer.text
    return {name: html.unescape(text) for name, text in CODE.findall(answer.text)}


def run_all(python: Path | str, texts: list[str], env: dict[str, str]) -> list[str]:
    """What each of these texts prints, run in one process."""
    done = subprocess.run(
        [python, "-c", RUN_ALL],
        input=json.dumps(texts),
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def in_shell(text: str, folder: Path, env: dict[str, str]) -> str:
    env = env | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/bash", "-euc", text], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def pages(committed_hub: Hub, live_server: LiveServer) -> dict[str, dict[str, str]]:
    """The snippets of features of several sorts and of several services, with rows in the offline store."""
    from catalog.models import Feature, FeatureService
    from ingestion import drain, push
    from serving import datasets
    from serving.training import Asked

    values = {"total": 4, "total_spent": 100.0, "recent": [1, 2**60], "last_seen": "2026-01-02T03:04:05Z"}
    push_row("customer_purchases", NOW, customer_id=NEWEST, taste=[0.5, -1.0, 0.25], **values)
    push_row("support", NOW, customer_id=NEWEST, tickets=2)
    push_row("shop_ratings", country="Côte d'Ivoire", shop_number=7, rating=4.5)
    push_row("product_stock", product_id=12, stock=3)
    define({"cart_value": "float64", "note": "string"}, {"cart_ratio": ("float64", "cart_value / average")})
    both = FeatureService.objects.create(name="both", version=1)
    for position, (group, name) in enumerate((("support", "tickets"), ("product_stock", "stock"))):
        both.chosen.create(feature=Feature.objects.get(group__name=group, name=name), position=position)
    for group in ("customer_purchases", "support", "shop_ratings", "product_stock"):
        drain.drain(push.find_group(group))
    spine = pa.table({"customer_id": ["C1"], "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC"))})
    assert datasets.execute(datasets.register("may", Asked(service="churn@2"), spine).run).state == "succeeded"
    base, key = f"{live_server.url}/catalog", committed_hub.key
    return {
        "dataset": snippets_at(f"{base}/datasets/may/", key),
        "list": snippets_at(f"{base}/features/customer_purchases/recent/use/", key),
        "computed": snippets_at(f"{base}/features/customer_purchases/cart_ratio/use/", key),
        "composite": snippets_at(f"{base}/features/shop_ratings/rating/use/", key),
        "service": snippets_at(f"{base}/services/churn@2/use/", key),
        "both": snippets_at(f"{base}/services/both@1/use/", key),
    }


def test_every_snippet_reads_the_values_when_it_is_pasted(
    pages: dict[str, dict[str, str]], committed_hub: Hub, tmp_path: Path
) -> None:
    assert {page: list(found) for page, found in pages.items()} == {
        "dataset": ["pandas", "polars", "again"],
        "list": ["curl", "http", "process", "training", "feast"],
        "computed": ["curl", "http", "process", "training"],
        "composite": ["curl", "http", "training"],
        "service": ["curl", "http", "process", "training", "train", "feast"],
        "both": ["curl", "http", "process", "training", "train", "feast"],
    }
    _dataset(pages.pop("dataset"), committed_hub, tmp_path)
    _commands_with_curl(pages, committed_hub, tmp_path)
    _python_over_http(pages, committed_hub)
    _python_in_process(pages)
    _train_command(pages, tmp_path)


def _dataset(page: dict[str, str], hub: Hub, folder: Path) -> None:
    env = {"FEATUREHUB_API_KEY": hub.key, "PATH": os.environ["PATH"]}
    for said in run_all(sys.executable, [page["pandas"], page["polars"]], env):
        assert "C1" in said
        assert "25.0" in said
    (folder / "manage.py").symlink_to(PROJECT / "manage.py")
    assert "1 rows written" in in_shell(page["again"], folder, environment())
    assert pq.read_table(folder / "may.parquet")["average"].to_pylist() == [25.0]


def _commands_with_curl(pages: dict[str, dict[str, str]], hub: Hub, tmp_path: Path) -> None:
    key = {"FEATUREHUB_API_KEY": hub.key}
    found: dict[str, Any] = {page: json.loads(in_shell(of["curl"], tmp_path, key)) for page, of in pages.items()}
    assert found["list"] == {"customer_purchases:recent": [1, 2**60]}
    assert found["composite"] == {"shop_ratings:rating": 4.5}
    assert found["service"] == {"average": 25.0, "total": 4}
    assert found["computed"]["values"] == [[1.5 / 25]]
    assert found["both"]["values"] == [[2, 3]]


def _python_over_http(pages: dict[str, dict[str, str]], hub: Hub) -> None:
    env = {"FEATUREHUB_API_KEY": hub.key, "PATH": os.environ["PATH"]}
    said = dict(zip(pages, run_all(sys.executable, [of["http"] for of in pages.values()], env), strict=True))
    assert said["list"] == f"{{'customer_purchases:recent': [1, {2**60}]}}\n"
    assert said["composite"] == "{'shop_ratings:rating': 4.5}\n"
    assert said["service"] == "{'customer_purchases:average': 25.0, 'customer_purchases:total': 4}\n"
    assert said["computed"] == "{'customer_purchases:cart_ratio': 0.06}\n"
    assert said["both"] == "{'support:tickets': 2, 'product_stock:stock': 3}\n"


def _python_in_process(pages: dict[str, dict[str, str]]) -> None:
    asked = [(page, name) for page, of in pages.items() for name in ("process", "training") if name in of]
    texts = [pages[page][name] for page, name in asked]
    said = dict(zip(asked, run_all(sys.executable, texts, environment()), strict=True))
    assert said["list", "process"] == f"{{'customer_purchases:recent': [1, {2**60}]}}\n"
    assert said["computed", "process"] == "{'customer_purchases:cart_ratio': 0.06}\n"
    assert said["both", "process"] == "{'support:tickets': 2, 'product_stock:stock': 3}\n"
    assert str(2**60) in said["list", "training"]
    assert re.search(r"Côte d'Ivoire .* 4\.5\b", said["composite", "training"])
    assert re.search(r"\b1\.5\b.*\b0\.06\b", said["computed", "training"])
    assert re.search(r"\b2 +3\b", said["both", "training"])


def _train_command(pages: dict[str, dict[str, str]], folder: Path) -> None:
    assert "1 rows written" in in_shell(pages["both"]["train"], folder, environment())
    [row] = pq.read_table(folder / "training.parquet").to_pylist()
    assert (row["customer_id"], row["product_id"], row["tickets"], row["stock"]) == (NEWEST, 12, 2, 3)


@needs_feast
def test_the_snippets_of_feast_print_the_values(pages: dict[str, dict[str, str]], committed_hub: Hub) -> None:
    env = {"FEATUREHUB_API_KEY": committed_hub.key, "PATH": os.environ["PATH"], "FEAST_TELEMETRY": "False"}
    texts = {page: of["feast"] for page, of in pages.items() if "feast" in of}
    said = dict(zip(texts, run_all(FEAST / "bin" / "python", list(texts.values()), env), strict=True))
    assert f"'recent': [[1, {2**60}]]" in said["list"]
    assert "'average': [25.0]" in said["service"]
    assert "'tickets': [2]" in said["both"]
    assert "'stock': [3]" in said["both"]
