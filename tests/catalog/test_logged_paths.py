"""No id of an entity is in what is logged of a request."""

from __future__ import annotations

import logging

import pytest
from django.test import Client

from catalog.logged_paths import WithoutIds, without_id


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/features/customer/00002", "/features/customer/***"),
        ("/features/customer/00002/?features=a", "/features/customer/***/?features=a"),
        ("/features/customer/tenure/metadata", "/features/customer/tenure/metadata"),
        ("/ingest/visits/a~sb", "/ingest/visits/***"),
        ("/api/v1/groups/visits/rows/7", "/api/v1/groups/visits/rows/***"),
        ("/api/v1/groups/visits/rows", "/api/v1/groups/visits/rows"),
        ("/groups", "/groups"),
    ],
)
def test_an_id_in_a_path_is_masked(path: str, logged: str) -> None:
    assert without_id(path) == logged


@pytest.mark.django_db
def test_a_refused_request_is_logged_without_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(WithoutIds())
    with caplog.at_level(logging.WARNING, "django.request"):
        for path in ("/features/patient/Zoe-1970", "/ingest/visits/Zoe-1970", "/api/v1/groups/visits/rows/Zoe-1970"):
            Client(raise_request_exception=False).get(path)
    assert "Zoe" not in caplog.text
    assert caplog.text.count("***") == 6  # Django tells of each, and so does the count of refusals


def test_an_address_that_there_is_not_may_have_an_id_anywhere(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(WithoutIds())
    with caplog.at_level(logging.WARNING, "django.request"):
        client.get("/feature/patient/Zoe-1970")
    assert [record.getMessage() for record in caplog.records] == ["Not Found: none"]


def test_the_hubs_log_masks_them() -> None:
    from django.conf import settings

    assert "ids" in settings.LOGGING["handlers"]["stderr"]["filters"]
