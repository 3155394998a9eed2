"""What conforming keeps bit for bit, what it refuses by name, and what fails a whole batch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conform import MAX_LIST_ITEMS, Conformed, check_columns, conform_rows, conform_table
from engine.errors import InvalidRows
from engine.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Dtype, FeatureColumn, Field, GroupSchema, Transformation

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
EARLIER = "2026-11-01T10:00:00Z"
AT_TEN = datetime(2026, 11, 1, 10, tzinfo=UTC)
NAN, INF = math.nan, math.inf


def group(*given: tuple[str, str], key: str = "string", created: str = "") -> GroupSchema:
    """A group of customers whose given features are (name, dtype), timed by `purchased_at`."""
    return GroupSchema(
        group="customer_purchases",
        version=1,
        schema_id=1,
        join_keys=(Field("customer_id", Dtype.parse(key)),),
        features=tuple(FeatureColumn(name, Dtype.parse(dtype)) for name, dtype in given),
        event_timestamp="purchased_at",
        created_timestamp=created,
    )


def from_json(dtype: str, values: Sequence[object]) -> Conformed:
    rows = [{"customer_id": "C1", "purchased_at": EARLIER, "value": value} for value in values]
    return conform_rows(rows, group(("value", dtype)), now=NOW)


def from_arrow(dtype: str, values: pa.Array | pa.ChunkedArray, *, text: bool = False) -> Conformed:
    instant = pa.array([EARLIER] * len(values)) if text else pa.array([AT_TEN] * len(values), pa.timestamp("us", "UTC"))
    keys = pa.array(["C1"] * len(values), pa.string())
    table = pa.table({"customer_id": keys, "purchased_at": instant, "value": values})
    return conform_table(table, group(("value", dtype)), now=NOW, text=text)


def from_text(dtype: str, values: Sequence[str | None]) -> Conformed:
    return from_arrow(dtype, pa.array(values, pa.string()), text=True)


def kept(conformed: Conformed, column: str = "value") -> list[object]:
    return conformed.frame[column].to_list()


def refused(conformed: Conformed) -> dict[tuple[str, str], list[int]]:
    """Rows by (column, rule); the same rule may have been broken in several ways."""
    rows: dict[tuple[str, str], list[int]] = {}
    for violation in conformed.violations:
        rows.setdefault((violation.column, violation.rule), []).extend(violation.rows.to_list())
    return {why: sorted(indexes) for why, indexes in rows.items()}


def assert_each(conformed: Conformed, expected: Sequence[object], bad: Sequence[bool]) -> None:
    """Every row is kept as expected, or null and refused as a wrong type, never both."""
    rows = [row for row, is_bad in enumerate(bad) if is_bad]
    assert refused(conformed) == ({("value", "type"): rows} if rows else {})
    got = kept(conformed)
    assert got == [None if is_bad else value for value, is_bad in zip(expected, bad, strict=True)]
    assert [type(value) for value in got] == [
        type(None) if is_bad else type(value) for value, is_bad in zip(expected, bad, strict=True)
    ]


BAD = object()  # in a table of cases: this input is refused

JSON_CASES: dict[str, list[tuple[object, object]]] = {
    "int64": [
        (7, 7),
        (None, None),
        (2**53 + 1, 2**53 + 1),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, BAD),
        (-(2**63) - 1, BAD),
        (2**64, BAD),
        (10**4000, BAD),
        (1.0, BAD),
        (True, BAD),
        ("1", BAD),
        ([1], BAD),
        ({}, BAD),
        (Decimal(1), BAD),
    ],
    "float64": [
        (0.1, 0.1),
        (5e-324, 5e-324),
        (1.7976931348623157e308, 1.7976931348623157e308),
        (None, None),
        (3, 3.0),
        (2**53, 9007199254740992.0),
        (10**21, 1e21),
        (2**53 + 1, BAD),
        (10**23, BAD),
        (10**400, BAD),
        (NAN, BAD),
        (INF, BAD),
        (-INF, BAD),
        (False, BAD),
        ("1.5", BAD),
    ],
    "bool": [(True, True), (False, False), (None, None), (1, BAD), (0, BAD), ("true", BAD)],
    "string": [
        ("gold", "gold"),
        ("", ""),
        (None, None),
        ("e\u0301", "e\u0301"),
        ("\u00e9", "\u00e9"),
        ("a\nb:{}*", "a\nb:{}*"),
        ("a\0b", BAD),
        ("\ud800", BAD),
        (5, BAD),
        (True, BAD),
        (["a"], BAD),
    ],
    "embedding(2)": [
        ([0.5, -1.0], [0.5, -1.0]),
        ([1, 0], [1.0, 0.0]),
        (None, None),
        ([0.5, None], BAD),
        ([0.5, NAN], BAD),
        ([0.5, INF], BAD),
        ([0.5, 1e39], BAD),
        ([0.5, 10**400], BAD),
        ([0.5, True], BAD),
        ([0.5, "1"], BAD),
        ([0.5, [1.0]], BAD),
        ("[0.5, 1.0]", BAD),
    ],
    "list<int64>": [([], []), ([1, -2], [1, -2]), (None, None), ([None], BAD), ([1.0], BAD), ([2**63], BAD), (1, BAD)],
    "list<float64>": [([0.1, 2], [0.1, 2.0]), ([2**53 + 1], BAD), ([NAN], BAD), ([None], BAD), ([[0.1]], BAD)],
    "list<string>": [(["a", ""], ["a", ""]), ([1], BAD), (["\0"], BAD), (["\ud800"], BAD), ([None], BAD)],
}


@pytest.mark.parametrize("dtype", JSON_CASES)
def test_a_json_value_is_kept_or_refused_never_changed(dtype: str) -> None:
    inputs, expected = zip(*JSON_CASES[dtype], strict=True)
    assert_each(from_json(dtype, inputs), expected, [value is BAD for value in expected])


@pytest.mark.parametrize("dtype", JSON_CASES)
def test_a_json_row_conforms_alone_as_it_does_among_others(dtype: str) -> None:
    for value, expected in JSON_CASES[dtype]:
        assert_each(from_json(dtype, [value]), [expected], [expected is BAD])


TEXT_CASES: dict[str, list[tuple[str | None, object]]] = {
    "int64": [
        ("7", 7),
        (None, None),
        ("+7", 7),
        ("-0", 0),
        ("007", 7),
        ("9007199254740993", 2**53 + 1),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", BAD),
        ("9" * 5000, BAD),
        (" 7", BAD),
        ("7 ", BAD),
        ("7\n", BAD),
        ("1.0", BAD),
        ("1e3", BAD),
        ("1_0", BAD),
        ("0x10", BAD),
        ("\uff11", BAD),
        ("", BAD),
        ("+", BAD),
        ("true", BAD),
    ],
    "float64": [
        ("0.1", 0.1),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("3", 3.0),
        (None, None),
        ("nan", None),
        ("NaN", None),
        ("9007199254740992", 2.0**53),
        ("1000000000000000000000", 1e21),
        ("9007199254740993", BAD),
        ("100000000000000000000000", BAD),
        ("1e999", BAD),
        ("9" * 500, BAD),
        ("inf", BAD),
        ("-Infinity", BAD),
        (" 1", BAD),
        ("1,5", BAD),
        ("", BAD),
        (".", BAD),
    ],
    "bool": [
        ("true", True),
        ("FALSE", False),
        ("True", True),
        (None, None),
        ("1", BAD),
        ("yes", BAD),
        ("", BAD),
        (" true", BAD),
    ],
    "string": [("gold", "gold"), ("", ""), (" a ", " a "), (None, None), ("nan", "nan"), ("a\0", BAD)],
    "embedding(2)": [
        ("[0.5, 1]", [0.5, 1.0]),
        (None, None),
        ("[0.5, NaN]", BAD),
        ("[0.5, 1e999]", BAD),
        ("[0.5, null]", BAD),
        ("0.5", BAD),
        ("{}", BAD),
        ("", BAD),
        ("[" * 100_000, BAD),
        ("[1, " + "9" * 5000 + "]", BAD),
    ],
    "list<int64>": [("[1,2]", [1, 2]), ("[]", []), ("[1.0]", BAD), ("[18446744073709551617]", BAD), ("1,2", BAD)],
    "list<string>": [('["a"]', ["a"]), ('["\\ud800"]', BAD), ('["\\u0000"]', BAD), ("[a]", BAD)],
}


@pytest.mark.parametrize("dtype", TEXT_CASES)
def test_a_text_field_is_kept_or_refused_never_changed(dtype: str) -> None:
    inputs, expected = zip(*TEXT_CASES[dtype], strict=True)
    assert_each(from_text(dtype, inputs), expected, [value is BAD for value in expected])


FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
INSTANTS: list[tuple[str, datetime | object]] = [
    ("2026-11-01T10:00:00Z", AT_TEN),
    ("2026-11-01 10:00:00Z", AT_TEN),
    ("2026-11-01t10:00:00z", AT_TEN),
    ("2026-11-01T12:00:00+02:00", AT_TEN),
    ("2026-11-01T09:30:00-00:30", AT_TEN),
    ("2026-11-01T10:00:00-00:00", AT_TEN),
    ("2026-11-01T10:00:00.1Z", AT_TEN + timedelta(milliseconds=100)),
    ("2026-11-01T10:00:00.123456Z", AT_TEN + timedelta(microseconds=123456)),
    ("2026-11-01T10:00:00.123456000Z", AT_TEN + timedelta(microseconds=123456)),
    ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
    ("0001-01-01T00:00:00Z", FIRST),
    ("9999-12-31T23:59:59.999999Z", LAST),
    ("2026-11-01T10:00:00.1234567Z", BAD),
    ("2026-11-01T10:00:00.Z", BAD),
    ("2026-11-01T10:00:00", BAD),
    ("2026-11-01", BAD),
    ("2026-11-01T10:00Z", BAD),
    ("2026-11-01T10Z", BAD),
    ("2026-11-01T24:00:00Z", BAD),
    ("2026-12-31T23:59:60Z", BAD),
    ("2026-02-30T00:00:00Z", BAD),
    ("2025-02-29T00:00:00Z", BAD),
    ("2026-13-01T00:00:00Z", BAD),
    ("2026-11-01T10:00:00+0200", BAD),
    ("2026-11-01T10:00:00+24:00", BAD),
    ("2026-W44-7T10:00:00Z", BAD),
    ("20261101T100000Z", BAD),
    ("26-11-01T10:00:00Z", BAD),
    ("0000-01-01T00:00:00Z", BAD),
    ("0000-12-31T23:00:00-02:00", BAD),
    ("0001-01-01T00:00:00+14:00", BAD),
    ("9999-12-31T23:59:59-14:00", BAD),
    ("12026-11-01T10:00:00Z", BAD),
    (" 2026-11-01T10:00:00Z", BAD),
    ("2026-11-01T10:00:00Z\n", BAD),
    ("1793527200", BAD),
    ("\uff12026-11-01T10:00:00Z", BAD),
    ("now", BAD),
    ("", BAD),
]


@pytest.mark.parametrize("source", [from_json, from_text])
def test_times_are_read_alike_from_json_and_from_text_columns(source) -> None:  # noqa: ANN001 - one of two above
    inputs, expected = zip(*INSTANTS, strict=True)
    assert_each(source("timestamp", inputs), expected, [value is BAD for value in expected])


@settings(max_examples=50, deadline=None)
@given(
    st.datetimes(timezones=st.just(UTC)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_any_instant_in_any_offset_is_the_same_instant_from_json_and_text(instant: datetime, zone: timezone) -> None:
    try:
        written = instant.astimezone(zone).isoformat()
    except OverflowError:
        return
    assert kept(from_json("timestamp", [written])) == kept(from_text("timestamp", [written])) == [instant]


def test_json_numbers_and_naive_datetimes_are_no_times() -> None:
    offset = timezone(timedelta(hours=2))
    values = [1793527200, 1.5, True, datetime(2026, 11, 1, 10), datetime(2026, 11, 1, 12, tzinfo=offset), date.today()]  # noqa: DTZ001, DTZ011 - naive ones are the point
    conformed = from_json("timestamp", values)
    assert refused(conformed) == {("value", "type"): [0, 1, 2, 3, 5]}
    assert kept(conformed)[4] == AT_TEN
    assert any("naive" in violation.detail for violation in conformed.violations)


def test_an_embedding_of_another_length_is_a_length_violation_from_every_source() -> None:
    lists = [[1.0, 2.0], [1.0], [], [1.0, 2.0, 3.0], [1.0] * 100_000, [None]]
    arrow = pa.array(lists, pa.list_(pa.float32()))
    texts = [json.dumps(values) for values in lists]
    for conformed in (
        from_json("embedding(2)", lists),
        from_text("embedding(2)", texts),
        from_arrow("embedding(2)", arrow),
    ):
        assert refused(conformed) == {("value", "length"): [1, 2, 3, 4, 5]}
        assert kept(conformed) == [[1.0, 2.0], None, None, None, None, None]


def test_a_list_has_a_greatest_length() -> None:
    lists = [[1] * MAX_LIST_ITEMS, [1] * (MAX_LIST_ITEMS + 1)]
    for conformed in (from_json("list<int64>", lists), from_arrow("list<int64>", pa.array(lists))):
        assert refused(conformed) == {("value", "length"): [1]}


# -- Files with types.

INT_ARROWS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
ARROW_CASES: list[tuple[str, pa.Array, list[object]]] = [
    *[("int64", pa.array([1, None, 100], kind), [1, None, 100]) for kind in INT_ARROWS],
    ("int64", pa.array([2**63 - 1, 2**63, 2**64 - 1], pa.uint64()), [2**63 - 1, BAD, BAD]),
    ("int64", pa.array([1.0, 1.5, None, -0.0, 2.0**53]), [1, BAD, None, 0, 2**53]),
    ("int64", pa.array([NAN, INF, -(2.0**63), 2.0**63, 1e300], pa.float64()), [None, BAD, -(2**63), BAD, BAD]),
    ("int64", pa.array([16777216.0, 0.5], pa.float32()), [2**24, BAD]),
    ("int64", pa.nulls(2), [None, None]),
    ("int64", pa.array([5, None, 5]).dictionary_encode(), [5, None, 5]),
    ("float64", pa.array([0.1, None, NAN, INF, -INF]), [0.1, None, None, BAD, BAD]),
    ("float64", pa.array([0.1, None], pa.float32()), [float(np.float32(0.1)), None]),
    ("float64", pa.array([np.float16(0.5), None], pa.float16()), [0.5, None]),
    ("float64", pa.array([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, None]), [2.0**53, BAD, BAD, BAD, None]),
    ("float64", pa.array([-(2**63), 2**62]), [-(2.0**63), 2.0**62]),
    ("float64", pa.array([2**64 - 1, 2**63], pa.uint64()), [BAD, 2.0**63]),
    ("bool", pa.array([True, None, False]), [True, None, False]),
    ("string", pa.array(["a", None, "", "x\0"]), ["a", None, "", BAD]),
    ("string", pa.array(["a", None], pa.large_string()), ["a", None]),
    ("string", pa.array(["a", None, "b" * 20], pa.string_view()), ["a", None, "b" * 20]),
    ("string", pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    ("embedding(2)", pa.array([[0.1, 1.0], None], pa.list_(pa.float64())), [[float(np.float32(0.1)), 1.0], None]),
    ("embedding(2)", pa.array([[0.5, 1.0], None, [0.5, None]], pa.list_(pa.float32(), 2)), [[0.5, 1.0], None, BAD]),
    ("embedding(2)", pa.array([[0.5, 1e39], [NAN, 0.0], [0.0, INF]], pa.large_list(pa.float64())), [BAD, BAD, BAD]),
    ("list<int64>", pa.array([[1], [], None, [None]], pa.list_(pa.int8())), [[1], [], None, BAD]),
    ("list<int64>", pa.array([[1.0], [1.5], [2.0, NAN]]), [[1], BAD, BAD]),
    ("list<int64>", pa.array([[], None], pa.list_(pa.null())), [[], None]),
    ("list<float64>", pa.array([[1], [2**53 + 1]]), [[1.0], BAD]),
    ("list<float64>", pa.array([[0.1], [NAN], [INF]]), [[0.1], BAD, BAD]),
    ("list<string>", pa.array([["a", "b"], None, ["\0"], [None]]), [["a", "b"], None, BAD, BAD]),
]


@pytest.mark.parametrize(
    ("dtype", "column", "expected"),
    ARROW_CASES,
    ids=[f"{dtype} from {column.type}" for dtype, column, _ in ARROW_CASES],
)
def test_a_typed_column_is_kept_or_refused_value_by_value(dtype: str, column: pa.Array, expected: list[object]) -> None:
    bad = [value is BAD for value in expected]
    assert_each(from_arrow(dtype, column), expected, bad)
    pieces = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    assert_each(from_arrow(dtype, pieces), expected, bad)


MISMATCHES: list[tuple[str, pa.Array, str]] = [
    ("int64", pa.array(["1"]), "is string, int64 is declared"),
    ("int64", pa.array([True]), "is bool, int64 is declared"),
    ("int64", pa.array([Decimal("1")]), "is decimal128"),
    ("float64", pa.array([Decimal("1.5")]), "is decimal128"),
    ("float64", pa.array(["1.5"]), "is string, float64 is declared"),
    ("bool", pa.array([1]), "is int64, bool is declared"),
    ("string", pa.array([1]), "is int64, string is declared"),
    ("string", pa.array([b"a"]), "is binary, string is declared"),
    ("string", pa.array([1]).dictionary_encode(), "is int64, string is declared"),
    ("timestamp", pa.array([datetime(2026, 1, 1)]), "naive"),  # noqa: DTZ001 - the naive one is the point
    ("timestamp", pa.array([date(2026, 1, 1)]), "naive"),
    ("timestamp", pa.array([1]), "is int64, timestamp is declared"),
    ("embedding(1)", pa.array([[1]]), "embedding(1) is declared"),
    ("embedding(1)", pa.array([1.0]), "embedding(1) is declared"),
    ("list<int64>", pa.array([["a"]]), "list<int64> is declared"),
    ("list<int64>", pa.array([[[1]]]), "list<int64> is declared"),
    ("list<string>", pa.array([{"a": 1}]), "list<string> is declared"),
]


@pytest.mark.parametrize(
    ("dtype", "column", "message"), MISMATCHES, ids=[f"{d} from {c.type}" for d, c, _ in MISMATCHES]
)
def test_a_column_of_another_type_fails_the_batch_by_its_name(dtype: str, column: pa.Array, message: str) -> None:
    with pytest.raises(InvalidRows) as caught:
        from_arrow(dtype, column)
    (problem,) = caught.value.problems
    assert problem.pointer == "value"
    assert message in problem.detail


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit_and_zone_are_the_same_instant(unit: str) -> None:
    column = pa.array([AT_TEN, None], pa.timestamp(unit, "Europe/Berlin"))
    assert_each(from_arrow("timestamp", column), [AT_TEN, None], [False, False])


@pytest.mark.parametrize(
    ("unit", "ticks", "expected"),
    [
        ("ns", [1_000, -1_000, 1, -1], [1, -1, BAD, BAD]),
        ("us", [0, -62135596800_000_000, -62135596800_000_001], [0, -62135596800_000_000, BAD]),
        ("us", [253402300799_999_999, 253402300800_000_000], [253402300799_999_999, BAD]),
        ("ms", [-62135596800_000, 253402300799_999, 2**62], [-62135596800_000_000, 253402300799_999_000, BAD]),
        ("s", [253402300799, 253402300800, 2**62, -(2**62)], [253402300799_000_000, BAD, BAD, BAD]),
    ],
)
def test_ticks_that_microseconds_of_years_1_to_9999_cannot_hold_are_refused(
    unit: str, ticks: list[int], expected: list[object]
) -> None:
    conformed = from_arrow("timestamp", pa.array(ticks, pa.int64()).cast(pa.timestamp(unit, "UTC")))
    rows = [row for row, value in enumerate(expected) if value is BAD]
    assert refused(conformed) == ({("value", "type"): rows} if rows else {})
    assert conformed.frame["value"].to_physical().to_list() == [None if value is BAD else value for value in expected]


def strings_of(*texts: bytes) -> pa.Array:
    """A string column over any bytes, as a damaged or careless Parquet file has it."""
    return pa.array(texts, pa.binary()).view(pa.string())


def test_bytes_that_are_not_utf8_are_refused_row_by_row() -> None:
    column = strings_of(b"ok", b"\xff\xfe", "\ufffd".encode(), b"x\0")
    assert_each(from_arrow("string", column), ["ok", None, "\ufffd", None], [False, True, False, True])


def test_damaged_buffers_fail_the_batch_and_are_never_read() -> None:
    offsets, text = pa.py_buffer(struct.pack("<4i", 0, 2, 4_000_000, 4)), pa.py_buffer(b"okno")
    beyond = pa.Array.from_buffers(pa.string(), 3, [None, offsets, text])
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 5], pa.int8()), pa.array(["a"]), safe=False)
    invalid = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), strings_of(b"\xff"))
    for dtype, column in (("string", beyond), ("string", dictionary), ("list<string>", invalid)):
        with pytest.raises(InvalidRows, match="value: the column's buffers are damaged"):
            from_arrow(dtype, column)


# -- Columns, keys and times of the whole row.


def test_the_frame_has_keys_timestamps_and_given_values_in_schema_order() -> None:
    schema = GroupSchema(
        group="g",
        version=1,
        schema_id=1,
        join_keys=(Field("customer_id", Dtype("string")), Field("shop_id", Dtype("int64"))),
        inputs=(Field("total_spent", Dtype("float64")),),
        features=(
            FeatureColumn("doubled", Dtype("float64"), Transformation(expression="total_spent * 2")),
            FeatureColumn("vector", Dtype.parse("embedding(1)")),
        ),
        created_timestamp="loaded_at",
    )
    row = {"vector": [0.5], "loaded_at": None, "shop_id": 7, "event_timestamp": EARLIER, "customer_id": "C1"}
    frame = conform_rows([row], schema, now=NOW).frame
    assert frame.schema == {
        "customer_id": pl.String(),
        "shop_id": pl.Int64(),
        EVENT_TIMESTAMP: pl.Datetime("us", "UTC"),
        CREATED_TIMESTAMP: pl.Datetime("us", "UTC"),
        "total_spent": pl.Float64(),
        "vector": pl.List(pl.Float32()),
    }
    assert frame.rows() == [("C1", 7, AT_TEN, None, None, [0.5])]


def test_no_rows_conform_to_an_empty_frame_of_the_same_types() -> None:
    schema = group(*[(f"f{n}", dtype) for n, dtype in enumerate([*JSON_CASES, "timestamp"])])
    empty = conform_rows([], schema, now=NOW).frame
    table = pa.table({name: pa.array([], pa.null()) for name in schema.raw_names})
    text = pa.table({name: pa.array([], pa.string()) for name in schema.raw_names})
    one = conform_rows([{"customer_id": "C1", "purchased_at": EARLIER}], schema, now=NOW).frame
    assert empty.schema == one.schema
    assert conform_table(table, schema, now=NOW).frame.equals(empty)
    assert conform_table(text, schema, now=NOW, text=True).frame.equals(empty)
    assert conform_table(text, schema, now=NOW, text=True).frame.schema == one.schema


def test_check_columns_names_every_missing_unknown_and_repeated_column() -> None:
    schema = group(("total_purchases", "int64"), ("segment", "string"))
    check_columns(["segment", "purchased_at", "customer_id", "total_purchases"], schema)
    with pytest.raises(InvalidRows) as caught:
        check_columns(["CUSTOMER_ID", "purchased_at", "total_purchase", "segment", "segment"], schema)
    assert [str(problem) for problem in caught.value.problems] == [
        "customer_id: the column is missing",
        "total_purchases: the column is missing",
        "CUSTOMER_ID: the column is not part of the group. Did you mean customer_id?",
        "total_purchase: the column is not part of the group. Did you mean total_purchases or purchased_at?",
        "segment: the column stands 2 times",
    ]


def test_a_table_with_a_repeated_column_is_refused_before_it_is_read() -> None:
    table = pa.Table.from_arrays([pa.array(["C1"])] * 3, names=["customer_id", "purchased_at", "customer_id"])
    with pytest.raises(InvalidRows, match="customer_id: the column stands 2 times"):
        conform_table(table, group(), now=NOW, text=True)


def test_an_unknown_name_in_rows_is_an_error_of_the_request() -> None:
    good = {"customer_id": "C1", "purchased_at": EARLIER}
    rows = [
        good,
        good | {"total/purchase~s": 1},
        good | {f"{'x' * 200}{n}": n for n in range(30)},
        good | {"\ud800": 1},
    ]
    with pytest.raises(InvalidRows) as caught:
        conform_rows(rows, group(("total_purchases", "int64")), now=NOW)
    pointers = [problem.pointer for problem in caught.value.problems]
    assert pointers[:2] == ["/rows/1/total~1purchase~0s", f"/rows/2/{'x' * 100}"]
    assert len(pointers) == 20
    with pytest.raises(InvalidRows, match="ud800"):
        conform_rows(rows[-1:], group(), now=NOW)


def test_missing_keys_and_event_times_are_violations_of_their_rows() -> None:
    rows = [
        {"customer_id": "C1", "purchased_at": EARLIER},
        {"purchased_at": EARLIER},
        {"customer_id": None, "purchased_at": None},
        {"customer_id": 5, "purchased_at": "yesterday"},
    ]
    conformed = conform_rows(rows, group(), now=NOW)
    expected = {("customer_id", "missing"): [1, 2], ("customer_id", "type"): [3]}
    expected |= {(EVENT_TIMESTAMP, "missing"): [2], (EVENT_TIMESTAMP, "type"): [3]}
    assert refused(conformed) == expected


def test_a_null_key_of_a_file_is_missing_and_so_is_nan() -> None:
    table = pa.table(
        {"customer_id": pa.array([1.0, None, NAN]), "purchased_at": pa.array([AT_TEN] * 3, pa.timestamp("ns", "UTC"))}
    )
    assert refused(conform_table(table, group(key="int64"), now=NOW)) == {("customer_id", "missing"): [1, 2]}


def test_rows_without_an_event_time_take_the_default() -> None:
    rows = [
        {"customer_id": "C1"},
        {"customer_id": "C2", "purchased_at": None},
        {"customer_id": "C3", "purchased_at": EARLIER},
    ]
    conformed = conform_rows(rows, group(), now=NOW, default_event_timestamp=NOW)
    assert kept(conformed, EVENT_TIMESTAMP) == [NOW, NOW, AT_TEN]
    assert conformed.violations == []


def test_events_beyond_the_clock_skew_are_refused_and_those_at_it_are_not() -> None:
    schema = group(created="loaded_at")
    limit = NOW + timedelta(minutes=5)
    just_after = limit + timedelta(microseconds=1)
    times = [(limit, None), (just_after, None), (NOW, limit), (NOW, just_after)]
    rows = [{"customer_id": "C1", "purchased_at": event, "loaded_at": created} for event, created in times]
    conformed = conform_rows(rows, schema, now=NOW)
    assert refused(conformed) == {(EVENT_TIMESTAMP, "future"): [1], (CREATED_TIMESTAMP, "future"): [3]}
    assert "2026-11-01T12:05:00Z" in conformed.violations[0].detail
    assert kept(conformed, EVENT_TIMESTAMP)[:2] == [limit, None]
    table = pa.table(
        {
            "customer_id": ["C1"] * 4,
            "purchased_at": pa.array([event for event, _ in times], pa.timestamp("us", "UTC")),
            "loaded_at": pa.array([created for _, created in times], pa.timestamp("us", "UTC")),
        }
    )
    assert refused(conform_table(table, schema, now=NOW)) == refused(conformed)
    assert conform_rows(rows, schema, now=NOW, max_skew=timedelta(hours=1)).violations == []


def test_int64_keys_in_text_must_be_canonical() -> None:
    keys = ["7", "0", "-7", "007", "+7", "-0", "7.0", None]
    table = pa.table({"customer_id": keys, "purchased_at": [EARLIER] * len(keys)})
    conformed = conform_table(table, group(key="int64"), now=NOW, text=True)
    assert kept(conformed, "customer_id") == [7, 0, -7, None, None, None, None, None]
    assert refused(conformed) == {("customer_id", "type"): [3, 4, 5, 6], ("customer_id", "missing"): [7]}


def test_string_keys_are_kept_as_they_are_up_to_512_bytes() -> None:
    keys = [
        "",
        " ",
        "1",
        "e\u0301",
        "\u00e9",
        "\U0001f469\u200d\U0001f4bb",
        "\u202ea",
        "{}:*\n",
        "x" * 512,
        "\u00e9" * 256,
    ]
    bad = ["x" * 513, "\u00e9" * 257, "a\0", "\ud800", 1]
    rows = [{"customer_id": key, "purchased_at": EARLIER} for key in [*keys, *bad]]
    conformed = conform_rows(rows, group(), now=NOW)
    assert kept(conformed, "customer_id") == [*keys, *[None] * 5]
    assert refused(conformed) == {("customer_id", "length"): [10, 11], ("customer_id", "type"): [12, 13, 14]}


def test_a_json_one_is_not_a_string_key_and_a_json_text_is_not_an_int_key() -> None:
    for key, value in (("string", 1), ("int64", "1"), ("int64", 1.0), ("int64", True)):
        conformed = conform_rows([{"customer_id": value, "purchased_at": EARLIER}], group(key=key), now=NOW)
        assert refused(conformed) == {("customer_id", "type"): [0]}


def test_null_missing_empty_and_nan_are_what_each_source_means_by_them() -> None:
    rows = [{"customer_id": "C1", "purchased_at": EARLIER} | value for value in ({}, {"value": None}, {"value": ""})]
    assert kept(conform_rows(rows, group(("value", "string")), now=NOW)) == [None, None, ""]
    assert_each(from_arrow("float64", pa.array([NAN, None])), [None, None], [False, False])
    assert_each(from_json("float64", [NAN, None]), [None, None], [True, False])


def test_a_violation_says_what_would_be_right_and_never_repeats_the_value() -> None:
    details = [violation.detail for violation in from_json("int64", ["secret", 2**70, 1.5]).violations]
    assert details == [
        "is a string; int64 takes a whole number from -2^63 to 2^63-1",
        "is beyond 64 bits; int64 takes a whole number from -2^63 to 2^63-1",
        "is a float; int64 takes a whole number from -2^63 to 2^63-1",
    ]


def test_a_record_batch_conforms_as_its_table_does() -> None:
    batch = pa.record_batch(
        {
            "customer_id": ["C1", "C2"],
            "purchased_at": pa.array([AT_TEN, None], pa.timestamp("us", "UTC")),
            "value": [1, 2],
        }
    )
    schema = group(("value", "int64"))
    one, other = conform_table(batch, schema, now=NOW), conform_table(pa.Table.from_batches([batch]), schema, now=NOW)
    assert one.frame.equals(other.frame)
    assert refused(one) == refused(other) == {(EVENT_TIMESTAMP, "missing"): [1]}


# -- Values of the right type come back bit for bit.

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
INT64S = st.integers(-(2**63), 2**63 - 1)
FLOAT64S = st.floats(allow_nan=False, allow_infinity=False)
FLOAT32S = st.floats(allow_nan=False, allow_infinity=False, width=32)
RIGHT = {
    "int64": (INT64S, pa.int64()),
    "float64": (FLOAT64S, pa.float64()),
    "bool": (st.booleans(), pa.bool_()),
    "string": (TEXTS, pa.string()),
    "timestamp": (st.datetimes(timezones=st.just(UTC)), pa.timestamp("us", "UTC")),
    "embedding(3)": (st.lists(FLOAT32S, min_size=3, max_size=3), pa.list_(pa.float32())),
    "list<int64>": (st.lists(INT64S, max_size=4), pa.list_(pa.int64())),
    "list<float64>": (st.lists(FLOAT64S, max_size=4), pa.list_(pa.float64())),
    "list<string>": (st.lists(TEXTS, max_size=4), pa.list_(pa.string())),
}


def bits(value: object) -> object:
    """The value so that -0.0 and 0.0 differ."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    return list(map(bits, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("dtype", RIGHT)
def test_values_of_the_right_type_come_back_bit_for_bit(dtype: str) -> None:
    values, arrow = RIGHT[dtype]

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.none() | values, max_size=6))
    def check(column: list[object]) -> None:
        for conformed in (from_json(dtype, column), from_arrow(dtype, pa.array(column, arrow))):
            assert conformed.violations == []
            assert conformed.frame["value"].dtype == Dtype.parse(dtype).polars
            assert list(map(bits, kept(conformed))) == list(map(bits, column))

    check()


@settings(max_examples=50, deadline=None)
@given(st.lists(FLOAT64S.filter(lambda value: abs(value) < 1e15), max_size=6), st.lists(INT64S, max_size=6))
def test_numbers_come_back_bit_for_bit_from_their_text(floats: list[float], ints: list[int]) -> None:
    conformed = from_text("float64", [repr(value) for value in floats])
    assert (conformed.violations, list(map(bits, kept(conformed)))) == ([], list(map(bits, floats)))
    conformed = from_text("int64", [str(value) for value in ints])
    assert (conformed.violations, kept(conformed)) == ([], ints)
