"""The body of a push as rows: JSON objects or an Arrow stream, at most so many, and of bounded size when decoded."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from email.message import Message
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from django.http import HttpRequest
from rest_framework.request import Request

from catalog.bodies import MAX_BYTES, parse_json, require_keys
from engine.errors import InvalidInput, InvalidRows, Problem, TooLarge, UnsupportedMediaType
from ingestion.push_rows import NAMED_PROBLEMS, Rows

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
MAX_ROWS = 10_000

#: How an Arrow stream ends. The format lets it be left out; without it a stream that was cut looks like a whole one.
_END = b"\xff\xff\xff\xff\0\0\0\0"
#: Numbers of the Arrow format (Message.fbs): which header a message has, and where its fields stand.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_HEADER_TYPE, _HEADER = 1, 2
_DATA_OF_DICTIONARY, _COMPRESSION = 1, 3


def rows_in(body: bytes, content_type: str) -> Rows:
    """The rows of a body of this type; raises UnsupportedMediaType, TooLarge, InvalidInput, InvalidRows."""
    kind = media_type(content_type)
    if kind == ARROW:
        return rows_of_arrow(body)
    if kind == JSON:
        return rows_of_json(parse_json(body))
    raise UnsupportedMediaType(f"Rows are {JSON} in UTF-8 or {ARROW}; got {content_type[:100] or 'no Content-Type'!r}.")


def media_type(content_type: str) -> str:
    """The type without its parameters; empty for one with a charset other than UTF-8.

    >>> media_type("Application/JSON; charset=utf-8"), media_type("application/json; charset=latin1")
    ('application/json', '')
    """
    message = Message()
    message["content-type"] = content_type or "none"
    charset = message.get_param("charset", "utf-8")
    is_readable = isinstance(charset, str) and charset.lower() in ("utf-8", "utf8")
    return message.get_content_type() if content_type and is_readable else ""


def content_type_of(request: Request | HttpRequest) -> str:
    return cast(str, request.META.get("CONTENT_TYPE") or "")


def rows_of_json(document: Any) -> Sequence[dict[str, object]]:
    """The objects in `{"rows": [...]}`."""
    if not isinstance(document, dict):
        raise InvalidInput('The body is a JSON object: {"rows": [...]}.')
    require_keys(document, required={"rows"})
    rows = document["rows"]
    if not isinstance(rows, list):
        raise InvalidInput("`rows` is a list of objects.", [Problem("/rows", "is not a list")])
    require_few(len(rows))
    if wrong := [number for number, row in enumerate(rows) if not isinstance(row, dict)]:
        problems = [Problem(f"/rows/{number}", "is not an object") for number in wrong[:NAMED_PROBLEMS]]
        raise InvalidRows("A row is an object: a value by each column's name.", problems)
    return rows


def require_few(rows: int) -> None:
    """Raises TooLarge beyond what one request may push."""
    if rows > MAX_ROWS:
        raise TooLarge(f"A push has at most {MAX_ROWS} rows; got {rows}.")


def rows_of_arrow(body: bytes) -> pa.Table:
    """The one table of an Arrow stream, read without its buffers being inflated beyond what was sent."""
    if not body.endswith(_END):
        raise InvalidInput("The body is not an Arrow stream that ends with its end-of-stream marker.")
    try:
        _refuse_compression(body)
        table = _read_few(body)
        table.validate()
        decoded = sum(_decoded_bytes(column) for column in table.columns)
        if decoded <= MAX_BYTES:
            return pa.table([_without_views(column) for column in table.columns], names=table.column_names)
    except (pa.ArrowException, struct.error, IndexError, OSError, ValueError) as error:
        raise InvalidInput("The body is not an Arrow stream, or a damaged one.") from error
    raise TooLarge(f"The rows have at most {MAX_BYTES} bytes also when shared values are written out.")


def _without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with texts of its own where it has views, of which Arrow cannot take rows."""
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


def _read_few(body: bytes) -> pa.Table:
    batches, rows = [], 0
    with pa.ipc.open_stream(body) as reader:
        schema = reader.schema
        for batch in reader:
            rows += batch.num_rows
            require_few(rows)
            batches.append(batch)
    return pa.Table.from_batches(batches, schema)


def _refuse_compression(body: bytes) -> None:
    """Raises UnsupportedMediaType for compressed buffers: ten megabytes of them may hold any number of gigabytes."""
    for message in pa.ipc.MessageReader.open_stream(body):
        metadata = message.metadata.to_pybytes()
        table = struct.unpack_from("<I", metadata)[0]
        kind, header = _field(metadata, table, _HEADER_TYPE), _table(metadata, table, _HEADER)
        if metadata[kind] == _DICTIONARY_BATCH:
            header = _table(metadata, header, _DATA_OF_DICTIONARY)
        if metadata[kind] in (_DICTIONARY_BATCH, _RECORD_BATCH) and _field(metadata, header, _COMPRESSION):
            raise UnsupportedMediaType("The Arrow stream is compressed; write it without compression.")


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffers table stands; 0 for one that is not there."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _table(metadata: bytes, table: int, number: int) -> int:
    place = _field(metadata, table, number)
    return place + int(struct.unpack_from("<I", metadata, place)[0])


def _decoded_bytes(column: pa.ChunkedArray) -> int:
    """The bytes that a column grows to where many rows may share one value, or need none; 0 of any other column."""
    return sum(_decoded_bytes_of(chunk) for chunk in column.chunks)


def _decoded_bytes_of(chunk: pa.Array) -> int:
    kind, types = chunk.type, pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        chunk.validate(full=True)
        items = chunk.flatten()
        return len(items) if types.is_null(items.type) else _decoded_bytes_of(items)
    if types.is_dictionary(kind) and (types.is_string(kind.value_type) or types.is_large_string(kind.value_type)):
        chunk.validate(full=True)
        return pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
    return _length_of_views(chunk) if types.is_string_view(kind) else 0


def _length_of_views(chunk: pa.Array) -> int:
    """The sum of the lengths in the views, each of which is 16 bytes and begins with its own."""
    lengths = np.frombuffer(chunk.buffers()[1], dtype="<i4")[::4][chunk.offset : chunk.offset + len(chunk)]
    return int(lengths[chunk.is_valid().to_numpy(zero_copy_only=False)].sum(dtype=np.int64))
