"""Many rows in one request: as JSON or as an Arrow stream, all or nothing or the bad ones kept, under one schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import access, stores
from catalog.models import Acceptance, FeatureGroup, Run
from catalog.models.group import StoredSchema
from engine.errors import Conflict, InvalidInput, InvalidRows, SchemaMoved
from ingestion import drain, push_rows
from ingestion.models import PushBatch
from ingestion.push import ATTEMPTS, Pushed, push
from ingestion.push_bodies import ARROW, rows_of_arrow
from ingestion.push_rows import rows_of
from tests.factories import ELEVEN, add_feature, make_customer_group, purchase
from tests.ingestion import contents

ROWS = "/api/v1/groups/customer_purchases/rows"


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


@pytest.fixture
def client() -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


def send(client: Client, *rows: dict[str, Any], query: str = "") -> Any:
    return client.post(ROWS + query, {"rows": list(rows)}, content_type="application/json")


def nothing_was_kept(group: FeatureGroup) -> bool:
    return not (PushBatch.objects.exists() or Acceptance.objects.exists() or contents.online(group))


@pytest.mark.parametrize("slash", ["", "/"])
def test_rows_over_http_are_online_with_their_answer(group: FeatureGroup, client: Client, slash: str) -> None:
    rows = [purchase("C1"), purchase("C2")]
    answer = client.post(ROWS + slash, {"rows": rows}, content_type="application/json")
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "quarantined": 0, "online": "applied"})
    assert client.get("/features/customer/C2?features=avg_purchase_value").json() == {"avg_purchase_value": 25.0}
    assert PushBatch.objects.get().pushed_by == "writer"


def test_by_default_one_bad_row_refuses_all(group: FeatureGroup, client: Client) -> None:
    answer = send(client, purchase("C1"), purchase("C2", total_purchases=1.5))
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/rows/1/total_purchases"]
    assert nothing_was_kept(group)


def test_a_key_that_only_reads_pushes_nothing(group: FeatureGroup) -> None:
    _, key = access.create_key(name="reader", scopes=["read"])
    reader = Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)
    assert send(reader, purchase()).status_code == 403
    assert reader.delete(f"{ROWS}/C1").status_code == 403
    assert reader.post("/feast/push", "{}", content_type="application/json").status_code == 403
    assert Client(raise_request_exception=False).post(ROWS, "{}", content_type="application/json").status_code == 401


# -- Keeping the bad rows.


def test_with_quarantine_the_good_rows_land_and_the_bad_ones_are_kept(group: FeatureGroup, client: Client) -> None:
    bad = [purchase("C2", total_purchases=2**70), purchase("C3", customer_segment="golden")]
    answer = send(client, purchase("C1"), *bad, purchase("C4"), query="?on_error=quarantine")
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "quarantined": 2, "online": "applied"})
    assert sorted(contents.online(group)) == ["s2:C1", "s2:C4"]
    run, batch = Run.objects.get(), PushBatch.objects.get()
    assert (run.kind, run.state, run.rows_read, run.rows_accepted, run.rows_quarantined, run.requested_by) == (
        "push",
        "succeeded",
        4,
        2,
        2,
        "writer",
    )
    assert run.acceptance_id == batch.acceptance_id  # what is replayed later keeps its place in the version order
    assert [row["_ordinal"] for row in rows_of(batch).to_dicts()] == [0, 3]
    assert [(rule.column, rule.rule, rule.row_count) for rule in run.quarantined.all()] == [
        ("customer_segment", "allowed_values", 1),
        ("total_purchases", "type", 1),
    ]
    kept = pl.read_parquet(stores.quarantine_folder(group.name) / f"{run.id}.parquet").sort("row").to_dicts()
    assert [row["row"] for row in kept] == [1, 2]
    assert f'"total_purchases":{2**70}' in kept[0]["payload"]


def test_without_a_bad_row_there_is_no_run(group: FeatureGroup, client: Client) -> None:
    assert send(client, purchase(), query="?on_error=quarantine").json()["quarantined"] == 0
    assert not Run.objects.exists()


def test_a_push_of_bad_rows_only_keeps_them_all(group: FeatureGroup, client: Client) -> None:
    answer = send(client, purchase(total_purchases=-1), query="?on_error=quarantine")
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "quarantined": 1, "online": "applied"})
    assert (PushBatch.objects.count(), Run.objects.get().rows_quarantined) == (0, 1)
    assert drain.drain(group) == 0


def test_a_row_that_breaks_several_rules_is_one_row(group: FeatureGroup) -> None:
    bad = purchase(total_purchases=-1, customer_segment="golden")
    assert push(group, [bad], on_error="quarantine") == Pushed(0, "applied", 1)


def test_an_unknown_column_refuses_all_since_it_may_be_what_the_sender_calls_another(
    group: FeatureGroup, client: Client
) -> None:
    answer = send(client, purchase("C1"), purchase("C2", total=1), query="?on_error=quarantine")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/rows/1/total")
    assert nothing_was_kept(group)
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    "query", ["?on_error=skip", "?on_error=", "?onerror=reject", "?on_error=reject&on_error=reject"]
)
def test_an_unknown_parameter_is_400(group: FeatureGroup, client: Client, query: str) -> None:
    assert send(client, purchase(), query=query).status_code == 400
    assert nothing_was_kept(group)


def test_payloads_of_rows_that_are_refused_after_all_do_not_stay(group: FeatureGroup) -> None:
    def archive(*_: object) -> None:
        FeatureGroup.objects.update(status="archived")

    with pytest.raises(Conflict, match="archived"), changing(archive):
        push(group, [purchase(), purchase(total_purchases=-1)], on_error="quarantine")
    assert list(stores.quarantine_folder(group.name).glob("*")) == []
    assert nothing_was_kept(group)
    assert not Run.objects.exists()


# -- A catalog that changes meanwhile.


@contextmanager
def changing(change: Callable[[int], None]) -> Iterator[None]:
    """Call `change` with 1, 2, ... each time that rows have been computed, before they are logged."""
    computing, times = push_rows.compute, iter(range(1, 100))

    def compute(*args: Any, **options: Any) -> Any:
        computed = computing(*args, **options)
        change(next(times))
        return computed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push_rows, "compute", compute)  # no other process can be made to hit this gap each time
        yield


def test_rows_are_computed_again_when_the_group_got_a_feature_meanwhile(group: FeatureGroup) -> None:
    def change(time: int) -> None:
        if time == 1:
            add_feature(group, "doubled", "int64", expression="total_purchases * 2")

    with changing(change):
        push(group, [purchase()])
    (logged,) = rows_of(PushBatch.objects.get()).to_dicts()
    assert (logged["doubled"], logged["_schema"]) == (8, StoredSchema.objects.count())


def test_a_rule_that_came_meanwhile_is_kept(group: FeatureGroup) -> None:
    def change(time: int) -> None:
        group.features.filter(name="total_purchases").update(validation={"max_value": 3})

    with changing(change), pytest.raises(InvalidRows, match="takes none"):
        push(group, [purchase(total_purchases=4)])
    assert nothing_was_kept(group)


def test_rows_go_to_the_version_that_the_group_has_when_they_are_logged(group: FeatureGroup) -> None:
    def change(time: int) -> None:
        FeatureGroup.objects.filter(pk=group.pk, version=1).update(version=2)

    with changing(change):
        push(group, [purchase()])
    group.refresh_from_db()
    assert (PushBatch.objects.get().group_version, sorted(contents.online(group))) == (2, ["s2:C1"])


def test_a_group_that_keeps_changing_is_a_conflict_that_may_be_retried(group: FeatureGroup) -> None:
    seen: list[int] = []

    def change(time: int) -> None:
        seen.append(time)
        add_feature(group, f"more_{time}", "int64")

    with changing(change), pytest.raises(SchemaMoved, match=f"changed {ATTEMPTS} times") as moved:
        push(group, [purchase()])
    assert (seen, moved.value.status, moved.value.retryable) == ([1, 2, 3], 409, True)
    assert nothing_was_kept(group)


# -- Arrow.

AT = pa.array([datetime(2024, 11, 1, 10, tzinfo=UTC), datetime(2024, 11, 1, 11, tzinfo=UTC)])


def table(**changes: pa.Array) -> pa.Table:
    columns: dict[str, Any] = {
        "customer_id": ["C1", "C2"],
        "purchased_at": AT,
        "total_spent": [100.0, None],
        "total_purchases": [4, 2],
        "customer_segment": ["gold", "silver"],
    }
    return pa.table(columns | changes)


def stream(rows: pa.Table, *, batch_rows: int | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows, max_chunksize=batch_rows)
    return sink.getvalue().to_pybytes()


def send_arrow(client: Client, body: bytes, query: str = "") -> Any:
    return client.post(ROWS + query, body, content_type=ARROW)


@pytest.mark.parametrize("batch_rows", [None, 1])
def test_an_arrow_stream_is_taken_as_the_same_rows_in_json_are(
    group: FeatureGroup, client: Client, batch_rows: int | None
) -> None:
    answer = send_arrow(client, stream(table(), batch_rows=batch_rows))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "quarantined": 0, "online": "applied"})
    by_arrow = contents.online(group)
    contents.forget_online(group)
    send(client, purchase("C1"), purchase("C2", ELEVEN, total_spent=None, total_purchases=2, customer_segment="silver"))
    assert contents.online(group) == by_arrow
    drain.drain(group)
    assert len(contents.offline(group)) == 4


def views(values: list[str]) -> pa.Array:
    return pa.array(values).cast(pa.string_view())


@pytest.mark.parametrize(
    "segments",
    [pa.array(["gold", "gold"]).dictionary_encode(), views(["gold", "gold"]), views(["x", "gold", "gold"])[1:]],
)
def test_shared_texts_are_taken(group: FeatureGroup, client: Client, segments: pa.Array) -> None:
    assert send_arrow(client, stream(table(customer_segment=segments))).status_code == 200
    assert contents.online(group)["s2:C2"]["customer_segment"] == "gold"


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"total_purchases": pa.array([1, 1.5])}, "/rows/1/total_purchases"),
        ({"total_purchases": pa.array([1, 2**63], pa.uint64())}, "/rows/1/total_purchases"),
        ({"total_purchases": pa.array(["1", "2"])}, "total_purchases"),
        ({"total_spent": pa.array([1.0, float("inf")])}, "/rows/1/total_spent"),
        ({"customer_id": pa.array(["C1", None])}, "/rows/1/customer_id"),
        ({"customer_segment": pa.array(["gold", "golden"])}, "/rows/1/customer_segment"),
        ({"customer_segment": pa.array(["gold", "a\0"])}, "/rows/1/customer_segment"),
        ({"purchased_at": pa.array([datetime(2024, 11, 1), datetime(2024, 11, 1)])}, "purchased_at"),  # noqa: DTZ001
        ({"golden": pa.array([1, 2])}, "golden"),
    ],
)
def test_a_bad_arrow_row_is_422_naming_row_and_column(
    group: FeatureGroup, client: Client, changes: dict[str, pa.Array], pointer: str
) -> None:
    answer = send_arrow(client, stream(table(**changes)))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rows")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert nothing_was_kept(group)


def test_bad_arrow_rows_may_be_kept(group: FeatureGroup, client: Client) -> None:
    body = stream(table(total_purchases=pa.array([-1, 2]), customer_segment=views(["gold", "gold"])), batch_rows=1)
    assert send_arrow(client, body, "?on_error=quarantine").json()["quarantined"] == 1
    (rule,) = Run.objects.get().quarantined.all()
    assert (rule.column, rule.samples[0]["row"], '"customer_id":"C1"' in rule.samples[0]["payload"]) == (
        "total_purchases",
        0,
        True,
    )


def many(rows: int) -> pa.Table:
    return pa.table({"customer_id": pa.nulls(rows)})


NESTED_NULLS = pa.array([[None] * 10_000] * 1_100, pa.list_(pa.null()))
SHARED = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100, dtype=np.int32)), pa.array(["x" * 200_000]))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"nonsense", 400),
        (stream(table())[:-8], 400),  # its end marker: without it nobody knows that rows are missing
        (stream(table())[:-120] + stream(table())[-8:], 400),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f" + stream(table())[-8:], 400),
        (stream(table(), compression="zstd"), 415),
        (stream(table(), compression="lz4"), 415),
        (stream(pa.table({"a": pa.array(["x"] * 9).dictionary_encode()}), compression="zstd"), 415),
        (stream(many(10_001)), 413),
        (stream(many(10_001), batch_rows=5_000), 413),
        (stream(pa.table({"a": SHARED})), 413),
        (stream(pa.table({"a": NESTED_NULLS})), 413),
        (stream(pa.table({"a": pa.ListArray.from_arrays([0, 100], SHARED)})), 413),
    ],
)
def test_what_is_no_arrow_stream_of_bounded_rows_is_refused(
    group: FeatureGroup, client: Client, body: bytes, status: int
) -> None:
    assert send_arrow(client, body).status_code == status


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_a_damaged_stream_is_a_table_or_a_clear_refusal(place: int, damage: bytes) -> None:
    body = bytearray(stream(table(customer_segment=pa.array(["gold", "gold"]).dictionary_encode())))
    at = place % len(body)
    body[at : at + len(damage)] = damage
    with suppress(InvalidInput):
        rows_of_arrow(bytes(body))
