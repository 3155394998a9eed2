"""A broker that is killed while a worker is at work: the worker goes on, and takes up what comes when it is back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.models import FeatureGroup, Run, RunState
from featurehub import private_redis
from featurehub.celery import app
from featurehub.environment import celery_url
from ingestion.tasks import ingest_run
from tests.engine.online.rewinding import Rewinding
from tests.factories import make_customer_group, purchase, write_csv
from tests.ingestion import contents, workers

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Rewinding]:
    """A Redis for the messages alone."""
    home = tmp_path / "broker"
    with private_redis.running(home):
        yield Rewinding(home)


def announce(run: Run, broker: Rewinding) -> None:
    with app.connection_for_write(celery_url(broker.url)) as connection:
        ingest_run.apply_async([str(run.pk)], connection=connection)


def has_succeeded(run: Run) -> bool:
    return Run.objects.get(pk=run.pk).state == RunState.SUCCEEDED


def queued(group: FeatureGroup, sources: Path, name: str) -> Run:
    write_csv(sources / f"{name}.csv", [purchase(name)])
    return Run.queue(group)


def test_a_worker_at_work_outlives_its_broker(sources: Path, broker: Rewinding, tmp_path: Path) -> None:
    """One of its two threads is at work, so that it also waits for messages when the connection ends."""
    group, log = make_customer_group(source="*.csv"), tmp_path / "worker.log"
    first = queued(group, sources, "C1")
    announce(first, broker)
    variables = {"FEATUREHUB_BROKER_URL": broker.url, **workers.fault("run.after_file:1:sleep=2")}
    with workers.worker(log, **variables) as worker:
        workers.until(lambda: contents.data_files(group), log)
        time.sleep(0.5)  # the worker asks for the next message
        broker.kill()
        time.sleep(0.2)
        broker.start()
        workers.until(lambda: has_succeeded(first) or worker.poll() is not None, log)
        second = queued(group, sources, "C2")
        announce(second, broker)
        workers.until(lambda: has_succeeded(second) or worker.poll() is not None, log)
        assert worker.poll() is None, log.read_text()
    assert sorted(row["customer_id"] for row in contents.offline(group)) == ["C1", "C2"]
