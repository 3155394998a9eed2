"""Pushing and deleting rows: through the pipeline, into the log in one transaction, then online, then the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import polars as pl
from django.db import transaction
from django.utils import timezone

from catalog import suppression, writable
from catalog.models import Acceptance, CatalogState, FeatureGroup, Run, RunKind, RunState, Status
from catalog.schemas import Local
from catalog.writable import WritableGroup
from engine import faults
from engine.errors import Conflict, FeaturehubError, SchemaMoved, Unavailable
from engine.pipeline import Place, stamped
from engine.schema import GroupSchema
from ingestion import materialize, push_rows
from ingestion.idempotency import Repeatable
from ingestion.models import IdempotencyKey, PushBatch
from ingestion.push_rows import Computed, Rows
from ingestion.quarantine import Quarantine

#: How often rows are computed for a group that changes meanwhile, before the sender is told to try again.
ATTEMPTS = 3

Online = Literal["applied", "pending"]
OnError = Literal["reject", "quarantine"]
Compute = Callable[[WritableGroup], Computed]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push: `applied` is readable online now, `pending` will be when Redis is back.

    suppressed: rows that were not taken, since they are of an entity that was erased.
    """

    accepted: int
    online: Online
    quarantined: int = 0
    suppressed: int = 0

    def counts(self) -> dict[str, int | str]:
        """What its sender is told."""
        suppressed = {"suppressed": self.suppressed} if self.suppressed else {}
        return {"accepted": self.accepted, "quarantined": self.quarantined, **suppressed, "online": self.online}


@dataclass(frozen=True, slots=True)
class _Logged:
    """What was accepted: the rows as they are stored (None without any), and how many were suppressed."""

    offline: pl.DataFrame | None
    suppressed: int

    @property
    def accepted(self) -> int:
        return 0 if self.offline is None else self.offline.height


def find_group(name: str) -> FeatureGroup:
    """The group that rows may be written to; raises UnknownName with near names, or Conflict when it is archived."""
    group = writable.group_named(name)
    require_writable(group)
    return group


def find_target(name: str) -> FeatureGroup:
    """The same for a push, without a query while no definition has changed: to look at, not to change."""
    group = writable.find(name).group
    require_writable(group)
    return group


def require_writable(group: FeatureGroup) -> None:
    """Raises Conflict for an archived group."""
    if group.status == Status.ARCHIVED:
        raise Conflict(f"{group.name} is archived and takes no rows; activate it first.")


def push(
    group: FeatureGroup,
    rows: Rows,
    *,
    by: str = "",
    local: Local | None = None,
    default_event_timestamp: datetime | None = None,
    on_error: OnError = "reject",
    repeatable: Repeatable | None = None,
) -> Pushed:
    """Accept all of `rows` or none: when this returns they are in the log and, unless pending, online.

    With `on_error="quarantine"` the good rows are accepted and the bad ones kept, under a run of kind `push`.
    Raises InvalidRows naming row and column of each value that breaks its type or its rule, Conflict for an archived
    group, SchemaMoved when the group kept changing, IdempotencyKeyReused.
    """

    def compute(target: WritableGroup) -> Computed:
        computed = push_rows.compute(rows, target, local=local, default_event_timestamp=default_event_timestamp)
        if on_error == "reject":
            push_rows.require_all(computed, target.schema)
        return computed

    return _accept(group, compute, by=by, repeatable=repeatable)


def delete(
    group: FeatureGroup,
    keys: Mapping[str, object],
    *,
    at: datetime | str | None = None,
    by: str = "",
    repeatable: Repeatable | None = None,
) -> Pushed:
    """Accept a tombstone of one entity, at `at` (aware, or RFC 3339; now if absent); raises as `push` does.

    Its rows that are older in version order are dead in both stores, whenever they arrive; a newer one revives it.
    """
    when = timezone.now() if at is None else at

    def compute(target: WritableGroup) -> Computed:
        return push_rows.compute_tombstone({**keys, target.schema.event_timestamp: when}, target.schema)

    return _accept(group, compute, by=by, repeatable=repeatable)


class _Repeated(Exception):
    """The same request has been accepted by another transaction meanwhile."""

    def __init__(self, before: IdempotencyKey) -> None:
        self.before = before


def _accept(group: FeatureGroup, compute: Compute, *, by: str, repeatable: Repeatable | None) -> Pushed:
    if repeatable and (before := repeatable.find(group)):
        return _as_before(writable.find(group.name), before)
    for _ in range(ATTEMPTS):
        target = writable.find(group.name)
        require_writable(target.group)
        computed = compute(target)
        try:
            logged = _log(target, computed, by=by, repeatable=repeatable)
        except SchemaMoved:
            continue
        except _Repeated as repeated:
            return _as_before(target, repeated.before)
        faults.hit("push.after_log_commit")
        online: Online = "applied" if logged.offline is None else _bring_online(target, logged.offline)
        return Pushed(logged.accepted, online, computed.rejected_count, logged.suppressed)
    raise SchemaMoved(f"{group.name} changed {ATTEMPTS} times while the rows were computed for it; send them again.")


