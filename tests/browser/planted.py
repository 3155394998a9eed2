"""Plants in a hub what its demo does not have; `python -m tests.browser.planted` prints the ids of what is in it."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

import django

READER = "forecast of the north"
REQUESTS = 41


def main() -> None:
    django.setup()
    with redirect_stdout(sys.stderr):
        read_as_a_key()
        ids = ids_of_screens()
    print(json.dumps(ids))


def read_as_a_key() -> None:
    """A key that has read what a service of the demo has."""
    from catalog import access, usage
    from catalog.actions import Caller
    from catalog.models import FeatureService

    key, _ = access.create_key(name=READER, scopes=["read"])
    service = FeatureService.objects.get(name="sales_forecast", version=1)
    names = tuple(f"{feature.group.name}:{feature.name}" for feature in service.features.select_related("group"))
    for _ in range(REQUESTS):
        usage.count(names, Caller(key.name, frozenset({"read"}), key_id=key.public_id))
    usage.record()


def ids_of_screens() -> dict[str, str]:
    """What stands in the addresses of screens (tests/browser/screens.py)."""
    from catalog.models import Feature, Run, RunState
    from ingestion.models import QuarantinedRule

    rule = QuarantinedRule.objects.get(run__group__name="purchase_lines", column="units", rule="max_value")
    ids = {
        "run": rule.run_id,
        "failed_run": Run.objects.get(group__name="daily_repeat_sales", state=RunState.FAILED).pk,
        "feature": Feature.objects.get(group__name="purchase_lines", name="units").pk,
        "rule": rule.pk,
    }
    return {name: str(id) for name, id in ids.items()}


if __name__ == "__main__":
    main()
