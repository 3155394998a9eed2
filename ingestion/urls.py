"""The routes of ingestion; each answers with and without a trailing slash."""

from __future__ import annotations

from django.urls import path, re_path

from ingestion import api, feast, quarantine_api
from ingestion.pages import export, quarantine, row, run, runs

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
    path("catalog/runs/", runs.runs_page, name="catalog-runs"),
    path("catalog/runs/under-way/", runs.under_way_part, name="catalog-runs-under-way"),
    path("catalog/runs/<uuid:id>/", run.run_page, name="catalog-run"),
    path("catalog/runs/<uuid:id>/now/", run.run_part, name="catalog-run-part"),
    path("catalog/runs/<uuid:id>/retry/", run.retry_run, name="catalog-run-retry"),
    path("catalog/runs/<uuid:id>/cancel/", run.cancel_run, name="catalog-run-cancel"),
    path("catalog/groups/<str:name>/run/", run.run_now, name="catalog-run-now"),
    path("catalog/groups/<str:name>/quarantine/", quarantine.group_quarantine, name="catalog-group-quarantine"),
    path("catalog/quarantine/", quarantine.quarantine_page, name="catalog-quarantine"),
    path("catalog/quarantine/replay/", quarantine.replay_chosen, name="catalog-quarantine-replay"),
    path("catalog/quarantine/discard/", quarantine.discard_chosen, name="catalog-quarantine-discard"),
    path("catalog/quarantine/<int:id>/", quarantine.rule_page, name="catalog-quarantine-rule"),
    path("catalog/quarantine/<int:id>/rows.csv", export.rows_csv, name="catalog-quarantine-csv"),
    path("catalog/quarantine/<int:id>/rows/<int:row>/", row.row_page, name="catalog-quarantine-row"),
]
