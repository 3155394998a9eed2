"""U+0000, which PostgreSQL keeps in no text and no JSON: refused or escaped, the same on every database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.contrib.auth.models import User
from django.test import Client

from catalog import access
from catalog.models import Acceptance, FeatureGroup
from engine.errors import FeaturehubError, InvalidInput
from ingestion import ingest
from ingestion.models import IdempotencyKey, PushBatch, QuarantinedRule
from ingestion.push import push
from tests.factories import make_customer_group, purchase, write_csv, write_parquet

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NUL = "a\0b"
ROWS = "/api/v1/groups/customer_purchases/rows"


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


@pytest.fixture
def client(group: FeatureGroup) -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


def rows(**changes: Any) -> dict[str, Any]:
    return {"rows": [purchase(**changes)]}


def feast(name: str = "customer_purchases", **changes: Any) -> dict[str, Any]:
    columns = {column: [value] for column, value in purchase(**changes).items()}
    return {"push_source_name": name, "to": "online_and_offline", "df": columns}


def test_no_writing_route_takes_it_anywhere(client: Client) -> None:
    single = {name: value for name, value in purchase().items() if name != "customer_id"}
    sent = [
        (ROWS, rows(customer_segment=NUL), 422),
        (ROWS, rows(customer_id=NUL), 422),
        (ROWS, rows(at=NUL), 422),
        (ROWS, rows(**{NUL: 1}), 422),
        (f"{ROWS}?on_error={NUL}", rows(), 400),
        (f"{ROWS}?{NUL}=reject", rows(), 400),
        ("/api/v1/groups/a%00b/rows", rows(), 400),
        ("/ingest/a%00b/C1", single, 400),
        ("/ingest/customer_purchases/a%00b", single, 422),
        ("/ingest/customer_purchases/C1", single | {"customer_segment": NUL}, 422),
        ("/feast/push", feast(NUL), 400),
        ("/feast/push", feast(customer_segment=NUL), 422),
        ("/feast/push", feast(**{NUL: 1}), 422),
        ("/api/v1/groups/a%00b/runs", {}, 400),
    ]
    answers = [(path, client.post(path, body, content_type="application/json").status_code) for path, body, _ in sent]
    assert answers == [(path, status) for path, _, status in sent]
    assert client.delete(f"{ROWS}/a%00b").status_code == 422
    assert client.delete(f"{ROWS}/C1?timestamp=a%00b").status_code == 422
    keyed = client.post(ROWS, rows(), content_type="application/json", headers={"Idempotency-Key": NUL})
    assert keyed.status_code == 400
    assert not any(model.objects.exists() for model in (PushBatch, Acceptance, IdempotencyKey))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/features/a%00b/C1", 404),
        ("/features/customer/a%00b", 404),
        ("/features/customer/C1?features=a%00b", 400),
        ("/features/customer/C1?feature_service=a%00b", 400),
        ("/features/a%00b/total_purchases/metadata", 404),
        ("/features/customer/a%00b/metadata", 404),
    ],
)
def test_no_reading_route_fails_on_it(client: Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


@pytest.mark.parametrize("page", ["feature", "featuregroup", "entity", "run", "apikey"])
def test_no_search_of_the_admin_fails_on_it(admin_user: User, page: str) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    for query in ("q=a%00b", "name__exact=a%00b", "o=%00"):
        assert client.get(f"/admin/catalog/{page}/?{query}").status_code < 500


def test_a_row_that_is_kept_apart_for_it_shows_it_escaped(group: FeatureGroup) -> None:
    pushed = push(group, [purchase(), purchase(customer_segment=NUL)], on_error="quarantine")
    assert (pushed.accepted, pushed.quarantined) == (1, 1)
    shown = QuarantinedRule.objects.get().samples[0]["payload"]
    assert "\0" not in shown
    assert json.loads(shown)["customer_segment"] == NUL


def test_so_does_a_row_of_an_arrow_stream(sources: Path, group: FeatureGroup) -> None:
    written = write_parquet(sources / "rows.parquet", [purchase(), purchase(customer_segment=NUL)])
    assert push(group, pq.read_table(written), on_error="quarantine").quarantined == 1
    assert json.loads(QuarantinedRule.objects.get().samples[0]["payload"])["customer_segment"] == NUL


def test_a_file_with_it_in_a_value_loses_that_row_only(sources: Path, group: FeatureGroup) -> None:
    rows = [purchase(f"C{number}") for number in range(20)]
    path = write_parquet(sources / "rows.parquet", [*rows, purchase(customer_segment=NUL)])
    run = ingest.ingest(group, paths=[path])
    assert (run.rows_accepted, run.rows_quarantined) == (20, 1)
    assert "\\u0000" in QuarantinedRule.objects.get().samples[0]["payload"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_with_it_in_a_column_name_makes_a_failed_run_that_names_it(
    sources: Path, group: FeatureGroup, kind: str
) -> None:
    rows = [purchase(**{NUL: 1})]
    path = write_csv(sources / "rows.csv", rows) if kind == "csv" else write_parquet(sources / "rows.parquet", rows)
    with pytest.raises(FeaturehubError):
        ingest.ingest(group, paths=[path])
    run = group.runs.get()
    assert run.state == "failed"
    assert "\0" not in run.error
    assert r"a\x00b" in run.error


@pytest.mark.parametrize("name", [NUL, "x" * 101])
def test_a_key_has_a_name_that_every_database_holds(name: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 100 characters"):
        access.create_key(name=name, scopes=["read"])
