"""The browser of rejected rows: by group, column and rule; replayed after something was mended, or discarded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, Sum, Value, When
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse

from catalog.access import WRITE, AnyCaller, name_of, principal_of, require, seen
from catalog.models import FeatureGroup, Run
from catalog.pages.addresses import page_of
from catalog.pages.paging import Listed, cut
from catalog.pages.searching import page_number
from catalog.pages.viewing import form_page, page, show
from catalog.registry.kinds import FEATURE_GROUPS
from catalog.registry.kinds import find as find_thing
from engine.errors import Conflict, FeaturehubError, InvalidInput, NotFound
from ingestion.api import hand_over
from ingestion.models import QuarantinedRow, QuarantinedRule, QuarantineState
from ingestion.models.quarantine import DISCARDED, HELD, REPLAYED, QuarantinedRules
from ingestion.pages.broken import ALL_ROWS, Broken, Counts, broken_of
from ingestion.pages.runs import MOST_NAMES
from ingestion.settle import Selection, discard, queue_replay

RULES_PER_PAGE = 20
RECORDS_PER_PAGE = 50
#: Rules of a group that its own page names.
FEW_RULES = 5
#: Rows that were settled one by one which a page names.
SINGLE_ROWS = 20
MOST_CHOSEN = 100
_LONGEST = 200
#: What is shown unless an address asks for something else, and the word for all there is.
OPEN, ANY = "open", "any"
STATES = {
    OPEN: "Open: waiting or being replayed",
    QuarantineState.PENDING: "Waiting",
    QuarantineState.REPLAYING: "Being replayed",
    QuarantineState.REPLAYED: "Replayed",
    QuarantineState.DISCARDED: "Discarded",
    QuarantineState.SETTLED: "Settled one by one",
    QuarantineState.RUN_FAILED: "Of failed runs",
    QuarantineState.SUPERSEDED: "Of older versions",
    ANY: "Any state",
}
_OPEN_STATES = (QuarantineState.PENDING, QuarantineState.REPLAYING)


@dataclass(frozen=True, slots=True)
class RuleQuery:
    """Which rejected rows an address asks for; what it says wrongly is as if it did not."""

    state: str = OPEN
    group: str = ""
    run: UUID | None = None
    page: int = 1

    @classmethod
    def of(cls, given: QueryDict) -> RuleQuery:
        state = given.get("state", "")
        return cls(
            state if state in STATES else OPEN,
            given.get("group", "").replace("\0", "").strip()[:_LONGEST],
            _uuid(given.get("run", "")),
            page_number(given),
        )

    @property
    def is_narrowed(self) -> bool:
        return bool(self.state not in (OPEN, ANY) or self.group or self.run)

    def parameters(self) -> str:
        """The query as the end of an address, without its page."""
        pairs = [("state", self.state)] if self.state != OPEN else []
        pairs += [("group", self.group)] if self.group else []
        return urlencode(pairs + ([("run", str(self.run))] if self.run else []))

    def chosen(self) -> list[tuple[str, str, str]]:
        """Each filter that is set: what it is called, its value, and the parameters of the list without it."""
        told = [("State", STATES[self.state], replace(self, state=OPEN))] if self.state != OPEN else []
        told += [("Group", self.group, replace(self, group=""))] if self.group else []
        told += [("Run", str(self.run)[:8], replace(self, run=None))] if self.run else []
        return [(title, value, left.parameters()) for title, value, left in told]

    def narrow(self, rules: QuarantinedRules) -> QuarantinedRules:
        """Those of the records, read `with_state`, that it asks for."""
        wanted = {OPEN: _OPEN_STATES, QuarantineState.PENDING: _OPEN_STATES[:1]}.get(self.state)
        if wanted:  # those whose rows were all settled one by one are left out by `find`
            rules = rules.with_state_as_a_whole().filter(**{"whole__in": wanted})
        elif self.state != ANY:
            rules = rules.in_state(self.state)
        if self.group:
            rules = rules.filter(run__group__name=self.group)
        return rules.filter(run=self.run) if self.run else rules


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def readable(caller: AnyCaller) -> QuarantinedRules:
    """What was kept of rejected rows of the groups that a caller may read, with its state."""
    groups = seen(caller, FeatureGroup.objects.order_by()).values("pk")
    return QuarantinedRule.objects.of_ended_runs().with_state().filter(run__group__in=groups)


@dataclass(frozen=True, slots=True)
class Together:
    """What the records of one group, column and rule come to; `newest` is the id of the newest of them."""

    newest: int
    counts: Counts


def by_rule(records: QuarantinedRules) -> list[Together]:
    """Records put together by group, column and rule; those of which most rows wait first, then the newest."""
    found: Any = records.with_state_as_a_whole().order_by().values("run__group", "column", "rule")
    found = found.annotate(
        all_rows=Sum("row_count"),
        unsettled=_rows_that_are(QuarantineState.PENDING),
        replaying=_rows_that_are(QuarantineState.REPLAYING),
        runs=Count("pk"),
        newest=Max("pk"),
    )
    singly = _settled_one_by_one(records)
    together = []
    for one in found:
        waiting = one["unsettled"] - singly.get((one["run__group"], one["column"], one["rule"]), 0)
        together.append(Together(one["newest"], Counts(one["all_rows"], waiting, one["replaying"], one["runs"])))
    return sorted(together, key=lambda one: (-one.counts.waiting, -one.newest))


def _rows_that_are(state: QuarantineState) -> Sum:
    return Sum(Case(When(whole=state.value, then=F("row_count")), default=Value(0)))


def _settled_one_by_one(records: QuarantinedRules) -> dict[tuple[int, str, str], int]:
    """How many rows of records that nothing became of as a whole were settled by themselves."""
    wanted = {"whole": QuarantineState.PENDING.value}
    of = records.with_state_as_a_whole().filter(**wanted, pk=OuterRef("rule"))
    settled: Any = QuarantinedRow.objects.filter(HELD | REPLAYED | DISCARDED, Exists(of)).order_by()
    names = ("rule__run__group", "rule__column", "rule__rule")
    return {tuple(key): count for *key, count in settled.values_list(*names).annotate(count=Count("pk"))}


def shown_rules(found: Sequence[Together], caller: AnyCaller) -> list[Broken]:
    """Rules as people read them, in the same order."""
    counts = {one.newest: one.counts for one in found}
    records = QuarantinedRule.objects.with_state().select_related("run__group", "replay").in_bulk(list(counts))
    return broken_of([records[pk] for pk in counts if pk in records], caller, counts=counts)


def find(query: RuleQuery, records: QuarantinedRules) -> list[Together]:
    """The rules that a query asks for, of some records."""
    found = by_rule(query.narrow(records))
    if query.state not in (OPEN, QuarantineState.PENDING):
        return found
    return [one for one in found if one.counts.waiting or one.counts.replaying]


def listed(rows: Sequence[Any], number: int, per_page: int) -> Listed:
    at, part = cut(len(rows), number, per_page)
    return Listed(rows[part], len(rows), at, per_page)


@page
def quarantine_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    query = RuleQuery.of(request.GET)
    found = listed(find(query, readable(caller)), query.page, RULES_PER_PAGE)
    shown = shown_rules(found.rows, caller)
    context = {
        "title": "Quarantine",
        "query": query,
        "found": found,
        "shown": shown,
        "chosen": query.chosen(),
        "states": [(state, title, state == query.state) for state, title in STATES.items()],
        "groups": seen(caller, FeatureGroup.objects.order_by("name")).values_list("name", flat=True)[:MOST_NAMES],
        "may_settle": any(broken.may_write and broken.counts.waiting for broken in shown),
        "waiting": sum(broken.counts.waiting for broken in shown),
    }
    return show(request, caller, "ingestion/quarantine.html", context, here="catalog-quarantine")


@page
def group_quarantine(request: HttpRequest, caller: AnyCaller, name: str) -> HttpResponse:
    """The part of a group's page that tells of its rejected rows; asked for by itself it is the whole list."""
    group: FeatureGroup = find_thing(FEATURE_GROUPS, [name], caller)
    if "HX-Request" not in request.headers:
        return redirect(f"{reverse('catalog-quarantine')}?{urlencode({'group': group.name})}")
    found = find(RuleQuery(group=group.name), readable(caller))
    context = {"group": group, "shown": shown_rules(found[:FEW_RULES], caller), "has_more": len(found) > FEW_RULES}
    return show(request, caller, "ingestion/parts/group_quarantine.html", context)


