"""What a change and a rebuild are to readers in other processes: visible in their next read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings

from tests import databases
from tests.serving.conftest import Hub
from tests.serving.test_status_effects import feature, group

pytestmark = pytest.mark.database

#: Reads features of C1 through serving.vectors whenever it is asked, and keeps what it knows in between.
READER = """
import json, sys
import django
django.setup()
from engine.errors import FeaturehubError
from serving import vectors
for line in sys.stdin:
    try:
        names, request = json.loads(line)
        found = vectors.read(vectors.of_features(names), {"customer_id": ["C1"]}, request=request)
        answer = {"values": found.json_values()[0], "deprecated": [f.name for f in found.plan.deprecated]}
    except FeaturehubError as error:
        answer = {"code": error.code}
    print(json.dumps(answer), flush=True)
"""


class OtherProcess:
    """A reader in a process of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            cwd=django_settings.BASE_DIR,
        )

    def read(self, *names: str, request: dict[str, list[Any]] | None = None) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([names, request]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def other_process(committed_hub: Hub) -> Iterator[OtherProcess]:
    reader = OtherProcess({"DATABASE_URL": databases.url()})
    yield reader
    reader.close()


def test_a_change_is_seen_by_the_next_read_of_another_process(other_process: OtherProcess) -> None:
    from catalog.lifecycle import change_status
    from catalog.models import FeatureGroup
    from tests.factories import add_feature

    name = "support:tickets"
    assert other_process.read(name) == {"values": [2], "deprecated": []}
    change_status(feature("tickets", "support"), "deprecated")
    assert other_process.read(name) == {"values": [2], "deprecated": ["tickets"]}
    change_status(feature("tickets", "support"), "archived")
    assert other_process.read(name) == {"code": "feature_archived"}
    change_status(feature("tickets", "support"), "active")
    assert other_process.read(name) == {"values": [2], "deprecated": []}
    change_status(group("support"), "archived")
    assert other_process.read(name) == {"code": "feature_archived"}
    change_status(group("support"), "active")
    assert other_process.read("support:newcomer") == {"code": "unknown_name"}
    add_feature(FeatureGroup.objects.get(name="support"), "newcomer", "int64")
    assert other_process.read("support:newcomer") == {"values": [None], "deprecated": []}
    feature("newcomer", "support").delete()
    assert other_process.read("support:newcomer") == {"code": "unknown_name"}


def test_a_changed_expression_is_what_another_process_computes_next(
    other_process: OtherProcess,
) -> None:
    from tests.factories import add_feature

    support = group("support")
    support.request_inputs.create(name="open_hours", dtype="float64")
    add_feature(support, "load", "float64", expression="tickets / open_hours")
    asked = {"open_hours": [4.0]}
    assert other_process.read("support:load", request=asked)["values"] == [0.5]
    load = feature("load", "support")
    load.expression = "tickets * open_hours"
    load.save()
    assert other_process.read("support:load", request=asked)["values"] == [8.0]
    support.request_inputs.update(dtype="int64")  # nothing is told of an update
    support.request_inputs.get().save()
    support.request_inputs.create(name="people", dtype="int64")
    assert other_process.read("support:load", request=asked) == {"code": "invalid_input"}


def test_another_process_is_told_that_the_store_is_cold_and_reads_on_once_it_is_rebuilt(
    other_process: OtherProcess, redis_client: redis.Redis
) -> None:
    from ingestion import materialize

    assert other_process.read("support:tickets")["values"] == [2]
    redis_client.flushall()
    assert other_process.read("support:tickets") == {"code": "online_store_cold"}
    materialize.ensure_warm()
    assert other_process.read("support:tickets")["values"] == [2]


def test_a_rebuilt_store_answers_as_before(committed_hub: Hub, redis_client: redis.Redis) -> None:
    from ingestion import materialize

    before = committed_hub.get("/features/customer/C1").content
    redis_client.flushall()
    assert committed_hub.get("/features/customer/C1").status_code == 503
    materialize.ensure_warm()
    assert committed_hub.get("/features/customer/C1").content == before
