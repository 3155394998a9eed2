"""The demo's numbers are those that a few lines of pandas find in the shop's own file, online and offline."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from featurehub.environment import PROJECT
from tests.journeys.conftest import Run

FEATURES = [
    "total_purchases",
    "total_units",
    "total_spent",
    "avg_purchase_value",
    "days_since_previous_purchase",
    "customer_segment",
]

READ_BOTH_STORES = """
import json, sys
from featurehub.feature_store import FeatureStore
store = FeatureStore()
ids = json.loads(sys.argv[1])
store.get_offline_features("customer_purchases").to_parquet(sys.argv[2])
print(json.dumps({one: store.get_online_features("customer", one) for one in ids}))
"""


def by_hand(customer: pd.DataFrame) -> pd.DataFrame:
    """One row per day with a purchase, from one customer's purchases in file order."""
    rows = []
    for day, until in ((d, customer[customer.purchased_on <= d]) for d in customer.purchased_on.unique()):
        spent, count = until.amount_usd.sum(), len(until)
        earlier = until.purchased_on[until.purchased_on < day]
        gap = float("nan") if earlier.empty else (day - earlier.max()).days
        segment = "bronze" if spent < 50 else "silver" if spent < 150 else "gold" if spent < 500 else "platinum"
        rows.append((day, count, until.units.sum(), spent, spent / count, gap, segment))
    return pd.DataFrame(rows, columns=["day", *FEATURES])


@pytest.fixture(scope="module")
def purchases() -> pd.DataFrame:
    file = PROJECT / "examples" / "cdnow" / "transactions.csv.gz"
    return pd.read_csv(file, dtype={"customer_id": str}, parse_dates=["purchased_on"])


@pytest.fixture(scope="module")
def loads(run: Run) -> list[dict[str, object]]:
    """Two loads, one after the other."""
    return [json.loads(run("manage.py", "demo", "--json")) for _ in range(2)]


def test_a_second_load_adds_nothing(loads: list[dict[str, object]]) -> None:
    first, second = loads
    assert (first["accepted"], first["quarantined"]) == (67_591, 0)
    assert (second["read"], second["accepted"]) == (0, 0)
    assert second["shift_weeks"] == first["shift_weeks"]


def test_both_stores_hold_what_pandas_finds_in_the_file(
    run: Run, loads: list[dict[str, object]], purchases: pd.DataFrame, tmp_path: Path
) -> None:
    several = purchases[purchases.duplicated(["customer_id", "purchased_on"])].customer_id.unique()[:20]
    ids = [*purchases.customer_id.unique()[::200], *several]
    assert len(ids) >= 100
    online = json.loads(run("-c", READ_BOTH_STORES, json.dumps(ids), tmp_path / "offline.parquet"))
    offline = pd.read_parquet(tmp_path / "offline.parquet")
    assert len(offline) == len(purchases.drop_duplicates(["customer_id", "purchased_on"]))
    shift = pd.Timedelta(weeks=loads[0]["shift_weeks"], days=1)
    stored = {key: rows for key, rows in offline.groupby("customer_id") if key in ids}
    for customer in ids:
        expected = by_hand(purchases[purchases.customer_id == customer])
        rows = stored[customer].sort_values("event_timestamp").reset_index(drop=True)
        assert list(rows.event_timestamp) == list((expected.day + shift).dt.tz_localize("UTC"))
        pd.testing.assert_frame_equal(rows[FEATURES], expected[FEATURES], check_dtype=False, rtol=1e-12)
        newest = pd.DataFrame([online[customer]])[FEATURES].fillna(float("nan"))
        last = expected[FEATURES].tail(1).reset_index(drop=True)
        pd.testing.assert_frame_equal(newest, last, check_dtype=False, rtol=1e-12)


def test_the_last_purchase_lies_within_the_week_before_the_load(run: Run, loads: list[dict[str, object]]) -> None:
    newest = pd.Timestamp("1998-06-30", tz="UTC") + pd.Timedelta(weeks=loads[0]["shift_weeks"], days=1)
    now = pd.Timestamp.now("UTC")
    assert now - pd.Timedelta(days=8) < newest <= now


def test_every_key_is_served_what_a_join_at_now_finds(run: Run, loads: list[dict[str, object]]) -> None:
    """The last of these tests, since it pushes rows to the hub and gives its group a TTL."""
    phases = [json.loads(line) for line in run("-m", "tests.journeys.agreement").splitlines() if line[0] == "{"]
    assert [phase["first"] for phase in phases] == [[]] * 4
    assert [phase["differences"] for phase in phases] == [0] * 4
    assert [phase["phase"] for phase in phases] == ["loaded", "pushed", "pushed, with a ttl", "drained"]
    assert [phase["keys"] for phase in phases] == [23_571, *[23_572] * 3]  # all of them, and nobody; and somebody new
    loaded, pushed, aged, drained = (phase["statuses"] for phase in phases)
    assert [phase["undrained"] for phase in phases] == [0, 27, 27, 0]
    assert (loaded["PRESENT"] + loaded["NULL_VALUE"], loaded["NOT_FOUND"]) == (23_570 * 6, 6)
    assert pushed["NOT_FOUND"] == 6 + 15 * 6  # fifteen of the twenty that were deleted stay so
    assert aged["OUTSIDE_MAX_AGE"] > 10_000 * 6
    assert aged["PRESENT"] > 10_000
    assert drained == aged
