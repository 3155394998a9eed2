"""Every route of the hub; the only place that names all apps."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("catalog.urls")),
    path("", include("ingestion.urls")),
    path("", include("serving.urls")),
]

handler400 = "catalog.problems.bad_request"
handler403 = "catalog.problems.permission_denied"
handler404 = "catalog.problems.page_not_found"
handler500 = "catalog.problems.server_error"
