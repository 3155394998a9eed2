"""The way in on a Redis Cluster: rebuilds, losses of one node, slots on their way, erasures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_django import Settings
from redis.crc import key_slot

from catalog import stores
from catalog.models import CatalogState, FeatureGroup
from engine.errors import OnlineStoreCold, Unavailable
from engine.online.codec import OnlineRow, encode_row
from engine.online.store import OnlineStore, row_key
from ingestion import drain, materialize
from ingestion import verify as verifying
from ingestion.erasure import run as erasing
from ingestion.ingest import ingest
from ingestion.push import delete, push
from ingestion.tasks import catch_up
from serving import vectors
from tests.factories import ELEVEN, NOON, make_customer_group, purchase, write_csv
from tests.forgetting import forget
from tests.ingestion.redis_stand_ins import ClusterStub
from tests.ingestion.test_redis_errors import ANSWERS
from tests.redis_cluster import Node, RedisCluster, until

CUSTOMERS = [f"C{number}" for number in range(30)]


@pytest.fixture
def cluster_hub(sources: Path, settings: Settings, redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The hub's online store on the cluster, empty and warm."""
    before, settings.ONLINE_REDIS_URL = settings.ONLINE_REDIS_URL, redis_cluster.url
    forget()
    materialize.ensure_warm()
    yield redis_cluster
    settings.ONLINE_REDIS_URL = before
    forget()


@pytest.fixture
def group(cluster_hub: RedisCluster, sources: Path) -> FeatureGroup:
    """All customers from a file; C2 again, from the log; C5 deleted."""
    group = make_customer_group()
    ingest(group, paths=[write_csv(sources / "a.csv", [purchase(name, total_purchases=7) for name in CUSTOMERS])])
    push(group, [purchase("C2", ELEVEN, total_purchases=20)])
    delete(group, {"customer_id": "C5"}, at=NOON)
    return group


def epoch() -> str:
    return CatalogState.objects.get(pk=1).epoch


def totals(group: FeatureGroup, *customers: str) -> list[object]:
    found = vectors.read(vectors.of_features([f"{group.name}:total_purchases"]), {"customer_id": list(customers)})
    return [row[0] for row in found.values]


def assert_right(group: FeatureGroup) -> None:
    """Every customer is served what was accepted last, and every online row is an accepted one."""
    wanted = dict.fromkeys(CUSTOMERS, 7) | {"C2": 20, "C5": None}
    until(answers_of(group), "the answer of every node")
    assert dict(zip(wanted, totals(group, *wanted), strict=True)) == wanted
    found = verifying.verify(group, patience=0.0)
    assert (found.rows, found.counts) == (len(CUSTOMERS), {})


def answers_of(group: FeatureGroup) -> Callable[[], bool]:
    def is_there() -> bool:
        try:
            totals(group, *CUSTOMERS)
        except OnlineStoreCold:
            raise
        except Unavailable:
            return False
        return True

    return is_there


def holder(cluster: RedisCluster, group: FeatureGroup, customer: str) -> Node:
    key = row_key(stores.online().row_prefix(group.name, group.version), f"s{len(customer)}:{customer}".encode())
    return cluster.owner(key)


def slot_of(customer: str) -> int:
    return key_slot(b"{" + f"s{len(customer)}:{customer}".encode() + b"}")


def test_files_pushes_and_deletions_are_served_and_verified(group: FeatureGroup) -> None:
    assert_right(group)
    drain.drain(group)
    assert_right(group)
    materialize.materialize(group, full=True)
    assert_right(group)
    before = epoch()
    materialize.ensure_warm()
    catch_up()
    assert epoch() == before


@pytest.mark.parametrize("number", range(3))
def test_a_node_that_came_back_without_its_rows_is_cold_until_it_is_filled(
    group: FeatureGroup, cluster_hub: RedisCluster, number: int
) -> None:
    node = cluster_hub.nodes[number]
    hers = next(name for name in CUSTOMERS if holder(cluster_hub, group, name) is node)
    node.kill()
    with pytest.raises(Unavailable, match="does not answer"):
        totals(group, hers)
    node.start(wiped=True)
    until(lambda: is_cold(group, hers), "the answer of the node")
    for _ in range(20):
        with pytest.raises(OnlineStoreCold):
            totals(group, hers)
    assert materialize.is_cold()
    before = epoch()
    materialize.ensure_warm()
    assert epoch() != before
    assert_right(group)


