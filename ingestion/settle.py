"""Settling rejected rows: queueing the run that replays them, or discarding them with a reason; each row once.

A replay is written down at the rows that it takes up before it begins, and whether it holds them is read from its own
state: nothing has to be given back when it fails, and nothing stays behind when its worker is killed (ADR 11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from catalog.models import FeatureGroup, Run, RunKind
from catalog.schemas import current_schema
from engine import faults
from engine.conform import conform_values
from engine.errors import Conflict, InvalidInput, NotFound
from ingestion.models import QuarantinedRow, QuarantinedRule, QuarantineState
from ingestion.models.quarantine import HELD, REPLAYED, QuarantinedRules
from ingestion.push import require_writable
from ingestion.quarantine import payloads_of


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rejected rows of a group are meant: those that fit every part that is given, or one row of a run."""

    run: UUID | None = None
    column: str = ""
    rule: str = ""
    row: int | None = None
    ids: tuple[int, ...] = ()
    state: str = ""


def rules_of(group: FeatureGroup, selection: Selection) -> QuarantinedRules:
    """The rules that a selection means, newest first, with their states; not those of runs that are under way."""
    given = {"run": selection.run, "column": selection.column, "rule": selection.rule, "pk__in": selection.ids}
    wanted = {name: value for name, value in {**given, "state": selection.state}.items() if value}
    found = QuarantinedRule.objects.of_ended_runs().with_state().filter(run__group=group, **wanted)
    return found.select_related("run__group").order_by("-pk")


def queue_replay(
    group: FeatureGroup,
    selection: Selection,
    *,
    values: Mapping[str, object] | None = None,
    by: str = "",
    principal: str = "",
) -> Run:
    """A queued run of kind `replay` that holds the chosen rows that wait; `values` are laid over its one row.

    Raises NotFound when nothing is chosen, Conflict when nothing of it waits or the group is archived, InvalidRows for
    values that their columns do not take, InvalidInput for values without a row.
    """
    require_writable(group)
    if values and selection.row is None:
        raise InvalidInput("values mend one row: name its run and its row.")
    conform_values(values or {}, current_schema(group))
    with transaction.atomic():
        chosen = _waiting(group, selection)
        run = Run.queue(group, kind=RunKind.REPLAY, requested_by=by, principal=principal)
        if selection.row is None:
            _settle_rules(chosen, replay=run)
        else:
            _settle_row(chosen[0], selection.row, replay=run, values=dict(values or {}))
    faults.hit("replay.after_claim")
    return run


def discard(group: FeatureGroup, selection: Selection, *, reason: str, by: str) -> int:
    """Settle the chosen rows that wait so that no replay takes them up; how many. Their payloads are kept.

    Raises NotFound and Conflict as `queue_replay` does, InvalidInput without a reason.
    """
    if not reason.strip():
        raise InvalidInput("Discarding needs a reason; it is kept beside the rows.")
    told = {"discarded_at": timezone.now(), "discarded_by": by, "discard_reason": reason.strip()}
    with transaction.atomic():
        chosen = _waiting(group, selection)
        if selection.row is None:
            _settle_rules(chosen, replay=None, **told)
        else:
            _settle_row(chosen[0], selection.row, replay=None, **told)
    faults.hit("discard.after_commit")
    return 1 if selection.row is not None else sum(rule.pending_rows for rule in chosen)


def _waiting(group: FeatureGroup, selection: Selection) -> list[QuarantinedRule]:
    """The chosen rules of which rows wait, locked; of a selected row the one rule, as long as the row itself waits."""
    is_row = selection.row is not None
    if is_row:
        selection = _rule_of_row(group, selection)
    locked = _locked(rules_of(group, selection))
    if not locked:
        raise NotFound(f"{group.name} has no quarantined rows {_in_words(selection)}".rstrip() + ".")
    chosen = list(rules_of(group, Selection(ids=tuple(locked))))
    # Of a rule whose rows were settled one by one, the row itself says what became of it.
    waits = {QuarantineState.PENDING} | ({QuarantineState.SETTLED} if is_row else set())
    waiting = [rule for rule in chosen if rule.state in waits]
    if not waiting:
        raise Conflict(f"Nothing to settle: {_refusal(chosen[0])}")
    if not is_row:
        _require_no_held_rows(waiting)
    return waiting


