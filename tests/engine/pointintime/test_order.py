"""The version order as few SQL values: DuckDB compares them as Python compares the tuples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RunFailed
from engine.pointintime.order import Digit, packed, packed_time, ranges

BITS = st.sampled_from([0, 1, 20, 40, 62, 63, 64])
Rows = list[tuple[int, ...]]


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows of two to five int64 columns, each within a range of so many bits that lies anywhere."""
    columns = []
    for bits in draw(st.lists(BITS, min_size=2, max_size=5)):
        low = draw(st.integers(-(2**63), 2**63 - 2**bits) if bits else st.integers(-(2**62), 2**62))
        columns.append(st.sampled_from([low, low + 2**bits - 1, draw(st.integers(low, low + 2**bits - 1))]))
    return draw(st.lists(st.tuples(*columns), min_size=2, max_size=6))


def digits_of(rows: Rows, known: list[bool]) -> list[Digit]:
    return [
        Digit(f"c{place}", (min(values), max(values)) if known[place] else None)
        for place, values in enumerate(zip(*rows, strict=True))
    ]


def loaded(connection: duckdb.DuckDBPyConnection, rows: Rows) -> None:
    columns = {f"c{place}": pa.array(values, pa.int64()) for place, values in enumerate(zip(*rows, strict=True))}
    table = pa.table(columns | {"n": pa.array(range(len(rows)))})
    connection.register("source", table)
    connection.execute("CREATE OR REPLACE TABLE rows AS FROM source")


@settings(max_examples=150, deadline=None)
@given(tables(), st.lists(st.booleans(), min_size=5, max_size=5))
def test_packed_rows_compare_as_their_columns_do(rows: Rows, known: list[bool]) -> None:
    sql = packed(digits_of(rows, known))
    with duckdb.connect() as connection:
        loaded(connection, rows)
        pairs = connection.sql(f"""
            SELECT a.n, b.n, a.v < b.v, a.v = b.v FROM (SELECT n, {sql} AS v FROM rows) AS a
            CROSS JOIN (SELECT n, {sql} AS v FROM rows) AS b
        """).fetchall()
    assert len(pairs) == len(rows) ** 2
    for one, other, is_before, is_equal in pairs:
        assert (is_before, is_equal) == (rows[one] < rows[other], rows[one] == rows[other])


@settings(max_examples=150, deadline=None)
@given(tables(), st.lists(st.booleans(), min_size=5, max_size=5), st.lists(st.integers(-(2**62), 2**62), max_size=5))
def test_a_time_is_at_or_after_the_rows_up_to_it_and_before_the_others(
    rows: Rows, known: list[bool], anywhere: list[int]
) -> None:
    rows = [(max(-(2**62), min(2**62, first)), *others) for first, *others in rows]  # times of the years 1 to 9999
    times = sorted({*anywhere, *(first + step for first, *_ in rows for step in (-1, 0, 1))})
    digits = digits_of(rows, known)
    with duckdb.connect() as connection:
        loaded(connection, rows)
        connection.register("times", pa.table({"t": pa.array(times, pa.int64())}))
        answers = connection.sql(f"""
            SELECT t, n, {packed_time("t", digits)} >= {packed(digits)} FROM times CROSS JOIN rows
        """).fetchall()
    assert len(answers) == len(rows) * len(times)
    for time, number, is_seen in answers:
        assert is_seen == (rows[number][0] <= time)


def test_what_fits_is_one_number_and_what_does_not_is_a_struct() -> None:
    year, one = Digit("a", (0, 2**45 - 1)), Digit("b", (7, 7))
    assert packed([year, one, Digit("c", (0, 2**18 - 1))]).endswith("::BIGINT")
    assert packed([year, one, Digit("c", (0, 2**19 - 1))]).endswith("::HUGEINT")
    assert packed([year, year, year]).startswith("{")
    assert packed([one, Digit("c", None)]).startswith("{")


MOMENT = datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)
KIND = pa.timestamp("us", "UTC")


def write(path: Path, columns: dict[str, pa.Array], **options: object) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=2, **options)
    return str(path)


def test_ranges_go_over_all_row_groups_and_files(tmp_path: Path) -> None:
    times = pa.array([MOMENT + timedelta(microseconds=n) for n in (5, 0, 9)], KIND)
    one = write(tmp_path / "1.parquet", {"t": times, "n": pa.array([3, -4, 2]), "b": pa.array([False] * 3)})
    later = pa.array([MOMENT + timedelta(microseconds=10)], KIND)
    two = write(tmp_path / "2.parquet", {"b": pa.array([True]), "n": pa.array([5], pa.int32()), "t": later})
    assert ranges([one], ["t", "n", "b"]) == {"t": (-1, 8), "n": (-4, 3), "b": (0, 0)}
    assert ranges([one, two], ["t", "n", "b"]) == {"t": (-1, 9), "n": (-4, 5), "b": (0, 1)}
    assert ranges([], ["n"]) == {}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None]),
        pa.array(["a", "b"]),
        pa.array([0.5, 1.0]),
        pa.array([1, 2], pa.timestamp("us")),
        pa.array([1, 2], pa.timestamp("ms", "UTC")),
        pa.array([1, 2], pa.uint64()),
        pa.array([], pa.int64()),
    ],
    ids=str,
)
def test_a_column_with_nulls_or_of_another_type_has_no_known_range(column: pa.Array, tmp_path: Path) -> None:
    known = write(tmp_path / "known.parquet", {"n": pa.array([1, 2])})
    assert ranges([known], ["n"]) == {"n": (1, 2)}
    assert ranges([known, write(tmp_path / "other.parquet", {"n": column})], ["n"]) == {}


def test_a_file_without_statistics_or_without_the_column_makes_its_range_unknown(tmp_path: Path) -> None:
    known = write(tmp_path / "known.parquet", {"n": pa.array([1, 2]), "m": pa.array([1, 2])})
    silent = write(tmp_path / "silent.parquet", {"n": pa.array([1, 2])}, write_statistics=False)
    other = write(tmp_path / "other.parquet", {"m": pa.array([3])})
    assert ranges([known, silent], ["n"]) == {}
    assert ranges([known, other], ["n", "m"]) == {"m": (1, 3)}


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(RunFailed, match=r"part\.parquet"):
        ranges([str(path)], ["n"])
