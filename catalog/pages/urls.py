"""The routes of the catalog's pages."""

from __future__ import annotations

from django.urls import path

from catalog.pages import features, home, lineage, lists, login, things

urlpatterns = [
    path("", home.home_page, name="home"),
    path("login/", login.LoginPage.as_view(), name="login"),
    path("logout/", login.LogoutPage.as_view(), name="logout"),
    path("catalog/features/", features.list_page, name="catalog-features"),
    path("catalog/find/", features.palette, name="catalog-find"),
    path("catalog/features/<str:group>/<str:name>/", things.feature_page, name="catalog-feature"),
    path("catalog/groups/", lists.groups_page, name="catalog-groups"),
    path("catalog/groups/<str:name>/", things.group_page, name="catalog-group"),
    path("catalog/entities/", lists.entities_page, name="catalog-entities"),
    path("catalog/entities/<str:name>/", things.entity_page, name="catalog-entity"),
    path("catalog/services/", lists.services_page, name="catalog-services"),
    path("catalog/services/<str:name>/", things.service_page, name="catalog-service"),
    path("catalog/datasets/", lists.datasets_page, name="catalog-datasets"),
    path("catalog/datasets/<str:name>/", things.dataset_page, name="catalog-dataset"),
    path("catalog/lineage/", lineage.lineage_page, name="catalog-lineage"),
]
