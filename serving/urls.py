"""The routes of serving; each answers with and without a trailing slash."""

from __future__ import annotations

from django.urls import re_path

from serving import api

urlpatterns = [
    re_path(r"^features/(?P<entity>[^/]+)/(?P<id>[^/]+)/?$", api.EntityVectorView.as_view(), name="entity-vector"),
    re_path(r"^api/v1/vectors/?$", api.VectorsView.as_view(), name="vectors"),
]