def find_record(caller: AnyCaller, id: int) -> QuarantinedRule:
    """One record of the groups that a caller may read, with its state; raises NotFound."""
    record = (
        readable(caller).select_related("run__group__entity", "replay").filter(pk=id).first() if id < 2**63 else None
    )
    if record is None:
        raise NotFound(f"There are no quarantined rows {id}.")
    return record


def alike(records: QuarantinedRules, record: QuarantinedRule) -> QuarantinedRules:
    """Those that are of the same group, column and rule."""
    return records.filter(run__group=record.run.group_id, column=record.column, rule=record.rule)


@page
def rule_page(request: HttpRequest, caller: AnyCaller, id: int) -> HttpResponse:
    """One rule: its rows that wait, what became of the others, and by which runs they came."""
    record = find_record(caller, id)
    records = alike(readable(caller), record)
    (together,) = by_rule(records)
    query = RuleQuery.of(request.GET)
    found = _newest(records, together.counts.runs, query.page)
    (broken,) = broken_of([record], caller, counts={record.pk: together.counts}, rows=ALL_ROWS)
    singles = QuarantinedRow.objects.filter(rule__in=[one.pk for one in found.rows]).select_related("rule", "replay")
    context = {
        "broken": broken,
        "record": record,
        "found": found,
        "query": query,
        "singles": singles.order_by("-pk")[:SINGLE_ROWS],
        "can_mend_rows": broken.may_write and record.state in (QuarantineState.PENDING, QuarantineState.SETTLED),
    }
    return show(request, caller, "ingestion/rule.html", context, here="catalog-quarantine")


