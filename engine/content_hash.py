"""The hash of a table's logical rows: the same whatever the chunks, encodings, compression and engine they came by.

Each column is hashed as a stream of its own, so that where one batch ends does not matter: the places of its nulls, the
lengths of what has a length, the values in little-endian bytes with nulls and NaN written in one way. A table's hash is
the SHA-256 of its columns' names, types and hashes; rows in another order have another one (docs/formats/dataset.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContentHash:
    """The hash of the rows given to `update` so far, and how many of each column are null."""

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = {field.name: _Column(field.type) for field in schema}
        self.rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Go on with these rows. Their columns are those of the schema, in any encoding."""
        for name, column in self._columns.items():
            column.update(batch[name], self.rows)
        self.rows += batch.num_rows

    def nulls(self, name: str) -> int:
        """How many values of a column were null."""
        return self._columns[name].nulls

    def hexdigest(self, names: Sequence[str] | None = None) -> str:
        """The hash of all columns, or of these in this order, as 64 hexadecimal digits."""
        whole = hashlib.sha256()
        for name in self._columns if names is None else names:
            column = self._columns[name]
            whole.update(f"{len(name.encode())}:{name} {column.type} {column.hexdigest()}\n".encode())
        return whole.hexdigest()


class _Column:
    """The streams of one column, or of the items of a column of lists."""

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = _decoded(kind)
        self.type = _name_of(self.kind)
        self.nulls = 0
        self._places, self._lengths, self._values = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._items = _Column(self.kind.value_type) if _is_list(self.kind) else None
        self._items_before = 0

    def update(self, values: pa.Array, before: int) -> None:
        """Go on with these values, of which the first is row `before`."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if values.null_count:
            places = np.flatnonzero(pc.is_null(values).to_numpy(zero_copy_only=False)) + before
            self._places.update(places.astype("<i8").tobytes())
            self.nulls += len(places)
        if self._items is not None:
            self._take_lists(values, self._items)
        elif _is_binary(self.kind) or _is_text(self.kind):
            self._take_texts(values)
        else:
            self._values.update(_fixed_width(values, self.kind))

    def _take_texts(self, values: pa.Array) -> None:
        wide = values.cast(pa.large_string() if _is_text(self.kind) else pa.large_binary())
        filled = pc.fill_null(wide, "" if _is_text(self.kind) else b"")
        self._lengths.update(pc.binary_length(filled).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        if not len(filled):
            return
        _, offsets, data = filled.buffers()
        ends = np.frombuffer(offsets, "<i8")[filled.offset : filled.offset + len(filled) + 1]
        if data is not None:
            self._values.update(memoryview(data)[int(ends[0]) : int(ends[-1])])

    def _take_lists(self, values: pa.Array, items: _Column) -> None:
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        self._lengths.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        inside = values.drop_null().flatten()
        items.update(inside, self._items_before)
        self._items_before += len(inside)

    def hexdigest(self) -> str:
        streams = [self._places, self._lengths, self._values]
        parts = [stream.hexdigest() for stream in streams]
        return " ".join([*parts, self._items.hexdigest()] if self._items else parts)


def _fixed_width(values: pa.Array, kind: pa.DataType) -> bytes:
    if pa.types.is_null(kind):
        return b""
    if pa.types.is_floating(kind):
        numbers = pc.fill_null(values, pa.scalar(0, kind)).to_numpy(zero_copy_only=False)
        return np.where(np.isnan(numbers), np.array(np.nan, numbers.dtype), numbers).tobytes()
    if pa.types.is_boolean(kind):
        return pc.fill_null(values, False).cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_integer(kind):
        return pc.fill_null(values, pa.scalar(0, kind)).to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_temporal(kind):
        ticks = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        return pc.fill_null(ticks, 0).to_numpy(zero_copy_only=False).tobytes()
    # Decimals and what else a spine of other tools may bring along: one line for each value as Arrow writes it.
    texts = ["" if value is None else repr(value) for value in values.to_pylist()]
    return "".join(f"{len(text)}:{text}" for text in texts).encode()


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _name_of(kind: pa.DataType) -> str:
    """The type without its encoding: a dictionary of texts, a large text and a view of one are texts."""
    if _is_list(kind):
        return f"list<{_name_of(_decoded(kind.value_type))}>"
    if _is_text(kind):
        return "string"
    return "binary" if _is_binary(kind) else str(kind)
