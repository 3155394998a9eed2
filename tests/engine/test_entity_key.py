"""Entity keys: no two tuples share one, all groups of an entity share a slot, ids in paths mean one thing."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from engine.entity_key import (
    MAX_KEY_BYTES,
    KeyValue,
    check_key,
    decode_key,
    encode_key,
    encode_keys,
    parse_id,
    to_id,
)
from engine.errors import InvalidInput
from engine.online.store import row_key
from engine.schema import Dtype, Field

NAME = Field("customer_id", Dtype.parse("string"))
NUMBER = Field("store_id", Dtype.parse("int64"))

INT64 = st.integers(-(2**63), 2**63 - 1)
# Texts that look like pieces of a key are where an ambiguous codec would slip.
TEXT = st.text(st.sampled_from("0123456789si:{}-~,/"), max_size=8) | st.text(max_size=8)
TUPLES = st.lists(INT64 | st.integers(-20, 20) | TEXT, min_size=1, max_size=4)


def read_back(key: bytes) -> list[KeyValue]:
    """A reader after docs/formats/online.md that knows nothing of the schema."""
    values: list[KeyValue] = []
    while key:
        length, _, rest = key[1:].partition(b":")
        text = rest[: int(length)].decode()
        values.append(int(text) if key[:1] == b"i" else text)
        key = rest[int(length) :]
    return values


@given(TUPLES)
@settings(max_examples=200)
def test_a_key_can_be_read_back_so_no_two_tuples_share_one(values: list[KeyValue]) -> None:
    found = read_back(encode_key(values))
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@given(TUPLES)
@settings(max_examples=200)
def test_a_key_gives_its_values_back_and_an_id_that_means_them(values: list[KeyValue]) -> None:
    assert decode_key(encode_key(values)) == values
    fields = [Field(f"k{at}", (NUMBER if isinstance(value, int) else NAME).dtype) for at, value in enumerate(values)]
    assert parse_id(to_id(values), fields) == values


@given(st.binary(max_size=12) | st.binary(max_size=6).map(lambda text: b"s%d:%b" % (len(text), text)))
@example(b"")
@example(b"s9:C1")
@example(b"s2:C1}")
@example(b"i2:07")
@example("i1:\u0663".encode())
@example(b"i20:99999999999999999999")
def test_bytes_that_are_no_key_are_told_from_keys(raw: bytes) -> None:
    values = decode_key(raw)
    assert values is None or encode_key(values) == raw


@given(TUPLES, TUPLES)
@settings(max_examples=200)
@example([1], ["1"])
@example(["1", "2"], ["1s1:2"])
@example(["a", ""], ["a"])
@example(["é"], ["e\u0301"])
@example(["1:1"], [1, 1])
def test_different_tuples_have_different_keys(one: list[KeyValue], other: list[KeyValue]) -> None:
    assert (encode_key(one) == encode_key(other)) == (one == other)


@given(TUPLES)
@settings(max_examples=200)
@example(["}"])
@example(["}{"])
def test_no_key_begins_with_a_closing_brace(values: list[KeyValue]) -> None:
    assert encode_key(values)[:1] in (b"s", b"i")


@given(TUPLES)
@settings(max_examples=200)
@example(["}"])
@example(["a}b"])
@example(["{a}"])
def test_all_groups_of_one_entity_lie_in_one_slot(values: list[KeyValue]) -> None:
    key = encode_key(values)
    slots = {key_slot(row_key(prefix, key)) for prefix in (b"fh:customer_purchases:1:{", b"fh:visits:12:{")}
    assert len(slots) == 1


def test_entities_are_spread_over_the_slots() -> None:
    slots = {key_slot(row_key(b"fh:visits:1:{", encode_key([f"C{n}"]))) for n in range(1_000)}
    assert len(slots) > 900


@given(st.lists(st.tuples(INT64, TEXT), max_size=20))
@settings(max_examples=200)
@example([(-(2**63), ""), (2**63 - 1, "Zoë\0👩‍👩‍👧")])
def test_the_keys_of_a_frame_are_the_keys_of_its_rows(rows: list[tuple[int, str]]) -> None:
    columns = [
        pl.Series("store_id", [number for number, _ in rows], dtype=pl.Int64),
        pl.Series("customer_id", [name for _, name in rows], dtype=pl.String),
    ]
    assert [key.encode() for key in encode_keys(columns)] == [encode_key(row) for row in rows]


@pytest.mark.parametrize(
    ("text", "keys", "values"),
    [
        ("C1", [NAME], ["C1"]),
        ("00002", [NAME], ["00002"]),
        ("", [NAME], [""]),
        ("a/b", [NAME], ["a/b"]),
        ("~s~c~t", [NAME], ["/,~"]),
        ("~ts", [NAME], ["~s"]),
        ("é", [NAME], ["é"]),
        ("e\u0301", [NAME], ["e\u0301"]),
        ("7", [NUMBER], [7]),
        ("0", [NUMBER], [0]),
        ("-7", [NUMBER], [-7]),
        ("9223372036854775807", [NUMBER], [2**63 - 1]),
        ("-9223372036854775808", [NUMBER], [-(2**63)]),
        ("C1,7", [NAME, NUMBER], ["C1", 7]),
        ("a~cb,7", [NAME, NUMBER], ["a,b", 7]),
        (",0", [NAME, NUMBER], ["", 0]),
    ],
)
def test_an_id_means_these_join_key_values(text: str, keys: Sequence[Field], values: list[KeyValue]) -> None:
    assert parse_id(text, keys) == values


@given(st.lists(TEXT, min_size=1, max_size=4))
@settings(max_examples=200)
def test_an_escaped_id_gives_its_values_back(values: list[str]) -> None:
    escaped = [value.replace("~", "~t").replace(",", "~c").replace("/", "~s") for value in values]
    assert parse_id(",".join(escaped), [NAME] * len(values)) == values


@pytest.mark.parametrize(
    ("text", "keys", "reason"),
    [
        ("a,b", [NAME], "has 2 parts; this entity's id is <customer_id>"),
        ("C1", [NAME, NUMBER], "has 1 parts; this entity's id is <customer_id>,<store_id>"),
        ("a~x", [NAME], "is no escape"),
        ("a~", [NAME], "is no escape"),
        ("~\n", [NAME], "is no escape"),
        ("~C", [NAME], "is no escape"),
        ("007", [NUMBER], "store_id is an int64 and written as one"),
        ("+7", [NUMBER], "written as one"),
        ("-0", [NUMBER], "written as one"),
        (" 7", [NUMBER], "written as one"),
        ("7\n", [NUMBER], "written as one"),
        ("1_0", [NUMBER], "written as one"),
        ("7.0", [NUMBER], "written as one"),
        ("", [NUMBER], "written as one"),
        ("1\u0663", [NUMBER], "written as one"),  # an Arabic three: int() reads 13
        ("9223372036854775808", [NUMBER], "does not fit into an int64"),
        ("-9223372036854775809", [NUMBER], "does not fit into an int64"),
        ("12345678901234567890", [NUMBER], "written as one"),
        ("x" * (MAX_KEY_BYTES + 1), [NAME], "at most 512 bytes"),
        ("é" * 257, [NAME], "at most 512 bytes"),
        ("a\ud800", [NAME], "surrogate"),
    ],
)
def test_an_id_that_could_mean_two_things_is_refused(text: str, keys: Sequence[Field], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parse_id(text, keys)


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (7, NAME, "customer_id is a string; got an integer"),
        (None, NAME, "got null"),
        (b"C1", NAME, "got a bytes"),
        ("7", NUMBER, "store_id is a int64; got a string"),
        (7.0, NUMBER, "got a float"),
        (True, NUMBER, "got a boolean"),
        (2**63, NUMBER, "does not fit"),
        (-(2**63) - 1, NUMBER, "does not fit"),
    ],
)
def test_a_join_key_of_another_type_is_refused_by_name(value: object, key: Field, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_key(value, key)


def test_a_refusal_points_to_the_place_that_the_caller_knows() -> None:
    with pytest.raises(InvalidInput, match=r"^/entities/customer_id/1: "):
        check_key("x" * 513, NAME, pointer="/entities/customer_id/1")


@pytest.mark.parametrize("value", ["x" * MAX_KEY_BYTES, "é" * 256, "", "a\0b"])
def test_a_string_of_up_to_512_bytes_is_a_key(value: str) -> None:
    assert check_key(value, NAME) == value
