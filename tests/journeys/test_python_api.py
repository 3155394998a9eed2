"""The Python API from a process of its own: the same answers twice in a row, beside other groups of the entity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.journeys.conftest import Run

SCRIPT = """
import json
from datetime import datetime
from featurehub.feature_store import (
    FeatureGroup, FeatureMetadata, FeatureStatus, FeatureStore, FeatureTransformation, FeatureType, FeatureValidation,
)

store = FeatureStore(name="tests", redis_host="localhost", redis_port=1)
mail = "data-team@example.com"
features = [
    FeatureMetadata(
        "visits", "Visits so far", FeatureType.NUMERICAL, "customer", mail, ["web"], status=FeatureStatus.ACTIVE
    ),
    FeatureMetadata(
        name="pages_per_visit", description="Pages by visits", feature_type=FeatureType.NUMERICAL, entity="customer",
        owner=mail, status=FeatureStatus.ACTIVE,
        transformation=FeatureTransformation(
            name="ratio", description="Pages by visits", source_features=["visits", "pages"],
            transformation_fn=lambda row: row["pages"] / row["visits"] if row["visits"] > 0 else 0,
        ),
    ),
    FeatureMetadata(
        name="customer_segment", description="By loyalty", feature_type=FeatureType.CATEGORICAL, entity="customer",
        owner=mail, status=FeatureStatus.ACTIVE, validation=FeatureValidation(allowed_values=["new", "old"]),
    ),
]
store.register_feature_group(FeatureGroup(name="web_visits", entity="customer", description="Web", features=features))
for key, visits, pages, segment in [("C1", 15, 1500.0, "old"), ("C2", 5, 250.0, "new"), ("C3", 0, 0.0, "new")]:
    store.ingest_features("web_visits", key, {
        "entity_id": key, "visits": visits, "pages": pages, "customer_segment": segment,
        "timestamp": datetime.now().isoformat(),
    })
rejected = []
for bad in ({"visits": 1, "pages": 1.0, "customer_segment": "gone"}, {"visits": 1, "pages": 1.0}, {"visits": "1"}):
    try:
        store.ingest_features("web_visits", "C1", bad)
    except Exception as error:
        rejected.append([getattr(error, "code", ""), sorted(p.pointer for p in getattr(error, "problems", ()))])
listed = [[f.name, f.status.value] for f in store.list_features()]
store.deprecate_feature("customer_segment", "customer")
rows = store.get_offline_features("web_visits").head(3)
print(json.dumps({
    "online": {key: store.get_online_features("web_visits", key) for key in ("C1", "C2", "C3")},
    "offline": rows.drop(columns="event_timestamp").values.tolist(),
    "listed": listed,
    "deprecated": store.get_feature_metadata("customer_segment", "customer").status.value,
    "unknown": store.get_feature_metadata("nothing", "customer"),
    "rejected": rejected,
}))
"""

EXPECTED = {
    "online": {
        "C1": {"visits": 15.0, "pages_per_visit": 100.0, "customer_segment": "old"},
        "C2": {"visits": 5.0, "pages_per_visit": 50.0, "customer_segment": "new"},
        "C3": {"visits": 0.0, "pages_per_visit": 0.0, "customer_segment": "new"},
    },
    "offline": [["C1", 15.0, 100.0, "old"], ["C2", 5.0, 50.0, "new"], ["C3", 0.0, 0.0, "new"]],
    "listed": [["visits", "active"], ["pages_per_visit", "active"], ["customer_segment", "active"]],
    "deprecated": "deprecated",
    "unknown": None,
    "rejected": [
        ["invalid_rows", ["/rows/0/customer_segment"]],
        ["invalid_rows", ["/rows/0/customer_segment"]],
        ["invalid_rows", ["/rows/0/customer_segment", "/rows/0/pages_per_visit", "/rows/0/visits"]],
    ],
}


@pytest.mark.parametrize("before", ["nothing", "the demo"])
def test_a_script_gives_the_same_answers_twice(run: Run, before: str) -> None:
    if before == "the demo":
        run("manage.py", "demo")
    for _ in range(2):
        said, answer = run("-c", SCRIPT).splitlines()
        assert said == "No Redis answers at localhost:1; using the embedded stack's own."
        assert json.loads(answer) == EXPECTED


def test_the_server_refuses_to_ingest_what_another_process_computes(run: Run, tmp_path: Path) -> None:
    run("-c", SCRIPT)
    file = tmp_path / "visits.csv"
    file.write_text("customer_id,event_timestamp,visits,pages,customer_segment\nC1,2026-01-01T00:00:00Z,1,2,new\n")
    refusal = run("manage.py", "ingest", "web_visits", "--from", file, "--json", code=1)
    assert "conflict" in refusal
    assert "pages_per_visit" in refusal


def test_a_redis_elsewhere_that_does_not_answer_is_an_error(run: Run) -> None:
    # 0.0.0.0 is no loopback address by its number, and yet nothing that is sent there leaves the machine.
    script = """
from engine.errors import Unavailable
from featurehub.feature_store import FeatureStore
try:
    FeatureStore(redis_host="0.0.0.0", redis_port=1)
except Unavailable as error:
    print(error.code)
"""
    assert run("-c", script) == "unavailable\n"


def test_the_examples_print_the_same_twice(run: Run) -> None:
    first, second = run("examples/couriers.py"), run("examples/couriers.py")
    assert first == second
    assert "{'parcels': 90, 'parcels_per_hour': 12.0}" in first
    assert "parcels is deprecated" in first
