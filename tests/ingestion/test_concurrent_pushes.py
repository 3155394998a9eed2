"""Pushes that meet: each is kept once, none fails for another, and on PostgreSQL none waits for another's commit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection

from catalog.models import FeatureGroup, StoredSchema
from ingestion.idempotency import Repeatable
from ingestion.models import IdempotencyKey, PushBatch
from ingestion.push import Pushed, push
from tests.factories import make_customer_group, purchase

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

THREADS = 8


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def push_at_once(group: FeatureGroup, repeatable: Repeatable | None = None) -> list[Pushed]:
    start = threading.Barrier(THREADS)

    def push_one(number: int) -> Pushed:
        start.wait()
        try:
            return push(group, [purchase("C1" if repeatable else f"C{number}")], repeatable=repeatable)
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(push_one, range(THREADS)))


def test_the_first_pushes_of_a_group_record_one_schema(group: FeatureGroup) -> None:
    assert push_at_once(group) == [Pushed(1, "applied")] * THREADS
    assert PushBatch.objects.count() == THREADS
    assert StoredSchema.objects.count() == 1


def test_one_request_sent_by_many_at_once_is_done_once(group: FeatureGroup) -> None:
    repeatable = Repeatable("key:1", "rows", "k1", "a" * 64)
    assert push_at_once(group, repeatable) == [Pushed(1, "applied")] * THREADS
    assert PushBatch.objects.count() == IdempotencyKey.objects.count() == 1
