"""The way in over HTTP: rows to a group, the deletion of one, a run of a group's source, and what became of a run."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse
from django.utils import timezone
from kombu.exceptions import OperationalError
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import notices
from catalog.access import READ, WRITE, principal_of, require
from catalog.api import json_response
from catalog.bodies import parse_object, read_body
from catalog.models import FeatureGroup, Run, RunKind, RunState
from catalog.openapi import documented, in_header, in_path, in_query
from catalog.parameters import parameters
from engine.entity_key import parse_id
from engine.errors import Conflict, InvalidInput, InvalidSource, NotFound, Unavailable
from ingestion.idempotency import Repeatable, check_key, fingerprint
from ingestion.push import OnError, Pushed, delete, find_group, find_target, push
from ingestion.push_bodies import ARROW, JSON, content_type_of, rows_in
from ingestion.tasks import ingest_run

PUSH_PROBLEMS = [400, 409, 413, 415, 422]
IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key", "Of the sender's choice, kept for a day: the same request under it is done once."
)


class IngestedRowSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["success"])
    group_name = serializers.CharField()
    entity_id = serializers.CharField()
    suppressed = serializers.IntegerField(required=False, help_text="1 when the entity was erased: nothing was taken.")
    online = serializers.ChoiceField(["applied", "pending"])


class PushedSerializer(serializers.Serializer[Any]):
    accepted = serializers.IntegerField()
    quarantined = serializers.IntegerField()
    suppressed = serializers.IntegerField(required=False, help_text="Not taken: they are of erased entities.")
    online = serializers.ChoiceField(["applied", "pending"])


class IngestRowView(APIView):
    """`POST /ingest/<group>/<id>`: one raw row; its time is `timestamp`, the group's own column, or now."""

    scopes = {"POST": WRITE}

    @documented(
        "ingest_row",
        answers={201: IngestedRowSerializer, 202: IngestedRowSerializer},
        problems=PUSH_PROBLEMS,
        parameters=[
            in_path("group", "A feature group."),
            in_path("id", "The join key values, joined by commas."),
            IDEMPOTENCY_KEY,
        ],
        body={"application/json": {"type": "object", "additionalProperties": True}},
    )
    def post(self, request: Request, group: str, id: str) -> HttpResponse:
        target, body = find_target(group), read_body(request)
        row = one_row(parse_object(body), keys_in(id, target), target.event_timestamp)
        pushed = push(
            target,
            [row],
            by=str(request.user),
            default_event_timestamp=timezone.now(),
            repeatable=repeatable(request, "ingest", id.encode(), body),
        )
        suppressed = {"suppressed": pushed.suppressed} if pushed.suppressed else {}
        answer = {"status": "success", "group_name": group, "entity_id": id, **suppressed, "online": pushed.online}
        return json_response(answer, status=201 if pushed.online == "applied" else 202)


class GroupRowsView(APIView):
    """`POST /api/v1/groups/<group>/rows`: many raw rows, all of them accepted or none, unless bad ones may be kept."""

    scopes = {"POST": WRITE}

    @documented(
        "push_rows",
        answers={200: PushedSerializer, 202: PushedSerializer},
        problems=PUSH_PROBLEMS,
        parameters=[
            in_path("group", "A feature group."),
            in_query("on_error", "What a bad row does: refuse all, or be kept apart.", enum=["reject", "quarantine"]),
            IDEMPOTENCY_KEY,
        ],
        body={
            JSON: {
                "type": "object",
                "required": ["rows"],
                "properties": {"rows": {"type": "array", "items": {"type": "object", "additionalProperties": True}}},
            },
            ARROW: {"type": "string", "format": "binary"},
        },
    )
    def post(self, request: Request, group: str) -> HttpResponse:
        on_error = on_error_of(parameters(request, "on_error"))
        content_type = content_type_of(request)
        target, body = find_target(group), read_body(request)
        pushed = push(
            target,
            rows_in(body, content_type),
            by=str(request.user),
            on_error=on_error,
            repeatable=repeatable(request, "rows", on_error.encode(), content_type.encode(), body),
        )
        return pushed_response(pushed)


class GroupRowView(APIView):
    """`DELETE /api/v1/groups/<group>/rows/<id>`: from then on nothing older is served of this entity."""

    scopes = {"DELETE": WRITE}

    @documented(
        "delete_row",
        answers={200: PushedSerializer, 202: PushedSerializer},
        problems=[400, 409, 422],
        parameters=[
            in_path("group", "A feature group."),
            in_path("id", "The join key values, joined by commas."),
            in_query("timestamp", "The event time of the deletion, RFC 3339; now if absent."),
            IDEMPOTENCY_KEY,
        ],
    )
    def delete(self, request: Request, group: str, id: str) -> HttpResponse:
        at = parameters(request, "timestamp").get("timestamp")
        target = find_target(group)
        deleted = delete(
            target,
            keys_in(id, target),
            at=at,
            by=str(request.user),
            repeatable=repeatable(request, "delete", id.encode(), (at or "").encode()),
        )
        return pushed_response(deleted)


