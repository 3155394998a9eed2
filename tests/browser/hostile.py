"""Plants markup in every text that a hub keeps; `python -m tests.browser.hostile` prints the ids of what has it.

Names cannot have any: the database refuses them (catalog/models/naming.py). What somebody's rules or forms would
refuse is written past them, since rows may be older than rules.
"""

from __future__ import annotations

import csv
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from catalog.models import FeatureGroup, Run

#: Ends an attribute, a tag, a text area and a script; runs where any of it is taken for markup.
TEXT = (
    "\"'></textarea></title></script><script>window.hostile = 1</script>"
    "<img src=x onerror=\"window.hostile = 1\"><svg onload='window.hostile = 1'>{{ 7|add:35 }}javascript:alert(1)"
)
#: The same as far as a file's name may have it.
FILE = "\"'><img src=x onerror=window.hostile=1>.csv"

DEFINITIONS: dict[str, Any] = {
    "owners": [{"name": "hostile", "email": "hostile@example.com", "members": ["admin"]}],
    "entities": [
        {
            "name": "hostile",
            "description": TEXT,
            "join_keys": [{"name": "id", "dtype": "string"}],
            "owner": "hostile",
        }
    ],
    "feature_groups": [
        {
            "name": "hostile",
            "entity": "hostile",
            "description": TEXT,
            "owner": "hostile",
            "status": "active",
            "event_timestamp": "at",
            "features": [
                {
                    "name": "words",
                    "dtype": "string",
                    "description": TEXT,
                    "validation": {"allowed_values": [TEXT, "a"]},
                },
                {"name": "short", "dtype": "string", "description": TEXT, "validation": {"max_length": 1000}},
                {"name": "made", "dtype": "string", "transformation": {"expression": "words || '<script>1</script>'"}},
                {"name": "idea", "dtype": "string", "description": TEXT, "status": "draft"},
            ],
            "source": {"kind": "file", "path": f"hostile/{FILE}"},
        },
        {
            "name": "hostile_too",
            "entity": "hostile",
            "description": TEXT,
            "event_timestamp": "at",
            "status": "active",
            "features": [{"name": "lost", "dtype": "string"}],
            "source": {"kind": "file", "path": "hostile/lost.csv"},
        },
    ],
    "feature_services": [
        {
            "name": "hostile",
            "description": TEXT,
            "owner": "hostile",
            "features": ["hostile:words", "hostile:short"],
        }
    ],
}


def main() -> None:
    django.setup()
    with redirect_stdout(sys.stderr):
        ids = plant()
    print(json.dumps(ids))


def plant() -> dict[str, str]:
    from django.conf import settings

    from catalog.definitions import apply
    from ingestion.push import find_group

    folder = Path(settings.FEATUREHUB_SOURCE_ROOTS[0]) / "hostile"
    folder.mkdir(parents=True)
    definitions = folder / "definitions.yaml"
    definitions.write_text(json.dumps(DEFINITIONS))
    apply([definitions], by=TEXT)
    write_rows(folder / FILE, ["id", "at", "words", "short", "idea"])
    write_rows(folder / "lost.csv", ["id", "at", TEXT])
    run, failed = ingest(find_group("hostile")), ingest(find_group("hostile_too"))
    type(run).objects.filter(pk=run.pk).update(requested_by=TEXT, message=TEXT, worker=TEXT[:100])
    told = {"error": TEXT, "error_code": "invalid_rows", "requested_by": TEXT}
    type(failed).objects.filter(pk=failed.pk).update(**told)
    write_reasons(run)
    write_people()
    rules = {rule.column: str(rule.pk) for rule in run.quarantined.all()}
    feature = run.group.features.get(name="words")  # type: ignore[union-attr]
    return {"run": str(run.pk), "failed_run": str(failed.pk), "rule": rules["words"], "feature": str(feature.pk)}


def write_rows(path: Path, columns: list[str]) -> None:
    """Rows that are taken and two that break rules, with markup in ids, values and maybe a column's name."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for n in range(60):
            words = f"{TEXT}!" if n == 3 else TEXT
            short = TEXT * 9 if n == 5 else TEXT
            values = {"id": f"{TEXT}{n}", "at": "2026-11-01T00:00:00Z", "words": words, "short": short}
            rows.writerow([values.get(column, TEXT) for column in columns])


def ingest(group: FeatureGroup) -> Run:
    """The group's run, which has ended, well or not."""
    from engine.errors import FeaturehubError
    from ingestion.ingest import ingest

    try:
        ingest(group)
    except FeaturehubError as error:
        print(error, file=sys.stderr)
    run: Run = group.runs.latest("created_at")
    return run


def write_reasons(run: Run) -> None:
    """What people write when they do something: a deprecation, a review, a discarding."""
    from django.contrib.auth.models import User

    from catalog import follows, reviews
    from catalog.lifecycle import change_status
    from catalog.models import Entity, Feature, NoticeKind, Status
    from ingestion.settle import Selection, discard

    features = {feature.name: feature for feature in Feature.objects.filter(group__name="hostile")}
    admin = User.objects.get(username="admin")
    follows.follow(admin, Entity.objects.get(name="hostile"))
    follows.tell(NoticeKind.STALE, features["words"].group, TEXT, key="hostile", run=run)
    change_status(features["short"], Status.DEPRECATED, by=TEXT, reason=TEXT, replaced_by=features["words"])
    reviews.request_review(features["idea"], by=admin, note=TEXT)
    discard(features["words"].group, Selection(run.pk, "short", "length", None), reason=TEXT, by=TEXT)


def write_people() -> None:
    """A person, a team, a key and a schedule with markup in what they are called."""
    from django.contrib.auth.models import User
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    from catalog import access, usage
    from catalog.actions import Caller
    from catalog.models import Owner

    User.objects.create_user(username=TEXT[:150], first_name=TEXT[:150], email=TEXT[:250])
    Owner.objects.filter(name="hostile").update(email=TEXT[:250])
    key, _ = access.create_key(name=TEXT[:100], scopes=["read"])
    usage.count(("hostile:words", "hostile:short"), Caller(key.name, frozenset({"read"}), key_id=key.public_id))
    usage.record()
    hour, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.HOURS)
    PeriodicTask.objects.create(name=TEXT[:200], task="nothing", interval=hour, description=TEXT, enabled=False)


if __name__ == "__main__":
    main()