def _locked(rules: QuarantinedRules) -> list[int]:
    """The rules' ids; they, and the replays that decide whether they are free, stay as they are for the transaction."""
    ids = list(rules.order_by("pk").values_list("pk", flat=True))
    list(QuarantinedRule.objects.filter(pk__in=ids).order_by("pk").select_for_update().values_list("pk"))
    of_rules = QuarantinedRule.objects.filter(pk__in=ids).values("replay")
    of_rows = QuarantinedRow.objects.filter(rule__in=ids).values("replay")
    holders = Run.objects.filter(Q(pk__in=of_rules) | Q(pk__in=of_rows))
    list(holders.order_by("pk").select_for_update().values_list("pk"))
    return ids


def _require_no_held_rows(rules: Sequence[QuarantinedRule]) -> None:
    """A row whose replay fails has to be free again, which it is not when its whole rule is settled meanwhile."""
    held = QuarantinedRow.objects.filter(HELD, rule__in=[rule.pk for rule in rules]).first()
    if held:
        raise Conflict(f"{held} is being replayed by run {held.replay_id}; try again when that one has ended.")


def _settle_rules(rules: Iterable[QuarantinedRule], *, replay: Run | None, **discarded: object) -> None:
    """All rows of the rules but those that are settled; a replay that gave single ones back has no claim to them."""
    ids = [rule.pk for rule in rules]
    QuarantinedRow.objects.filter(rule__in=ids, discarded_at=None).exclude(REPLAYED).delete()
    QuarantinedRule.objects.filter(pk__in=ids).update(replay=replay, **discarded)


def _settle_row(rule: QuarantinedRule, number: int, **settled: object) -> None:
    """One row; a replay that gave the whole rule back has no claim to it either."""
    known = QuarantinedRow.objects.filter(rule=rule, row=number)
    if row := known.filter(HELD | REPLAYED).first():
        raise Conflict(f"Nothing to settle: {row} was taken up by run {row.replay_id}.")
    if row := known.exclude(discarded_at=None).first():
        raise Conflict(f"Nothing to settle: {row} was discarded by {row.discarded_by}: {row.discard_reason}")
    QuarantinedRule.objects.filter(pk=rule.pk).update(replay=None)
    QuarantinedRow.objects.update_or_create(rule=rule, row=number, defaults=settled)


def _rule_of_row(group: FeatureGroup, selection: Selection) -> Selection:
    """The selection of the one rule that a row broke; raises InvalidInput without a run, NotFound for no such row."""
    if selection.run is None:
        raise InvalidInput("A row is one of a run: name the run, too.")
    run = Run.objects.select_related("group").filter(pk=selection.run, group=group).first()
    for kept in payloads_of(run) if run else ():
        if kept["row"] == selection.row:
            return Selection(selection.run, str(kept["column"]), str(kept["rule"]))
    raise NotFound(f"{group.name} has no quarantined row {selection.row} of run {selection.run}.")


def _in_words(selection: Selection) -> str:
    said = {"of run": selection.run, "with column": selection.column, "with rule": selection.rule}
    return " ".join(f"{name} {value}" for name, value in said.items() if value)


def _refusal(rule: QuarantinedRule) -> str:
    """Why rows of the rule cannot be settled now."""
    run, now = rule.run, rule.run.group.version
    return {
        QuarantineState.DISCARDED: f"discarded by {rule.discarded_by}: {rule.discard_reason}",
        QuarantineState.REPLAYED: f"replayed by run {rule.replay_id}.",
        QuarantineState.REPLAYING: f"held by run {rule.replay_id}, a replay that has not ended for good.",
        QuarantineState.SETTLED: "each row was replayed or discarded by itself.",
        QuarantineState.RUN_FAILED: (
            f"run {run.pk} is {run.state}, so nothing of it was kept and its rows are read again; "
            "mend its file and ingest that."
        ),
        QuarantineState.SUPERSEDED: (
            f"the rows came for version {run.group_version} of {run.group.name}, which is at version {now}; "
            "files are read again for it, and pushed rows are to be sent again."
        ),
    }[QuarantineState(rule.state)]