def is_cold(group: FeatureGroup, customer: str) -> bool:
    try:
        totals(group, customer)
    except OnlineStoreCold:
        return True
    except Unavailable:
        return False
    raise AssertionError("a node without its rows has answered for them")


def test_slots_are_moved_without_filling_anything_anew(group: FeatureGroup, cluster_hub: RedisCluster) -> None:
    before = epoch()
    target = cluster_hub.nodes[2]
    moved = [name for name in CUSTOMERS if holder(cluster_hub, group, name) is not target]
    assert len(moved) > 10
    for name in moved[:5]:
        cluster_hub.move(slot_of(name), target)
        assert totals(group, name) == ([20] if name == "C2" else [None] if name == "C5" else [7])
    catch_up()
    assert epoch() == before
    assert_right(group)
    push(group, [purchase(moved[0], NOON, total_purchases=7)])
    drain.drain(group)
    catch_up()
    assert epoch() == before
    assert_right(group)


def test_while_a_slot_is_on_its_way_nothing_is_claimed_and_all_is_served(
    group: FeatureGroup, cluster_hub: RedisCluster
) -> None:
    source = holder(cluster_hub, group, "C1")
    target = next(node for node in cluster_hub.nodes if node is not source)
    cluster_hub.begin_move(slot_of("C1"), target)
    push(group, [purchase("C1", NOON, total_purchases=7)])
    drain.drain(group)
    assert totals(group, "C1", "C2", "C5") == [7, 20, None]
    with pytest.raises(Unavailable, match="are being moved"):
        verifying.verify(group, patience=0.0)
    cluster_hub.move_keys(slot_of("C1"), source, target)
    assert totals(group, "C1", "C2", "C5") == [7, 20, None]
    cluster_hub.end_move(slot_of("C1"), target)
    assert_right(group)


def test_a_node_that_was_started_anew_after_slots_came_to_it_is_filled(
    group: FeatureGroup, cluster_hub: RedisCluster
) -> None:
    materialize.ensure_warm()
    before = epoch()
    target = next(node for node in cluster_hub.nodes if node is not holder(cluster_hub, group, "C1"))
    cluster_hub.move(slot_of("C1"), target)
    target.kill()
    target.start()
    until(answers_of(group), "the answer of every node")
    materialize.ensure_warm()
    assert epoch() != before
    assert_right(group)


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_a_node_answers_is_unavailable_or_cold_and_never_another_error(answer: str) -> None:
    row = (b"fh:a:1:{s2:C1}", encode_row(OnlineRow(1, 2, 3, 4, 1, [])))
    with ClusterStub.on_a_port() as stub, ExitStack() as closing_them:
        stub.answer = ANSWERS[answer]
        store, fresh = OnlineStore(stub.url, "fh"), OnlineStore(stub.url, "fh")
        closing_them.callback(store.close)
        closing_them.callback(fresh.close)
        calls: list[Callable[[], object]] = [
            lambda: store.read([row[0]]),
            lambda: list(store.scan("a", 1)),
            lambda: store.positions([("a", 1), ("b", 1)]),
        ]
        if answer != "NOPERM":  # by which a user without INFO is told
            calls.append(store.servers)
        if answer != "a number":  # which is what an upsert answers
            calls.append(lambda: store.upsert([row]))
        for call in calls:
            with pytest.raises(Unavailable):
                call()
        assert is_none_or_unavailable(store.state)
        stub.forget()
        with pytest.raises(Unavailable):
            fresh.read([row[0]])


def is_none_or_unavailable(call: Callable[[], object]) -> bool:
    try:
        return call() is None
    except Unavailable:
        return True


def test_an_older_version_is_taken_away_from_every_node(group: FeatureGroup) -> None:
    store = stores.online()
    assert sum(map(len, store.scan(group.name, group.version))) == len(CUSTOMERS)
    assert store.remove(group.name, group.version) == len(CUSTOMERS)
    assert list(store.scan(group.name, group.version)) == []
    assert store.positions([(group.name, group.version)]) == [-1]


def test_an_erased_customer_is_gone_from_her_node_and_stays_away(group: FeatureGroup) -> None:
    erasure = erasing.queue(group.entity, "C1", reason="asked for by letter", by="ada")
    erasing.execute(erasure.run)
    keys = {key for page in stores.online().scan(group.name, group.version) for key in page}
    assert len(keys) == len(CUSTOMERS) - 1
    assert not any(b"{s2:C1}" in key for key in keys)
    materialize.rebuild()
    assert {key for page in stores.online().scan(group.name, group.version) for key in page} == keys
