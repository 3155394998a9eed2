"""Every key of the demo asked in both ways, in a process of the hub: what is served, and a point-in-time join at now.

Prints one JSON text for each phase: as the demo was loaded; with pushes of every kind that no drain has moved; the same
with a TTL that half of the customers are older than; and once the drain has been.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa

from featurehub.feature_store import FeatureStore

GROUP = "customer_purchases"
FEATURES = (
    *("total_purchases", "total_units", "total_spent"),
    *("avg_purchase_value", "days_since_previous_purchase", "customer_segment"),
)
Answers = list[tuple[object, ...]]


def customers() -> list[str]:
    """Every customer that a row names, in the table or in the log, and one that none does."""
    return [*pl.concat(frame.select("customer_id") for frame in stored())["customer_id"].unique().sort(), "nobody"]


def stored() -> list[pl.DataFrame]:
    """The rows of the table and those of the log that are not in it, read without a drain."""
    from catalog import stores
    from catalog.writable import group_named
    from ingestion import materialize

    group = group_named(GROUP)
    table = materialize.frames_of(stores.offline(GROUP, group.version).files())
    return [*table, *materialize.frames_of_log(group)]


def served(ids: list[str], now: datetime) -> Answers:
    """What is online at `now`: values, then statuses."""
    from serving import vectors

    answers: Answers = []
    for start in range(0, len(ids), vectors.MAX_ROWS):
        part = vectors.read(
            vectors.of_features([f"{GROUP}:{name}" for name in FEATURES]),
            {"customer_id": ids[start : start + vectors.MAX_ROWS]},
            now_us=round(now.timestamp() * 1_000_000),
        )
        answers += [(*row, *told) for row, told in zip(part.python_values(), part.statuses, strict=True)]
    return answers


def joined(ids: list[str], now: datetime) -> Answers:
    """The same by the point-in-time join over the table and the log, as they lie."""
    from catalog import snapshot
    from engine.pointintime import duckdb
    from engine.pointintime.rule import GroupHistory, HistoryFeature

    catalog = snapshot.load()
    group = catalog.groups[GROUP]
    features = tuple(
        HistoryFeature(name, name, group.features[name].dtype, group.schema_ids_with(name)) for name in FEATURES
    )
    with TemporaryDirectory() as folder:
        paths = []
        for number, frame in enumerate(stored()):
            path = Path(folder) / f"{number}.parquet"
            frame.write_parquet(path)
            paths.append(str(path))
        history = GroupHistory(GROUP, tuple(paths), catalog.entities[group.entity], group.ttl, features)
        table = duckdb.join(spine(ids, now), [history], statuses=True, temp_directory=Path(folder) / "spill")
    assert isinstance(table, pa.Table)
    return [tuple(row.values())[2:] for row in table.to_pylist()]


def trained(ids: list[str], now: datetime) -> Answers:
    """The same as a user asks for a dataset, which drains first."""
    from serving import training

    asked = training.Asked(features=tuple(f"{GROUP}:{name}" for name in FEATURES))
    table = training.build(asked, spine(ids, now), statuses=True)
    return [tuple(row.values())[2:] for row in table.to_pylist()]


def spine(ids: list[str], now: datetime) -> pa.Table:
    times = pa.array([now] * len(ids), pa.timestamp("us", "UTC"))
    return pa.table({"customer_id": ids, "event_timestamp": times})


def tell(phase: str, ids: list[str], online: Answers, joined: Answers) -> None:
    differences = [each for each in zip(ids, online, joined, strict=True) if each[1] != each[2]]
    statuses = Counter(status for answer in joined for status in answer[len(FEATURES) :])
    told = {"phase": phase, "keys": len(ids), "undrained": undrained(), "statuses": statuses}
    print(json.dumps(told | {"differences": len(differences), "first": differences[:3]}, default=str), flush=True)


def undrained() -> int:
    from catalog.writable import group_named
    from ingestion import materialize

    return materialize.undrained(group_named(GROUP)).count()


def push_all_kinds(ids: list[str], now: datetime) -> None:
    """Newer rows, older ones, one at the very time of the newest, a new customer, a deletion, some revived."""
    from catalog.writable import group_named
    from ingestion.push import delete, push

    group = group_named(GROUP)

    def bought(customer: str, at: datetime, total: int) -> dict[str, Any]:
        return {
            "customer_id": customer,
            "purchased_until": at.isoformat(),
            "total_purchases": total,
            "total_units": total,
            "total_spent": 10.0 * total,
            "days_since_previous_purchase": None,
        }

    newest = pl.concat([f.select("customer_id", "event_timestamp") for f in stored()])
    at_its_newest = dict(newest.group_by("customer_id").max().iter_rows())
    hour = timedelta(hours=1)
    push(group, [bought(customer, now - hour, 1000) for customer in ids[:200]])
    push(group, [bought(customer, now + timedelta(minutes=4), 1001) for customer in ids[100:150]])
    push(group, [bought(customer, datetime(1990, 1, 1, tzinfo=UTC), 1002) for customer in ids[200:300]])
    push(group, [bought(customer, at_its_newest[customer], 1003) for customer in ids[300:400]])
    push(group, [bought("somebody new", now - hour, 1)])
    for customer in ids[400:420]:
        delete(group, {"customer_id": customer}, at=now - hour)
    push(group, [bought(customer, now - 2 * hour, 1004) for customer in ids[400:410]])
    push(group, [bought(customer, now, 1005) for customer in ids[415:420]])


def main() -> None:
    FeatureStore()
    from django.conf import settings

    from catalog.models import FeatureGroup
    from catalog.writable import group_named

    # What lies ahead by no more than the allowed skew is served, so the join is asked as of that much later.
    skew = timedelta(seconds=settings.FEATUREHUB_MAX_CLOCK_SKEW_SECONDS)
    begun = datetime.now(UTC)
    ids = customers()
    tell("loaded", ids, served(ids, begun + skew), joined(ids, begun + skew))
    push_all_kinds(ids, begun)
    ids, now = customers(), begun + skew
    tell("pushed", ids, served(ids, now), joined(ids, now))
    group: FeatureGroup = group_named(GROUP)
    times = pl.concat([f.select("customer_id", "event_timestamp") for f in stored()])
    newest = times.group_by("customer_id").max()["event_timestamp"].sort()
    group.ttl = now - newest[len(newest) // 2]  # exactly as old as one of them, which is served
    group.save()
    tell("pushed, with a ttl", ids, served(ids, now), joined(ids, now))
    online = served(ids, now)
    tell("drained", ids, online, trained(ids, now))


if __name__ == "__main__":
    main()
