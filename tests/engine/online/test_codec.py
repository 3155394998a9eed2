"""Online rows: every value comes back bit for bit, every damage is noticed, and the format page says what is stored."""

from __future__ import annotations

import json
import re
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.entity_key import encode_key
from engine.errors import CorruptData
from engine.online.codec import BIAS, HEADER_SIZE, OnlineRow, StoredValue, decode_row, encode_row, encode_rows
from engine.schema import (
    ACCEPTED,
    CREATED_TIMESTAMP,
    DELETED,
    EVENT_TIMESTAMP,
    ORDINAL,
    SCHEMA,
    TIMESTAMP_POLARS,
    Dtype,
)

PAGE = (Path(__file__).parents[3] / "docs" / "formats" / "online.md").read_text()

YEAR_1_US, YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999
INT64 = st.integers(-(2**63), 2**63 - 1)
INSTANT = st.integers(YEAR_1_US, YEAR_9999_US)
FLOAT = st.floats(allow_nan=False)
TEXT = st.text(max_size=40)

#: For each dtype its values as a body holds them.
STORED: dict[str, st.SearchStrategy[Any]] = {
    "int64": INT64,
    "float64": FLOAT,
    "bool": st.booleans(),
    "string": TEXT,
    "timestamp": INSTANT,
    "embedding(3)": st.binary(min_size=12, max_size=12),  # every pattern of bits
    "list<int64>": st.lists(st.none() | INT64, max_size=5),
    "list<float64>": st.lists(st.none() | FLOAT, max_size=5),
    "list<string>": st.lists(st.none() | TEXT, max_size=5),
}
VERSION = st.tuples(INT64, INT64, INT64, INT64)


def bits(value: object) -> object:
    """The value with floats as their bytes, so that -0.0 differs from 0.0."""
    if isinstance(value, list):
        return [bits(item) for item in value]
    return struct.pack(">d", value) if isinstance(value, float) else (type(value), value)


def microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def round_trip(value: StoredValue) -> StoredValue:
    row = OnlineRow(0, 0, 1, 0, 1, [value])
    return decode_row(encode_row(row)).values[0]


@given(st.sampled_from(sorted(STORED)).flatmap(lambda dtype: STORED[dtype]))
@settings(max_examples=200)
def test_every_value_comes_back_bit_for_bit(value: StoredValue) -> None:
    assert bits(round_trip(value)) == bits(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        -(2**63),
        2**63 - 1,
        2**53 + 1,
        -(2**53) - 1,
        0.0,
        -0.0,
        1.0,
        5e-324,
        -2.2250738585072009e-308,  # the largest denormal
        1.7976931348623157e308,
        0.1,
        "",
        "\0",
        "a\0b",
        "👩‍👩‍👧",
        "e\u0301",
        "é",
        "\uffff",
        "x" * 70_000,
        YEAR_1_US,
        YEAR_9999_US,
        struct.pack("<3I", 0x7FC00001, 0x80000000, 0x00000001),  # a NaN with a payload, -0.0, the least denormal
        [],
        [None, -0.0],
        ["", None, "\0"],
        [0] * 70_000,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_edges_of_every_dtype_come_back_bit_for_bit(value: StoredValue) -> None:
    assert bits(round_trip(value)) == bits(value)


@given(VERSION, st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=200)
def test_the_header_comes_back(version: tuple[int, int, int, int], schema_id: int, deleted: bool) -> None:
    row = OnlineRow(*version, schema_id, [] if deleted else [1], deleted)
    assert decode_row(encode_row(row)) == row


def near(version: tuple[int, int, int, int]) -> st.SearchStrategy[tuple[int, ...]]:
    """Versions that tie with this one in most places, since random ones differ in the first."""
    kept = [st.just(number) | INT64 | st.integers(max(number - 1, -(2**63)), number) for number in version]
    return st.tuples(*kept)


@given(VERSION.flatmap(lambda version: st.tuples(st.just(version), near(version))))
@settings(max_examples=200)
@example(((-1, 0, 0, 0), (0, 0, 0, 0)))
@example(((2**53, 0, 0, 0), (2**53 + 1, 0, 0, 0)))
@example(((0, 0, 255, 0), (0, 0, 256, 0)))
def test_version_bytes_compare_as_the_version_order(pair: tuple[tuple[int, int, int, int], ...]) -> None:
    one, other = pair
    ours, theirs = (encode_row(OnlineRow(*version, 1, []))[2:34] for version in pair)
    assert (ours < theirs, ours == theirs) == (one < other, one == other)


def series(dtype: str, stored: list[Any]) -> pl.Series:
    """A column of an offline frame that holds these stored values."""
    kind = Dtype.parse(dtype)
    if kind.kind == "timestamp":
        return pl.Series(stored, dtype=pl.Int64).cast(TIMESTAMP_POLARS)
    if kind.kind == "embedding":
        return embeddings(stored).cast(kind.polars)
    return pl.Series(stored, dtype=kind.polars)


def embeddings(stored: list[bytes | None]) -> pl.Series:
    """Lists of float32 with exactly these bits: made through Python's floats, a signalling NaN becomes a quiet one."""
    ends = np.cumsum([0, *(len(value or b"") // 4 for value in stored)])
    items = pa.array(np.frombuffer(b"".join(filter(None, stored)), dtype="<f4"))
    nulls = pa.array([value is None for value in stored], pa.bool_())
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), items, mask=nulls)))