def _newest(records: QuarantinedRules, total: int, number: int) -> Listed:
    """A page of records, newest first. Their ids come first, so that the states of the others are not asked for."""
    at, part = cut(total, number, RECORDS_PER_PAGE)
    ids = records.order_by("-pk").values_list("pk", flat=True)[part]
    whole = QuarantinedRule.objects.with_state().filter(pk__in=list(ids)).select_related("run__group", "replay")
    return Listed(list(whole.order_by("-pk").defer("samples")), total, at, RECORDS_PER_PAGE)


# -- Settling


def _ids(given: QueryDict, name: str) -> list[int]:
    """Ids of records that a form has; raises InvalidInput for what is none."""
    texts = given.getlist(name)[: MOST_CHOSEN + 1]
    if len(texts) > MOST_CHOSEN:
        raise InvalidInput(f"At most {MOST_CHOSEN} rules can be chosen at once.")
    if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in texts):
        raise InvalidInput("A choice of rejected rows is the number of a record.")
    return [int(text) for text in texts]


def chosen_records(request: HttpRequest, caller: AnyCaller) -> list[QuarantinedRule]:
    """The records that wait of what a form has chosen: `record` means one, else `rule` all alike it, else each of
    `chosen` all alike it.

    Raises NotFound for what is out of reach, NotAllowed for a caller who may not write to all of it, Conflict when
    nothing of it waits.
    """
    known = readable(caller).select_related("run__group")
    one, alike_these = _ids(request.POST, "record"), _ids(request.POST, "rule") or _ids(request.POST, "chosen")
    named = list(known.filter(pk__in=one or alike_these))
    if not (one or alike_these):
        raise Conflict("No rule is ticked: tick some, or use a rule's own buttons.")
    if not named:
        raise NotFound("There are no such quarantined rows.")
    for group in {record.run.group for record in named}:
        require(caller, WRITE, group)
    if one:
        return named
    is_alike = Q(pk__in=[])
    for group_id, column, rule in {(record.run.group_id, record.column, record.rule) for record in named}:
        is_alike |= Q(run__group=group_id, column=column, rule=rule)
    waiting = list(known.filter(is_alike).in_state(QuarantineState.PENDING).defer("samples"))
    if not waiting:
        raise Conflict("Nothing of it waits any more.")
    return waiting


