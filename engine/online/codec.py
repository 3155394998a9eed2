"""An online row as bytes and back: header, msgpack body, checksum. Byte by byte in docs/formats/online.md.

    offset  size  what
    0       1     format, 0x01
    1       1     flags: bit 0 set on a tombstone
    2       8     event timestamp  \\
    10      8     created timestamp | microseconds since 1970 and int64 numbers, each stored as an
    18      8     acceptance number | unsigned big-endian integer biased by 2**63, so that comparing
    26      8     ordinal          /  the 32 bytes as one unsigned number compares in version order
    34      4     schema id, unsigned big-endian
    38      n     msgpack array of the values in schema order (empty for a tombstone)
    38+n    4     CRC-32 of everything before, unsigned big-endian
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import polars as pl

from engine.errors import CorruptData
from engine.schema import ACCEPTED, CREATED_TIMESTAMP, DELETED, EVENT_TIMESTAMP, ORDINAL, SCHEMA, Dtype

FORMAT = 1
TOMBSTONE = 1
BIAS = 1 << 63
#: The byte that is a null in a body; it may stand inside of other values too.
NIL = 0xC0
HEADER = struct.Struct(">BBQQQQI")
CHECKSUM = struct.Struct(">I")
HEADER_SIZE = HEADER.size
#: Of a row without its checksum.
SMALLEST = HEADER_SIZE + 1
#: Of the header what serving needs: the version is the writers' concern.
_served = struct.Struct(">BBQ24xI").unpack_from
_checksum, _CHECKSUM_SIZE = CHECKSUM.unpack_from, CHECKSUM.size

_HEADER_ROW = np.dtype(
    [("f", "u1"), ("g", "u1"), ("e", ">u8"), ("c", ">u8"), ("a", ">u8"), ("o", ">u8"), ("s", ">u4")], align=False
)
_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(list).decode

#: How each kind of Dtype lies in a body.
_STORED_TYPES: dict[str, type] = {
    "int64": int,
    "float64": float,
    "bool": bool,
    "string": str,
    "timestamp": int,
    "embedding": bytes,
    "list": list,
}
#: What decoding a body raises when it is not what a schema says.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

StoredValue = int | float | bool | str | bytes | list[int] | list[float] | list[str] | None


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """One stored row: its version, the schema it was written with, and its values in that schema's order.

    Times are microseconds since 1970 UTC. A timestamp value is such an integer too, an embedding is the
    little-endian bytes of its float32 items: turning both into what a caller sees is the reader's work.
    """

    event_us: int
    created_us: int
    accepted: int
    ordinal: int
    schema_id: int
    values: list[StoredValue]
    deleted: bool = False


def encode_row(row: OnlineRow) -> bytes:
    """The bytes of one row."""
    flags = TOMBSTONE if row.deleted else 0
    version = (row.event_us + BIAS, row.created_us + BIAS, row.accepted + BIAS, row.ordinal + BIAS)
    return _sealed(HEADER.pack(FORMAT, flags, *version, row.schema_id), row.values)


def decode_row(value: bytes) -> OnlineRow:
    """The row in `value`; raises CorruptData when it is cut short, damaged, of an unknown format or no row at all."""
    flags, _, _, body = open_row(value)
    _, _, event, created, accepted, ordinal, schema_id = HEADER.unpack_from(value)
    try:
        values = _decode_body(body)
    except UNREADABLE as error:
        raise CorruptData(f"The body of an online row is no msgpack array of values: {error}") from error
    version = (event - BIAS, created - BIAS, accepted - BIAS, ordinal - BIAS)
    return OnlineRow(*version, schema_id, values, bool(flags & TOMBSTONE))


def open_row(value: bytes) -> tuple[int, int, int, bytes]:
    """Flags, event time (biased), schema id and body of a row; raises CorruptData for what is no whole row.

    What a reader of many rows calls, with a decoder of `body_decoder`: an object for each row would cost more than all
    else.
    """
    size = len(value) - _CHECKSUM_SIZE
    if size < SMALLEST or _checksum(value, size)[0] != crc32(value[:size]):
        raise CorruptData(f"An online row of {len(value)} bytes fails its checksum.")
    made_as, flags, event, schema_id = _served(value)
    if made_as != FORMAT:
        raise CorruptData(f"An online row has format {made_as}; this version reads format {FORMAT}.")
    return flags, event, schema_id, value[HEADER_SIZE:size]


@lru_cache(maxsize=10_000)
def body_decoder(kinds: tuple[str | None, ...]) -> Callable[[bytes], tuple[StoredValue, ...]]:
    """What reads a body whose values are of these kinds of Dtype (None: any), each or null; it raises UNREADABLE."""
    types = [Any if kind is None else _STORED_TYPES[kind] | None for kind in kinds]
    return msgspec.msgpack.Decoder(tuple[tuple(types)]).decode  # type: ignore[misc]  # as many types as values


def encode_rows(frame: pl.DataFrame, features: Sequence[tuple[str, Dtype]]) -> list[bytes]:
    """The bytes of every row of an offline frame, in order; `features` names the columns in schema order."""
    headers = _headers(frame)
    deleted = frame[DELETED].to_list()
    columns = [storable(frame[name], dtype) for name, dtype in features]
    bodies = zip(*columns, strict=True) if columns else [()] * frame.height
    starts = range(0, HEADER_SIZE * frame.height, HEADER_SIZE)
    rows = zip(starts, bodies, deleted, strict=True)
    return [_sealed(headers[at : at + HEADER_SIZE], () if dead else body) for at, body, dead in rows]


def _sealed(header: bytes, values: Iterable[StoredValue]) -> bytes:
    packed = header + _encode_body(values)
    return packed + CHECKSUM.pack(crc32(packed))


def _headers(frame: pl.DataFrame) -> bytes:
    headers = np.zeros(frame.height, dtype=_HEADER_ROW)
    headers["f"] = FORMAT
    headers["g"] = frame[DELETED].cast(pl.UInt8).to_numpy() * TOMBSTONE
    for letter, name in zip("ecao", (EVENT_TIMESTAMP, CREATED_TIMESTAMP, ACCEPTED, ORDINAL), strict=True):
        # Adding the bias modulo 2**64 is flipping the sign bit of the two's complement.
        headers[letter] = frame[name].to_numpy().view(np.uint64) ^ np.uint64(BIAS)
    headers["s"] = frame[SCHEMA].to_numpy()
    return headers.tobytes()


def storable(values: pl.Series, dtype: Dtype) -> list[StoredValue]:
    """A column as the values that a body holds: timestamps as microseconds, embeddings as bytes."""
    if dtype.kind == "timestamp":
        return values.to_physical().to_list()
    if dtype.kind == "embedding":
        width = 4 * dtype.dim
        packed = values.drop_nulls().explode().to_numpy().astype("<f4").tobytes()
        starts = iter(range(0, len(packed), width))
        return [None if null else packed[(at := next(starts)) : at + width] for null in values.is_null()]
    return values.to_list()
