"""The routes of ingestion; each answers with and without a trailing slash."""

from __future__ import annotations

from django.urls import re_path

from ingestion import api, feast, quarantine_api

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

urlpatterns = [
    re_path(r"^feast/push/?$", feast.PushView.as_view(), name="feast-push"),
    re_path(r"^api/v1/groups/(?P<group>[^/]+)/rows/?$", api.GroupRowsView.as_view(), name="group-rows"),
    re_path(r"^api/v1/groups/(?P<group>[^/]+)/rows/(?P<id>[^/]+)/?$", api.GroupRowView.as_view(), name="group-row"),
    re_path(r"^ingest/(?P<group>[^/]+)/(?P<id>[^/]+)/?$", api.IngestRowView.as_view(), name="ingest-row"),
    re_path(r"^api/v1/groups/(?P<group>[^/]+)/runs/?$", api.GroupRunsView.as_view(), name="group-runs"),
    re_path(r"^api/v1/groups/(?P<group>[^/]+)/quarantine/?$", quarantine_api.ListView.as_view(), name="quarantine"),
    re_path(
        r"^api/v1/groups/(?P<group>[^/]+)/quarantine/replay/?$",
        quarantine_api.ReplayView.as_view(),
        name="quarantine-replay",
    ),
    re_path(
        r"^api/v1/groups/(?P<group>[^/]+)/quarantine/discard/?$",
        quarantine_api.DiscardView.as_view(),
        name="quarantine-discard",
    ),
    re_path(rf"^api/v1/runs/(?P<id>{UUID})/?$", api.RunView.as_view(), name="run"),
]
