"""The routes of serving; each answers with and without a trailing slash."""

from __future__ import annotations

from django.urls import path, re_path

from serving import api, datasets_api, feast
from serving.pages import samples, trying, using

urlpatterns = [
    re_path(r"^features/(?P<entity>[^/]+)/(?P<id>[^/]+)/?$", api.EntityVectorView.as_view(), name="entity-vector"),
    re_path(r"^api/v1/vectors/?$", api.VectorsView.as_view(), name="vectors"),
    re_path(r"^feast/get-online-features/?$", feast.FeastVectorsView.as_view(), name="feast-vectors"),
    re_path(r"^feast/health/?$", feast.FeastHealthView.as_view(), name="feast-health"),
    re_path(r"^api/v1/training-datasets/?$", datasets_api.DatasetsView.as_view(), name="training-datasets"),
    re_path(
        r"^api/v1/training-datasets/(?P<name>[^/]+)/?$", datasets_api.DatasetView.as_view(), name="training-dataset"
    ),
    re_path(
        r"^api/v1/training-datasets/(?P<name>[^/]+)/data/?$",
        datasets_api.DatasetDataView.as_view(),
        name="training-dataset-data",
    ),
    path("catalog/features/<str:group>/<str:name>/samples/", samples.of_feature, name="catalog-samples"),
    path("catalog/groups/<str:group>/samples/", samples.of_group, name="catalog-group-samples"),
    path("catalog/features/<str:group>/<str:name>/use/", using.of_feature, name="catalog-use"),
    path("catalog/services/<str:name>/use/", using.of_service, name="catalog-service-use"),
    path("catalog/entities/<str:name>/try/", trying.try_page, name="catalog-try"),
]
