"""How an entity is named in bytes: one injective text per tuple of join key values.

Each value is written as a type letter, the decimal length of its text in UTF-8 bytes, `:` and the text.
No two different tuples share a text, whatever their bytes hold, and a text never begins with `}`, so that as a
Redis hash tag all groups of one entity land in one slot. See docs/formats/online.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import polars as pl

from engine.errors import InvalidInput
from engine.schema import Field

KeyValue = int | str

MAX_KEY_BYTES = 512
_CANONICAL_INT = re.compile("0|-?[1-9][0-9]{0,18}")  # not \d: it takes the digits of every script
_ESCAPES = {"~c": ",", "~s": "/", "~t": "~"}
_ESCAPE = re.compile("~.?", re.DOTALL)
_ESCAPE_OF = {character: escape for escape, character in _ESCAPES.items()}
_ESCAPED = re.compile("[,/~]")
_VALUE = re.compile(rb"([is])([0-9]{1,3}):")


def encode_key(values: Sequence[KeyValue]) -> bytes:
    """The entity key of one tuple of join key values, in the entity's order.

    >>> encode_key(["00002"]), encode_key([7, "a:b"])
    (b's5:00002', b'i1:7s3:a:b')
    """
    return b"".join(_encode_value(value) for value in values)


def _encode_value(value: KeyValue) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return b"s%d:%b" % (len(text), text)
    text = b"%d" % value
    return b"i%d:%b" % (len(text), text)


def encode_column(values: Sequence[object], key: Field, *, pointer: str) -> list[bytes]:
    """What each value of one join key adds to an entity key; raises InvalidInput as `check_key` does, naming the row.

    A column of one type is looked at as a whole, which takes a fifth of the time.
    """
    kinds = set(map(type, values))
    if kinds == {int} and key.dtype.kind == "int64":
        numbers = cast(Sequence[int], values)
        if min(numbers) >= -(1 << 63) and max(numbers) < 1 << 63:
            return [f"i{len(text)}:{text}".encode() for text in map(str, numbers)]
    if kinds == {str} and key.dtype.kind == "string":
        with suppress(UnicodeEncodeError):  # it has half of a surrogate pair, and below it is told which one
            texts = [text.encode() for text in cast(Sequence[str], values)]
            if max(map(len, texts)) <= MAX_KEY_BYTES:
                return [b"s%d:%b" % (len(text), text) for text in texts]
    return [_encode_value(check_key(value, key, pointer=f"{pointer}/{row}")) for row, value in enumerate(values)]


def decode_key(key: bytes) -> list[KeyValue] | None:
    """The join key values that `encode_key` made this of; None when it made it of none.

    >>> decode_key(b"i1:7s3:a:b"), decode_key(b"i2:07")
    ([7, 'a:b'], None)
    """
    values: list[KeyValue] = []
    at = 0
    while match := _VALUE.match(key, at):
        at = match.end() + int(match[2])
        try:
            text = key[match.end() : at].decode()
            values.append(text if match[1] == b"s" else int(text))
        except ValueError:
            return None
    return values if values and encode_key(values) == key else None


def encode_keys(columns: Sequence[pl.Series]) -> pl.Series:
    """The entity keys of many rows, as text: one series per join key in, one series out; no nulls allowed."""
    names = [str(n) for n in range(len(columns))]
    frame = pl.DataFrame([column.rename(name) for name, column in zip(names, columns, strict=True)])
    parts = [_expression(name, frame.schema[name]) for name in names]
    return frame.select(pl.concat_str(parts).alias("entity_key")).to_series()


def _expression(name: str, dtype: pl.DataType) -> pl.Expr:
    text = pl.col(name).cast(pl.String)
    letter = "s" if dtype == pl.String else "i"
    return pl.concat_str([pl.lit(letter), text.str.len_bytes().cast(pl.String), pl.lit(":"), text])


def parse_id(text: str, keys: Sequence[Field]) -> list[KeyValue]:
    """The join key values of an id as it stands in a path: parts joined by `,`; `~c`, `~s`, `~t` are `,`, `/`, `~`."""
    parts = text.split(",")
    if len(parts) != len(keys):
        wanted = ",".join(f"<{key.name}>" for key in keys)
        raise InvalidInput(f"The id {text!r} has {len(parts)} parts; this entity's id is {wanted} (`~c` is a comma).")
    return [_from_text(_ESCAPE.sub(_unescape, part), key) for part, key in zip(parts, keys, strict=True)]


def _unescape(match: re.Match[str]) -> str:
    if match[0] not in _ESCAPES:
        raise InvalidInput(f"{match[0]!r} is no escape in an id; `~c` is `,`, `~s` is `/` and `~t` is `~`.")
    return _ESCAPES[match[0]]


def to_id(values: Sequence[KeyValue]) -> str:
    """The id that `parse_id` reads these values from.

    >>> to_id(["a/b,c", 7])
    'a~sb~cc,7'
    """
    return ",".join(_ESCAPED.sub(lambda found: _ESCAPE_OF[found[0]], str(value)) for value in values)


def _from_text(text: str, key: Field) -> KeyValue:
    if key.dtype.kind == "string":
        return check_key(text, key)
    if not _CANONICAL_INT.fullmatch(text):
        raise InvalidInput(f"{key.name} is an int64 and written as one (7, not 007 or +7); got {text!r}.")
    return check_key(int(text), key)


def check_key(value: object, key: Field, *, pointer: str = "") -> KeyValue:
    """A join key value of the declared type; raises InvalidInput naming the key and what was wrong."""
    if key.dtype.kind == "string" and isinstance(value, str):
        if len(value) > MAX_KEY_BYTES or len(value.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
            raise InvalidInput(f"{pointer or key.name}: a key has at most {MAX_KEY_BYTES} bytes.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInput(f"{pointer or key.name}: the key holds half of a surrogate pair, which is no character.")
        return value
    if key.dtype.kind == "int64" and isinstance(value, int) and not isinstance(value, bool):
        if -(1 << 63) <= value < 1 << 63:
            return value
        raise InvalidInput(f"{pointer or key.name}: {value} does not fit into an int64.")
    raise InvalidInput(f"{pointer or key.name}: {key.name} is a {key.dtype}; got {value!r}.")