def frame_of(rows: list[OnlineRow], dtypes: list[str]) -> pl.DataFrame:
    """The rows as the offline table has them; a tombstone's features are null there."""
    columns = {
        EVENT_TIMESTAMP: series("timestamp", [row.event_us for row in rows]),
        CREATED_TIMESTAMP: series("timestamp", [row.created_us for row in rows]),
        ACCEPTED: series("int64", [row.accepted for row in rows]),
        ORDINAL: series("int64", [row.ordinal for row in rows]),
        SCHEMA: pl.Series([row.schema_id for row in rows], dtype=pl.Int32),
        DELETED: series("bool", [row.deleted for row in rows]),
    }
    for number, dtype in enumerate(dtypes):
        columns[f"feature_{number}"] = series(dtype, [row.values[number] if row.values else None for row in rows])
    return pl.DataFrame(columns)


def encoded(rows: list[OnlineRow], dtypes: list[str]) -> list[bytes]:
    features = [(f"feature_{number}", Dtype.parse(dtype)) for number, dtype in enumerate(dtypes)]
    return encode_rows(frame_of(rows, dtypes), features)


@st.composite
def rows_of_some_schema(draw: st.DrawFn) -> tuple[list[OnlineRow], list[str]]:
    dtypes = draw(st.lists(st.sampled_from(sorted(STORED)), min_size=1, max_size=4))
    values = st.tuples(*(st.none() | STORED[dtype] for dtype in dtypes)).map(list)
    header = st.tuples(INSTANT, INSTANT, INT64, INT64, st.integers(0, 2**31 - 1))
    alive = st.builds(lambda head, body: OnlineRow(*head, body), header, values)
    dead = st.builds(lambda head: OnlineRow(*head, [], True), header)
    return draw(st.lists(alive | dead, max_size=4)), dtypes


#: NaNs with payloads, signalling ones among them, of both signs. None is ever accepted; the codec changes no bit.
NANS = [struct.pack("<3I", *words) for words in ((0x7F800001, 0xFF800001, 0x7FBFFFFF), (0x7FC00001, 0xFFFFFFFF, 0))]


@given(rows_of_some_schema())
@example(([OnlineRow(n, 0, 1, 0, 1, [value]) for n, value in enumerate([NANS[0], None, NANS[1]])], ["embedding(3)"]))
@settings(max_examples=200)
def test_a_frame_is_encoded_as_its_rows_are(case: tuple[list[OnlineRow], list[str]]) -> None:
    rows, dtypes = case
    assert encoded(rows, dtypes) == [encode_row(row) for row in rows]


@pytest.mark.parametrize("dtype", sorted(STORED))
@pytest.mark.parametrize("height", [0, 1, 3])
def test_a_column_of_nulls_only_is_encoded(dtype: str, height: int) -> None:
    rows = [OnlineRow(0, 0, 1, ordinal, 1, [None]) for ordinal in range(height)]
    assert encoded(rows, [dtype]) == [encode_row(row) for row in rows]


def test_a_group_without_features_has_empty_bodies() -> None:
    assert encoded([OnlineRow(0, 0, 1, 0, 1, [])], []) == [encode_row(OnlineRow(0, 0, 1, 0, 1, []))]


def test_a_frame_that_was_cut_from_another_is_encoded_as_its_rows_are() -> None:
    rows = [OnlineRow(n, n, 1, n, 1, [n, struct.pack("<3f", n, n, n)]) for n in range(9)]
    frame = frame_of(rows, ["int64", "embedding(3)"])
    cut = pl.concat([frame[1:4], frame[6:8]], rechunk=False)
    features = [("feature_0", Dtype.parse("int64")), ("feature_1", Dtype.parse("embedding(3)"))]
    assert encode_rows(cut, features) == [encode_row(row) for row in rows[1:4] + rows[6:8]]


# The page: its hex is what other readers are written from.

FULL_DTYPES = ["int64", "float64", "string", "bool", "timestamp", "embedding(2)", "list<int64>", "string"]
FULL_ROW = OnlineRow(
    event_us=microseconds("2026-11-01T10:00:00Z"),
    created_us=microseconds("2026-11-01T10:00:05Z"),
    accepted=42,
    ordinal=7,
    schema_id=3,
    values=[
        15,
        41.5,
        "gold",
        True,
        microseconds("2026-10-31T08:30:00Z"),
        struct.pack("<2f", 0.5, -1.0),
        [7, 300],
        None,
    ],
)
TOMBSTONE_ROW = OnlineRow(
    event_us=microseconds("2026-11-02T00:00:00Z"),
    created_us=microseconds("2026-11-02T00:00:01Z"),
    accepted=43,
    ordinal=0,
    schema_id=3,
    values=[],
    deleted=True,
)
GOLDEN = {"full row": FULL_ROW, "tombstone": TOMBSTONE_ROW}


