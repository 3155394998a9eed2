"""Plants in a hub what its demo does not have; `python -m tests.browser.planted` prints how to find it, as JSON.

Customers are the demo's first, moments lie in the last days, and amounts follow from a row's number.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pyarrow as pa

if TYPE_CHECKING:
    from catalog.models import FeatureGroup, Run

ROWS = 600
#: One basket in so many has more things than its rule allows; one in so many a coupon that is none.
TOO_MANY, NO_COUPON = 50, 120


def main() -> None:
    django.setup()
    with redirect_stdout(sys.stderr):
        planted = plant()
    print(json.dumps(planted))


def plant() -> dict[str, str]:
    """What stands in the addresses of screens: the ids of two runs, a feature and a broken rule."""
    from django.conf import settings

    from catalog.definitions import apply
    from ingestion.push import find_group

    folder = Path(settings.FEATUREHUB_SOURCE_ROOTS[0]) / "browser"
    folder.mkdir(parents=True)
    write_baskets(folder / "baskets.csv")
    (folder / "visits.csv").write_text("customer_id,seen_at\n00002,2026-01-01T00:00:00Z\n")
    apply([Path(__file__).with_name("shop.yaml")], by="tests")
    baskets = find_group("customer_baskets")
    follow(baskets)
    run, failed = ingest(baskets), ingest(find_group("customer_visits"))
    deprecate(baskets)
    read_as_a_key()
    make_dataset()
    assert (run.state, failed.state) == ("succeeded", "failed")
    feature = baskets.features.get(name="items")
    rule = run.quarantined.get(column="items")
    found = {"run": run.pk, "failed_run": failed.pk, "feature": feature.pk, "rule": rule.pk}
    return {name: str(key) for name, key in found.items()}


def write_baskets(path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    lines = ["customer_id,packed_at,items,basket_value,coupon,packing_seconds"]
    for n in range(ROWS):
        items = 25 if n % TOO_MANY == 7 else n * 7 % 13
        coupon = "none" if n % NO_COUPON == 30 else f"SAVE{n % 90 + 10}" if n % 3 else ""
        at = (now - timedelta(minutes=n)).isoformat()
        lines.append(f"{n + 2:05d},{at},{items},{items * 12.5 + n % 5},{coupon},")
    path.write_text("\n".join(lines) + "\n")


def follow(group: FeatureGroup) -> None:
    """Whoever logs in follows the group, and so is told of what happens to it."""
    from django.contrib.auth.models import User

    from catalog import follows

    follows.follow(User.objects.get(username="admin"), group)


def ingest(group: FeatureGroup) -> Run:
    """The group's newest run, which has ended, well or not."""
    from engine.errors import FeaturehubError
    from ingestion.ingest import ingest

    try:
        ingest(group, by="tests")
    except FeaturehubError as error:
        print(error, file=sys.stderr)
    run: Run = group.runs.latest("created_at")
    return run


def deprecate(group: FeatureGroup) -> None:
    from catalog.lifecycle import change_status
    from catalog.models import Status

    change_status(
        group.features.get(name="basket_value"),
        Status.DEPRECATED,
        by="tests",
        reason="It counts shipping too.",
        replaced_by=group.features.get(name="value_per_item"),
        sunset=datetime.now(UTC) + timedelta(days=60),
    )


def read_as_a_key() -> None:
    """A key that reads what the service has."""
    from catalog import access, usage
    from catalog.actions import Caller
    from catalog.models import FeatureService

    key, _ = access.create_key(name="basket model", scopes=["read"])
    service = FeatureService.objects.get(name="baskets_v1")
    names = tuple(f"{feature.group.name}:{feature.name}" for feature in service.features.select_related("group"))
    for _ in range(41):
        usage.count(names, Caller(key.name, frozenset({"read"}), key_id=key.public_id))
    usage.record()


def make_dataset() -> None:
    from serving import datasets
    from serving.training import Asked

    now = datetime.now(UTC)
    moments = pa.array([now] * 200, pa.timestamp("us", "UTC"))
    spine = pa.table({"customer_id": [f"{n + 2:05d}" for n in range(200)], "event_timestamp": moments})
    datasets.execute(datasets.register("baskets_of_today", Asked(service="baskets_v1"), spine, by="tests").run)


if __name__ == "__main__":
    main()
