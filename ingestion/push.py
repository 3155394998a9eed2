"""Pushing rows: the request's rows through the pipeline, into the log, then online, then the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import polars as pl
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from catalog.models import Acceptance, FeatureGroup, Status
from catalog.schemas import Local, current_schema
from engine.conform import conform_rows
from engine.errors import Conflict, InvalidRows, Problem, Unavailable, unknown_name
from engine.schema import GroupSchema
from engine.violations import Violation
from ingestion import materialize, push_rows
from ingestion.models import PushBatch
from ingestion.pipeline import Pipeline, stamped

#: Problems named in one refusal; the rest are counted.
NAMED_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push: `applied` is readable online now, `pending` will be when Redis is back."""

    accepted: int
    online: Literal["applied", "pending"]


def find_group(name: str) -> FeatureGroup:
    """The group that rows may be written to; raises UnknownName with near names, or Conflict when it is archived."""
    group = FeatureGroup.objects.select_related("entity", "source").filter(name=name).first()
    if group is None:
        raise unknown_name("feature group", name, FeatureGroup.objects.values_list("name", flat=True))
    require_writable(group)
    return group


def require_writable(group: FeatureGroup) -> None:
    """Raises Conflict for an archived group."""
    if group.status == Status.ARCHIVED:
        raise Conflict(f"{group.name} is archived and takes no rows; activate it first.")


def push(
    group: FeatureGroup,
    rows: Sequence[Mapping[str, object]],
    *,
    by: str = "",
    local: Local | None = None,
    default_event_timestamp: datetime | None = None,
) -> Pushed:
    """Accept all of `rows` or none: when this returns they are in the log and, unless pending, online.

    Raises InvalidRows naming row and column of each value that breaks its type or its rule, and Conflict for an
    archived group.
    """
    require_writable(group)
    schema = current_schema(group)
    accepted = _computed(schema, rows, local, default_event_timestamp)
    if accepted.is_empty():
        return Pushed(0, "applied")
    with transaction.atomic():
        acceptance = Acceptance.take()
        offline = stamped(
            accepted,
            schema,
            accepted=acceptance.pk,
            accepted_at=acceptance.accepted_at,
            first_ordinal=0,
            run=f"push:{acceptance.pk}",
        )
        PushBatch.objects.create(
            group=group,
            group_version=group.version,
            acceptance=acceptance,
            rows=push_rows.to_bytes(offline, schema),
            row_count=offline.height,
            pushed_by=by,
        )
    return Pushed(offline.height, _bring_online(group, offline))


def _computed(
    schema: GroupSchema,
    rows: Sequence[Mapping[str, object]],
    local: Local | None,
    default_event_timestamp: datetime | None,
) -> pl.DataFrame:
    conformed = conform_rows(
        rows,
        schema,
        now=timezone.now(),
        max_skew=timedelta(seconds=settings.FEATUREHUB_MAX_CLOCK_SKEW_SECONDS),
        default_event_timestamp=default_event_timestamp,
    )
    processed = Pipeline(schema, local or {}).process(conformed)
    if processed.rejected:
        raise InvalidRows(
            f"{schema.group} takes none of the {len(rows)} rows: some break its types or rules.",
            _problems(processed.rejected)[:NAMED_PROBLEMS],
        )
    return processed.accepted


def _problems(violations: Sequence[Violation]) -> list[Problem]:
    """One problem per row and column: the first, since what follows on one cell follows from it."""
    found: dict[str, Problem] = {}
    for violation in violations:
        for row in violation.rows.to_list():
            pointer = f"/rows/{row}/{violation.column}"
            found.setdefault(pointer, Problem(pointer, f"{violation.rule}: {violation.detail}"))
    return list(found.values())


def _bring_online(group: FeatureGroup, rows: pl.DataFrame) -> Literal["applied", "pending"]:
    try:
        materialize.upsert_frame(group, rows)
        return "pending" if materialize.is_cold() else "applied"  # nothing of a cold store is readable
    except Unavailable:
        return "pending"  # the drain brings every batch online once more
