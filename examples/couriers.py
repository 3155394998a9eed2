"""The hub from Python, without a web server: define, push, read, train, deprecate.

    python examples/couriers.py

Gives the same answers however often it runs; it uses the embedded stack's stores, whether `make run` is up or not.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from featurehub.feature_store import (
    FeatureGroup,
    FeatureMetadata,
    FeatureStatus,
    FeatureStore,
    FeatureTransformation,
    FeatureType,
    FeatureValidation,
)

MORNING, EVENING = datetime(2026, 3, 1, 8, tzinfo=UTC), datetime(2026, 3, 1, 20, tzinfo=UTC)


def feature(name: str, description: str, **more: object) -> FeatureMetadata:
    return FeatureMetadata(name, description, FeatureType.NUMERICAL, "courier", status=FeatureStatus.ACTIVE, **more)


def main() -> None:
    store = FeatureStore()
    store.register_feature_group(
        FeatureGroup(
            name="courier_shifts",
            entity="courier",
            description="A courier's shift so far.",
            features=[
                feature("parcels", "Parcels delivered.", dtype="int64", validation=FeatureValidation(min_value=0)),
                feature(
                    "parcels_per_hour",
                    "Parcels per hour on the road; null before the first hour.",
                    transformation=FeatureTransformation(
                        name="pace",
                        description="Parcels by hours.",
                        source_features=["parcels", "hours"],
                        sql_query="CASE WHEN hours > 0 THEN parcels / hours END",
                    ),
                    validation=FeatureValidation(not_null=False),
                ),
            ],
        )
    )

    store.ingest_features("courier_shifts", "K1", {"parcels": 0, "hours": 0.0, "timestamp": MORNING})
    store.ingest_features("courier_shifts", "K1", {"parcels": 90, "hours": 7.5, "timestamp": EVENING})
    print("now:", store.get_online_features("courier_shifts", "K1"))

    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    spine = pd.DataFrame({"courier_id": ["K1", "K1"], "event_timestamp": [noon, EVENING], "was_late": [False, True]})
    trained = store.get_historical_features(spine, ["courier_shifts:parcels", "courier_shifts:parcels_per_hour"])
    print(trained.to_string(index=False))

    store.deprecate_feature("parcels", "courier", reason="Count deliveries instead.")
    print("parcels is", store.get_feature_metadata("parcels", "courier").status.value)


if __name__ == "__main__":
    main()
