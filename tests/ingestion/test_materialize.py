"""The online store follows the offline one: the same values, from a cursor, and again from nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from django.db import connection
from django.test import Client

from catalog import access
from catalog.models import CatalogState, FeatureGroup
from engine import faults
from engine.errors import CorruptData, OnlineStoreCold, Unavailable
from engine.offline.table import OfflineTable
from ingestion import drain, materialize
from ingestion.ingest import ingest
from ingestion.push import push
from ingestion.tasks import catch_up
from serving import vectors
from tests.factories import ELEVEN, NOON, TEN, add_feature, make_customer_group, purchase, write_csv, write_parquet
from tests.ingestion import contents
from tests.ingestion.workers import failing_at

Down = Callable[[], AbstractContextManager[None]]
AT_TEN, AT_ELEVEN = datetime(2024, 11, 1, 10, tzinfo=UTC), datetime(2024, 11, 1, 11, tzinfo=UTC)


def served(group: FeatureGroup, keys: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """What a reader gets for each entity, by feature name."""
    names = [feature.name for feature in group.features.all()]
    found = vectors.read(vectors.of_features([f"{group.name}:{name}" for name in names]), keys)
    return [dict(zip(names, row, strict=True)) for row in found.python_values()]


def assert_both_stores_agree(group: FeatureGroup, keys: list[str]) -> None:
    """Every feature of every entity online is that of its newest offline row."""
    newest = {tuple(row[key] for key in keys): row for row in contents.offline(group)}  # rows come in version order
    assert newest
    online = served(group, {key: [entity[at] for entity in newest] for at, key in enumerate(keys)})
    names = [feature.name for feature in group.features.all()]
    assert online == [{name: row[name] for name in names} for row in newest.values()]
    assert len(contents.online(group)) == len(newest)


EVERY_DTYPE: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "whole": ("int64", pa.int64(), [2**63 - 1, -(2**63), None]),
    "part": ("float64", pa.float64(), [0.1, -5e-324, None]),
    "flag": ("bool", pa.bool_(), [True, False, None]),
    "word": ("string", pa.string(), ["", "naïve 🦊", None]),
    "moment": ("timestamp", pa.timestamp("us", "UTC"), [datetime(1, 1, 1, tzinfo=UTC), AT_TEN, None]),
    "vector": ("embedding(2)", pa.list_(pa.float32()), [[0.1, -0.0], [3.4e38, 1.0], None]),
    "wholes": ("list<int64>", pa.list_(pa.int64()), [[2**63 - 1], [], None]),
    "parts": ("list<float64>", pa.list_(pa.float64()), [[0.1, 0.2], [], None]),
    "words": ("list<string>", pa.list_(pa.string()), [["a", ""], [], None]),
}


def test_a_value_of_every_dtype_is_the_same_in_the_file_offline_and_online(sources: Path) -> None:
    group = make_customer_group(features={name: dtype for name, (dtype, _, _) in EVERY_DTYPE.items()})
    columns = {name: pa.array(values, arrow) for name, (_, arrow, values) in EVERY_DTYPE.items()}
    table = pa.table({"customer_id": ["C1", "C2", "C3"], "purchased_at": [AT_TEN] * 3, **columns})
    run = ingest(group, paths=[write_parquet(sources / "a.parquet", table)])
    assert (run.rows_accepted, run.rows_quarantined) == (3, 0)
    given = [{name: row[name] for name in EVERY_DTYPE} for row in table.to_pylist()]
    assert served(group, {"customer_id": ["C1", "C2", "C3"]}) == given
    assert [{name: row[name] for name in EVERY_DTYPE} for row in contents.offline(group)] == given


def test_a_pushed_row_and_a_row_of_a_file_compute_the_same(sources: Path) -> None:
    """1/3, 2/3, ...: whatever way a row takes, both stores hold the same float to its last bit."""
    by_file, by_push = make_customer_group("by_file"), make_customer_group("by_push")
    rows = [purchase(f"C{n}", total_spent=n / 7, total_purchases=n % 4) for n in range(40)]
    ingest(by_file, paths=[write_csv(sources / "a.csv", rows)])
    push(by_push, rows)
    assert contents.online(by_push) == contents.online(by_file)
    drain.drain(by_push)
    for group in (by_file, by_push):
        assert_both_stores_agree(group, ["customer_id"])


def test_composite_and_int64_keys_name_one_entity_in_both_stores(sources: Path) -> None:
    group = make_customer_group(keys={"customer_id": "string", "shop": "int64"}, features={"total": "int64"})
    rows = [
        {"customer_id": customer, "shop": shop, "purchased_at": at, "total": total}
        for customer, shop, at, total in [
            ("C1", 1, TEN, 1),
            ("C1", 1, ELEVEN, 2),
            ("C1", 11, TEN, 3),
            ("C11", 1, TEN, 4),
            ("C1", -(2**63), TEN, 5),
            ("", 2**63 - 1, TEN, 6),
        ]
    ]
    ingest(group, paths=[write_parquet(sources / "a.parquet", rows)])
    assert {key: row["total"] for key, row in contents.online(group).items()} == {
        "s2:C1i1:1": 2,
        "s2:C1i2:11": 3,
        "s3:C11i1:1": 4,
        "s2:C1i20:-9223372036854775808": 5,
        "s0:i19:9223372036854775807": 6,
    }
    assert_both_stores_agree(group, ["customer_id", "shop"])


def test_int64_text_of_a_csv_names_the_same_entity_as_a_pushed_integer(sources: Path) -> None:
    group = make_customer_group(keys={"customer_id": "int64"}, features={"total": "int64"})
    path = write_csv(sources / "a.csv", [{"customer_id": "7", "purchased_at": TEN, "total": 1}])
    ingest(group, paths=[path])
    push(group, [{"customer_id": 7, "purchased_at": ELEVEN, "total": 2}])
    assert contents.online(group) == {"i1:7": {"total": 2}}


# -- The cursor.


def test_materializing_reads_only_what_arrived_since(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    ingest(group)
    assert materialize.materialize(group) == 0
    write_csv(sources / "b.csv", [purchase("C3")])
    ingest(group)
    assert group.online_cursors.get().delta_version == 2
    assert materialize.materialize(group) == 0
    group.online_cursors.update(delta_version=1)
    contents.forget_online(group)
    assert materialize.materialize(group) == 1
    assert sorted(contents.online(group)) == ["s2:C3"]
    assert materialize.materialize(group, full=True) == 3
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C2", "s2:C3"]


def test_a_group_without_rows_materializes_nothing(sources: Path) -> None:
    assert materialize.materialize(make_customer_group()) == 0
    assert materialize.materialize(make_customer_group("other"), full=True) == 0


def test_a_cursor_never_moves_back(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    cursor = group.online_cursors.get()
    cursor.advance(0)
    cursor.refresh_from_db()
    assert cursor.delta_version == 1


def test_progress_counts_the_rows_of_a_full_materialize(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2")])
    ingest(group)
    seen: list[int] = []
    materialize.materialize(group, full=True, progress=seen.append)
    assert seen == [2]


def test_a_damaged_offline_file_is_named_and_the_cursor_stays(sources: Path, redis_down: Down) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase(f"C{n}") for n in range(100)])
    with redis_down():
        ingest(group)
    damage(group)
    with pytest.raises(CorruptData, match="is damaged"):
        materialize.materialize(group)
    assert group.online_cursors.get().delta_version == -1


def damage(group: FeatureGroup) -> None:
    (path,) = contents.folder(group).glob("*.parquet")
    spoiled = bytearray(path.read_bytes())
    spoiled[100] ^= 0xFF
    path.write_bytes(spoiled)


# -- Redis down.


def test_with_redis_down_a_run_lands_offline_says_so_and_catching_up_brings_it_online(
    sources: Path, redis_down: Down
) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    with redis_down():
        run = ingest(group)
        assert (run.state, run.rows_accepted) == ("succeeded", 1)
        assert run.message == "Committed offline; the online store follows when Redis is back."
        assert len(contents.offline(group)) == 1
        catch_up()  # still down: nothing breaks
    assert contents.online(group) == {}
    catch_up()
    assert_both_stores_agree(group, ["customer_id"])


def test_one_damaged_group_does_not_keep_the_others_from_catching_up(sources: Path, redis_down: Down) -> None:
    groups = [make_customer_group(name, source=f"{name}.csv") for name in ("a", "b", "c")]
    with redis_down():
        for group in groups:
            ingest(group, paths=[write_csv(sources / f"{group.name}.csv", [purchase(group.name)])])
            push(group, [purchase("pushed")])
    damage(groups[1])
    catch_up()
    assert [sorted(contents.online(group)) for group in (groups[0], groups[2])] == [
        ["s1:a", "s6:pushed"],
        ["s1:c", "s6:pushed"],
    ]


# -- Cold, and filled again.


def test_a_wiped_store_answers_cold_until_it_is_rebuilt_as_it_was(sources: Path, redis_clean: redis.Redis) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1"), purchase("C2", ELEVEN)])
    ingest(group)
    push(group, [purchase("C2", NOON), purchase("C3")])  # still in the log only
    before = contents.online_rows(group)
    redis_clean.flushall()
    with pytest.raises(OnlineStoreCold):
        served(group, {"customer_id": ["C1"]})
    assert materialize.is_cold()
    materialize.ensure_warm()
    assert contents.online_rows(group) == before
    assert served(group, {"customer_id": ["C3"]})[0]["total_purchases"] == 4
    epoch = CatalogState.current().epoch
    materialize.ensure_warm()  # nothing to do
    assert CatalogState.current().epoch == epoch


def test_a_cold_store_is_503_over_http_and_never_an_unknown_entity(sources: Path, redis_clean: redis.Redis) -> None:
    make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1")])
    ingest(FeatureGroup.objects.get())
    _, key = access.create_key(name="reader", scopes=["read"])
    client = Client(headers={"Authorization": f"Bearer {key}"})
    assert client.get("/features/customer/C1?features=total_purchases").json() == {"total_purchases": 4}
    redis_clean.flushall()
    answer = client.get("/features/customer/C1?features=total_purchases")
    assert (answer.status_code, answer.json()["code"]) == (503, "online_store_cold")
    assert "Retry-After" in answer.headers
    catch_up()
    assert client.get("/features/customer/C1?features=total_purchases").status_code == 200


def test_a_store_of_another_epoch_is_cold(sources: Path) -> None:
    """As a Redis restored from an old backup is."""
    CatalogState.objects.update(epoch="another")
    assert materialize.is_cold()
    with pytest.raises(OnlineStoreCold, match="old contents"):
        served(make_customer_group(features={"total": "int64"}), {"customer_id": ["C1"]})


@pytest.mark.parametrize("point", [point for point in faults.POINTS if point.startswith("rebuild.")])
def test_a_rebuild_that_is_cut_off_leaves_the_store_closed_to_those_who_know_it(sources: Path, point: str) -> None:
    """Else they went on reading by an old catalog: a state of an old epoch is told of no change."""
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("C1")])
    ingest(group)
    before = served(group, {"customer_id": ["C1"]})
    with failing_at(point), pytest.raises(faults.Fault):
        materialize.rebuild()
    with pytest.raises(OnlineStoreCold):
        served(group, {"customer_id": ["C1"]})
    materialize.ensure_warm()
    assert served(group, {"customer_id": ["C1"]}) == before


def test_a_store_wiped_during_its_rebuild_stays_cold(sources: Path, redis_clean: redis.Redis) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    redis_clean.flushall()
    with pytest.raises(Unavailable):
        materialize.rebuild(progress=lambda *_: redis_clean.flushall())
    assert materialize.is_cold()
    materialize.ensure_warm()
    assert_both_stores_agree(group, ["customer_id"])


def test_a_second_rebuild_leaves_the_first_alone(sources: Path, redis_clean: redis.Redis) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    redis_clean.flushall()
    seen: list[bool] = []
    assert materialize.rebuild(progress=lambda *_: seen.append(materialize.rebuild()))
    assert seen == [False]
    assert not materialize.is_cold()


def test_rows_pushed_while_redis_was_down_are_online_after_a_rebuild(sources: Path, redis_down: Down) -> None:
    group = make_customer_group()
    with redis_down():
        assert push(group, [purchase()]).online == "pending"
    materialize.rebuild()
    assert sorted(contents.online(group)) == ["s2:C1"]


def test_a_long_log_is_read_some_batches_at_a_time(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows, and by batches: a batch may hold one row or thousands."""
    group = make_customer_group()
    monkeypatch.setattr(materialize, "LOG_ROWS", 4)
    monkeypatch.setattr(materialize, "LOG_BATCHES", 3)
    for number, size in enumerate([1, 1, 1, 1, 3, 5, 2]):
        push(group, [purchase(f"C{number}-{n}") for n in range(size)])
    assert [frame.height for frame in materialize.frames_of_log(group)] == [3, 4, 5, 2]
    before = contents.online_rows(group)
    contents.forget_online(group)
    materialize.rebuild()
    assert contents.online_rows(group) == before
    assert len(before) == 14


