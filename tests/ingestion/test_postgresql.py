"""PostgreSQL's own faults: killed under pushes, a lower number that commits later, a lock that is not given up."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection, transaction
from pytest_django import Settings

from catalog import runs
from catalog.models import FeatureGroup, Run
from ingestion import drain
from ingestion.models import Drain, PushBatch
from ingestion.push import push
from tests import databases
from tests.factories import make_customer_group, purchase
from tests.ingestion import contents
from tests.ingestion.web import ROWS, Start, Web
from tests.ingestion.workers import until
from tests.postgresql import Cluster

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def test_a_push_that_commits_after_a_drain_of_a_later_number_is_drained_too(group: FeatureGroup) -> None:
    push(group, [purchase("C0")])
    assert drain.drain(group) == 1
    has_pushed, may_commit = threading.Event(), threading.Event()

    def push_slowly() -> None:
        with transaction.atomic():
            push(group, [purchase("C1")])
            has_pushed.set()
            may_commit.wait(30)
        connection.close()

    slow = threading.Thread(target=push_slowly)
    slow.start()
    try:
        assert has_pushed.wait(30)
        push(group, [purchase("C2")])
        assert drain.drain(group) == 1
        assert [row["customer_id"] for row in contents.offline(group)] == ["C0", "C2"]
    finally:
        may_commit.set()
        slow.join()
    late, early = PushBatch.objects.order_by("pk")[1:]
    assert (late.drain, early.drain) == (None, Drain.objects.latest("created_at"))
    assert drain.drain(group) == 1
    assert [row["customer_id"] for row in contents.offline(group)] == ["C0", "C1", "C2"]


class Senders:
    """Threads that push one new customer after another, and what each was answered."""

    def __init__(self, web: Web, threads: int) -> None:
        self.web = web
        self.acknowledged: set[str] = set()
        self.others: list[tuple[int, str | None, str]] = []
        self._customers = (f"C{number}" for number in itertools.count())
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    @contextmanager
    def sending(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def _send(self) -> None:
        while not self._stopping.wait(0.01):
            customer = next(self._customers)
            status, headers, document = self.web.ask("POST", ROWS, json.dumps({"rows": [purchase(customer)]}).encode())
            if status == 200:
                self.acknowledged.add(customer)
            else:
                self.others.append((status, headers["Retry-After"], document["code"]))

    def wait_for_more(self, number: int = 10) -> None:
        """Until so many more pushes were acknowledged."""
        before = len(self.acknowledged)
        until(lambda: len(self.acknowledged) >= before + number)

    def wait_for_refusal(self) -> None:
        before = len(self.others)
        until(lambda: len(self.others) > before)


def kill_a_backend(cluster: Cluster) -> None:
    """kill -9 of a process that serves a connection; PostgreSQL then ends all of them and recovers."""
    connection.close()
    with cluster.connect() as beside:
        serving = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() LIMIT 1"
        row = beside.execute(serving, [connection.settings_dict["NAME"]]).fetchone()
    assert row is not None
    os.kill(int(str(row[0])), signal.SIGKILL)


def read_one(web: Web) -> int:
    """The status of a read without a key: whose a key is, the database is asked again after some seconds."""
    return web.ask("GET", "/features/customer/C0?features=total_purchases", Authorization="")[0]


def test_killed_with_kill_9_under_pushes_it_is_answered_503_and_loses_no_acknowledged_push(
    cluster: Cluster, group: FeatureGroup, start: Start
) -> None:
    senders = Senders(start(FEATUREHUB_ANONYMOUS_READS="true"), threads=4)
    with senders.sending():
        senders.wait_for_more()
        assert read_one(senders.web) == 200  # from then on the server knows the catalog
        for _ in range(2):
            kill_a_backend(cluster)
            senders.wait_for_more()
        cluster.kill()
        senders.wait_for_refusal()
        read = read_one(senders.web)
        cluster.start()
        senders.wait_for_more()
    assert read == 200  # it asks Redis alone
    assert set(senders.others) == {(503, "1", "unavailable")}
    connection.close()
    drain.drain(group)
    landed = [row["customer_id"] for row in contents.offline(group)]
    assert len(landed) == len(set(landed))
    assert senders.acknowledged <= set(landed)
    assert senders.acknowledged <= {key.partition(":")[2] for key in contents.online(group)}


def test_a_restarted_database_is_told_again_that_a_worker_lives(
    cluster: Cluster, group: FeatureGroup, settings: Settings
) -> None:
    settings.FEATUREHUB_LEASE_SECONDS = 1.5  # renewed twice a second
    run = Run.queue(group)
    lease = runs.take(run)
    assert lease is not None

    def beats_again() -> None:
        seen = Run.objects.get(pk=run.pk).heartbeat_at
        until(lambda: Run.objects.filter(pk=run.pk, heartbeat_at__gt=seen).exists())

    with lease:
        beats_again()
        cluster.stop()
        cluster.start()
        connection.close()
        beats_again()


def test_a_lock_that_nobody_gives_up_is_waited_for_only_so_long(
    cluster: Cluster, group: FeatureGroup, start: Start
) -> None:
    impatient = f"{databases.url()}?options=-c%20lock_timeout%3D300ms"
    web = start(DATABASE_URL=impatient)
    body = json.dumps({"rows": [purchase()]}).encode()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE ingestion_pushbatch IN EXCLUSIVE MODE")
        began = time.monotonic()
        status, _, problem = web.ask("POST", ROWS, body)
        assert time.monotonic() - began < 5
    assert (status, problem["detail"]) == (503, "The database is busy with other writes; try again.")
    assert web.ask("POST", ROWS, body)[0] == 200


def test_a_process_that_was_stopped_in_a_transaction_loses_its_locks() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name LIKE '%%_timeout' AND setting <> '0'")
        bounds = dict(cursor.fetchall())
    assert (bounds["lock_timeout"], bounds["idle_in_transaction_session_timeout"]) == ("5000", "30000")
