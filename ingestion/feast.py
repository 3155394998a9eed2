"""Pushes as Feast's Python server takes them, so that whoever pushed to that can push to the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.access import WRITE, require
from catalog.api import json_response
from catalog.bodies import parse_object, read_body, require_keys
from catalog.openapi import documented
from engine.errors import InvalidRows, Problem
from ingestion.api import IDEMPOTENCY_KEY, PUSH_PROBLEMS, repeatable
from ingestion.push import find_target, push
from ingestion.push_bodies import require_few

BOTH = "online_and_offline"
COLUMNS = {"type": "object", "additionalProperties": {"type": "array"}}


class PushView(APIView):
    """`POST /feast/push`: rows as columns; `push_source_name` is a group. Answers 200 and null, as Feast does."""

    scopes = {"POST": WRITE}

    @documented(
        "feast_push",
        answers={200: {"type": "object", "nullable": True}},
        problems=PUSH_PROBLEMS,
        parameters=[IDEMPOTENCY_KEY],
        body={
            "application/json": {
                "type": "object",
                "required": ["push_source_name", "df", "to"],
                "properties": {
                    "push_source_name": {"type": "string"},
                    "df": COLUMNS,
                    "to": {"type": "string", "enum": [BOTH]},
                    "allow_registry_cache": {"type": "boolean"},
                    "transform_on_write": {"type": "boolean", "enum": [True]},
                },
            }
        },
    )
    def post(self, request: Request) -> HttpResponse:
        body = read_body(request)
        name, rows = rows_of_feast(parse_object(body))
        require(request.user, WRITE, [name])
        try:
            pushed = push(find_target(name), rows, by=str(request.user), repeatable=repeatable(request, "feast", body))
        except InvalidRows as error:
            raise InvalidRows(error.detail, [_by_column(problem) for problem in error.problems]) from error
        return json_response(None, headers={"X-FeatureHub-Online": pushed.online})


def rows_of_feast(document: dict[str, Any]) -> tuple[str, Sequence[dict[str, object]]]:
    """The group's name and the rows; raises InvalidInput or InvalidRows for what is no such push."""
    optional = {"to", "allow_registry_cache", "transform_on_write"}
    require_keys(document, required={"push_source_name", "df"}, optional=optional)
    _require_both_stores(document)
    name, columns = document["push_source_name"], document["df"]
    if not isinstance(name, str):
        raise InvalidRows("push_source_name is a group's name.", [Problem("/push_source_name", "is not a string")])
    if not isinstance(columns, dict):
        raise InvalidRows("df is an object: a list of values by each column's name.", [Problem("/df", "is no object")])
    lists = {column: values for column, values in columns.items() if isinstance(values, list)}
    if len(lists) < len(columns):
        problems = [Problem(f"/df/{column[:100]}", "is not a list") for column in columns if column not in lists]
        raise InvalidRows("Every column of df is a list of values.", problems)
    return name, _rows(lists)


def _require_both_stores(document: dict[str, Any]) -> None:
    if document.get("to") != BOTH:
        raise InvalidRows(
            f'The hub writes every row to both stores, which keeps them equal; send "to": "{BOTH}".',
            [Problem("/to", f"is {BOTH} and nothing else")],
        )
    if document.get("transform_on_write", True) is not True:
        detail = "Rows are always transformed, since both stores hold what the group's transformations give."
        raise InvalidRows(detail, [Problem("/transform_on_write", "is true or absent")])


def _rows(columns: dict[str, list[object]]) -> list[dict[str, object]]:
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        problems = [Problem(f"/df/{column[:100]}", f"has {length} values") for column, length in lengths.items()]
        raise InvalidRows("The columns of df are not of one length.", problems)
    require_few(max(lengths.values(), default=0))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _by_column(problem: Problem) -> Problem:
    """`/rows/3/amount` as the sender wrote it: `/df/amount/3`."""
    parts = problem.pointer.split("/")
    if len(parts) != 4 or parts[1] != "rows":
        return problem
    return Problem(f"/df/{parts[3]}/{parts[2]}", problem.detail, problem.did_you_mean)