def golden(name: str) -> bytes:
    """The bytes of the page's block ```hex <name>; what follows `#` in a line is for people."""
    block = re.search(rf"^```hex {name}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block, f"docs/formats/online.md has no block `hex {name}`"
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in block[1].splitlines())


def table_under(heading: str) -> list[list[str]]:
    """The cells of the first table of the page below a heading, without its head."""
    lines = PAGE.split(f"# {heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = lines[first:]
    end = next((number for number, line in enumerate(table) if not line.startswith("|")), len(table))
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table[2:end]]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_of_the_page_is_what_the_codec_writes(name: str) -> None:
    assert encode_row(GOLDEN[name]) == golden(name)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_of_the_page_is_what_a_frame_is_encoded_as(name: str) -> None:
    assert encoded([GOLDEN[name]], FULL_DTYPES) == [golden(name)]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_of_the_page_is_read_as_the_page_says(name: str) -> None:
    assert decode_row(golden(name)) == GOLDEN[name]


def test_the_entity_keys_of_the_page_are_what_the_codec_writes() -> None:
    rows = table_under("Entity key")
    assert len(rows) >= 10
    assert {values: encode_key(json.loads(values)).hex(" ") for values, _ in rows} == dict(rows)


def test_the_biased_numbers_of_the_page_are_what_the_codec_writes() -> None:
    rows = table_under("Biased numbers")
    assert len(rows) >= 5
    for value, instant, stored in rows:
        assert microseconds(instant) == int(value)
        assert encode_row(OnlineRow(int(value), 0, 0, 0, 1, []))[2:10].hex(" ") == stored


def test_the_offsets_of_the_page_are_those_of_the_header() -> None:
    row = golden("full row")
    fields = {what.split(":")[0].split(",")[0]: (int(at), int(size)) for at, size, what in table_under("Row")[:7]}
    numbers = {name: int.from_bytes(row[at : at + size], "big") for name, (at, size) in fields.items()}
    assert numbers == {
        "format": 1,
        "flags": 0,
        "event timestamp": FULL_ROW.event_us + BIAS,
        "created timestamp": FULL_ROW.created_us + BIAS,
        "acceptance number": 42 + BIAS,
        "ordinal": 7 + BIAS,
        "schema id": 3,
    }
    assert max(at + size for at, size in fields.values()) == HEADER_SIZE
    assert len(golden("tombstone")) == 43  # "the shortest row"


def test_the_page_has_an_item_for_every_dtype() -> None:
    named = {name for dtypes, _ in table_under("Body") for name in dtypes.replace("`", "").split(", ")}
    assert named == {dtype.replace("(3)", "(d)") for dtype in STORED}


# Damage.


def sealed(value: bytes) -> bytes:
    """The bytes with a checksum that fits, as a faulty writer would leave them."""
    return value + zlib.crc32(value).to_bytes(4, "big")


@pytest.mark.parametrize("name", GOLDEN)
def test_every_change_of_one_byte_is_noticed(name: str) -> None:
    row = golden(name)
    for at in range(len(row)):
        for other in range(1, 256):
            with pytest.raises(CorruptData):
                decode_row(row[:at] + bytes([row[at] ^ other]) + row[at + 1 :])


@pytest.mark.parametrize("name", GOLDEN)
def test_every_row_cut_short_is_noticed(name: str) -> None:
    row = golden(name)
    for size in range(len(row)):
        with pytest.raises(CorruptData):
            decode_row(row[:size])
        with pytest.raises(CorruptData):
            decode_row(row[len(row) - size :])


def test_a_row_with_something_behind_it_is_noticed() -> None:
    with pytest.raises(CorruptData, match="An online row of 44 bytes fails its checksum"):
        decode_row(golden("tombstone") + b"\0")


@pytest.mark.parametrize("format_", [0, 2, 255])
def test_a_row_of_another_format_is_refused_by_its_number(format_: int) -> None:
    with pytest.raises(CorruptData, match=f"has format {format_}; this version reads format 1"):
        decode_row(sealed(bytes([format_]) + golden("tombstone")[1:-4]))


@pytest.mark.parametrize(
    "body",
    [b"\x80", b"\xc1", b"\x05", b"\x91\xa5a", b"\x91\xa1\xff", b"\x90\x90", b"\x91" * 5_000 + b"\x90"],
    ids=["map", "no msgpack", "number", "cut short", "no UTF-8", "two arrays", "deep"],
)
def test_a_body_that_is_no_array_of_values_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptData, match="no msgpack array"):
        decode_row(sealed(golden("tombstone")[:HEADER_SIZE] + body))


@pytest.mark.parametrize("size", range(HEADER_SIZE + 5))
def test_zeros_with_a_fitting_checksum_are_no_row(size: int) -> None:
    with pytest.raises(CorruptData):
        decode_row(sealed(bytes(size)))
