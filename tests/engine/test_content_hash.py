"""The hash of logical rows: blind to chunks and encodings, and to nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.content_hash import ContentHash

NAN = float("nan")
TABLE = pa.table(
    {
        "n": pa.array([1, None, -3, 2**62], pa.int64()),
        "s": pa.array(["x", None, "", "yü"]),
        "f": pa.array([1.5, NAN, None, -0.0]),
        "b": pa.array([True, None, False, True]),
        "t": pa.array([datetime(2026, 1, 1, tzinfo=UTC), None] * 2, pa.timestamp("us", "UTC")),
        "d": pa.array([date(2026, 1, 1), None] * 2),
        "m": pa.array([Decimal("1.50"), None] * 2),
        "l": pa.array([[1.0], None, [], [2.0, None]]),
        "e": pa.array([[1, 2], None, [3, 4], [5, 6]], pa.list_(pa.float32(), 2)),
        "y": pa.array([b"\0", None, b"", b"abc"]),
        "z": pa.nulls(4),
    }
)


def hash_of(table: pa.Table, *, rows: int | None = None, names: list[str] | None = None) -> str:
    content = ContentHash(table.schema)
    for batch in table.to_batches(max_chunksize=rows):
        content.update(batch)
    return content.hexdigest(names)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_chunks_do_not_matter(rows: int) -> None:
    assert hash_of(TABLE, rows=rows) == hash_of(TABLE)
    assert hash_of(pa.concat_tables([TABLE.slice(1, rows), TABLE])) == hash_of(
        pa.concat_tables([TABLE.slice(1, rows), TABLE]).combine_chunks()
    )


@pytest.mark.parametrize(
    "encoded",
    [
        TABLE["s"].dictionary_encode(),
        TABLE["s"].cast(pa.large_string()),
        TABLE["s"].cast(pa.string_view()),
    ],
)
def test_the_encoding_of_texts_does_not_matter(encoded: pa.ChunkedArray) -> None:
    assert hash_of(TABLE.set_column(1, "s", encoded)) == hash_of(TABLE)


def test_the_kind_of_a_list_does_not_matter() -> None:
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32())):
        assert hash_of(TABLE.set_column(8, "e", TABLE["e"].cast(kind))) == hash_of(TABLE)


def test_every_nan_is_the_same_and_null_is_not() -> None:
    other = pa.array([1.5, -NAN, None, -0.0])
    assert hash_of(TABLE.set_column(2, "f", other)) == hash_of(TABLE)
    assert hash_of(TABLE.set_column(2, "f", pa.array([1.5, None, None, -0.0]))) != hash_of(TABLE)
    assert hash_of(TABLE.set_column(2, "f", pa.array([1.5, NAN, None, 0.0]))) != hash_of(TABLE)


def test_any_other_value_order_name_or_type_matters() -> None:
    hashes = [
        hash_of(TABLE),
        hash_of(TABLE.take([1, 0, 2, 3])),
        hash_of(TABLE.slice(0, 3)),
        hash_of(TABLE.rename_columns(["N", *TABLE.column_names[1:]])),
        hash_of(TABLE.select(TABLE.column_names[::-1])),
        hash_of(TABLE.set_column(0, "n", TABLE["f"].cast(pa.float32()))),
        hash_of(TABLE.set_column(0, "n", pa.array([1, 0, -3, 2**62]))),
        hash_of(TABLE.set_column(1, "s", pa.array(["x", "", None, "yü"]))),
        hash_of(TABLE.set_column(1, "s", pa.array(["", "x", None, "yü"]))),
        hash_of(TABLE.set_column(7, "l", pa.array([[1.0], [], None, [2.0, None]]))),
        hash_of(TABLE.set_column(7, "l", pa.array([[], None, [1.0], [2.0, None]]))),
        hash_of(TABLE.set_column(7, "l", pa.array([[1.0], None, [], [None, 2.0]]))),
        hash_of(TABLE.set_column(6, "m", pa.array([Decimal("1.51"), None] * 2))),
    ]
    assert len(set(hashes)) == len(hashes)


def test_some_columns_have_a_hash_of_their_own() -> None:
    assert hash_of(TABLE, names=["s", "n"]) == hash_of(TABLE.select(["s", "n"]))
    assert hash_of(TABLE.slice(0, 0)) != hash_of(TABLE.slice(0, 0).select(["n"]))


def test_nulls_are_counted() -> None:
    content = ContentHash(TABLE.schema)
    for batch in TABLE.to_batches(max_chunksize=3):
        content.update(batch)
    assert [content.nulls(name) for name in ("n", "t", "z")] == [1, 2, 4]


def test_it_stays_what_it_is() -> None:
    """Manifests of datasets hold such hashes."""
    golden = "5c93ca655fb224771eb460e7417df440eeb585357139feb6b74828446f4b7c57"
    assert hash_of(TABLE.select(["n", "s", "f", "l"])) == golden


texts = st.none() | st.text(max_size=3)
columns = st.lists(
    st.tuples(st.none() | st.integers(-5, 5), texts, st.none() | st.lists(texts, max_size=3)), max_size=8
)


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = {"n": pa.int64(), "s": pa.string(), "l": pa.list_(pa.string())}
    values = zip(*rows, strict=True) if rows else ([], [], [])
    return pa.table([pa.array(list(v), k) for v, k in zip(values, kinds.values(), strict=True)], names=list(kinds))


@given(columns, columns)
def test_two_tables_have_one_hash_only_if_they_are_one(
    one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]
) -> None:
    assert (hash_of(table_of(one), rows=2) == hash_of(table_of(other), rows=3)) == (one == other)
