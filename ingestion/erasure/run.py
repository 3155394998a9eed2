"""Erasing one entity as a run: asked for once, carried out by whoever takes it, ended when the last file is gone.

`manage.py erase`, the admin and the Celery task call these. From the transaction that queues the run on, nothing of the
entity is taken any more. An attempt goes over every store from the beginning and removes what it finds, so that it may
be killed anywhere; what somebody still reads is waited for: the run is queued again for when that is over.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerDown

from catalog import runs, stores
from catalog.models import CatalogState, Entity, Erasure, Run, RunKind, RunState
from catalog.models.state import new_epoch
from catalog.runs import Lease
from engine import faults
from engine.entity_key import encode_key, parse_id
from engine.errors import Conflict, InvalidInput, Unavailable, unknown_name
from engine.offline.storage import storage_errors
from engine.suppression import SALT_BYTES, Limit, key_hash
from ingestion import drain, materialize
from ingestion.clock import max_clock_skew
from ingestion.erasure import database, datasets, offline, online, push_log, rejected, statistics
from ingestion.erasure.offline import Waiting
from ingestion.erasure.receipt import Note, Receipt
from ingestion.erasure.target import Target

log = logging.getLogger(__name__)

#: No push takes so long: its connection and its transaction have been given up by then.
PUSHED_WITHIN_SECONDS = 60.0

Progress = Callable[[Run], None]


def find_entity(name: str) -> Entity:
    """The entity of that name; raises UnknownName with near names."""
    found = Entity.objects.prefetch_related("join_keys").filter(name=name).first() if "\0" not in name else None
    if found is None:
        raise unknown_name("entity", name, Entity.objects.values_list("name", flat=True))
    return found


def queue(entity: Entity, id: str, *, reason: str = "", by: str = "") -> Erasure:
    """The erasure of one entity, by its id as in a path, with its run queued; see `hand_over` and `execute`.

    Rows of an event until now (and the allowed clock skew, since such have been taken) are not taken from then on.
    Raises InvalidInput for an id that the entity's keys cannot have, Conflict while the same one is being erased.
    """
    key = _key_of(entity, id)
    with transaction.atomic():
        CatalogState.current()
        CatalogState.objects.select_for_update().get(pk=1)  # one at a time, so that all share one salt
        first = Erasure.objects.order_by("pk").first()
        salt = first.salt if first else secrets.token_hex(SALT_BYTES)
        hashed = key_hash(bytes.fromhex(salt), entity.name, key).hex()
        if under_way := Erasure.objects.filter(entity=entity, key_hash=hashed, gone_at=None).first():
            raise Conflict(f"It is being erased by run {under_way.run_id}, which is {under_way.run.state}.")
        run = Run.queue(None, kind=RunKind.ERASE, requested_by=by)
        until = run.acceptance.accepted_at + max_clock_skew()
        erasure = Erasure.objects.create(
            entity=entity, run=run, key=key, key_hash=hashed, salt=salt, until=until, reason=reason
        )
        CatalogState.objects.filter(pk=1).update(erasures=new_epoch())
    faults.hit("erase.after_queue")
    return erasure


def _key_of(entity: Entity, id: str) -> str:
    if "\0" in id:
        raise InvalidInput("An id holds no NUL character.")
    return encode_key(parse_id(id, entity.key_fields())).decode()


def find(entity: Entity, id: str | None = None) -> Sequence[Erasure]:
    """The erasures of an entity, or those of one id, newest first."""
    known = Erasure.objects.select_related("entity", "run").filter(entity=entity)
    if id is None:
        return list(known)
    key = _key_of(entity, id)
    hashes = {
        key_hash(bytes.fromhex(salt), entity.name, key).hex() for salt in set(known.values_list("salt", flat=True))
    }
    return list(known.filter(key_hash__in=hashes))


def plan(entity: Entity, id: str) -> dict[str, dict[str, Note]]:
    """What an erasure would remove now, as a receipt says it; changes nothing. Raises as `queue`, and CorruptData.

    What the push log holds and the tables have not yet counts there alone.
    """
    values = parse_id(id, entity.key_fields())
    _key_of(entity, id)
    limit = Limit(timezone.now() + max_clock_skew(), (1 << 63) - 1)
    target = Target(entity, entity.key_fields(), tuple(values), limit)
    found: dict[str, dict[str, Note]] = {}
    for group in target.groups():
        for name, table in offline.tables(group):
            for file in offline.found_in(table, target):
                found.setdefault("files", {})[f"{name}/{file.path.name}"] = {"rows": file.rows or 0}
        counted = {
            "push_log": push_log.count_rows(group, target),
            "quarantine": rejected.count_rows(group, target),
            "online": online.count_rows(group, target),
        }
        for section, rows in counted.items():
            if rows:
                found.setdefault(section, {})[group.name] = {"rows": rows}
    if of_datasets := datasets.count_rows(target):
        found["datasets"] = {name: {"rows": rows} for name, rows in of_datasets.items()}
    return found


def hand_over(erasure: Erasure) -> None:
    """Tell a worker of the run. When the broker does not answer it stays queued and is told of again."""
    try:
        runs.hint(erasure.run)
    except BrokerDown as error:
        log.warning("the broker does not take tasks, so run %s waits: %s", erasure.run_id, error)


def execute(run: Run, *, progress: Progress = lambda _: None) -> Run:
    """Carry out a queued erasure, or one whose worker is gone; a run that has ended is left as it is.

    It comes back queued when something has to be waited for: its message says what. Raises Conflict while another
    worker is at it, LeaseLost when it was cancelled or taken from this one, and CorruptData for a damaged table, after
    it was recorded.
    """
    runs.settle(run.pk)
    lease = runs.take(run)
    if lease is None:
        return run
    erasure = Erasure.objects.select_related("entity", "run__acceptance").get(run=run)
    with lease, runs.failures_recorded(lease.fail), storage_errors(stores.offline_root()):
        _Attempt(erasure, lease, progress).carry_out()
    return run


@dataclass
class _Attempt:
    """One way over all stores."""

    erasure: Erasure
    lease: Lease
    progress: Progress

    def carry_out(self) -> None:
        database.delete_securely()
        self.receipt = Receipt(self.erasure, self.lease)
        if self.erasure.key:
            waiting = self._go_over(Target.of(self.erasure))
            if waiting:
                self._wait(waiting)
                return
            self._shorten_logs()
            with self.receipt.saving():
                self.erasure.key = ""
                Erasure.objects.filter(pk=self.erasure.pk).update(key="")
            faults.hit("erase.after_blank")
        try:
            self._forget_deleted()
        except Unavailable as error:
            self._wait([Waiting(str(error))])
            return
        faults.hit("erase.before_end")
        with transaction.atomic():
            self.lease.hold()
            Erasure.objects.filter(pk=self.erasure.pk).update(gone_at=timezone.now())
            self.lease.succeed("Nothing of it is left.")

    def _go_over(self, target: Target) -> list[Waiting]:
        """Remove what can be removed now; what has to be waited for."""
        groups = target.groups()
        run = self.lease.run
        run.bytes_total = sum(path.stat().st_size for group in groups for path in offline.files_of(group))
        waiting: list[Waiting] = []
        for group in groups:
            # From the log into the tables first, so that all of it is where it stays.
            drain.drain(group)
            self.lease.check()
            push_log.erase(group, target, self.receipt)
        push_log.erase_texts(target, self.receipt)
        faults.hit("erase.after_log")
        for group in groups:
            waiting += map(Waiting, rejected.erase(group, target, self.receipt))
            self.lease.check()
        faults.hit("erase.after_rejected")
        for group in groups:
            before = partial(statistics.forget_values, group, target=target, receipt=self.receipt)
            for name, table in offline.tables(group):
                offline.replace(name, table, target, self.receipt, self._step, before=before)
                offline.tell_manifests(name, self.receipt)
            offline.remove_from_dropped(group, target, self.receipt)
        waiting += datasets.erase(target, self.receipt)
        waiting += self._erase_online(target)
        waiting += [*self._began_before(target), *self._pushes_before()]
        for group in groups:
            for name, table in offline.tables(group):
                waiting += offline.remove_old(name, table, target, group, self.receipt)
        return waiting

    def _shorten_logs(self) -> None:
        """The log of a table tells of each file from when to when its events were."""
        touched = {name.rpartition("/")[0] for name in self.receipt.notes("files")}
        for group in self.erasure.entity.groups.all():
            for name, table in offline.tables(group):
                if name in touched:
                    table.shorten_log()

    def _step(self, size: int) -> None:
        run = self.lease.run
        run.bytes_read = min(run.bytes_read + size, run.bytes_total)
        self.lease.report()
        self.progress(run)

    def _erase_online(self, target: Target) -> list[Waiting]:
        """Before the store's position is moved past the commits and after: a Redis that goes back in time to a state
        before the first of these shows it by its position (ADR 10)."""
        try:
            for group in target.groups():
                online.erase(group, target, self.receipt)
                materialize.materialize(group, progress=lambda _: self.lease.step())
                online.erase(group, target, self.receipt)
            faults.hit("erase.after_online")
        except Unavailable as error:
            return [Waiting(str(error))]
        return []

    def _began_before(self, target: Target) -> list[Waiting]:
        """Runs that may have read rows of the entity before they were suppressed."""
        before = Run.objects.filter(
            group__in=target.groups(), state=RunState.RUNNING, acceptance__lt=self.lease.run.acceptance_id
        )
        return [Waiting(f"run {run.pk} began before it") for run in before.exclude(kind=RunKind.ERASE)]

    def _pushes_before(self) -> list[Waiting]:
        """A push whose transaction began before the suppression may commit a moment after it was looked for."""
        after = min(PUSHED_WITHIN_SECONDS, settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS)
        left = after - (timezone.now() - self.erasure.created_at).total_seconds()
        return [Waiting("pushes that began before it may still end", left)] if left > 0 else []

    def _wait(self, waiting: Sequence[Waiting]) -> None:
        """For the last of it: each attempt goes over all files."""
        last = max(waiting, key=lambda one: one.seconds)
        more = f" ({len(waiting) - 1} more)" if len(waiting) > 1 else ""
        self.lease.wait(max(last.seconds, 1.0), f"It waits: {last.what}{more}")

    def _forget_deleted(self) -> None:
        said = {"database": database.forget_deleted(), "redis": database.forget_removed()}
        with self.receipt.saving():
            self.erasure.receipt |= said
