"""Times through every way in: kept to the microsecond in both stores and in their order, or refused by name.

Which text is a time at all is in tests/engine/test_conform.py; here whole requests and files go all the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.test import Client
from pytest_django import Settings

from catalog import access
from catalog.models import FeatureGroup, Run
from engine.errors import InvalidRows
from ingestion import drain
from ingestion.ingest import ingest
from ingestion.models import PushBatch
from ingestion.push_bodies import ARROW
from serving import training
from tests.factories import make_customer_group, write_csv
from tests.ingestion import contents

ROWS = "/api/v1/groups/moments/rows"
EDGE = 2**53  # above it, and below its negative, a double does not tell neighbours apart

#: A text and the microseconds since 1970 that it means.
INSTANTS = [
    ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
    ("0001-01-01T00:00:00.000001Z", -62_135_596_799_999_999),
    ("1684-07-28T00:12:25.259007Z", -EDGE - 1),
    ("1684-07-28T00:12:25.259008Z", -EDGE),
    ("1684-07-28T00:12:25.259009Z", -EDGE + 1),
    ("1969-12-31T23:59:59.999999Z", -1),
    ("1970-01-01T00:00:00Z", 0),
    ("2024-11-01T15:30:00.000001+05:30", 1_730_455_200_000_001),  # 10:00 UTC
    ("2024-11-01T10:00:00.123456000Z", 1_730_455_200_123_456),
    ("2024-03-31T02:30:00+01:00", 1_711_848_600_000_000),  # a time that no clock in Berlin showed: still 01:30 UTC
    ("2024-10-27T02:30:00+02:00", 1_729_989_000_000_000),  # the first and
    ("2024-10-27T02:30:00+01:00", 1_729_992_600_000_000),  # the second half past two of one night
    ("2255-06-05T23:47:34.740991Z", EDGE - 1),
    ("2255-06-05T23:47:34.740992Z", EDGE),
    ("2255-06-05T23:47:34.740993Z", EDGE + 1),
]
YEAR_9999 = ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999)

#: Not in any column of times, given as JSON; a CSV has them without the quotes.
REFUSED = [
    '"2024-11-01T10:00:00"',  # naive
    '"2024-11-01 10:00:00.5"',
    '"2024-11-01T10:00:00 Europe/Berlin"',
    '"2024-11-01"',
    '"2016-12-31T23:59:60Z"',  # a leap second that there was
    '"2024-11-01T24:00:00Z"',
    '"2024-11-01T10:00:00+24:00"',
    '"2024-11-01T10:00:00.000000001Z"',  # nanoseconds that would be cut off
    '"2024-11-01T10:00:00.1234567Z"',
    "1730455200",  # seconds,
    "1730455200000",  # milliseconds
    "1730455200000000",  # or microseconds: nobody can tell
    "1730455200.5",
    '"1730455200"',
    '"0000-12-31T23:59:59Z"',
    '"0001-01-01T00:00:00+00:01"',
    '"9999-12-31T23:59:59-00:01"',
]


@pytest.fixture
def group(sources: Path, settings: Settings) -> FeatureGroup:
    """Events may lie three hundred years ahead: beyond 2^53 microseconds."""
    settings.FEATUREHUB_MAX_CLOCK_SKEW_SECONDS = 300 * 365 * 86_400
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 1.0
    return make_customer_group(
        "moments", features={"seen": "timestamp", "total": "int64"}, event_timestamp="event_timestamp"
    )


@pytest.fixture
def client(group: FeatureGroup) -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


@dataclass(frozen=True)
class Row:
    """One raw row: `at` is its event time and what it holds as `seen`, as text and in microseconds."""

    customer_id: str
    at: tuple[str, int]
    total: int = 0

    def as_texts(self) -> dict[str, Any]:
        return {
            "customer_id": self.customer_id,
            "event_timestamp": self.at[0],
            "seen": self.at[0],
            "total": self.total,
        }


def post(client: Client, path: str, body: object) -> None:
    answer = client.post(path, json.dumps(body), content_type="application/json")
    assert answer.status_code in (200, 201), answer.content


def by_rows(client: Client, group: FeatureGroup, folder: Path, rows: Sequence[Row]) -> None:
    post(client, ROWS, {"rows": [row.as_texts() for row in rows]})


def by_ingest(client: Client, group: FeatureGroup, folder: Path, rows: Sequence[Row]) -> None:
    for row in rows:
        body = row.as_texts()
        post(client, f"/ingest/moments/{body.pop('customer_id')}", body)


def by_feast(client: Client, group: FeatureGroup, folder: Path, rows: Sequence[Row]) -> None:
    columns = {name: [row.as_texts()[name] for row in rows] for name in rows[0].as_texts()}
    post(client, "/feast/push", {"push_source_name": "moments", "to": "online_and_offline", "df": columns})


def by_arrow(client: Client, group: FeatureGroup, folder: Path, rows: Sequence[Row]) -> None:
    answer = client.post(ROWS, stream(typed(rows)), content_type=ARROW)
    assert answer.status_code == 200, answer.content


def by_csv(client: Client, group: FeatureGroup, folder: Path, rows: Sequence[Row]) -> None:
    path = folder / f"{len(list(folder.iterdir()))}.csv"
    assert ingest(group, paths=[write_csv(path, [row.as_texts() for row in rows])]).rows_quarantined == 0


def by_parquet(client: Client, group: FeatureGroup, folder: Path, rows: Sequence[Row]) -> None:
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    pq.write_table(typed(rows), path)
    assert ingest(group, paths=[path]).rows_quarantined == 0


def typed(rows: Sequence[Row]) -> pa.Table:
    times = pa.array([row.at[1] for row in rows], pa.timestamp("us", "UTC"))
    columns = {"customer_id": [row.customer_id for row in rows], "total": [row.total for row in rows]}
    return pa.table(columns | {"event_timestamp": times, "seen": times})


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


Write = Callable[[Client, FeatureGroup, Path, Sequence[Row]], None]
WAYS: dict[str, Write] = {
    "rows": by_rows,
    "ingest": by_ingest,
    "feast": by_feast,
    "arrow": by_arrow,
    "csv": by_csv,
    "parquet": by_parquet,
}
every_way = pytest.mark.parametrize("write", WAYS.values(), ids=WAYS)


def moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def test_the_texts_of_the_table_mean_what_stands_beside_them() -> None:
    given = [(datetime.fromisoformat(text.replace("123456000", "123456")), us) for text, us in [*INSTANTS, YEAR_9999]]
    assert [at for at, _ in given] == [moment(us) for _, us in given]


@every_way
def test_an_instant_is_the_same_microsecond_in_both_stores(
    client: Client, group: FeatureGroup, sources: Path, write: Write
) -> None:
    write(client, group, sources, [Row(f"C{number:02}", at) for number, at in enumerate(INSTANTS)])
    drain.drain(group)
    wanted = {f"s3:C{number:02}": us for number, (_, us) in enumerate(INSTANTS)}
    online = contents.online_rows(group)
    assert {key: (row.event_us, row.values[0]) for key, row in online.items()} == {
        key: (us, us) for key, us in wanted.items()
    }
    offline = {f"s3:{row['customer_id']}": (row["event_timestamp"], row["seen"]) for row in contents.offline(group)}
    assert offline == {key: (moment(us), moment(us)) for key, us in wanted.items()}


@every_way
def test_of_two_events_a_microsecond_apart_the_later_is_online_and_each_is_found_at_its_time(
    client: Client, group: FeatureGroup, sources: Path, write: Write
) -> None:
    """Of each pair one customer gets the earlier first, and one the later."""
    pairs = [(early, late) for early, late in pairwise(INSTANTS) if late[1] - early[1] == 1]
    assert len(pairs) == 6
    customers = [f"{order}{number}" for number in range(len(pairs)) for order in ("up", "down")]
    halves: tuple[list[Row], list[Row]] = ([], [])
    for number, (early, late) in enumerate(pairs):
        one, other = Row("", early, 1), Row("", late, 2)
        for customer, first, second in ((f"up{number}", one, other), (f"down{number}", other, one)):
            halves[0].append(Row(customer, first.at, first.total))
            halves[1].append(Row(customer, second.at, second.total))
    for half in halves:
        write(client, group, sources, half)
    online = {key.partition(":")[2]: row["total"] for key, row in contents.online(group).items()}
    assert online == dict.fromkeys(customers, 2)
    times = [at for pair in pairs for _ in ("up", "down") for at in pair]
    spine = pa.table(
        {
            "customer_id": [customer for customer in customers for _ in (1, 2)],
            "event_timestamp": pa.array([us for _, us in times], pa.timestamp("us", "UTC")),
        }
    )
    joined = training.build(training.Asked(features=("moments:total",)), spine)
    assert isinstance(joined, pa.Table)
    assert joined["total"].to_pylist() == [1, 2] * len(customers)


def test_what_is_read_over_http_is_the_instant_that_was_written(client: Client, group: FeatureGroup) -> None:
    rows = [Row(f"C{number}", at) for number, at in enumerate(INSTANTS)]
    post(client, ROWS, {"rows": [row.as_texts() for row in rows]})
    asked = {"features": ["moments:seen"], "entities": {"customer_id": [row.customer_id for row in rows]}}
    body = json.dumps(asked | {"include": ["event_timestamps"]})
    answer = client.post("/api/v1/vectors", body, content_type="application/json").json()
    for texts in (answer["values"], answer["event_timestamps"]):
        assert all(text.endswith("Z") for (text,) in texts)
        assert [datetime.fromisoformat(text) for (text,) in texts] == [moment(us) for _, us in INSTANTS]


def test_the_last_microsecond_of_year_9999_is_a_value_and_no_event(client: Client, group: FeatureGroup) -> None:
    text, us = YEAR_9999
    post(client, ROWS, {"rows": [Row("C1", INSTANTS[0]).as_texts() | {"seen": text}]})
    drain.drain(group)
    assert contents.online(group)["s2:C1"]["seen"] == us
    assert [row["seen"] for row in contents.offline(group)] == [moment(us)]
    body = json.dumps({"rows": [Row("C1", YEAR_9999, 7).as_texts()]})
    answer = client.post(ROWS, body, content_type="application/json")
    told = [(error["pointer"], error["detail"].partition(":")[0]) for error in answer.json()["errors"]]
    assert (answer.status_code, told) == (422, [("/rows/0/event_timestamp", "future")])
    post(client, ROWS, {"rows": [Row("C1", INSTANTS[5], 8).as_texts()]})  # the key is not frozen by it
    assert contents.online(group)["s2:C1"]["total"] == 8


# -- Refused.


def json_body(name: str, row: dict[str, str]) -> tuple[str, str, str]:
    """Path, body and pointer of one row of JSON texts."""
    if name == "ingest":
        row = {column: value for column, value in row.items() if column != "customer_id"}
    inner = ", ".join(f'"{column}": ' + (f"[{value}]" if name == "feast" else value) for column, value in row.items())
    return {
        "rows": (ROWS, f'{{"rows": [{{{inner}}}]}}', "/rows/0/{}"),
        "ingest": ("/ingest/moments/C1", f"{{{inner}}}", "/rows/0/{}"),
        "feast": (
            "/feast/push",
            f'{{"push_source_name": "moments", "to": "online_and_offline", "df": {{{inner}}}}}',
            "/df/{}/0",
        ),
    }[name]


GOOD = {"customer_id": '"C1"', "event_timestamp": '"2024-11-01T10:00:00Z"', "seen": "null", "total": "1"}
every_column = pytest.mark.parametrize("column", ["event_timestamp", "seen"])


@every_column
@pytest.mark.parametrize("name", ["rows", "ingest", "feast"])
def test_what_is_no_instant_is_422_naming_row_and_column(
    client: Client, group: FeatureGroup, name: str, column: str
) -> None:
    for value in REFUSED:
        path, body, pointer = json_body(name, GOOD | {column: value})
        answer = client.post(path, body, content_type="application/json")
        told = (answer.status_code, [error["pointer"] for error in answer.json()["errors"]])
        assert told == (422, [pointer.format(column)]), value
    assert not PushBatch.objects.exists()


@every_column
def test_a_row_of_a_csv_with_what_is_no_instant_is_quarantined_by_its_column(
    group: FeatureGroup, sources: Path, column: str
) -> None:
    rows = [{name: json.loads(value) for name, value in (GOOD | {column: refused}).items()} for refused in REFUSED]
    good = {name: json.loads(value) for name, value in GOOD.items()}
    run = ingest(group, paths=[write_csv(sources / "a.csv", [good, *rows])])
    assert (run.rows_accepted, run.rows_quarantined) == (1, len(REFUSED))
    assert {(rule.column, rule.rule) for rule in run.quarantined.all()} == {(column, "type")}
    assert len(contents.offline(group)) == 1


def times_of(kind: pa.DataType, *ticks: int) -> pa.Array:
    return pa.array(ticks, pa.int64()).cast(kind)


SECONDS = 1_730_455_200
#: Typed columns of two rows, both of them the same whole microsecond whatever the unit.
EXACT = {unit: times_of(pa.timestamp(unit, "UTC"), *[SECONDS * scale] * 2) for unit, scale in
         {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}.items()}  # fmt: skip
#: The second row of each is no whole microsecond, or lies in no year from 1 to 9999.
INEXACT = {
    "ns": times_of(pa.timestamp("ns", "UTC"), SECONDS * 10**9, SECONDS * 10**9 + 1),
    "ns before 1970": times_of(pa.timestamp("ns", "UTC"), -1_000, -1),
    "us of year 0": times_of(pa.timestamp("us", "UTC"), 0, INSTANTS[0][1] - 1),
    "ms beyond 64 bits of us": times_of(pa.timestamp("ms", "UTC"), 0, -(2**62)),
}
#: Columns of another type, as a whole.
FOREIGN = {
    "naive": times_of(pa.timestamp("us"), 0, 1),
    "dates": pa.array([0, 1], pa.int32()).cast(pa.date32()),
    "numbers": pa.array([SECONDS, SECONDS]),
    "texts": pa.array(["2024-11-01T10:00:00Z"] * 2),
}


def two_rows(column: str, values: pa.Array) -> pa.Table:
    columns = {"customer_id": ["C1", "C2"], "total": [1, 2], "event_timestamp": EXACT["us"], "seen": EXACT["us"]}
    return pa.table(columns | {column: values})


@every_column
@pytest.mark.parametrize("case", EXACT)
def test_a_typed_column_of_any_unit_is_the_same_instant_by_stream_and_by_file(
    client: Client, group: FeatureGroup, sources: Path, case: str, column: str
) -> None:
    table = two_rows(column, EXACT[case])
    assert client.post(ROWS, stream(table), content_type=ARROW).status_code == 200
    drain.drain(group)
    pq.write_table(table, sources / "a.parquet")
    ingest(group, paths=[sources / "a.parquet"])
    assert [row[column] for row in contents.offline(group)] == [moment(SECONDS * 1_000_000)] * 4


@every_column
@pytest.mark.parametrize("case", INEXACT)
def test_a_typed_instant_that_would_be_rounded_is_refused_in_its_row(
    client: Client, group: FeatureGroup, sources: Path, case: str, column: str
) -> None:
    table = two_rows(column, INEXACT[case])
    answer = client.post(ROWS, stream(table), content_type=ARROW)
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [f"/rows/1/{column}"])
    assert not PushBatch.objects.exists()
    pq.write_table(table, sources / "a.parquet")
    run = ingest(group, paths=[sources / "a.parquet"])
    assert (run.rows_accepted, run.rows_quarantined) == (1, 1)
    assert [(rule.column, rule.rule) for rule in run.quarantined.all()] == [(column, "type")]
    assert sorted(contents.online(group)) == ["s2:C1"]


@every_column
@pytest.mark.parametrize("case", FOREIGN)
def test_a_typed_column_that_holds_no_instants_is_refused_by_its_name(
    client: Client, group: FeatureGroup, sources: Path, case: str, column: str
) -> None:
    table = two_rows(column, FOREIGN[case])
    answer = client.post(ROWS, stream(table), content_type=ARROW)
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [column])
    pq.write_table(table, sources / "a.parquet")
    with pytest.raises(InvalidRows, match=f"{column}: the column"):
        ingest(group, paths=[sources / "a.parquet"])
    assert not PushBatch.objects.exists()
    assert Run.objects.get().state == "failed"
    assert contents.offline(group) == []
