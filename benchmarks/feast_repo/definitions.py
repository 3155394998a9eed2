"""The group of benchmarks/data.py as Feast defines it; `feast apply` reads this in a copy of the folder."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bool, Float64, Int64, String

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
rows = FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp")
customer_features = FeatureView(
    name="customer_features",
    entities=[customer],
    ttl=timedelta(0),
    source=PushSource(name="customer_pushes", batch_source=rows),
    schema=[
        *(Field(name=f"f{n}", dtype=Float64) for n in range(6)),
        Field(name="i0", dtype=Int64),
        Field(name="i1", dtype=Int64),
        Field(name="s0", dtype=String),
        Field(name="b0", dtype=Bool),
    ],
)
churn = FeatureService(name="churn", features=[customer_features])
