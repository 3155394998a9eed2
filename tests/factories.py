"""A customer, a feature group about customers and rows of it: what many tests begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.models import DataSource, Entity, Feature, FeatureGroup, Status
from catalog.models.feature import default_type
from engine.schema import Dtype

AVERAGE = "CASE WHEN total_purchases > 0 THEN total_spent / total_purchases ELSE 0 END"
SEGMENTS = ["bronze", "silver", "gold", "platinum"]
TEN = "2024-11-01T10:00:00Z"
ELEVEN = "2024-11-01T11:00:00Z"
NOON = "2024-11-01T12:00:00Z"


def make_customer_group(
    name: str = "customer_purchases",
    *,
    keys: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    source: str = "",
    **fields: Any,
) -> FeatureGroup:
    """An active group of the entity `customer`, timed by `purchased_at`.

    `keys`, `inputs` and `features` give a dtype by name. Without `features` it has those of the guides: an input and
    three features, of which one is computed and two have rules. `source` is a path below a source root.
    """
    entity = make_entity("customer", keys or {"customer_id": "string"})
    if source:
        fields["source"] = DataSource.objects.create(name=f"{name}_files", path=source)
    settled = {"status": Status.ACTIVE, "event_timestamp": "purchased_at"} | fields
    group = FeatureGroup.objects.create(name=name, entity=entity, **settled)
    if features is None:
        inputs = {"total_spent": "float64"} | dict(inputs or {})
    for column, dtype in (inputs or {}).items():
        group.inputs.create(name=column, dtype=dtype)
    if features is None:
        add_feature(group, "total_purchases", "int64", not_null=True, min_value=0)
        add_feature(group, "avg_purchase_value", "float64", expression=AVERAGE)
        add_feature(group, "customer_segment", "string", allowed_values=SEGMENTS)
    for column, dtype in (features or {}).items():
        add_feature(group, column, dtype)
    return group


def make_entity(name: str, keys: Mapping[str, str]) -> Entity:
    """The entity of that name; made with these join keys (dtype by name) when there is none."""
    entity, is_new = Entity.objects.get_or_create(name=name)
    for position, (key, dtype) in enumerate(keys.items() if is_new else ()):
        entity.join_keys.create(name=key, dtype=dtype, position=position)
    return entity


def add_feature(group: FeatureGroup, name: str, dtype: str, *, expression: str = "", **rules: Any) -> Feature:
    """One more feature at the end of the group; `rules` are those of its validation."""
    return group.features.create(
        name=name,
        dtype=dtype,
        type=default_type(Dtype.parse(dtype)),
        position=group.features.count(),
        expression=expression,
        validation=rules,
    )


def purchase(customer_id: Any = "C1", at: Any = TEN, **values: Any) -> dict[str, Any]:
    """One raw row of the group that `make_customer_group()` makes."""
    row = {"customer_id": customer_id, "purchased_at": at, "total_spent": 100.0, "total_purchases": 4}
    return row | {"customer_segment": "gold"} | values


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, header: str = "") -> Path:
    """A CSV of the rows, values as str() has them and None as an empty field; `header` replaces the names."""
    lines = [header or ",".join(rows[0])]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table) -> Path:
    """A Parquet file of the rows; a column of texts that are all RFC 3339 times becomes timestamps in UTC."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
    for at, field in enumerate(table.schema):
        if field.name.endswith("_at") and pa.types.is_string(field.type):
            table = table.set_column(at, field.name, table[field.name].cast(pa.timestamp("us", "UTC")))
    pq.write_table(table, path)
    return path
