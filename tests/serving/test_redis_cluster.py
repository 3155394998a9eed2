"""Reading over HTTP from a Redis Cluster: the same answers as from one server, and the same five kinds of no."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings
from redis.crc import key_slot

from tests.forgetting import forget
from tests.redis_cluster import Node, RedisCluster, free_ports, until
from tests.serving.conftest import Hub, open_stores
from tests.serving.test_hot_path import VECTORS, Answer, Whole, ask, environ_of
from tests.serving.test_status_effects import feature

pytestmark = pytest.mark.usefixtures("one_connection")

BUDGET_SECONDS = 0.25
NAMES = ["total", "average", "customer_purchases:segment", "is_member", "last_seen", "taste", "recent", "tickets"]
CUSTOMERS = ["C1", "C2", "C3", "nobody", *(f"other {number}" for number in range(20))]


@pytest.fixture
def cluster_hub(
    made_hub: tuple[Hub, dict[bytes, bytes]], db: None, redis_cluster: RedisCluster, settings: Settings, tmp_path: Path
) -> Iterator[Hub]:
    """The module's hub with its rows on the cluster; its pushes are not drained yet."""
    settings.FEATUREHUB_OFFLINE_PATH = tmp_path / "offline"
    settings.ONLINE_REDIS_URL = redis_cluster.url
    open_stores()
    yield Hub(made_hub[0].key)
    forget()


def read(hub: Hub, *customers: str, **asked: Any) -> Answer:
    """What the short way answers, which asks nobody else."""
    from serving.hot_path import HotPath

    body = {"features": NAMES, "entities": {"customer_id": customers}, **asked}
    django = Whole()
    found = ask(
        HotPath(django), environ_of("POST", VECTORS, json.dumps(body).encode(), authorization=f"Bearer {hub.key}")
    )
    assert django.asked == 0
    return found


def code_of(answer: Answer) -> Any:
    return json.loads(answer.body).get("code")


def holder(cluster: RedisCluster, customer: str) -> Node:
    return cluster.owner(f"{{s{len(customer)}:{customer}}}".encode())


def test_the_answers_are_those_of_one_server(cluster_hub: Hub, settings: Settings, private_redis_url: str) -> None:
    asked = {"include": ["statuses", "event_timestamps"]}
    on_cluster = read(cluster_hub, *CUSTOMERS, **asked)
    settings.ONLINE_REDIS_URL = private_redis_url
    open_stores()
    on_one_server = read(cluster_hub, *CUSTOMERS, **asked)
    assert on_cluster.status == "200 OK"
    assert (on_cluster.status, on_cluster.body) == (on_one_server.status, on_one_server.body)
    assert b"NOT_FOUND" in on_cluster.body
    assert b"OUTSIDE_MAX_AGE" in on_cluster.body


