"""Every route of the hub; the only place that names all apps."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from catalog.openapi import DocsView, OpenApiView

urlpatterns = [
    # unfold keeps what its search finds in the cache as objects, which a cache of JSON cannot hold.
    path("admin/search/", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("", include("catalog.urls")),
    path("", include("ingestion.urls")),
    path("", include("serving.urls")),
    re_path(r"^api/v1/openapi\.json/?$", OpenApiView.as_view(), name="openapi"),
    re_path(r"^api/docs/?$", DocsView.as_view(), name="api-docs"),
]

handler400 = "catalog.problems.bad_request"
handler403 = "catalog.problems.permission_denied"
handler404 = "catalog.problems.page_not_found"
handler500 = "catalog.problems.server_error"
