"""A real Feast client, in a virtual environment of its own, reads from the hub."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from tests.serving.conftest import Hub

FEAST = Path(__file__).parents[2] / ".venv-feast"
needs_feast = pytest.mark.skipif(
    not (FEAST / ".requirements.stamp").is_file(), reason="Feast is not installed in .venv-feast: `make feast` does it"
)

#: Reads with Feast's own client, which finds its definitions in a registry of its own and the values in the hub.
CLIENT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp
address, key, folder = sys.argv[1:]
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
types = {"total": Int64, "segment": String, "is_member": Bool, "average": Float64, "last_seen": UnixTimestamp,
         "taste": Array(Float32), "recent": Array(Int64)}
view = FeatureView(name="customer_purchases", entities=[customer],
                   schema=[Field(name=n, dtype=t) for n, t in types.items()],
                   source=FileSource(name="none", path=folder + "/none.parquet", timestamp_field="event_timestamp"))
auth = {"type": "oidc", "token": key} if key else {"type": "no_auth"}
store = FeatureStore(config=RepoConfig(project="hub", provider="local", registry=folder + "/registry.db", auth=auth,
    online_store={"type": "remote", "path": address + "/feast"}, entity_key_serialization_version=3))
store.registry.apply_entity(customer, "hub", commit=True)
store.registry.apply_feature_view(view, "hub", commit=True)
rows = [{"customer_id": name} for name in ("C1", "C2", "nobody")]
try:
    found = store.get_online_features(features=[f"customer_purchases:{n}" for n in types], entity_rows=rows)
    print(json.dumps(found.to_dict(), default=str))
except Exception as error:
    print(json.dumps({"error": str(error)}))
"""


@needs_feast
def test_a_real_feast_client_reads_with_a_key_and_not_without(
    committed_hub: Hub, live_server: LiveServer, tmp_path: Path
) -> None:
    def read(key: str) -> Any:
        command = [FEAST / "bin" / "python", "-c", CLIENT, live_server.url, key, tmp_path]
        quiet = {**os.environ, "FEAST_USAGE": "False", "FEAST_TELEMETRY": "False"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=quiet, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    found = read(committed_hub.key)
    assert found["customer_id"] == ["C1", "C2", "nobody"]
    assert found["total"] == [4, None, None]
    assert found["average"] == [25.0, 0.0, None]
    assert found["segment"] == ["gold", None, None]
    assert found["is_member"] == [True, None, None]
    assert found["taste"] == [[0.5, -1.0, 0.25], None, None]
    assert found["recent"] == [[1, 2**60], None, None]
    assert found["last_seen"] == [1767323045, None, None]
    assert "401" in read("")["error"]
