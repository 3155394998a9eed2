"""Whether the hub's stores can be relied on, for balancers, people and Prometheus."""

from __future__ import annotations

import logging
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import stores
from catalog.api import json_response
from catalog.models import OfflineDamage
from catalog.openapi import documented
from catalog.snapshot import is_current
from engine.errors import Unavailable

log = logging.getLogger(__name__)


class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["healthy", "degraded"])
    service = serializers.CharField()
    timestamp = serializers.DateTimeField()
    down = serializers.ListField(
        child=serializers.ChoiceField(["database", "online_store"]), required=False, help_text="Only when degraded."
    )
    reasons = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="Why each of these is down; only when degraded."
    )
    damaged = serializers.ListField(
        child=serializers.ChoiceField(["offline_store"]),
        required=False,
        help_text="Only when the last scrub found damage; the service goes on.",
    )


class LiveSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["alive"])


class HealthView(APIView):
    """Whether the stores answer and are whole; needs no key and tells nothing else.

    What is damaged is told with 200: a balancer that took this process out of service would mend nothing.
    """

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @documented("health", answers={200: HealthSerializer, 503: HealthSerializer}, is_open=True)
    def get(self, request: Request) -> HttpResponse:
        down = what_is_down()
        damaged = [] if "database" in down else what_is_damaged()
        health: dict[str, object] = {
            "status": "degraded" if down or damaged else "healthy",
            "service": "featurehub",
            "timestamp": timezone.now(),
        }
        causes: dict[str, object] = {"down": list(down), "reasons": down} if down else {}
        causes |= {"damaged": damaged} if damaged else {}
        return json_response(health | causes, status=503 if down else 200)


class ReadyView(HealthView):
    """The same under the name that Kubernetes' users look for."""

    @documented("ready", answers={200: HealthSerializer, 503: HealthSerializer}, is_open=True)
    def get(self, request: Request) -> HttpResponse:
        return super().get(request)


class LiveView(APIView):
    """Whether this process answers, whatever its stores do: one that does not is to be started again."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @documented("live", answers={200: LiveSerializer}, is_open=True)
    def get(self, request: Request) -> HttpResponse:
        return json_response({"status": "alive"})


def what_is_down() -> dict[str, str]:
    """The stores that cannot be relied on now, `database` and `online_store`, and why; no text of theirs."""
    down = {}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure as error:
        log.error("the database does not answer: %s", error)
        down["database"] = "It does not answer."
    try:
        if reason := _why_not_online(knows_epoch="database" not in down):
            down["online_store"] = reason
    except Unavailable as error:
        log.error("%s", error.detail)
        down["online_store"] = "It does not answer."
    return down


def _why_not_online(*, knows_epoch: bool) -> str:
    """Why the online store cannot be relied on, though it answers; nothing when it can. Raises Unavailable."""
    state, servers = stores.online().state(), stores.online().servers()
    if knows_epoch and not is_current(state):
        return "It is cold: it is being filled from the offline store."
    evicting = next((server for server in servers if server.evicts_rows), None)
    if evicting is not None:
        return f"Its Redis evicts rows when memory is short: maxmemory-policy is {evicting.policy}, not noeviction."
    return ""


def what_is_damaged() -> list[str]:
    """`offline_store` while the last scrub of some group found damage."""
    return ["offline_store"] if OfflineDamage.objects.exists() else []
