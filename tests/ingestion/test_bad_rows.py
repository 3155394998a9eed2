"""What bad input gets, through every route that writes rows: a 4xx that names row and column, and nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from catalog import access
from catalog.models import Acceptance, FeatureGroup
from ingestion import drain
from ingestion.models import PushBatch
from tests.factories import TEN, make_customer_group
from tests.ingestion import contents

#: Columns of the group `readings`, by what they hold in a good row.
GOOD: dict[str, str] = {
    "whole": "1",
    "number": "0.5",
    "flag": "true",
    "text": '"a"',
    "seen": '"2024-11-01T10:00:00Z"',
    "place": "[0.5, 1, -2]",
    "recent": "[1, 2]",
}
DTYPES = {
    "whole": "int64",
    "number": "float64",
    "flag": "bool",
    "text": "string",
    "seen": "timestamp",
    "place": "embedding(3)",
    "recent": "list<int64>",
}


@dataclass(frozen=True)
class Route:
    """How one row, given as JSON texts by column name, is sent; where its columns are pointed at."""

    path: str
    body: Callable[[dict[str, str]], str]
    pointer: str
    accepted: int = 200


def as_object(row: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}"


def as_columns(row: dict[str, str]) -> str:
    columns = as_object({name: f"[{value}]" for name, value in row.items()})
    return f'{{"push_source_name": "readings", "to": "online_and_offline", "df": {columns}}}'


ROUTES = {
    "rows": Route("/api/v1/groups/readings/rows", lambda row: f'{{"rows": [{as_object(row)}]}}', "/rows/0/{}"),
    "ingest": Route(
        "/ingest/readings/C1",
        lambda row: as_object({name: value for name, value in row.items() if name != "customer_id"}),
        "/rows/0/{}",
        accepted=201,
    ),
    "feast": Route("/feast/push", as_columns, "/df/{}/0"),
}
every_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group("readings", features=DTYPES, event_timestamp="event_timestamp")


@pytest.fixture
def client(group: FeatureGroup) -> Client:
    _, key = access.create_key(name="writer", scopes=["read", "write"])
    return Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)


def send(client: Client, route: Route, **changes: str) -> Any:
    row = {"customer_id": '"C1"', "event_timestamp": f'"{TEN}"', **GOOD, **changes}
    return client.post(route.path, route.body(row), content_type="application/json")


def nothing_was_kept(group: FeatureGroup) -> bool:
    return not (PushBatch.objects.exists() or Acceptance.objects.exists() or contents.online(group))


@every_route
def test_a_good_row_is_taken(client: Client, group: FeatureGroup, route: Route) -> None:
    assert send(client, route).status_code == route.accepted
    assert contents.online(group)["s2:C1"]["recent"] == [1, 2]


#: A column and a value that it does not take.
REFUSED = [
    # Numbers that JSON has no word for, or that no column holds.
    ("number", "1e999"),
    ("number", "-1e999"),
    ("whole", "1e999"),
    ("whole", str(2**63)),
    ("whole", str(-(2**63) - 1)),
    ("whole", str(2**64)),
    ("whole", "9" * 5_000),
    ("number", "9" * 5_000),
    ("number", str(2**53 + 1)),  # would be rounded
    # One type for another.
    ("whole", "true"),
    ("whole", '"1"'),
    ("whole", "1.0"),
    ("whole", "1.5"),
    ("whole", "[1]"),
    ("whole", "{}"),
    ("number", '"1"'),
    ("number", "false"),
    ("flag", "1"),
    ("flag", '"true"'),
    ("text", "1"),
    ("text", "{}"),
    ("text", r'"a\u0000b"'),  # PostgreSQL has no NUL in texts
    # Times.
    ("seen", '"2024-11-01T10:00:00"'),
    ("seen", '"2024-11-01"'),
    ("seen", "1730455200"),
    ("seen", '"2016-12-31T23:59:60Z"'),
    ("seen", '"2024-02-30T00:00:00Z"'),
    ("seen", '"2024-11-01T10:00:00.0000001Z"'),
    ("seen", '"0001-01-01T00:00:00+01:00"'),
    ("event_timestamp", '"2024-11-01T10:00:00"'),
    ("event_timestamp", '"9999-12-31T23:59:59Z"'),
    ("event_timestamp", '"now"'),
    # Embeddings and lists.
    ("place", "[1, 2]"),
    ("place", "[1, 2, 3, 4]"),
    ("place", "[" + "0," * 99_999 + "0]"),
    ("place", "[1, null, 3]"),
    ("place", "[1, [2], 3]"),
    ("place", "[1, 1e39, 3]"),
    ("place", "[1, true, 3]"),
    ("place", '"1,2,3"'),
    ("recent", "[1, null]"),
    ("recent", "[1, 2.0]"),
    ("recent", "[" + "0," * 99_999 + "0]"),
    ("recent", "[[1]]"),
]


@every_route
def test_a_value_that_no_column_takes_is_422_naming_row_and_column(
    client: Client, group: FeatureGroup, route: Route
) -> None:
    for column, value in REFUSED:
        answer = send(client, route, **{column: value})
        told = (answer.status_code, [error["pointer"] for error in answer.json()["errors"]])
        assert told == (422, [route.pointer.format(column)]), (column, value[:40])
    assert nothing_was_kept(group)


NOT_JSON = ["NaN", "Infinity", "-Infinity", r'"\ud83d"', '{"a": 1, "a": 2}', "01", "'a'", "0x10", "undefined", "1,"]
NOT_JSON += ["[" * 100_000, "[" * 5_000 + "]" * 5_000]


@every_route
def test_what_is_not_strict_json_is_400(client: Client, group: FeatureGroup, route: Route) -> None:
    for value in NOT_JSON:
        answer = send(client, route, text=value)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), value[:40]
    assert nothing_was_kept(group)


@every_route
def test_a_repeated_key_is_400_by_name(client: Client, group: FeatureGroup, route: Route) -> None:
    row = {"customer_id": '"C1"', "event_timestamp": f'"{TEN}"', **GOOD}
    body = route.body(row).replace('"whole": ', '"whole": 2, "whole": ')
    answer = client.post(route.path, body, content_type="application/json")
    assert (answer.status_code, "'whole'" in answer.json()["detail"]) == (400, True)
    assert nothing_was_kept(group)


@every_route
def test_an_unknown_column_is_422_by_name(client: Client, group: FeatureGroup, route: Route) -> None:
    for column in ["wholes", "__proto__", "Whole", "who le", "select", "\u0445" * 300, "1", "a/b~c"]:
        answer = send(client, route, **{column: "1"})
        escaped = column[:100].replace("~", "~0").replace("/", "~1")
        told = (answer.status_code, [error["pointer"] for error in answer.json()["errors"]])
        assert told == (422, [route.pointer.format(escaped)])
    assert nothing_was_kept(group)


#: A column, a value at the edge of what it takes, and what is stored.
EDGES = [
    ("number", "-0.0", -0.0),
    ("number", "5e-324", 5e-324),
    ("number", "1.7976931348623157e308", 1.7976931348623157e308),
    ("number", "0.30000000000000004", 0.30000000000000004),
    ("number", "7", 7.0),
    ("number", str(2**53), float(2**53)),
    ("number", "null", None),
    ("whole", str(2**63 - 1), 2**63 - 1),
    ("whole", str(-(2**63)), -(2**63)),
    ("whole", "null", None),
    ("text", '""', ""),
    ("text", "null", None),
    ("text", r'"\ud83d\ude00 e\u0301 \u200d\u202e"', "\U0001f600 e\u0301 \u200d\u202e"),
    ("recent", "[]", []),
    ("recent", "null", None),
]


@every_route
def test_a_value_at_the_edge_of_its_type_is_the_same_in_both_stores(
    client: Client, group: FeatureGroup, route: Route
) -> None:
    for number, (column, value, _) in enumerate(EDGES):
        at = json.dumps(f"2024-11-01T10:00:{number:02}Z")
        assert send(client, route, **{column: value, "event_timestamp": at}).status_code == route.accepted
        assert repr(contents.online(group)["s2:C1"][column]) == repr(EDGES[number][2])  # by repr: 0.0 == -0.0
    drain.drain(group)
    offline = contents.offline(group)
    assert [repr(row[column]) for row, (column, _, _) in zip(offline, EDGES, strict=True)] == [
        repr(stored) for _, _, stored in EDGES
    ]


@every_route
def test_a_column_that_is_missing_is_null_and_no_empty_text(client: Client, group: FeatureGroup, route: Route) -> None:
    row = {"customer_id": '"C1"', "event_timestamp": f'"{TEN}"', "text": '""'}
    assert client.post(route.path, route.body(row), content_type="application/json").status_code == route.accepted
    stored = contents.online(group)["s2:C1"]
    assert (stored["text"], stored["whole"], stored["place"]) == ("", None, None)


# -- Entity ids.

#: Ids that look alike, or like what a key is made of: all different entities.
IDS = ["", " ", "1", "01", "*", ":", "{}", "}{", "s1:1", "a\nb", "a,b", "a/b", "~", "e\u0301", "\u00e9", "\U0001f600"]
IDS += ["\u200d", "\u202eabc", "A" * 512, "\u00e9" * 256]


@pytest.mark.parametrize("name", ["rows", "feast"])
def test_ids_of_any_characters_are_entities_of_their_own(client: Client, group: FeatureGroup, name: str) -> None:
    for number, id in enumerate(IDS):
        assert send(client, ROUTES[name], customer_id=json.dumps(id), whole=str(number)).status_code == 200
    stored = contents.online(group)
    assert {key.partition(":")[2]: row["whole"] for key, row in stored.items()} == {id: n for n, id in enumerate(IDS)}


@pytest.mark.parametrize("name", ["rows", "feast"])
def test_what_is_no_id_is_422(client: Client, group: FeatureGroup, name: str) -> None:
    for id in ["1", "null", "true", '"' + "A" * 513 + '"', r'"\u0000"', "[]"]:
        answer = send(client, ROUTES[name], customer_id=id)
        told = (answer.status_code, [error["pointer"] for error in answer.json()["errors"]])
        assert told == (422, [ROUTES[name].pointer.format("customer_id")]), id[:40]
    assert nothing_was_kept(group)


#: A method, a path and what is answered.
PATHS = [
    ("POST", "/ingest/readings/%00", 422),
    ("DELETE", "/api/v1/groups/readings/rows/%00", 422),
    ("POST", f"/ingest/readings/{'A' * 513}", 400),
    ("DELETE", f"/api/v1/groups/readings/rows/{'A' * 513}", 400),
    ("POST", "/ingest/readings/a,b", 400),
    ("DELETE", "/api/v1/groups/readings/rows/a,b", 400),
    ("POST", "/ingest/readings/~x", 400),
    ("POST", "/ingest/reading%00s/C1", 400),
    ("POST", "/api/v1/groups/reading%00s/rows", 400),
    ("DELETE", "/api/v1/groups/reading%00s/rows/C1", 400),
]


def test_what_is_no_id_or_group_in_a_path_is_4xx(client: Client, group: FeatureGroup) -> None:
    for method, path, status in PATHS:
        body = '{"rows": []}' if path.endswith("/rows") else "{}"
        answer = client.generic(method, path, body, content_type="application/json")
        assert (path[:40], answer.status_code) == (path[:40], status)
    assert nothing_was_kept(group)


# -- Types, methods and shapes of whole requests.


UNREAD_TYPES = ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/octet-stream"]
UNREAD_TYPES += ["multipart/form-data; boundary=x", "application/vnd.apache.arrow.file", "json"]
UNREAD_TYPES += ["application/json; charset=utf-16", "application/json; charset=nonsense"]


def test_rows_of_another_content_type_are_415(client: Client, group: FeatureGroup) -> None:
    body = ROUTES["rows"].body({"customer_id": '"C1"', "event_timestamp": f'"{TEN}"', **GOOD})
    for content_type in UNREAD_TYPES:
        answer = client.generic("POST", ROUTES["rows"].path, body, content_type=content_type)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type"), content_type
    assert nothing_was_kept(group)


@pytest.mark.parametrize("name", ["ingest", "feast"])
def test_where_only_json_can_be_meant_the_content_type_does_not_matter(
    client: Client, group: FeatureGroup, name: str
) -> None:
    row = {"customer_id": '"C1"', "event_timestamp": f'"{TEN}"', **GOOD}
    answer = client.post(ROUTES[name].path, ROUTES[name].body(row), content_type="application/x-www-form-urlencoded")
    assert answer.status_code == ROUTES[name].accepted


@every_route
def test_a_compressed_body_is_415(client: Client, group: FeatureGroup, route: Route) -> None:
    headers = {"Content-Encoding": "gzip"}
    answer = client.post(route.path, b"\x1f\x8b", content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@every_route
def test_another_method_is_405_and_no_header_turns_it_into_a_post(
    client: Client, group: FeatureGroup, route: Route
) -> None:
    body = route.body({"customer_id": '"C1"', "event_timestamp": f'"{TEN}"', **GOOD})
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "PURGE"]:
        answer = client.generic(method, route.path, body, headers={"X-HTTP-Method-Override": "POST"})
        assert answer.status_code == 405, method
    assert nothing_was_kept(group)


SHAPES = [
    ("rows", "[]", 400),
    ("rows", "{}", 400),
    ("rows", '{"rows": {}}', 400),
    ("rows", '{"rows": [], "on_error": "quarantine"}', 400),
    ("rows", '{"rows": [1, null]}', 422),
    ("ingest", "[]", 400),
    ("ingest", "null", 400),
    ("feast", "[]", 400),
    ("feast", '{"df": {}, "to": "online_and_offline"}', 400),
    ("feast", '{"push_source_name": "readings", "df": {}}', 422),
    ("feast", '{"push_source_name": "readings", "df": {}, "to": "online"}', 422),
    ("feast", '{"push_source_name": "readings", "df": {}, "to": "offline"}', 422),
    ("feast", '{"push_source_name": "readings", "df": [], "to": "online_and_offline"}', 422),
    ("feast", '{"push_source_name": ["readings"], "df": {}, "to": "online_and_offline"}', 422),
    ("feast", '{"push_source_name": "reading", "df": {}, "to": "online_and_offline"}', 400),
    ("feast", '{"push_source_name": "readings", "df": {"whole": 1}, "to": "online_and_offline"}', 422),
    (
        "feast",
        '{"push_source_name": "readings", "df": {"a": [1], "b": []}, "to": "online_and_offline"}',
        422,
    ),
    ("feast", '{"push_source_name": "readings", "df": {}, "to": "online_and_offline", "when": 1}', 400),
]


def test_a_body_of_another_shape_is_refused(client: Client, group: FeatureGroup) -> None:
    for name, body, status in SHAPES:
        answer = client.post(ROUTES[name].path, body, content_type="application/json")
        assert (body, answer.status_code) == (body, status)
    assert nothing_was_kept(group)


def test_a_push_to_one_store_only_is_told_why_not(client: Client, group: FeatureGroup) -> None:
    body = '{"push_source_name": "readings", "df": {}, "to": "online"}'
    answer = client.post("/feast/push", body, content_type="text/plain").json()
    assert "keeps them equal" in answer["detail"]
    assert [error["pointer"] for error in answer["errors"]] == ["/to"]


@pytest.mark.parametrize("name", ["rows", "feast"])
def test_more_rows_than_one_push_may_have_are_413(client: Client, group: FeatureGroup, name: str) -> None:
    many = 10_001
    bodies = {
        "rows": '{"rows": [' + "{}," * (many - 1) + "{}]}",
        "feast": as_columns({"whole": "1"}).replace("[1]", "[" + "1," * (many - 1) + "1]"),
    }
    answer = client.post(ROUTES[name].path, bodies[name], content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert nothing_was_kept(group)


def test_a_header_of_an_answer_to_feast_says_what_became_of_the_rows(client: Client, group: FeatureGroup) -> None:
    answer = send(client, ROUTES["feast"])
    assert (answer.status_code, answer.json(), answer["X-FeatureHub-Online"]) == (200, None, "applied")