def _by_group(records: Iterable[QuarantinedRule]) -> dict[FeatureGroup, list[QuarantinedRule]]:
    groups: defaultdict[FeatureGroup, list[QuarantinedRule]] = defaultdict(list)
    for record in records:
        groups[record.run.group].append(record)
    return groups


def replay(group: FeatureGroup, selection: Selection, caller: AnyCaller, **options: Any) -> Run:
    """A replay that a worker is told of; raises as `queue_replay` and `hand_over` do."""
    run = queue_replay(group, selection, by=name_of(caller), principal=principal_of(caller), **options)
    transaction.on_commit(lambda: hand_over(run))
    return run


@form_page
def replay_chosen(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    """Queue one replay for each group; it is followed on its own page."""
    if request.method != "POST":
        return redirect("catalog-quarantine")
    started: list[Run] = []
    try:
        for group, records in _by_group(chosen_records(request, caller)).items():
            selection = Selection(ids=tuple(record.pk for record in records))
            try:
                started.append(replay(group, selection, caller))
            except FeaturehubError as error:
                messages.error(request, error.detail)
    except Conflict as error:
        messages.error(request, error.detail)
    if len(started) == 1:
        return redirect(page_of(started[0]))
    if started:
        messages.success(request, f"{len(started)} replays are queued, one for each group.")
        return redirect(f"{reverse('catalog-runs')}?kind=replay")
    return redirect("catalog-quarantine")


@form_page
def discard_chosen(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    """Ask first, and for a reason; once there is one, the rows are not wanted any more."""
    if request.method != "POST":
        return redirect("catalog-quarantine")
    try:
        records = chosen_records(request, caller)
    except Conflict as error:
        messages.error(request, error.detail)
        return redirect("catalog-quarantine")
    reason = request.POST.get("reason")
    if reason is None or not reason.strip() or "\0" in reason:
        return _ask_for_reason(request, caller, records, is_missing=reason is not None)
    for group, of_group in _by_group(records).items():
        selection = Selection(ids=tuple(record.pk for record in of_group))
        try:
            count = discard(group, selection, reason=reason, by=name_of(caller))
            messages.success(request, f"Discarded: {count:,} {'row' if count == 1 else 'rows'} of {group.name}.")
        except FeaturehubError as error:
            messages.error(request, error.detail)
    return redirect("catalog-quarantine")


def _ask_for_reason(
    request: HttpRequest, caller: AnyCaller, records: Sequence[QuarantinedRule], *, is_missing: bool
) -> HttpResponse:
    names = ("record", "rule", "chosen")
    context = {
        "concerned": records[:RULES_PER_PAGE],
        "more": max(0, len(records) - RULES_PER_PAGE),
        "waiting": sum(record.pending_rows for record in records),
        "hidden": [(name, value) for name in names for value in request.POST.getlist(name)],
        "is_missing": is_missing,
    }
    response = show(request, caller, "ingestion/discard.html", context, here="catalog-quarantine")
    response.status_code = 422 if is_missing else 200
    return response