def test_a_warm_request_is_one_command_for_the_entity_and_no_query(
    cluster_hub: Hub, redis_cluster: RedisCluster, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    read(cluster_hub, "C1")
    before = redis_cluster.calls()
    with django_assert_num_queries(0):
        answer = read(cluster_hub, "C1")
    after = redis_cluster.calls()
    assert answer.status == "200 OK"
    made = [now.get("mget", 0) - was.get("mget", 0) for was, now in zip(before, after, strict=True)]
    wanted = [int(node is holder(redis_cluster, "C1")) for node in redis_cluster.nodes]
    assert made == wanted


def test_a_dead_node_is_503_for_its_entities_alone_then_cold_then_all_is_back(
    cluster_hub: Hub, redis_cluster: RedisCluster
) -> None:
    from ingestion import materialize

    state = redis_cluster.owner(b"fh:state")
    node = next(node for node in redis_cluster.nodes if node is not state)
    hers = next(name for name in CUSTOMERS if holder(redis_cluster, name) is node)
    others = next(name for name in CUSTOMERS if holder(redis_cluster, name) is state)
    before = read(cluster_hub, *CUSTOMERS)
    node.kill()
    took = []
    for _ in range(5):
        began = time.monotonic()
        down = read(cluster_hub, hers)
        took.append(time.monotonic() - began)
        assert (down.status[:3], code_of(down), bool(down.headers["Retry-After"])) == ("503", "unavailable", True)
        assert read(cluster_hub, others).status == "200 OK"
    assert median(took) < BUDGET_SECONDS
    node.start(wiped=True)
    seen = set()
    until(lambda: seen.add(code_of(read(cluster_hub, hers))) or "online_store_cold" in seen, "the node")
    assert seen == {"unavailable", "online_store_cold"}
    assert cluster_hub.get("/health").status_code == 503
    materialize.ensure_warm()
    assert read(cluster_hub, *CUSTOMERS).body == before.body
    assert cluster_hub.get("/health").status_code == 200


def test_a_hung_node_is_503_within_the_budget_and_then_at_once(cluster_hub: Hub, redis_cluster: RedisCluster) -> None:
    node = next(node for node in redis_cluster.nodes if node is not redis_cluster.owner(b"fh:state"))
    hers = next(name for name in CUSTOMERS if holder(redis_cluster, name) is node)
    before, took = read(cluster_hub, hers), []
    for _ in range(3):  # and the best round counts: the promise is about our time-outs, not about a busy machine
        took.append(0.0)
        with node.hanging():
            for _ in range(6):
                began = time.monotonic()
                assert (hung := read(cluster_hub, hers)).status[:3] == "503"
                assert hung.headers["Retry-After"]
                took[-1] = max(took[-1], time.monotonic() - began)
        until(lambda: read(cluster_hub, hers).body == before.body, "the node")
    assert min(took) < BUDGET_SECONDS


def test_a_change_of_the_catalog_is_seen_within_100_ms(cluster_hub: Hub, redis_cluster: RedisCluster) -> None:
    from catalog.lifecycle import change_status
    from catalog.models import CatalogState
    from engine.online.store import OnlineStore, State

    read(cluster_hub, "C1")
    other, took = OnlineStore(redis_cluster.url, "fh"), []  # as the process that makes the changes
    for group, name in (("support", "tickets"), ("customer_purchases", "taste"), ("customer_purchases", "recent")):
        change_status(feature(name, group), "deprecated")
        current = CatalogState.current()
        other.publish(State(current.version, current.epoch))
        published = time.monotonic()
        until(lambda of=name: of in deprecated(read(cluster_hub, "C1")), "the change")
        took.append(time.monotonic() - published)
    assert min(took) < 0.1 + 0.05  # the best round counts; and the catalog is read again
    other.close()


def deprecated(answer: Answer) -> str:
    return answer.headers.get("X-FeatureHub-Deprecated", "")


def test_reads_and_pushes_go_on_while_slots_are_moved(cluster_hub: Hub, redis_cluster: RedisCluster) -> None:
    asked = {"include": ["statuses", "event_timestamps"]}
    before = read(cluster_hub, "C1", "C2", "C3", **asked)
    slot = key_slot(b"{s2:C1}")
    source = redis_cluster.owner(slot)
    target = next(node for node in redis_cluster.nodes if node is not source)
    redis_cluster.begin_move(slot, target)
    answers = [read(cluster_hub, "C1", "C2", "C3", **asked)]
    while redis_cluster.move_keys(slot, source, target, at_most=1):
        answers.append(read(cluster_hub, "C1", "C2", "C3", **asked))
    redis_cluster.end_move(slot, target)
    answers.append(read(cluster_hub, "C1", "C2", "C3", **asked))
    assert [(answer.status, answer.body) for answer in answers] == [("200 OK", before.body)] * len(answers)
    assert len(answers) >= 4
    pushed = cluster_hub.post(
        "/api/v1/groups/support/rows",
        {
            "rows": [
                {
                    "customer_id": "C1",
                    "event_timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "tickets": 3,
                    "segment": "x",
                }
            ]
        },
    )
    assert pushed.status_code in (200, 201), pushed.content
    assert json.loads(read(cluster_hub, "C1", features=["tickets"]).body) != json.loads(before.body)


def test_a_cluster_that_is_not_there_at_the_start_is_503(cluster_hub: Hub, settings: Settings) -> None:
    settings.ONLINE_REDIS_URL = f"redis+cluster://127.0.0.1:{free_ports(1)[0]}"
    forget()
    began = time.monotonic()
    answer = read(cluster_hub, "C1")
    assert (answer.status[:3], bool(answer.headers["Retry-After"])) == ("503", True)
    assert time.monotonic() - began < BUDGET_SECONDS + 0.5  # the catalog is read from the database too
