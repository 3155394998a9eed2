"""The routes of the catalog; each answers with and without a trailing slash."""

from __future__ import annotations

from django.urls import re_path

from catalog import api, health, metrics
from catalog.pages import urls as page_urls
from catalog.registry import urls as registry_urls

urlpatterns = [
    re_path(r"^health/?$", health.HealthView.as_view(), name="health"),
    re_path(r"^readyz/?$", health.ReadyView.as_view(), name="ready"),
    re_path(r"^healthz/?$", health.LiveView.as_view(), name="live"),
    re_path(r"^metrics/?$", metrics.MetricsView.as_view(), name="metrics"),
    re_path(r"^groups/?$", api.GroupsView.as_view(), name="groups"),
    re_path(r"^features/?$", api.FeaturesView.as_view(), name="features"),
    re_path(
        r"^features/(?P<entity>[^/]+)/(?P<feature>[^/]+)/metadata/?$",
        api.FeatureMetadataView.as_view(),
        name="feature-metadata",
    ),
    *registry_urls.urlpatterns,
    *page_urls.urlpatterns,
]
