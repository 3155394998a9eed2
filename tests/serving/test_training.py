"""Training datasets from rows that were really ingested and pushed, against the oracle; spines of every kind."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.conf import settings as django_settings

from engine.errors import FeatureArchived, FeatureNotActive, InvalidInput, InvalidSpine, UnknownName
from tests import oracle, spark
from tests.serving.conftest import LAST_YEAR, YESTERDAY, Hub, push_row
from tests.serving.test_status_effects import change, draft, feature

TIMES = pa.timestamp("us", "UTC")
TTL = timedelta(days=90)
DAY = timedelta(days=1)


def build(features: list[str] | str, spine: Any, *, output: Path | None = None, **how: Any) -> Any:
    """The dataset as a table, or with `output` as a file and its number of rows."""
    from serving import spines, training

    asked = training.Asked(service=features) if isinstance(features, str) else training.Asked(features=tuple(features))
    if output is None:
        return training.build(asked, spine, **how)
    return training.write(training.plan(asked, spines.columns_of(spine), **how), spine, output).made.rows


def spine_of(*rows: tuple[Any, datetime], key: str = "customer_id", **columns: Any) -> pa.Table:
    keys, times = zip(*rows, strict=True) if rows else ((), ())
    kind = pa.int64() if keys and isinstance(keys[0], int) else pa.string()
    return pa.table({key: pa.array(keys, kind), "event_timestamp": pa.array(times, TIMES), **columns})


def history_of(group: str) -> list[dict[str, Any]]:
    from catalog import stores

    return [row for path in stores.offline(group, 1).files() for row in pq.read_table(path).to_pylist()]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_answer_is_the_oracles_for_rows_that_came_by_file_and_by_push(hub: Hub, tmp_path: Path) -> None:
    from catalog.models import FeatureGroup
    from ingestion import ingest

    chance = random.Random(7)
    customers = ["C1", "C2", "00002", "2"]
    base = YESTERDAY - timedelta(days=300)

    def moment() -> datetime:
        return base + timedelta(days=chance.randrange(280), hours=chance.choice([0, 12]))

    rows = [
        {"customer_id": chance.choice(customers), "event_timestamp": moment(), "total": chance.choice([None, 1, 5])}
        for _ in range(60)
    ]
    columns = {
        "total_spent": None,
        "segment": None,
        "is_member": None,
        "last_seen": None,
        "taste": None,
        "recent": None,
    }
    table = pa.Table.from_pylist([{**row, **columns} for row in rows])
    table = table.set_column(1, "event_timestamp", table["event_timestamp"].cast(TIMES))
    for number, part in enumerate((table.slice(0, 30), table.slice(30))):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(part.cast(_typed(part.schema)), path)
        ingest.ingest(FeatureGroup.objects.get(name="customer_purchases"), paths=[path])
    for _ in range(15):
        push_row("customer_purchases", moment(), customer_id=chance.choice(customers), total=chance.randrange(9))
    asked = [(chance.choice([*customers, "nobody"]), moment() + chance.choice([0, 1]) * TTL) for _ in range(150)]
    asked += [
        (row["customer_id"], row["event_timestamp"] + delta) for row in rows[:20] for delta in (TTL, TTL + DAY / 9)
    ]
    for known_at in (False, True):
        # A spine that ends after the rows were received, so that known_at has an answer at all.
        spine = spine_of(*asked, *((customer, datetime.now(UTC) + DAY) for customer in customers), ("C1", YESTERDAY))
        built = build(["customer_purchases:total"], spine, statuses=True, known_at=known_at).to_pylist()
        history = history_of("customer_purchases")
        wanted = oracle.expected(spine.to_pylist(), history, keys=["customer_id"], ttl=TTL, known_at=known_at)
        found = [(row["total"], row["total__status"]) for row in built]
        assert found == [oracle.feature_status(answer, "total") for answer in wanted]
        assert {status for _, status in found} == {"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"} or known_at
    assert len(history) == 60 + 15 + 3


def _typed(schema: pa.Schema) -> pa.Schema:
    kinds = {"total": pa.int64(), "total_spent": pa.float64(), "segment": pa.string(), "is_member": pa.bool_()}
    kinds |= {"last_seen": TIMES, "taste": pa.list_(pa.float32()), "recent": pa.list_(pa.int64())}
    return pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in schema])


def test_what_is_trained_with_is_what_is_served_now(hub: Hub) -> None:
    from serving import vectors

    names = [f"customer_purchases:{n}" for n in ("total", "average", "is_member", "last_seen", "taste", "recent")]
    customers = ["C1", "C2", "C3", "nobody"]
    now = datetime.now(UTC)
    online = vectors.read(
        vectors.of_features(names), {"customer_id": customers}, now_us=round(now.timestamp() * 1_000_000)
    )
    built = build(names, spine_of(*((customer, now) for customer in customers)), statuses=True).to_pylist()
    bare = [name.split(":")[1] for name in names]
    assert [[row[name] for name in bare] for row in built] == online.python_values()
    assert [tuple(row[f"{name}__status"] for name in bare) for row in built] == [*online.statuses]


def test_a_pushed_row_that_was_not_drained_yet_is_part_of_the_history(hub: Hub) -> None:
    from ingestion.models import PushBatch

    push_row("support", customer_id="C9", tickets=5)
    assert PushBatch.objects.filter(drain=None).exists()
    assert build(["tickets"], spine_of(("C9", datetime.now(UTC))))["tickets"].to_pylist() == [5]
    assert not PushBatch.objects.filter(group__name="support", drain=None).exists()


def test_a_row_is_seen_from_its_moment_on(hub: Hub) -> None:
    moments = [YESTERDAY - timedelta(microseconds=1), YESTERDAY, YESTERDAY + TTL, YESTERDAY + TTL + DAY]
    built = build(["average"], spine_of(*(("C1", moment) for moment in moments)), statuses=True)
    assert built["average"].to_pylist() == [None, 25.0, 25.0, None]
    assert built["average__status"].to_pylist() == ["NOT_FOUND", "PRESENT", "PRESENT", "OUTSIDE_MAX_AGE"]


def test_columns_are_bare_and_carry_their_group_where_a_name_is_taken(hub: Hub) -> None:
    spine = spine_of(("C1", datetime.now(UTC)), tickets=["label"], weight=[0.5])
    asked = ["average", "tickets", "support:segment", "customer_purchases:segment"]
    built = build(asked, spine)
    added = ["average", "support__tickets", "support__segment", "customer_purchases__segment"]
    assert built.column_names == ["customer_id", "event_timestamp", "tickets", "weight", *added]
    assert built.to_pylist()[0]["tickets"] == "label"
    assert [built.to_pylist()[0][name] for name in added] == [25.0, 2, "calm", "gold"]


def test_a_name_that_is_taken_twice_over_is_refused(hub: Hub) -> None:
    spine = spine_of(("C1", datetime.now(UTC)), tickets=[1], support__tickets=[2])
    with pytest.raises(InvalidSpine, match="support__tickets"):
        build(["tickets"], spine)


def test_a_service_gives_its_features_in_its_order(hub: Hub) -> None:
    spine = spine_of(("C1", datetime.now(UTC)))
    assert build("churn", spine).column_names[2:] == ["average", "total"]
    assert build("churn@1", spine).column_names[2:] == ["total"]


def test_features_of_several_entities_need_the_keys_of_all(hub: Hub) -> None:
    push_row("product_stock", product_id=7, stock=3)
    now = datetime.now(UTC)
    spine = spine_of(("C1", now), product_id=pa.array([7], pa.int32()))
    assert build(["stock", "tickets"], spine).to_pylist()[0]["stock"] == 3
    with pytest.raises(InvalidSpine, match="product_id"):
        build(["stock", "tickets"], spine_of(("C1", now)))


def test_an_empty_spine_gives_an_empty_dataset_with_every_column(hub: Hub) -> None:
    built = build(["average", "tickets"], spine_of(), statuses=True)
    assert built.num_rows == 0
    assert built.schema.field("average").type == pa.float64()
    assert built.schema.field("tickets__status").type == pa.string()


def test_a_group_that_has_no_rows_gives_nulls(hub: Hub) -> None:
    built = build(["rating"], spine_of((7, YESTERDAY), key="shop_number", country=["FR"]), statuses=True)
    assert built.to_pylist()[0] | {"event_timestamp": 0} == {
        "shop_number": 7,
        "event_timestamp": 0,
        "country": "FR",
        "rating": None,
        "rating__status": "NOT_FOUND",
    }


def test_a_csv_spine_keeps_text_ids_as_they_are_written(hub: Hub, tmp_path: Path) -> None:
    push_row("support", LAST_YEAR, customer_id="00002", tickets=1)
    push_row("support", LAST_YEAR, customer_id="2", tickets=2)
    push_row("support", LAST_YEAR, customer_id="", tickets=3)
    now = datetime.now(UTC).isoformat()
    lines = [f"00002,{now},1,x", f"2,{now},,007", f'"",{now},3.5,']
    spine = write(tmp_path / "spine.CSV", "customer_id,event_timestamp,weight,note", *lines)
    built = build(["tickets"], spine)
    assert built["customer_id"].to_pylist() == ["00002", "2", ""]
    assert built["tickets"].to_pylist() == [1, 2, 3]
    assert built["weight"].to_pylist() == [1.0, None, 3.5]  # the other columns are what they look like
    assert built["note"].to_pylist() == ["x", "007", ""]


def test_a_csv_spine_reads_int64_keys_as_numbers_and_refuses_what_is_none(hub: Hub, tmp_path: Path) -> None:
    push_row("product_stock", LAST_YEAR, product_id=2**60, stock=1)
    head, now = "product_id,event_timestamp", datetime.now(UTC).isoformat()
    assert build(["stock"], write(tmp_path / "a.csv", head, f"{2**60},{now}"))["stock"].to_pylist() == [1]
    for text in ("1.0", "x", str(2**63)):
        with pytest.raises(InvalidSpine, match=r"b\.csv cannot be read"):
            build(["stock"], write(tmp_path / "b.csv", head, f"{text},{now}"))
    with pytest.raises(InvalidSpine, match="/spine/product_id: row 0: null"):
        build(["stock"], write(tmp_path / "c.csv", head, f",{now}"))


@pytest.mark.parametrize("text", ["2024-11-01T10:00:00Z", "2024-11-01 12:00:00+02:00", "2024-11-01t10:00:00.000000z"])
def test_times_of_a_csv_are_instants_whatever_their_offset(hub: Hub, tmp_path: Path, text: str) -> None:
    built = build(["tickets"], write(tmp_path / "s.csv", "customer_id,event_timestamp", f"C1,{text}"))
    assert built["event_timestamp"].to_pylist() == [datetime(2024, 11, 1, 10, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2024-11-01T10:00:00", "row 1: the time has no offset"),
        ("2024-11-01", "row 1: the time has no offset"),
        ("", "row 1: the time has no offset"),
        ("soon", "row 1: the time has no offset"),
        ("2024-02-30T00:00:00Z", "no such time"),
        ("2024-11-01T10:00:00.1234567Z", "no such time"),
    ],
)
def test_a_naive_time_of_a_csv_is_refused_by_name_and_row(hub: Hub, tmp_path: Path, text: str, told: str) -> None:
    spine = write(tmp_path / "s.csv", "customer_id,at", "C1,2024-11-01T10:00:00Z", f"C1,{text}")
    with pytest.raises(InvalidSpine) as raised:
        build(["tickets"], spine, event_timestamp="at")
    [problem] = raised.value.problems
    assert problem.pointer == "/spine/at"
    assert told in problem.detail


def test_a_naive_time_of_a_table_is_refused_by_name(hub: Hub) -> None:
    spine = pa.table({"customer_id": ["C1"], "event_timestamp": pa.array([datetime(2024, 11, 1)], pa.timestamp("us"))})  # noqa: DTZ001  that is the case
    with pytest.raises(InvalidSpine, match="/spine/event_timestamp: the timestamps are naive"):
        build(["tickets"], spine)


@pytest.mark.parametrize("lines", [["customer_id,event_timestamp"], ["customer_id,event_timestamp,label"]])
def test_a_csv_of_a_header_alone_gives_no_rows(hub: Hub, tmp_path: Path, lines: list[str]) -> None:
    built = build(["tickets"], write(tmp_path / "s.csv", *lines))
    assert (built.num_rows, built.column_names[-1]) == (0, "tickets")


@pytest.mark.parametrize(
    ("name", "content"),
    [("s.csv", b""), ("s.parquet", b"PAR1"), ("s.json", b"[]"), ("missing.csv", None), ("missing.parquet", None)],
)
def test_a_spine_that_cannot_be_read_is_refused_by_its_path(
    hub: Hub, tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidSpine, match=name):
        build(["tickets"], tmp_path / name)


@pytest.mark.parametrize(
    "header", ["customer,event_timestamp", "customer_id,at", "customer_id,event_timestamp,event_timestamp"]
)
def test_a_csv_without_a_key_or_with_a_column_twice_is_refused(hub: Hub, tmp_path: Path, header: str) -> None:
    row = ",".join(["C1", *["2024-11-01T10:00:00Z"] * header.count(",")])
    with pytest.raises(InvalidSpine):
        build(["tickets"], write(tmp_path / "s.csv", header, row))


def test_a_parquet_spine_is_written_to_a_parquet_file(hub: Hub, tmp_path: Path) -> None:
    pq.write_table(spine_of(("C1", datetime.now(UTC)), ("nobody", YESTERDAY)), tmp_path / "spine.parquet")
    out = tmp_path / "out.parquet"
    assert build(["tickets"], tmp_path / "spine.parquet", output=out) == 2
    assert pq.read_table(out)["tickets"].to_pylist() == [2, None]
    assert not list(Path(django_settings.FEATUREHUB_HOME).glob("tmp/*"))


def test_a_folder_that_does_not_exist_is_said_before_any_work(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        build(["tickets"], spine_of(("C1", YESTERDAY)), output=tmp_path / "nowhere" / "out.parquet")


def test_deprecated_features_are_joined_archived_and_draft_ones_are_refused(hub: Hub) -> None:
    spine = spine_of(("C1", datetime.now(UTC)))
    change(feature("tickets", "support"), "deprecated")
    assert build(["tickets"], spine)["tickets"].to_pylist() == [2]
    change(feature("tickets", "support"), "archived")
    with pytest.raises(FeatureArchived, match="support:tickets"):
        build(["tickets"], spine)
    draft(feature("average"))
    with pytest.raises(FeatureNotActive, match="customer_purchases:average"):
        build(["average"], spine)
    with pytest.raises(UnknownName, match="nothing"):
        build(["nothing"], spine)


def test_known_at_refuses_a_group_that_was_received_after_the_whole_spine(hub: Hub) -> None:
    with pytest.raises(InvalidSpine) as raised:
        build(["tickets"], spine_of(("C1", YESTERDAY)), known_at=True)
    assert "support" in str(raised.value)


def test_the_history_of_a_group_has_every_row_between_two_times_in_order(hub: Hub) -> None:
    from serving.history import rows_of_group

    for days in (3, 1, 2):
        push_row("support", LAST_YEAR + days * DAY, customer_id="C5", tickets=days)
    rows = rows_of_group("support", start=LAST_YEAR + DAY, end=LAST_YEAR + 2 * DAY)
    assert rows is not None
    assert rows.columns == ["customer_id", "event_timestamp", "tickets", "segment"]
    assert rows["tickets"].to_list() == [1, 2]
    everything = rows_of_group("support")
    assert everything is not None
    assert everything["tickets"].to_list() == [1, 2, 3, 2]
    assert rows_of_group("product_stock") is None
    with pytest.raises(UnknownName, match="suport"):
        rows_of_group("suport")


# Without a spine.


def test_the_newest_row_of_every_entity_as_of_a_moment(hub: Hub) -> None:
    from serving import training

    asked = training.Asked(features=("tickets", "total"))
    now = training.latest(asked, datetime.now(UTC))
    assert now.column_names == ["customer_id", "event_timestamp", "tickets", "total"]
    customers = now["customer_id"].to_pylist()
    assert customers == sorted(set(customers))
    spine = spine_of(*((customer, now["event_timestamp"][0].as_py()) for customer in customers))
    assert now.drop_columns(["event_timestamp"]).equals(
        build(["tickets", "total"], spine).drop_columns(["event_timestamp"])
    )
    assert training.latest(asked, datetime(1990, 1, 1, tzinfo=UTC)).num_rows == 0


def test_a_deleted_entity_is_not_among_the_newest(hub: Hub) -> None:
    from ingestion.push import delete, find_group
    from serving import training

    asked = training.Asked(features=("tickets",))
    before = training.latest(asked, datetime.now(UTC))["customer_id"].to_pylist()
    delete(find_group("support"), {"customer_id": before[0]})
    assert training.latest(asked, datetime.now(UTC))["customer_id"].to_pylist() == before[1:]


def test_features_of_several_entities_have_no_newest_rows(hub: Hub) -> None:
    from engine.errors import InvalidInput
    from serving import training

    with pytest.raises(InvalidInput, match="several entities"):
        training.latest(training.Asked(features=("tickets", "stock")), datetime.now(UTC))


def test_a_groups_own_rows_are_a_spine_with_labels(hub: Hub) -> None:
    from engine.errors import UnknownName
    from serving import spines

    spine = spines.of_group("support", labels=["tickets"])
    assert spine.column_names == ["customer_id", "event_timestamp", "tickets"]
    built = build(["customer_purchases:total"], spine)
    assert built["tickets"].equals(spine["tickets"])
    with pytest.raises(UnknownName, match="tikets"):
        spines.of_group("support", labels=["tikets"])


def written(tmp_path: Path, **how: Any) -> Any:
    """The manifest of a dataset with values, nulls, one too old and none at all."""
    from serving import training

    spine = spine_of(("C1", YESTERDAY + DAY), ("C1", YESTERDAY - DAY), ("C2", YESTERDAY), ("C3", YESTERDAY))
    recipe = training.plan(training.Asked(service="churn"), spine.column_names, statuses=True)
    return training.write(recipe, spine, tmp_path / f"{how.get('engine')}.parquet", **how)


def test_spark_makes_the_dataset_that_duckdb_makes_and_its_manifest_says_who_did(
    hub: Hub, spark_session: Any, tmp_path: Path
) -> None:
    by_duckdb, by_spark = (written(tmp_path, engine=engine).made for engine in ("duckdb", "spark"))
    assert by_spark.sha256 == by_duckdb.sha256
    assert set(by_spark.nulls.values()) == {0, 2, 3}  # else there would be little to tell apart
    assert (by_duckdb.engine.split()[0], by_spark.engine) == ("duckdb", f"spark {spark_session.version}")


@pytest.mark.skipif(spark.INSTALLED, reason="about a hub without pyspark")
def test_spark_that_is_not_installed_is_said_so(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"requirements-spark\.txt"):
        written(tmp_path, engine="spark")
