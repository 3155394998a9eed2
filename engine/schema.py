"""The plain values that every other module shares: dtypes, fields and the schema of a feature group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import polars as pl
import pyarrow as pa

from engine.errors import InvalidDefinition
from engine.validation import Validation

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MAX_EMBEDDING_DIM = 65_536

EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
ACCEPTED = "_accepted"
ORDINAL = "_ordinal"
SCHEMA = "_schema"
DELETED = "_deleted"
RUN = "_run"

#: Of two rows of one entity the later one in this order wins, wherever they meet.
VERSION_ORDER = (EVENT_TIMESTAMP, CREATED_TIMESTAMP, ACCEPTED, ORDINAL)
#: Names that a feature, an input or a join key cannot take: every stored row has them.
RESERVED_NAMES = frozenset({EVENT_TIMESTAMP, CREATED_TIMESTAMP})

TIMESTAMP_ARROW = pa.timestamp("us", tz="UTC")
TIMESTAMP_POLARS = pl.Datetime("us", "UTC")

Kind = Literal["int64", "float64", "bool", "string", "timestamp", "embedding", "list"]

_SCALARS_ARROW: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": TIMESTAMP_ARROW,
}
_SCALARS_POLARS: dict[str, pl.DataType] = {
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "bool": pl.Boolean(),
    "string": pl.String(),
    "timestamp": TIMESTAMP_POLARS,
}
_LIST_ITEMS = ("int64", "float64", "string")
_COMPOUND = re.compile(r"embedding\((\d+)\)|list<(\w+)>")


@dataclass(frozen=True, slots=True)
class Dtype:
    """How a value is stored: a scalar, `embedding(dim)` of float32, or `list<item>`.

    >>> str(Dtype.parse("embedding(3)")), Dtype.parse("list<string>").item
    ('embedding(3)', 'string')
    """

    kind: Kind
    dim: int = 0
    item: str = ""

    @classmethod
    def parse(cls, text: str) -> Dtype:
        """The dtype written as `text`; raises InvalidDefinition listing what may be written."""
        if text in _SCALARS_ARROW:
            return cls(text)  # type: ignore[arg-type]
        if match := _COMPOUND.fullmatch(text):
            if match[1] and 0 < int(match[1]) <= MAX_EMBEDDING_DIM:
                return cls("embedding", dim=int(match[1]))
            if match[2] in _LIST_ITEMS:
                return cls("list", item=match[2])
        raise InvalidDefinition(
            f"{text!r} is not a dtype; one of {', '.join(_SCALARS_ARROW)}, embedding(<1 to {MAX_EMBEDDING_DIM}>), "
            f"{', '.join(f'list<{item}>' for item in _LIST_ITEMS)} is."
        )

    def __str__(self) -> str:
        if self.kind == "embedding":
            return f"embedding({self.dim})"
        return f"list<{self.item}>" if self.kind == "list" else self.kind

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type; an embedding is a list of float32 whose length conforming has checked."""
        if self.kind == "embedding":
            return pa.list_(pa.float32())
        return pa.list_(_SCALARS_ARROW[self.item]) if self.kind == "list" else _SCALARS_ARROW[self.kind]

    @property
    def polars(self) -> pl.DataType:
        if self.kind == "embedding":
            return pl.List(pl.Float32())
        return pl.List(_SCALARS_POLARS[self.item]) if self.kind == "list" else _SCALARS_POLARS[self.kind]


DTYPE_KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Field:
    """A named, typed column. Nullable: that a value must be there is a validation rule, not a type."""

    name: str
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class Transformation:
    """How a derived feature is computed: exactly one of the three.

    expression: scalar SQL text over inputs and features of the group.
    function:   dotted path of a function in an allow-listed module, called with `arguments`;
                `rowwise` calls it with one dict per row, else once with a Polars frame.
    local:      recorded only: a Python object of the process that registered it computes the feature.
    """

    expression: str = ""
    function: str = ""
    arguments: tuple[str, ...] = ()
    rowwise: bool = False
    local: str = ""


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One feature as ingestion sees it: where its value comes from and what it must satisfy."""

    name: str
    dtype: Dtype
    transformation: Transformation | None = None
    validation: Validation = Validation()


@dataclass(frozen=True)
class GroupSchema:
    """The columns of one version of a feature group, frozen: what a stored row with this `schema_id` holds.

    `event_timestamp` and `created_timestamp` name the columns of the source; stored rows call them
    EVENT_TIMESTAMP and CREATED_TIMESTAMP. `features` is the order of the values in an online row.
    `request_inputs` are sent with a read, `on_request` are the features computed from them (engine/on_request.py):
    no row holds either.
    """

    group: str
    version: int
    schema_id: int
    join_keys: tuple[Field, ...]
    features: tuple[FeatureColumn, ...]
    inputs: tuple[Field, ...] = ()
    event_timestamp: str = EVENT_TIMESTAMP
    created_timestamp: str = ""
    request_inputs: tuple[Field, ...] = ()
    on_request: tuple[FeatureColumn, ...] = ()

    @cached_property
    def given(self) -> tuple[Field, ...]:
        """The value columns that a raw row carries: inputs and features without a transformation."""
        return self.inputs + tuple(Field(f.name, f.dtype) for f in self.features if f.transformation is None)

    @cached_property
    def raw_names(self) -> tuple[str, ...]:
        """Every column of a raw row: join keys, timestamps as the source names them, given values."""
        timestamps = [self.event_timestamp] + ([self.created_timestamp] if self.created_timestamp else [])
        return tuple(k.name for k in self.join_keys) + tuple(timestamps) + tuple(f.name for f in self.given)

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.join_keys)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def offline(self) -> pa.Schema:
        """The columns of an offline row, in order: keys, timestamps, inputs, features, then ours."""
        fields = [pa.field(key.name, key.dtype.arrow) for key in self.join_keys]
        fields += [pa.field(EVENT_TIMESTAMP, TIMESTAMP_ARROW), pa.field(CREATED_TIMESTAMP, TIMESTAMP_ARROW)]
        fields += [pa.field(field.name, field.dtype.arrow) for field in self.inputs]
        fields += [pa.field(feature.name, feature.dtype.arrow) for feature in self.features]
        ours = [(ACCEPTED, pa.int64()), (ORDINAL, pa.int64()), (SCHEMA, pa.int32()), (DELETED, pa.bool_())]
        return pa.schema(fields + [pa.field(name, kind) for name, kind in ours] + [pa.field(RUN, pa.string())])
