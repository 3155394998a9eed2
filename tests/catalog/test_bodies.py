"""Bodies are strict JSON: what two readers could understand differently is refused, in bounded time and memory."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from io import BytesIO
from math import inf
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import bodies
from catalog.bodies import parse_json, read_body, read_object, require_keys
from engine.errors import InvalidInput, TooLarge, UnsupportedMediaType


def sent(body: bytes, **meta: Any) -> HttpRequest:
    return RequestFactory().generic("POST", "/", body, content_type="text/plain", **meta)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100)
@given(DOCUMENTS, st.booleans())
def test_every_json_document_is_read_as_it_was_written(document: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@settings(max_examples=200)
@given(st.binary(max_size=30))
def test_any_bytes_are_a_document_or_a_clear_refusal(body: bytes) -> None:
    with suppress(InvalidInput):
        json.dumps(parse_json(body), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": "\x01"}', "not JSON"),
        (b"\xff", "UTF-8: byte 0"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"\xed\xa0\x80", "UTF-8"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "repeats the key 'b'"),
        (b'{"a": 1, "\\u0061": 2}', "repeats the key 'a'"),
        (b'["\\ud83d"]', "half of a surrogate pair"),
        (b'["\\uDE00\\uD83D"]', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"[" * 1_000 + b"]" * 1_000, "nested too deeply"),
    ],
)
def test_what_is_not_one_strict_document_is_refused_saying_why(body: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse_json(body)


def test_a_whole_surrogate_pair_is_the_character_that_it_is() -> None:
    assert parse_json(b'["\\ud83d\\ude00", "\\u00e9"]') == ["😀", "é"]


def test_integers_beyond_64_bits_are_exact() -> None:
    assert parse_json(b"[9007199254740993, 123456789012345678901234567890]") == [
        2**53 + 1,
        123456789012345678901234567890,
    ]


def test_one_repeated_key_among_very_many_is_refused_in_seconds() -> None:
    body = b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b',"7":1}'
    began = time.perf_counter()
    with pytest.raises(InvalidInput, match="repeats the key '7'"):
        parse_json(body)
    assert time.perf_counter() - began < 60  # looking each key up in a list takes many minutes


def test_an_integer_of_more_digits_than_python_converts_is_infinite_as_such_a_float_is() -> None:
    body = b'{"a": ' + b"9" * 5_000 + b', "b": -' + b"9" * 5_000 + b', "c": 12, "d": 1e999}'
    assert parse_json(body) == {"a": inf, "b": -inf, "c": 12, "d": inf}
    with pytest.raises(InvalidInput, match="not JSON"):
        parse_json(b"9" * 5_000 + b",")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "nonsense"])
def test_an_encoded_body_is_refused_unread(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="without a Content-Encoding"):
        parse_json(read_body(sent(b"{}", HTTP_CONTENT_ENCODING=encoding)))
    assert parse_json(read_body(sent(b"{}", HTTP_CONTENT_ENCODING="Identity"))) == {}


def test_a_body_shorter_than_it_declares_is_refused() -> None:
    request = sent(b"{}")
    request.META["CONTENT_LENGTH"] = "3"
    with pytest.raises(InvalidInput, match="before its declared length"):
        parse_json(read_body(request))


@pytest.mark.parametrize(
    ("document", "kind"),
    [("[]", "an array"), ('"a"', "a string"), ("null", "null"), ("true", "a boolean"), ("1", "a number")],
)
def test_a_document_that_is_no_object_is_named(document: str, kind: str) -> None:
    with pytest.raises(InvalidInput, match=f"JSON object; got {kind}"):
        read_object(sent(document.encode()))


def test_a_body_is_read_up_to_its_limit_whatever_it_declares() -> None:
    body = b'"12345678"'
    assert parse_json(read_body(sent(body), limit=10)) == "12345678"
    with pytest.raises(TooLarge, match="at most 9 bytes"):
        parse_json(read_body(sent(body), limit=9))
    lying = sent(body)
    lying.META["CONTENT_LENGTH"] = "1"
    with pytest.raises(TooLarge):
        parse_json(read_body(lying, limit=9))


def test_a_body_that_declares_too_much_is_refused_unread() -> None:
    request = sent(b"")
    request.META["CONTENT_LENGTH"] = "11"
    request._stream = None  # type: ignore[assignment]  # reading it would fail otherwise
    with pytest.raises(TooLarge):
        parse_json(read_body(request, limit=10))


@pytest.mark.parametrize("declared", ["", "nonsense", "-1", "²", "1e3"])
def test_a_length_that_is_none_does_not_stop_a_body_from_being_read(declared: str) -> None:
    request = sent(b"1")
    request.META["CONTENT_LENGTH"] = declared
    assert parse_json(read_body(request)) == 1


def test_a_body_that_ends_early_is_refused() -> None:
    class Broken(BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("connection reset")

    request = sent(b"{}")
    request._stream = Broken()  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="before its declared length"):
        parse_json(read_body(request))


def test_every_missing_and_every_unknown_key_is_named() -> None:
    with pytest.raises(InvalidInput, match="keys are a, b, c") as raised:
        require_keys({"a": 1, "x": 2, "y": 3}, required={"a", "b"}, optional={"c"})
    assert [(p.pointer, p.detail) for p in raised.value.problems] == [
        ("/b", "is missing"),
        ("/x", "is not known"),
        ("/y", "is not known"),
    ]
    require_keys({"a": 1, "b": 2}, required={"a", "b"}, optional={"c"})


# A quick reader reads most bodies; it has to understand each as the other does.


def rendered(document: Any, draw: st.DataObject) -> str:
    """A document as somebody may write it: spaces anywhere, and now and then a key twice in one object."""
    space = draw.draw(st.sampled_from(["", "", " ", "\n"]))
    if isinstance(document, dict):
        pairs = list(document.items())
        if pairs and draw.draw(st.integers(0, 5)) == 0:
            pairs.append(draw.draw(st.sampled_from(pairs)))
        inside = [f"{json.dumps(key, ensure_ascii=False)}{space}:{rendered(value, draw)}" for key, value in pairs]
        return f"{{{','.join(inside)}}}{space}"
    if isinstance(document, list):
        return f"[{space}{','.join(rendered(value, draw) for value in document)}]"
    return json.dumps(document, ensure_ascii=draw.draw(st.booleans())) + space


texts = st.text(st.sampled_from('ab:"\\\x00é\U0001f600'), max_size=4)
scalars = st.one_of(
    texts, st.integers(), st.integers(2**62, 2**65), st.floats(allow_nan=False), st.booleans(), st.none()
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@given(documents, st.data())
def test_both_readers_of_bodies_understand_the_same(document: Any, draw: st.DataObject) -> None:
    body = rendered(document, draw).encode()
    try:
        judged = repr(bodies._judged(body))
    except InvalidInput as error:
        judged = str(error)
    try:
        read = repr(parse_json(body))
    except InvalidInput as error:
        read = str(error)
    assert read == judged


def test_a_plain_body_is_read_by_the_quick_reader() -> None:
    body = b'{"rows": [{"id": "a:b", "at": "2026-01-01T00:00:00Z", "n": 1.5}, {"id": "c"}]}'
    assert bodies._plain(body) == json.loads(body)
    for doubtful in (b'{"a":1,"a":2}', b'{"a":"\\u003a","a":"\\u003a"}', b"[12345678901234567890123]", b"[NaN]"):
        assert bodies._plain(doubtful) is bodies._DOUBTFUL
