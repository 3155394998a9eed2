"""What a real web process counts while it answers reaches the database, without a request waiting for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from catalog.models import ApiKey, FeatureGroup
from tests.factories import make_customer_group
from tests.ingestion.web import BODY, Start

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def eventually(is_so: Callable[[], bool], seconds: float = 15.0) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if is_so():
            return True
        time.sleep(0.1)
    return False


def was_used() -> bool:
    return ApiKey.objects.get().last_used_on == timezone.now().date()


def test_a_key_that_was_used_is_written_down_within_seconds(group: FeatureGroup, start: Start) -> None:
    assert start().post(BODY)[0] == 200
    assert eventually(was_used)


def test_a_server_that_is_told_to_stop_writes_first(group: FeatureGroup, start: Start) -> None:
    web = start()
    assert web.post(BODY)[0] == 200
    web.process.send_signal(signal.SIGTERM)
    web.process.wait(timeout=30)
    assert was_used()
