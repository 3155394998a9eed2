"""No page asks the database more often when the catalog is larger."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.catalog.test_permissions import undone

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def counted(size: object, person: str) -> dict[str, int]:
    """How many queries each page makes in a catalog of a size, which is gone afterwards."""
    from benchmarks import catalog, catalog_scale

    with undone():
        catalog_scale.fill(size)  # type: ignore[arg-type]
        client, found = Client(), {}
        client.force_login(User.objects.get(username=person))
        for name, address in catalog.addresses().items():
            client.get(address)
            with CaptureQueriesContext(
                connection,
            ) as queries:
                response = client.get(address)
            if person == catalog_scale.EVERYBODY:
                assert response.status_code == 200, (address, response.content[:300])
            found[name] = len(queries)
        return found


@pytest.mark.parametrize("person", ["scale_admin", "scale_viewer"])
def test_a_page_makes_as_many_queries_in_a_large_catalog(person: str) -> None:
    from benchmarks.catalog_scale import Size

    few = Size(8, 20, 2, 4, 10, 3, 2, 120, readers=2, days=2, statistics=1, notices=3, reviews=1)
    many = Size(40, 20, 5, 12, 30, 30, 20, 500, readers=6, days=3, statistics=2, notices=120, reviews=8)
    assert counted(few, person) == counted(many, person)
