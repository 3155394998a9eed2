"""Rejected rows over HTTP: listed by rule, replayed after the rule or a row was mended, discarded with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.exceptions import NotFound as NoSuchPage
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.access import READ, READ_PII, WRITE, allowed, principal_of
from catalog.api import json_response
from catalog.bodies import read_object, require_keys
from catalog.models import RunKind
from catalog.openapi import documented, in_path, in_query
from catalog.parameters import parameters
from catalog.writable import group_named
from engine.errors import InvalidInput, Problem
from ingestion.api import RunSerializer, hand_over
from ingestion.models import QuarantinedRule, QuarantineState
from ingestion.push import find_group
from ingestion.settle import Selection, discard, queue_replay, rules_of

MAX_PAGE = 200
_CHOOSING = {
    "run": {"type": "string", "format": "uuid", "description": "The run that brought the rows."},
    "column": {"type": "string"},
    "rule": {"type": "string"},
    "row": {"type": "integer", "minimum": 0, "description": "One row, by its number in the run."},
}
_VALUES = {"type": "object", "description": "Laid over the one row, by column.", "additionalProperties": True}
_REASON = {"type": "string", "description": "Why the rows are not wanted; it is kept beside them."}


class SampleSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField(help_text="Its number in the run, from 0.")
    payload = serializers.CharField(help_text="JSON for people: what JSON cannot say is text.")


class DiscardedSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    by = serializers.CharField()
    reason = serializers.CharField()


class QuarantinedRuleSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    group = serializers.CharField()
    run = serializers.UUIDField()
    kind = serializers.ChoiceField(RunKind.values)
    column = serializers.CharField()
    rule = serializers.CharField()
    detail = serializers.CharField()
    rows = serializers.IntegerField()
    pending = serializers.IntegerField(help_text="Rows that a replay would take up.")
    state = serializers.ChoiceField(QuarantineState.values)
    samples = SampleSerializer(many=True, help_text="The first rows; none where `pii:read` is needed and not held.")
    replay = serializers.UUIDField(allow_null=True, help_text="The run that replays or has replayed them.")
    discarded = DiscardedSerializer(allow_null=True)
    created_at = serializers.DateTimeField()


class QuarantineSerializer(serializers.Serializer[Any]):
    results = QuarantinedRuleSerializer(many=True)
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)


class DiscardedRowsSerializer(serializers.Serializer[Any]):
    discarded = serializers.IntegerField()


class Pages(CursorPagination):
    ordering = "-pk"
    page_size = 50
    max_page_size = MAX_PAGE
    page_size_query_param = "limit"


class ListView(APIView):
    """`GET /api/v1/groups/<group>/quarantine`: rejected rows by run and rule, newest first."""

    scopes = {"GET": READ}

    @documented(
        "quarantine",
        answers={200: QuarantineSerializer},
        problems=[400],
        parameters=[
            in_path("group", "A feature group."),
            in_query("run", "Only rows of this run, a UUID."),
            in_query("column", "Only rows with a bad value in this column."),
            in_query("rule", "Only rows that broke this rule."),
            in_query("state", "Only in this state.", enum=QuarantineState.values),
            in_query("limit", f"How many on a page: 1 to {MAX_PAGE}, 50 by default."),
            in_query("cursor", "A page, as `next` and `previous` name it."),
        ],
    )
    def get(self, request: Request, group: str) -> HttpResponse:
        given = parameters(request, "run", "column", "rule", "state", "limit", "cursor")
        selection = selection_of({name: given[name] for name in ("run", "column", "rule", "state") if name in given})
        _require_limit(given.get("limit", "1"))
        target = group_named(group)
        found = rules_of(target, selection)
        shows_samples = not target.holds_personal() or allowed(request.user, READ_PII, target)
        pages = Pages()
        return json_response(
            {
                "results": [rule.summary(shows_samples=shows_samples) for rule in _page(pages, found, request)],
                "next": pages.get_next_link(),
                "previous": pages.get_previous_link(),
            }
        )


class ReplayView(APIView):
    """`POST .../quarantine/replay`: the chosen rows that wait go through the pipeline again, in the background."""

    scopes = {"POST": WRITE}

    @documented(
        "replay_quarantine",
        answers={202: RunSerializer},
        problems=[400, 404, 409, 413, 415, 422, 503],
        parameters=[in_path("group", "A feature group.")],
        body={"application/json": {"type": "object", "properties": {**_CHOOSING, "values": _VALUES}}},
    )
    def post(self, request: Request, group: str) -> HttpResponse:
        target, body = find_group(group), read_object(request)
        require_keys(body, required=set(), optional={*_CHOOSING, "values"})
        values = _checked(body, "values", dict, "is an object: a value by each column's name", default={})
        run = queue_replay(
            target, selection_of(body), values=values, by=str(request.user), principal=principal_of(request.user)
        )
        transaction.on_commit(lambda: hand_over(run))
        return json_response(run.summary(), status=202, headers={"Location": f"/api/v1/runs/{run.id}"})


class DiscardView(APIView):
    """`POST .../quarantine/discard`: the chosen rows that wait are not wanted; no replay takes them up."""

    scopes = {"POST": WRITE}

    @documented(
        "discard_quarantine",
        answers={200: DiscardedRowsSerializer},
        problems=[400, 404, 409, 413, 415],
        parameters=[in_path("group", "A feature group.")],
        body={
            "application/json": {
                "type": "object",
                "required": ["reason"],
                "properties": {**_CHOOSING, "reason": _REASON},
            }
        },
    )
    def post(self, request: Request, group: str) -> HttpResponse:
        target, body = group_named(group), read_object(request)
        require_keys(body, required={"reason"}, optional=set(_CHOOSING))
        reason = _checked(body, "reason", str, "is text")
        count = discard(target, selection_of(body), reason=reason, by=str(request.user))
        return json_response({"discarded": count})


def selection_of(given: Mapping[str, Any]) -> Selection:
    """Which rows a body or a query means; raises InvalidInput naming what is not of its type."""
    run = _checked(given, "run", str, "is the id of a run", default="")
    return Selection(
        run=_run_id(run) if "run" in given else None,
        column=_checked(given, "column", str, "is the name of a column", default=""),
        rule=_checked(given, "rule", str, "is the name of a rule", default=""),
        row=_checked(given, "row", int, "is a row's number in its run, from 0", default=None),
        state=_state_of(given["state"]) if "state" in given else "",
    )


def _checked(
    given: Mapping[str, Any], name: str, kind: Callable[..., Any], what: str, *, default: object = None
) -> Any:
    """The value by that name, exactly of that type; `default` when it is not given."""
    value = given.get(name, default)
    if name not in given:
        return value
    is_wrong_text = isinstance(value, str) and (not value or "\0" in value)  # PostgreSQL takes no NUL in a text
    is_wrong_number = isinstance(value, int) and not 0 <= value < 2**63
    if type(value) is not kind or is_wrong_text or is_wrong_number:
        raise InvalidInput(f"{name} {what}.", [Problem(f"/{name}", what)])
    return value


def _run_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidInput("run is the id of a run.", [Problem("/run", "is not a UUID")]) from error


def _state_of(text: str) -> str:
    if text not in QuarantineState.values:
        raise InvalidInput(f"state is one of {', '.join(QuarantineState.values)}; got {text[:100]!r}.")
    return text


def _require_limit(text: str) -> None:
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MAX_PAGE):
        raise InvalidInput(f"limit is a number from 1 to {MAX_PAGE}; got {text[:100]!r}.")


def _page(pages: Pages, found: Any, request: Request) -> list[QuarantinedRule]:
    try:
        return list(pages.paginate_queryset(found, request) or ())
    except (NoSuchPage, ValueError) as error:
        raise InvalidInput("cursor is one that `next` or `previous` of a page has.") from error
