"""Parquet files of other types and columns than declared: mapped by rule or refused by column, never bent.

What each value becomes is in tests/engine/test_conform.py; here whole files go through a run, as others write them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.models import FeatureGroup, RunState
from engine.errors import InvalidRows
from ingestion.ingest import ingest
from tests.factories import make_customer_group
from tests.ingestion import contents

TEN = datetime(2024, 11, 1, 10, tzinfo=UTC)
NAIVE = datetime(2024, 11, 1, 10)  # noqa: DTZ001  the naive one is the point
GOOD: dict[str, pa.Array] = {
    "customer_id": pa.array(["C1"]),
    "purchased_at": pa.array([TEN], pa.timestamp("us", "UTC")),
    "total": pa.array([4]),
    "segment": pa.array(["gold"]),
}


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group(features={"total": "int64", "segment": "string"}, source="*.parquet")


def table(**columns: pa.Array | None) -> pa.Table:
    """A file of one row; `columns` replaces some of it, None takes one away."""
    kept = {name: column for name, column in (GOOD | columns).items() if column is not None}
    return pa.table(kept)


MAPPED: dict[str, tuple[dict[str, pa.Array], dict[str, Any]]] = {
    "int8": ({"total": pa.array([4], pa.int8())}, {"total": 4}),
    "uint64": ({"total": pa.array([4], pa.uint64())}, {"total": 4}),
    "whole float": ({"total": pa.array([4.0])}, {"total": 4}),
    "nothing but nulls": ({"total": pa.nulls(1)}, {"total": None}),
    "dictionary": ({"segment": pa.array(["gold"]).dictionary_encode()}, {"segment": "gold"}),
    "large string": ({"segment": pa.array(["gold"], pa.large_string())}, {"segment": "gold"}),
    "dictionary of keys": ({"customer_id": pa.array(["C1"]).dictionary_encode()}, {"customer_id": "C1"}),
    "dictionary of times": ({"purchased_at": GOOD["purchased_at"].dictionary_encode()}, {"event_timestamp": TEN}),
    "time in nanoseconds": ({"purchased_at": pa.array([TEN], pa.timestamp("ns", "UTC"))}, {"event_timestamp": TEN}),
    "time in another zone": (
        {"purchased_at": pa.array([TEN], pa.timestamp("ms", "Asia/Kolkata"))},
        {"event_timestamp": TEN},
    ),
}


@pytest.mark.parametrize("case", MAPPED)
def test_a_file_of_another_type_that_loses_nothing_is_taken(group: FeatureGroup, sources: Path, case: str) -> None:
    columns, expected = MAPPED[case]
    pq.write_table(table(**columns), sources / "a.parquet")
    assert ingest(group).rows_accepted == 1
    (row,) = contents.offline(group)
    assert {name: row[name] for name in expected} == expected


REFUSED: dict[str, tuple[pa.Table, str]] = {
    "text for a number": (table(total=pa.array(["4"])), "total: the column is string, int64 is declared"),
    "bool for a number": (table(total=pa.array([True])), "total: the column is bool"),
    "decimal": (table(total=pa.array([Decimal("4")])), "total: the column is decimal128"),
    "number for a text": (table(segment=pa.array([4])), "segment: the column is int64, string is declared"),
    "bytes for a text": (table(segment=pa.array([b"gold"])), "segment: the column is binary"),
    "dictionary of numbers for a text": (table(segment=pa.array([4]).dictionary_encode()), "segment: the column is"),
    "list": (table(total=pa.array([[4]])), "total: the column is list"),
    "struct": (table(total=pa.array([{"a": 4}])), "total: the column is struct"),
    "map": (table(total=pa.array([[("a", 4)]], pa.map_(pa.string(), pa.int64()))), "total: the column is map"),
    "naive time": (table(purchased_at=pa.array([NAIVE])), "purchased_at: .*naive"),
    "date": (table(purchased_at=pa.array([date(2024, 11, 1)])), "purchased_at: .*naive"),
    "number for a time": (
        table(purchased_at=pa.array([1730455200])),
        "purchased_at: the column is int64, timestamp is declared",
    ),
    "time of day": (
        table(purchased_at=pa.array([36_000_000_000]).cast(pa.time64("us"))),
        "purchased_at: the column is t",
    ),
    "length of time": (table(total=pa.array([4]).cast(pa.duration("s"))), "total: the column is duration"),
    "bytes of one length": (
        table(segment=pa.array([b"gold"], pa.binary(4))),
        "segment: the column is fixed_size_binary",
    ),
    "missing column": (table(segment=None), "segment: the column is missing"),
    "missing key": (table(customer_id=None), "customer_id: the column is missing"),
    "more columns": (table(totals=pa.array([4])), "totals: the column is not part of the group. Did you mean total"),
    "renamed column": (table(total=None, total_=pa.array([4])), "total_: .* Did you mean total"),
    "other letters": (table(segment=None, Segment=pa.array(["gold"])), "Segment: .* Did you mean segment"),
    "both letters": (table(Segment=pa.array(["silver"])), "Segment: the column is not part of the group"),
    "column twice": (
        pa.Table.from_arrays([*GOOD.values(), pa.array([5])], names=[*GOOD, "total"]),
        "total: the column stands 2 times",
    ),
    "another order and a column twice": (
        pa.Table.from_arrays([pa.array([5]), *GOOD.values()], names=["segment", *GOOD]),
        "segment: the column stands 2 times",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_of_other_columns_fails_its_run_by_the_columns_name(
    group: FeatureGroup, sources: Path, case: str
) -> None:
    written, said = REFUSED[case]
    pq.write_table(written, sources / "a.parquet")
    with pytest.raises(InvalidRows, match=said):
        ingest(group)
    run = group.runs.get()
    assert (run.state, run.error_code) == (RunState.FAILED, "invalid_rows")
    assert contents.offline(group) == []


def test_int96_times_have_no_zone_and_are_refused_by_name(group: FeatureGroup, sources: Path) -> None:
    """As old Spark and Hive write them: whether 10:00 meant UTC cannot be told from the file."""
    pq.write_table(table(), sources / "a.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    with pytest.raises(InvalidRows, match=r"purchased_at: .*naive"):
        ingest(group)


def test_a_part_of_a_whole_number_is_quarantined_and_never_cut(group: FeatureGroup, sources: Path) -> None:
    """Twenty rows, of which 1.5 stands in one: it is kept as a rejected row, and no 1 comes anywhere."""
    totals = [1.5, *[4.0] * 19]
    rows = pa.table(
        {
            "customer_id": [f"C{number:02}" for number in range(20)],
            "purchased_at": pa.array([TEN] * 20, pa.timestamp("us", "UTC")),
            "total": totals,
            "segment": ["gold"] * 20,
        }
    )
    pq.write_table(rows, sources / "a.parquet")
    run = ingest(group)
    assert (run.rows_accepted, run.rows_quarantined) == (19, 1)
    (rule,) = run.quarantined.all()
    assert (rule.column, rule.samples[0]["payload"].count("1.5")) == ("total", 1)
    assert {row["total"] for row in contents.offline(group)} == {4}