def _as_before(target: WritableGroup, before: IdempotencyKey) -> Pushed:
    """What was answered then, with `online` as it is now."""
    online: Online = "applied"
    if before.accepted:
        batch = before.batch
        is_served = batch is not None and batch.group_version == target.group.version
        online = _bring_online(target, push_rows.rows_of(batch) if batch and is_served else None)
    return Pushed(before.accepted, online, before.quarantined, before.suppressed)


def _log(target: WritableGroup, computed: Computed, *, by: str, repeatable: Repeatable | None) -> _Logged:
    """One transaction for the rows, the quarantine of the others and the key.

    Raises _Repeated, and SchemaMoved when any definition has changed by now; nothing is kept then.
    """
    group, schema, offline, batch = target.group, target.schema, None, None
    with _kept_payloads(group, computed, by) as quarantine, transaction.atomic():
        record = _claim(group, repeatable)  # first: it is what a parallel repetition waits for
        state = CatalogState.read()
        if state.definitions != target.definitions:
            raise SchemaMoved(f"{group.name} changed while the rows were computed for it; send them again.")
        kept = suppression.kept(group.entity, computed.accepted, state.erasures)
        suppressed = kept.suppressed.total()
        if quarantine or kept.rows.height:
            acceptance = Acceptance.take()
            if kept.rows.height:
                offline = _stamped(replace(computed, accepted=kept.rows), schema, acceptance)
                batch = _batch(group, schema, offline, acceptance, by)
            if quarantine:
                _record(quarantine, computed, acceptance, suppressed)
        if record:
            record.answered(kept.rows.height, computed.rejected_count, suppressed, batch)
    return _Logged(offline, suppressed)


def _claim(group: FeatureGroup, repeatable: Repeatable | None) -> IdempotencyKey | None:
    if repeatable is None:
        return None
    record, is_mine = repeatable.claim(group)
    if not is_mine:
        raise _Repeated(record)
    return record


def _stamped(computed: Computed, schema: GroupSchema, acceptance: Acceptance) -> pl.DataFrame:
    return stamped(
        computed.accepted,
        schema,
        Place.of_acceptance(acceptance.pk, acceptance.accepted_at, first_ordinal=0),
        run=f"push:{acceptance.pk}",
        deleted=computed.deleted,
    )


def _batch(
    group: FeatureGroup, schema: GroupSchema, offline: pl.DataFrame, acceptance: Acceptance, by: str
) -> PushBatch:
    return PushBatch.objects.create(
        group=group,
        group_version=schema.version,
        acceptance=acceptance,
        rows=push_rows.to_bytes(offline, schema),
        row_count=offline.height,
        pushed_by=by,
    )


@contextmanager
def _kept_payloads(group: FeatureGroup, computed: Computed, by: str) -> Iterator[Quarantine | None]:
    """The rejected rows in files of a run that is not saved yet; the files go when the rows are refused after all."""
    if not computed.rejected:
        yield None
        return
    run = Run(kind=RunKind.PUSH, group=group, group_version=group.version, requested_by=by, started_at=timezone.now())
    quarantine = Quarantine(run)
    try:
        quarantine.add(computed.raw(), computed.rejected, first_row=0)
        quarantine.close()
        yield quarantine
    except (FeaturehubError, _Repeated):  # a commit whose outcome is unknown keeps the files
        quarantine.remove()
        raise


def _record(quarantine: Quarantine, computed: Computed, acceptance: Acceptance, suppressed: int) -> None:
    run = quarantine.run
    run.acceptance, run.state, run.finished_at = acceptance, RunState.SUCCEEDED, timezone.now()
    run.rows_read = len(computed.sent)
    run.rows_accepted, run.rows_quarantined = computed.accepted.height - suppressed, quarantine.rows
    run.rows_suppressed = suppressed
    run.save(force_insert=True)
    quarantine.record()


def _bring_online(target: WritableGroup, rows: pl.DataFrame | None) -> Online:
    try:
        if rows is not None:
            faults.hit("push.before_upsert")
            materialize.upsert_frame(target.group, rows, target.layouts)
            faults.hit("push.after_upsert")
        return "pending" if materialize.is_cold() else "applied"  # nothing of a cold store is readable
    except Unavailable:
        return "pending"  # the drain brings every batch online once more