@pytest.mark.django_db(transaction=True)
def test_pushes_go_on_during_a_rebuild_and_none_is_lost(sources: Path, redis_clean: redis.Redis) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase(f"C{n % 50}", TEN, total_purchases=n) for n in range(500)])
    ingest(group)
    ready, stop = threading.Event(), threading.Event()
    pushed: list[int] = []

    def keep_pushing() -> None:
        while not stop.is_set() or len(pushed) < 5:
            n = len(pushed)
            push(group, [purchase(f"C{n % 50}", ELEVEN, total_purchases=1000 + n), purchase(f"P{n}", TEN)])
            pushed.append(n)
            ready.set()
        connection.close()

    pusher = threading.Thread(target=keep_pushing)
    pusher.start()
    ready.wait(10)
    redis_clean.flushall()
    materialize.rebuild()
    stop.set()
    pusher.join()
    assert len(pushed) >= 5
    drain.drain(group)
    assert_both_stores_agree(group, ["customer_id"])
    assert len(contents.online(group)) == 50 + len(pushed)


def test_rows_of_a_schema_that_the_catalog_lacks_are_an_error_by_name(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    group.schemas.all().delete()
    with pytest.raises(CorruptData, match="Offline rows of customer_purchases name schema 1"):
        materialize.materialize(group, full=True)


# -- Schemas.


def test_a_new_feature_is_a_new_schema_and_older_rows_do_not_have_it(sources: Path) -> None:
    group = make_customer_group(features={"total": "int64"}, source="*.csv")
    write_csv(sources / "a.csv", [{"customer_id": f"C{n}", "purchased_at": TEN, "total": n} for n in (1, 2)])
    ingest(group)
    add_feature(group, "visits", "int64")
    write_csv(sources / "b.csv", [{"customer_id": "C2", "purchased_at": ELEVEN, "total": 2, "visits": None}])
    ingest(group)
    assert [(row["customer_id"], row["_schema"], row["visits"]) for row in contents.offline(group)] == [
        ("C1", 1, None),
        ("C2", 1, None),
        ("C2", 2, None),
    ]
    make_plan = vectors.of_features([f"{group.name}:total", f"{group.name}:visits"])
    for _ in range(2):
        found = vectors.read(make_plan, {"customer_id": ["C1", "C2"]})
        assert [*found.statuses] == [("PRESENT", "NOT_FOUND"), ("PRESENT", "NULL_VALUE")]
        materialize.materialize(group, full=True)
    table = OfflineTable(contents.folder(group)).open()
    assert table is not None
    assert "visits" in {field.name for field in table.schema().fields}
