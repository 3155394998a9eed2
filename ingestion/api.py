"""The way in over HTTP: one row to a group, a run of a group's source, and what became of a run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse
from django.utils import timezone
from kombu.exceptions import OperationalError
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.access import READ, WRITE
from catalog.api import json_response
from catalog.bodies import read_object
from catalog.models import Run, RunKind, RunState
from catalog.openapi import documented, in_path
from engine.entity_key import parse_id
from engine.errors import Conflict, InvalidSource, NotFound, Unavailable
from ingestion.push import find_group, push
from ingestion.tasks import ingest_run


class IngestedRowSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["success"])
    group_name = serializers.CharField()
    entity_id = serializers.CharField()
    online = serializers.ChoiceField(["applied", "pending"])


class IngestRowView(APIView):
    """`POST /ingest/<group>/<id>`: one raw row; its time is `timestamp`, the group's own column, or now."""

    scopes = {"POST": WRITE}

    @documented(
        "ingest_row",
        answers={201: IngestedRowSerializer, 202: IngestedRowSerializer},
        problems=[400, 409, 413, 422],
        parameters=[in_path("group", "A feature group."), in_path("id", "The join key values, joined by commas.")],
        body={"application/json": {"type": "object", "additionalProperties": True}},
    )
    def post(self, request: Request, group: str, id: str) -> HttpResponse:
        target = find_group(group)
        keys = target.entity.key_fields()
        names: dict[str, object] = dict(zip((key.name for key in keys), parse_id(id, keys), strict=True))
        row = one_row(read_object(request), names, target.event_timestamp)
        pushed = push(target, [row], by=str(request.user), default_event_timestamp=timezone.now())
        answer = {"status": "success", "group_name": group, "entity_id": id, "online": pushed.online}
        return json_response(answer, status=201 if pushed.online == "applied" else 202)


def one_row(body: dict[str, Any], keys: dict[str, object], event_timestamp: str) -> dict[str, Any]:
    """A row from a body that may call the event time `timestamp` and may repeat the join keys of its address."""
    row = dict(body)
    if "timestamp" in row and event_timestamp not in row:
        row[event_timestamp] = row.pop("timestamp")
    for name, value in keys.items():
        if row.setdefault(name, value) != value:
            raise Conflict(f"The row says {name} is {row[name]!r}, the address says {value!r}.")
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
    group = serializers.CharField()
    group_version = serializers.IntegerField()
    state = serializers.ChoiceField(RunState.values)
    progress = serializers.FloatField(allow_null=True, help_text="From 0 to 1.")
    read = serializers.IntegerField()
    accepted = serializers.IntegerField()
    quarantined = serializers.IntegerField()
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
        target = find_group(group)
        if target.source is None:
            raise InvalidSource(f"{group} has no source to ingest from; push rows to it.")
        run = Run.queue(target, requested_by=str(request.user))
        transaction.on_commit(lambda: hand_over(run))
        return json_response(run.summary(), status=202, headers={"Location": f"/api/v1/runs/{run.id}"})


def hand_over(run: Run) -> None:
    """Tell a worker of a queued run; raises Unavailable, the run failed, when the broker does not take the message."""
    try:
        ingest_run.delay(str(run.id))
    except OperationalError as error:
        run.fail(f"The broker does not take tasks: {error}", Unavailable.code)
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
        return json_response(run.summary())