def pushed_response(pushed: Pushed) -> HttpResponse:
    """200 with the counts, 202 while the online store does not show the rows."""
    return json_response(pushed.counts(), status=200 if pushed.online == "applied" else 202)


def on_error_of(given: dict[str, str]) -> OnError:
    choice = given.get("on_error", "reject")
    if choice not in ("reject", "quarantine"):
        raise InvalidInput(f"on_error is reject or quarantine; got {choice[:100]!r}.")
    return cast(OnError, choice)


def repeatable(request: Request, route: str, *parts: bytes) -> Repeatable | None:
    """The request as its repetition is known by, when it has an Idempotency-Key; `parts` are all that it says."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    return Repeatable(principal_of(request.user), route, check_key(key), fingerprint(*parts))


def keys_in(id: str, group: FeatureGroup) -> dict[str, object]:
    """The join keys that an id in a path names."""
    keys = group.entity.key_fields()
    return dict(zip((key.name for key in keys), parse_id(id, keys), strict=True))


def one_row(body: dict[str, Any], keys: dict[str, object], event_timestamp: str) -> dict[str, Any]:
    """A row from a body that may call the event time `timestamp` and may repeat the join keys of its address."""
    row = dict(body)
    if "timestamp" in row and event_timestamp not in row:
        row[event_timestamp] = row.pop("timestamp")
    for name, value in keys.items():
        if row.setdefault(name, value) != value:
            raise Conflict(f"The row has another {name} than the address.")
    return row


class RunErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class RunWarningSerializer(serializers.Serializer[Any]):
    column = serializers.CharField()
    rule = serializers.CharField()
    detail = serializers.CharField()
    rows = serializers.IntegerField()


class RunSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(RunKind.values)
    group = serializers.CharField(allow_null=True)
    dataset = serializers.CharField(required=False, help_text="Of a run that makes a training dataset: its name.")
    group_version = serializers.IntegerField()
    state = serializers.ChoiceField(RunState.values)
    attempts = serializers.IntegerField()
    progress = serializers.FloatField(allow_null=True, help_text="From 0 to 1.")
    read = serializers.IntegerField()
    accepted = serializers.IntegerField()
    quarantined = serializers.IntegerField()
    suppressed = serializers.IntegerField(required=False, help_text="Not taken: they are of erased entities.")
    warnings = RunWarningSerializer(many=True)
    message = serializers.CharField()
    error = RunErrorSerializer(allow_null=True)
    duration_seconds = serializers.FloatField(allow_null=True)
    delta_version = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class GroupRunsView(APIView):
    """`POST /api/v1/groups/<group>/runs`: ingest what is new in the group's source, in the background."""

    scopes = {"POST": WRITE}

    @documented(
        "start_run",
        answers={202: RunSerializer},
        problems=[400, 409, 422, 503],
        parameters=[in_path("group", "A feature group.")],
    )
    def post(self, request: Request, group: str) -> HttpResponse:
        run = start_run(find_group(group), by=str(request.user), principal=principal_of(request.user))
        return json_response(run.summary(), status=202, headers={"Location": f"/api/v1/runs/{run.id}"})


def start_run(group: FeatureGroup, *, by: str, principal: str) -> Run:
    """A queued run of the group's source, which a worker is told of; raises InvalidSource when the group has none."""
    if group.source is None:
        raise InvalidSource(f"{group.name} has no source to ingest from; push rows to it.")
    run = Run.queue(group, requested_by=by, principal=principal)
    transaction.on_commit(lambda: hand_over(run))
    return run


def hand_over(run: Run) -> None:
    """Tell a worker of a queued run; raises Unavailable, the run failed, when the broker does not take the message."""
    try:
        ingest_run.delay(str(run.id))
    except OperationalError as error:
        run.fail(f"The broker does not take tasks: {error}", Unavailable.code)
        notices.tell_of_run(run)
        raise Unavailable("The broker does not take tasks now, so the run was not started; try again.") from error


class RunView(APIView):
    """`GET /api/v1/runs/<id>`: what became of a run."""

    scopes = {"GET": READ}

    @documented(
        "run", answers={200: RunSerializer}, problems=[404], parameters=[in_path("id", "The run's id, a UUID.")]
    )
    def get(self, request: Request, id: UUID) -> HttpResponse:
        run = Run.objects.select_related("group").filter(pk=id).first()
        if run is None:
            raise NotFound(f"There is no run {id}.")
        require(request.user, READ, run)
        return json_response(run.summary())
