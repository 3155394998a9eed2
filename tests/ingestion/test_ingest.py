"""What a run does with the files of a source: all or nothing, each content once, every bad row with its reason."""

from __future__ import annotations

import gzip
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pytest_django import Settings

from catalog import stores
from catalog.models import FeatureGroup, Run, RunState
from engine.errors import Conflict, FeaturehubError, InvalidDefinition, InvalidRows, InvalidSource, RunFailed
from ingestion import sources as source_files
from ingestion.ingest import execute, ingest
from ingestion.models import QuarantinedRule, SourceFile
from ingestion.push import find_group
from tests.factories import ELEVEN, NOON, TEN, add_feature, make_customer_group, purchase, write_csv, write_parquet
from tests.ingestion import contents

AT_TEN = datetime(2024, 11, 1, 10, tzinfo=UTC)


def refused(group: FeatureGroup, error: type[FeaturehubError], **options: Any) -> tuple[Run, str]:
    """The failed run and its reason, after checking that it is recorded and that nothing of it is visible."""
    with pytest.raises(error) as raised:
        ingest(group, **options)
    run = group.runs.get()
    assert run.state == RunState.FAILED
    assert (run.error, run.error_code) == (str(raised.value), error.code)
    assert run.delta_version is None
    assert (contents.offline(group), contents.online(group), contents.data_files(group)) == ([], {}, [])
    assert not SourceFile.objects.exists()
    return run, run.error


def counts(run: Run) -> tuple[int, int, int]:
    return run.rows_read, run.rows_accepted, run.rows_quarantined


def quarantined(run: Run) -> dict[tuple[str, str], int]:
    return {(rule.column, rule.rule): rule.row_count for rule in run.quarantined.all()}


def payloads(run: Run) -> list[dict[str, Any]]:
    return pl.read_parquet(stores.quarantine_folder(run.group.name) / f"{run.id}.parquet").to_dicts()


# -- What lands.


