"""The way in over HTTP: one row to a group, a run of a group's source, and what became of a run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.access import READ, WRITE
from catalog.api import json_response
from catalog.bodies import read_object
from catalog.models import Run
from engine.entity_key import parse_id
from engine.errors import Conflict, InvalidSource, NotFound
from ingestion.push import find_group, push
from ingestion.tasks import ingest_run


class IngestRowView(APIView):
    """`POST /ingest/<group>/<id>`: one raw row; its time is `timestamp`, the group's own column, or now."""

    scopes = {"POST": WRITE}

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


class GroupRunsView(APIView):
    """`POST /api/v1/groups/<group>/runs`: ingest what is new in the group's source, in the background."""

    scopes = {"POST": WRITE}

    def post(self, request: Request, group: str) -> HttpResponse:
        target = find_group(group)
        if target.source is None:
            raise InvalidSource(f"{group} has no source to ingest from; push rows to it.")
        run = Run.queue(target, requested_by=str(request.user))
        transaction.on_commit(lambda: ingest_run.delay(str(run.id)))
        return json_response(run.summary(), status=202, headers={"Location": f"/api/v1/runs/{run.id}"})


class RunView(APIView):
    scopes = {"GET": READ}

    def get(self, request: Request, id: UUID) -> HttpResponse:
        run = Run.objects.select_related("group").filter(pk=id).first()
        if run is None:
            raise NotFound(f"There is no run {id}.")
        return json_response(run.summary())
