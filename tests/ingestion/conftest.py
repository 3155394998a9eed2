"""A hub of one test: its own offline folder and source root, and an empty online store that is open for reading.

pytest loads this file before it sets Django up, so what has models is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_django import Settings

from tests.forgetting import forget

if TYPE_CHECKING:
    from tests.ingestion.web import Start


@pytest.fixture
def redis_down(settings: Settings, tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """A context in which the online store is a socket that nobody listens on."""

    @contextmanager
    def down() -> Iterator[None]:
        url, settings.ONLINE_REDIS_URL = settings.ONLINE_REDIS_URL, f"unix://{tmp_path}/nobody.sock?db=0"
        forget()
        yield
        settings.ONLINE_REDIS_URL = url
        forget()

    return down


@pytest.fixture
def start(sources: Path) -> Iterator[Start]:
    """Starts web servers on the stores of the test."""
    from tests.ingestion.web import running_webs

    with running_webs() as start_one:
        yield start_one