@pytest.mark.parametrize("name", ["purchases.csv", "purchases.csv.gz", "purchases.parquet"])
def test_rows_of_a_file_land_in_both_stores_with_what_was_computed(sources: Path, name: str) -> None:
    group = make_customer_group(source=name)
    rows = [purchase("C1", TEN), purchase("C2", ELEVEN, total_spent=7.5, total_purchases=3, customer_segment=None)]
    if name.endswith(".parquet"):
        write_parquet(sources / name, rows)
    else:
        text = write_csv(sources / "plain.csv", rows).read_bytes()
        (sources / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    run = ingest(group, by="ada")
    assert (run.state, run.message, run.requested_by, counts(run)) == (RunState.SUCCEEDED, "", "ada", (2, 2, 0))
    assert run.bytes_read == run.bytes_total == (sources / name).stat().st_size
    # 100.0 / 4 = 25.0 and 7.5 / 3 = 2.5
    assert contents.online(group) == {
        "s2:C1": {"total_purchases": 4, "avg_purchase_value": 25.0, "customer_segment": "gold"},
        "s2:C2": {"total_purchases": 3, "avg_purchase_value": 2.5, "customer_segment": None},
    }
    first, second = contents.offline(group)
    assert first == {
        "customer_id": "C1",
        "event_timestamp": AT_TEN,
        "created_timestamp": run.acceptance.accepted_at,
        "total_spent": 100.0,
        "total_purchases": 4,
        "avg_purchase_value": 25.0,
        "customer_segment": "gold",
        "_accepted": run.acceptance_id,
        "_ordinal": 0,
        "_schema": 1,
        "_deleted": False,
        "_run": str(run.id),
    }
    assert (second["customer_id"], second["_ordinal"], second["total_spent"]) == ("C2", 1, 7.5)


def test_a_glob_is_one_run_and_one_commit_of_all_its_files(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    for n in (1, 2, 3):
        write_csv(sources / f"{n}.csv", [purchase(f"C{n}")])
    run = ingest(group)
    rows = contents.offline(group)
    assert [(row["customer_id"], row["_ordinal"], row["_run"]) for row in rows] == [
        ("C1", 0, str(run.id)),
        ("C2", 1, str(run.id)),
        ("C3", 2, str(run.id)),
    ]
    assert run.delta_version == 1  # 0 made the table
    assert len(contents.online(group)) == 3


def test_the_newest_event_wins_online_in_whatever_order_files_bring_it(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "1.csv", [purchase(at=ELEVEN, total_purchases=11), purchase(at=TEN, total_purchases=10)])
    ingest(group)
    assert contents.online(group)["s2:C1"]["total_purchases"] == 11
    write_csv(sources / "2.csv", [purchase(at=TEN, total_purchases=1)])
    ingest(group)
    assert contents.online(group)["s2:C1"]["total_purchases"] == 11
    assert [row["total_purchases"] for row in contents.offline(group)] == [10, 1, 11]
    write_csv(sources / "3.csv", [purchase(at=ELEVEN, total_purchases=12)])  # the same event, accepted later
    ingest(group)
    assert contents.online(group)["s2:C1"]["total_purchases"] == 12


def test_of_equal_events_the_later_created_timestamp_wins_whichever_came_first(sources: Path) -> None:
    group = make_customer_group(source="*.csv", created_timestamp="learned_at")
    write_csv(sources / "1.csv", [purchase(learned_at=NOON, total_purchases=2)])
    write_csv(sources / "2.csv", [purchase(learned_at=ELEVEN, total_purchases=1)])
    for name in ("1.csv", "2.csv"):
        ingest(group, paths=[sources / name])
    assert contents.online(group)["s2:C1"]["total_purchases"] == 2
    created = {row["total_purchases"]: row["created_timestamp"] for row in contents.offline(group)}
    assert created == {1: datetime(2024, 11, 1, 11, tzinfo=UTC), 2: datetime(2024, 11, 1, 12, tzinfo=UTC)}


def test_a_row_without_created_timestamp_was_created_when_it_was_accepted(sources: Path) -> None:
    group = make_customer_group(source="*.csv", created_timestamp="learned_at")
    write_csv(sources / "1.csv", [purchase(learned_at=None)])
    run = ingest(group)
    assert contents.offline(group)[0]["created_timestamp"] == run.acceptance.accepted_at


# -- Each content once.


def test_a_content_is_read_once_under_whatever_name(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    write_csv(sources / "b.csv", [purchase()])
    assert counts(ingest(group)) == (1, 1, 0)
    write_csv(sources / "c.csv", [purchase()])
    again = ingest(group)
    assert (again.state, counts(again)) == (RunState.SUCCEEDED, (0, 0, 0))
    assert again.message == "No new data: every file of the source has been read before."
    write_csv(sources / "d.csv", [purchase("C2")])
    assert counts(ingest(group)) == (1, 1, 0)
    assert [row["customer_id"] for row in contents.offline(group)] == ["C1", "C2"]


def test_two_groups_may_read_the_same_file(sources: Path) -> None:
    path = write_csv(sources / "a.csv", [purchase()])
    for name in ("first", "second"):
        assert counts(ingest(make_customer_group(name), paths=[path])) == (1, 1, 0)


def test_what_a_failed_run_claimed_is_read_by_the_next_one(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    write_csv(sources / "b.csv", [purchase()], header="customer_id,purchased_at,total_spent,purchases,segment")
    refused(group, InvalidRows)
    (sources / "b.csv").unlink()
    assert counts(ingest(group)) == (1, 1, 0)


def test_a_raised_version_starts_empty_and_reads_everything_again(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    before = contents.offline(group)
    group.version = 2
    group.save()
    assert contents.offline(group) == []
    assert counts(ingest(group)) == (1, 1, 0)
    after = contents.offline(group)
    assert [(row["customer_id"], row["_schema"]) for row in after] == [("C1", 2)]
    group.version = 1
    assert contents.offline(group) == before


def test_a_run_queued_before_the_version_rose_writes_the_version_of_now(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    queued = Run.queue(group)
    group.features.filter(name="total_purchases").update(dtype="float64")
    FeatureGroup.objects.update(version=2)
    run = execute(Run.objects.get(pk=queued.pk))
    assert run.group_version == 2
    assert [row["total_purchases"] for row in contents.offline(find_group(group.name))] == [4.0]
    assert contents.offline(group) == []  # version 1


def test_a_run_id_adds_its_rows_once_however_often_it_is_executed(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    run = ingest(group)
    write_csv(sources / "b.csv", [purchase("C2")])
    again = execute(Run.objects.get(pk=run.pk))
    assert again.summary() == Run.objects.get(pk=run.pk).summary() == run.summary()
    assert len(contents.offline(group)) == 1


# -- What is refused as a whole.


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", None, "No file matches 'a.csv'"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"customer_id,purchased_at,total_spent,total_purchases,customer_segment\nC1,2024", "cannot be read"),
        ("a.csv.gz", gzip.compress(b"customer_id\n" * 999, mtime=0)[:-10], "cannot be read"),
        ("a.parquet", b"PAR1 cut off", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_fails_the_run(
    sources: Path, name: str, content: bytes | None, why: str
) -> None:
    if content is not None:
        (sources / name).write_bytes(content)
    _, reason = refused(make_customer_group(source=name), InvalidSource)
    assert why in reason
    assert name in reason


def test_a_file_cut_short_after_good_rows_leaves_none_of_them(sources: Path) -> None:
    """More good rows than one batch holds, so that files of them were written before the end was found."""
    group = make_customer_group(source="a.csv")
    path = write_csv(sources / "a.csv", [purchase()])
    line = path.read_text().splitlines()[1] + "\n"
    with path.open("a") as file:
        file.write(line * (source_files.ROWS_PER_BATCH * 2) + "C1,2024-")
    run, reason = refused(group, InvalidSource)
    assert run.rows_read > source_files.ROWS_PER_BATCH
    assert "a.csv cannot be read" in reason


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"customer_id": "C1"}], "purchased_at: the column is missing"),
        ([purchase(extra=1)], "extra: the column is not part of the group."),
        ([{**purchase(), "total_purchase": 1}], "Did you mean total_purchases or"),
        ([purchase(total_purchases="4")], "total_purchases: the column is string, int64 is declared"),
        ([purchase(customer_id=7)], "customer_id: the column is int64, string is declared"),
        ([purchase(at=AT_TEN.replace(tzinfo=None))], "purchased_at: the column is timestamp[us], a naive time"),
    ],
)
def test_a_file_of_other_columns_or_types_fails_the_run(sources: Path, rows: list[dict[str, Any]], why: str) -> None:
    write_parquet(sources / "a.parquet", rows)
    _, reason = refused(make_customer_group(source="a.parquet"), InvalidRows)
    assert why in reason


def test_one_bad_file_among_good_ones_fails_all(sources: Path) -> None:
    write_csv(sources / "a.csv", [purchase()])
    (sources / "b.csv").write_text("customer_id\nC2\n")
    refused(make_customer_group(source="*.csv"), InvalidRows)


def test_a_source_that_leads_out_of_the_roots_fails_the_run(sources: Path) -> None:
    outside = write_csv(sources.parent / "outside.csv", [purchase()])
    (sources / "link.csv").symlink_to(outside)
    _, reason = refused(make_customer_group(source="link.csv"), InvalidSource)
    assert "outside the source roots" in reason


def test_a_group_without_source_says_how_rows_come_in(sources: Path) -> None:
    _, reason = refused(make_customer_group(), InvalidSource)
    assert reason == "customer_purchases has no source; name a file with --from, or push rows to it."


def test_an_archived_group_is_not_ingested_even_by_a_run_queued_before(sources: Path) -> None:
    group = make_customer_group(source="a.csv")
    write_csv(sources / "a.csv", [purchase()])
    run = Run.queue(group)
    group.status = "archived"
    group.save()
    with pytest.raises(Conflict, match="customer_purchases is archived"):
        execute(run)
    assert run.state == RunState.FAILED
    assert contents.offline(group) == []


def test_a_group_whose_definition_is_broken_says_so(sources: Path) -> None:
    group = make_customer_group(source="a.csv")
    write_csv(sources / "a.csv", [purchase()])
    group.features.filter(name="avg_purchase_value").update(expression="SUM(total_spent)")
    refused(group, InvalidDefinition)


def test_a_file_that_changes_while_a_run_reads_it_fails_the_run(sources: Path) -> None:
    group = make_customer_group(source="a.csv")
    path = write_csv(sources / "a.csv", [purchase()])

    def append(_: Run) -> None:
        with path.open("a") as file:
            file.write("C2")

    _, reason = refused(group, InvalidSource, progress=append)
    assert reason == f"{path} changed while it was read; nothing of it was kept."


def test_a_mistake_of_the_hub_itself_fails_the_run_and_gives_its_files_back(sources: Path) -> None:
    group = make_customer_group(source="a.csv")
    write_csv(sources / "a.csv", [purchase()])

    def mistake(_: Run) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ingest(group, progress=mistake)
    run = group.runs.get()
    assert (run.state, run.error_code) == (RunState.FAILED, "server_error")
    assert (contents.offline(group), contents.data_files(group)) == ([], [])
    assert counts(ingest(group)) == (1, 1, 0)


# -- What is kept apart, row by row.

BAD_TEXT: list[tuple[dict[str, Any], str, str]] = [
    ({"total_purchases": "1.5"}, "total_purchases", "type"),
    ({"total_purchases": 2**63}, "total_purchases", "type"),
    ({"total_purchases": None}, "total_purchases", "not_null"),
    ({"total_purchases": -1}, "total_purchases", "min_value"),
    ({"total_spent": "inf"}, "total_spent", "type"),
    ({"total_spent": "1e999"}, "total_spent", "type"),
    ({"customer_segment": "golden"}, "customer_segment", "allowed_values"),
    ({"customer_id": None}, "customer_id", "missing"),
    ({"customer_id": "x" * 513}, "customer_id", "length"),
    ({"purchased_at": None}, "event_timestamp", "missing"),
    ({"purchased_at": "2024-11-01T10:00:00"}, "event_timestamp", "type"),
    ({"purchased_at": "yesterday"}, "event_timestamp", "type"),
    ({"purchased_at": "2024-02-30T10:00:00Z"}, "event_timestamp", "type"),
    ({"purchased_at": "9999-12-31T23:59:59Z"}, "event_timestamp", "future"),
    ({"purchased_at": "12345-01-01T00:00:00Z"}, "event_timestamp", "type"),
]


@pytest.mark.parametrize(("change", "column", "rule"), BAD_TEXT)
def test_a_bad_row_of_a_csv_is_quarantined_by_name(
    sources: Path, change: dict[str, Any], column: str, rule: str
) -> None:
    group = make_customer_group()
    path = write_csv(sources / "a.csv", [*[purchase(f"C{n}") for n in range(10)], purchase("bad") | change])
    run = ingest(group, paths=[path])
    assert (run.state, counts(run)) == (RunState.SUCCEEDED, (11, 10, 1))
    assert quarantined(run) == {(column, rule): 1}
    raw = {name: None if value is None else str(value) for name, value in (purchase("bad") | change).items()}
    kept = payloads(run)
    assert [(row["column"], row["rule"], row["row"]) for row in kept] == [(column, rule, 10)]
    assert json.loads(kept[0]["payload"]) == raw
    rule_record = run.quarantined.get()
    assert rule_record.detail == kept[0]["detail"]
    assert rule_record.detail
    assert [sample["row"] for sample in rule_record.samples] == [10]
    assert rule_record.samples[0]["payload"] == kept[0]["payload"][:2000]
    assert {row["_ordinal"] for row in contents.offline(group)} == set(range(10))


def arrow_of(values: list[Any], dtype: pa.DataType) -> pa.Table:
    rows = len(values)
    return pa.table(
        {
            "customer_id": [f"C{n}" for n in range(rows)],
            "purchased_at": pa.array([AT_TEN] * rows, pa.timestamp("us", "UTC")),
            "value": pa.array(values, dtype),
        }
    )


@pytest.mark.parametrize(
    ("dtype", "rule", "good", "bad", "arrow", "shown"),
    [
        ("int64", "type", 2.0, 1.5, pa.float64(), 1.5),
        ("int64", "type", 2, 2**63, pa.uint64(), 2**63),
        ("float64", "type", 2, 2**53 + 1, pa.int64(), 2**53 + 1),
        ("float64", "type", 2.0, math.inf, pa.float64(), "inf"),
        ("embedding(2)", "type", [1.0, 2.0], [1.0, math.nan], pa.list_(pa.float64()), [1.0, "nan"]),
        ("embedding(2)", "length", [1.0, 2.0], [1.0], pa.list_(pa.float64()), [1.0]),
        ("list<int64>", "type", [1], [1, None], pa.list_(pa.int64()), [1, None]),
        ("string", "type", "a", "a\0b", pa.string(), "a\0b"),
        ("timestamp", "type", 0, 2**62, pa.timestamp("us", "UTC"), None),
        ("timestamp", "type", 0, 1, pa.timestamp("ns", "UTC"), None),
    ],
)
def test_a_bad_value_of_a_parquet_file_is_quarantined(
    sources: Path, *, dtype: str, rule: str, good: Any, bad: Any, arrow: pa.DataType, shown: Any
) -> None:
    group = make_customer_group(features={"value": dtype})
    path = write_parquet(sources / "a.parquet", arrow_of([good] * 10 + [bad], arrow))
    run = ingest(group, paths=[path])
    assert (counts(run), quarantined(run)) == ((11, 10, 1), {("value", rule): 1})
    payload = json.loads(payloads(run)[0]["payload"])
    assert payload["customer_id"] == "C10"
    assert shown is None or payload["value"] == shown
    assert len(contents.online(group)) == 10


def test_text_that_is_no_unicode_is_quarantined_with_what_can_be_said_of_it(sources: Path) -> None:
    group = make_customer_group(features={"value": "string"})
    damaged = pa.array([b"fine"] * 10 + [b"caf\xe9"]).view(pa.string())
    table = arrow_of(["x"] * 11, pa.string())
    path = write_parquet(sources / "a.parquet", table.set_column(2, "value", damaged))
    run = ingest(group, paths=[path])
    assert (counts(run), quarantined(run)) == ((11, 10, 1), {("value", "type"): 1})
    payload = json.loads(payloads(run)[0]["payload"])
    assert (payload["customer_id"], payload["value"]) == ("C10", "caf\\xe9")


def test_a_nan_in_a_float_column_of_a_file_means_null(sources: Path) -> None:
    group = make_customer_group(features={"value": "float64"})
    text = [{"customer_id": "text", "purchased_at": TEN, "value": "NaN"}]
    ingest(group, paths=[write_csv(sources / "a.csv", text)])
    assert contents.online(group) == {"s4:text": {"value": None}}
    path = write_parquet(sources / "a.parquet", arrow_of([math.nan, 1.0], pa.float64()))
    assert counts(ingest(group, paths=[path])) == (2, 2, 0)
    assert [row["value"] for row in contents.offline(group)] == [None, None, 1.0]
    assert contents.online(group)["s2:C0"] == {"value": None}


def test_a_row_that_breaks_several_rules_counts_once(sources: Path) -> None:
    group = make_customer_group()
    worst = purchase("bad", at="nonsense", total_purchases=-1, customer_segment="golden")
    path = write_csv(sources / "a.csv", [*[purchase(f"C{n}") for n in range(10)], worst])
    run = ingest(group, paths=[path])
    assert (counts(run), quarantined(run)) == ((11, 10, 1), {("event_timestamp", "type"): 1})
    assert len(payloads(run)) == 1


def test_a_value_that_an_expression_cannot_compute_rejects_its_row_only(sources: Path) -> None:
    group = make_customer_group(features={"total": "int64"})
    add_feature(group, "doubled", "int64", expression="total * 2")
    add_feature(group, "share", "float64", expression="1.0 / total")
    totals = [*range(1, 20), 2**62, 0]
    rows = [{"customer_id": f"C{n}", "purchased_at": TEN, "total": total} for n, total in enumerate(totals)]
    run = ingest(group, paths=[write_csv(sources / "a.csv", rows)])
    assert counts(run) == (21, 19, 2)
    assert [column for column, _ in sorted(quarantined(run))] == ["doubled", "share"]
    assert contents.online(group)["s3:C18"] == {"total": 19, "doubled": 38, "share": 1 / 19}


def test_samples_are_bounded_and_the_payload_file_has_all(sources: Path, settings: Settings) -> None:
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 1.0
    group = make_customer_group()
    path = write_csv(sources / "a.csv", [purchase(f"C{n}", total_purchases=-1) for n in range(50)])
    run = ingest(group, paths=[path])
    rule = run.quarantined.get()
    assert (rule.row_count, len(rule.samples), len(payloads(run))) == (50, 20, 50)
    assert [sample["row"] for sample in rule.samples] == list(range(20))
    assert [row["row"] for row in payloads(run)] == list(range(50))
    assert (run.state, run.message) == (RunState.SUCCEEDED, "No row was accepted.")


# -- How many bad rows are too many.


def ten_percent(path: Path, bad: int) -> Path:
    return write_csv(path, [purchase(f"C{n}", total_purchases=-1 if n < bad else 1) for n in range(20)])


def test_a_tenth_of_bad_rows_is_tolerated_and_one_more_fails_the_run(sources: Path) -> None:
    group = make_customer_group("tolerated")
    assert counts(ingest(group, paths=[ten_percent(sources / "a.csv", 2)])) == (20, 18, 2)
    SourceFile.objects.all().delete()
    run, reason = refused(make_customer_group(), RunFailed, paths=[ten_percent(sources / "b.csv", 3)])
    assert reason == (
        "3 of 20 rows broke a rule, more than the limit of 10%; nothing was kept. total_purchases min_value: 3 rows"
    )
    assert quarantined(run) == {("total_purchases", "min_value"): 3}
    assert len(payloads(run)) == 3  # for whoever has to find out why


def test_the_limit_is_a_setting(sources: Path, settings: Settings) -> None:
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 0.15
    assert counts(ingest(make_customer_group(), paths=[ten_percent(sources / "a.csv", 3)])) == (20, 17, 3)


def test_reject_takes_no_bad_row_at_all(sources: Path) -> None:
    path = ten_percent(sources / "a.csv", 1)
    _, reason = refused(make_customer_group(), RunFailed, paths=[path], on_error="reject")
    assert "1 of 20 rows broke a rule, more than the limit of 0%" in reason
    good = ten_percent(sources / "b.csv", 0)
    assert counts(ingest(make_customer_group("other"), paths=[good], on_error="reject")) == (20, 20, 0)


def test_without_rows_there_is_no_rate(sources: Path) -> None:
    group = make_customer_group()
    (sources / "a.csv").write_text(",".join(purchase()) + "\n")
    run = ingest(group, paths=[sources / "a.csv"], on_error="reject")
    assert (run.state, run.message, counts(run)) == (RunState.SUCCEEDED, "No row was accepted.", (0, 0, 0))
    empty = pa.schema([("customer_id", pa.string()), ("purchased_at", pa.timestamp("us", "UTC"))]).empty_table()
    for name, dtype in (
        ("total_spent", pa.float64()),
        ("total_purchases", pa.int64()),
        ("customer_segment", pa.string()),
    ):
        empty = empty.append_column(name, pa.array([], dtype))
    assert counts(ingest(group, paths=[write_parquet(sources / "a.parquet", empty)])) == (0, 0, 0)
    assert contents.offline(group) == []


# -- What each policy does.


def test_each_policy_has_its_way_and_is_counted(sources: Path) -> None:
    group = make_customer_group(features={})
    for policy in ("quarantine", "set_null", "warn"):
        add_feature(group, policy, "int64", min_value=0, on_violation=policy)
    rows = [{"customer_id": f"C{n}", "purchased_at": TEN, "quarantine": 1, "set_null": 2, "warn": 3} for n in range(10)]
    rows[0]["quarantine"] = rows[1]["set_null"] = rows[2]["warn"] = rows[3]["warn"] = -1
    run = ingest(group, paths=[write_csv(sources / "a.csv", rows)])
    assert counts(run) == (10, 9, 1)
    assert quarantined(run) == {("quarantine", "min_value"): 1}
    assert run.warnings == [
        {"column": "warn", "rule": "min_value", "detail": "is below the minimum 0", "rows": 2},
        {"column": "set_null", "rule": "min_value", "detail": "is below the minimum 0", "rows": 1},
    ]
    online = contents.online(group)
    assert "s2:C0" not in online
    assert online["s2:C1"] == {"quarantine": 1, "set_null": None, "warn": 3}
    assert online["s2:C2"] == {"quarantine": 1, "set_null": 2, "warn": -1}


def test_unique_holds_across_the_batches_and_files_of_one_run_and_not_beyond(sources: Path) -> None:
    group = make_customer_group(features={})
    add_feature(group, "card", "int64", unique=True)
    total = source_files.ROWS_PER_BATCH + 10
    lines = [f"C{n},{TEN},{n}" for n in range(total)]
    lines += [f"D,{TEN},0", f"D,{TEN},{total - 1}"]  # seen in the first batch and in the second
    (sources / "a.csv").write_text("customer_id,purchased_at,card\n" + "\n".join(lines) + "\n")
    write_csv(sources / "b.csv", [{"customer_id": "E", "purchased_at": TEN, "card": 5}])
    run = ingest(group, paths=[sources / "a.csv", sources / "b.csv"])
    assert (run.rows_quarantined, quarantined(run)) == (3, {("card", "unique"): 3})
    assert [row["row"] for row in payloads(run)] == [total, total + 1, total + 2]
    write_csv(sources / "c.csv", [{"customer_id": "F", "purchased_at": TEN, "card": 5}])
    assert counts(ingest(group, paths=[sources / "c.csv"])) == (1, 1, 0)


def test_ordinals_and_row_numbers_count_through_the_files_of_a_run(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase(f"A{n}") for n in range(10)])
    write_csv(sources / "b.csv", [purchase("bad", total_purchases=-1), purchase("B1")])
    run = ingest(group)
    assert [row["row"] for row in payloads(run)] == [10]
    assert {row["customer_id"]: row["_ordinal"] for row in contents.offline(group)}["B1"] == 11


def test_progress_is_reported_as_it_is_read(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase("A")])
    write_csv(sources / "b.csv", [purchase("B")])
    seen: list[tuple[int, int]] = []
    ingest(group, progress=lambda run: seen.append((run.rows_read, run.bytes_read)))
    assert seen == [(1, 0), (2, os.path.getsize(sources / "a.csv"))]


def test_a_draft_takes_rows(sources: Path) -> None:
    group = make_customer_group(source="a.csv", status="draft")
    write_csv(sources / "a.csv", [purchase()])
    assert counts(ingest(group)) == (1, 1, 0)
    assert len(contents.online(group)) == 1


def test_quarantined_rules_of_other_runs_are_their_own(sources: Path) -> None:
    group = make_customer_group()
    for n in (1, 2):
        rows = [*[purchase(f"C{n}") for n in range(10)], purchase("bad", total_purchases=-n)]
        assert quarantined(ingest(group, paths=[write_csv(sources / f"{n}.csv", rows)])) == {
            ("total_purchases", "min_value"): 1
        }
    assert QuarantinedRule.objects.count() == 2
