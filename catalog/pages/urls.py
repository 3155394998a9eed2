"""The routes of the catalog's pages."""

from __future__ import annotations

from django.urls import path, re_path

from catalog.pages import changing, features, home, inbox, lineage, lists, login, things

#: One name, or a group's and a feature's.
_NAMES = r"[^/]+(?:/[^/]+)?"

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
    re_path(
        rf"^catalog/(?P<kind>features|groups|services)/(?P<names>{_NAMES})/(?P<verb>{'|'.join(changing.VERBS)})/$",
        changing.change_page,
        name="catalog-change",
    ),
    re_path(
        rf"^catalog/(?P<kind>features|groups|services|entities)/(?P<names>{_NAMES})/follow/$",
        changing.follow_page,
        name="catalog-follow",
    ),
    path("catalog/inbox/", inbox.inbox_page, name="catalog-inbox"),
    path("catalog/lineage/", lineage.lineage_page, name="catalog-lineage"),
]
