"""The routes of the registry, by kind; each answers with and without a trailing slash."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, re_path
from drf_spectacular.utils import extend_schema_view

from catalog.models import Status
from catalog.registry import described
from catalog.registry.api import (
    CollectionView,
    ListView,
    ReviewingView,
    ReviewsView,
    ShownView,
    StatisticsView,
    ThingView,
    TransitionView,
    UndoView,
)
from catalog.registry.edits import REVIEWING
from catalog.registry.kinds import BASE, FEATURE_GROUPS, FEATURE_SERVICES, FEATURES, KINDS, TAGS, Kind

TRANSITIONS = {"activate": Status.ACTIVE, "deprecate": Status.DEPRECATED, "archive": Status.ARCHIVED}
#: Kinds whose things have a status.
_WITH_STATUS = (FEATURE_GROUPS, FEATURES, FEATURE_SERVICES)


def _of(kind: Kind, view: type[Any], **values: Any) -> type[Any]:
    """A view of one kind."""
    return type(f"{kind.model.__name__}{view.__name__}", (view,), {"kind": kind, "__doc__": view.__doc__, **values})


def _collection(kind: Kind) -> type[Any]:
    """Tags are made by naming them, and have nothing to change."""
    if kind is TAGS:
        return extend_schema_view(get=described.a_list(kind))(_of(kind, ListView))
    view = _of(kind, CollectionView)
    return extend_schema_view(get=described.a_list(kind), post=described.a_creation(kind))(view)


def _thing(kind: Kind) -> type[Any]:
    if kind is TAGS:
        return extend_schema_view(get=described.a_thing(kind))(_of(kind, ShownView))
    return extend_schema_view(get=described.a_thing(kind), patch=described.a_change(kind))(_of(kind, ThingView))


def _transition(kind: Kind, verb: str) -> type[Any]:
    view = _of(kind, TransitionView, status=TRANSITIONS[verb])
    return extend_schema_view(post=described.a_transition(kind, verb))(view)


def _undo(kind: Kind) -> type[Any]:
    return extend_schema_view(post=described.a_transition(kind, "undo"))(_of(kind, UndoView))


def _reviewing(kind: Kind, act: str) -> type[Any]:
    return extend_schema_view(post=described.a_reviewing(kind, act))(_of(kind, ReviewingView, act=act))


def _routes(kind: Kind) -> list[URLPattern]:
    listed = f"^{BASE.lstrip('/')}/{kind.path}"
    one = listed + ("/(?P<group_name>[^/]+)" if kind is FEATURES else "") + "/(?P<name>[^/]+)"
    routes = [
        re_path(f"{listed}/?$", _collection(kind).as_view(), name=f"registry-{kind.path}"),
        re_path(f"{one}/?$", _thing(kind).as_view(), name=f"registry-{kind.noun.replace(' ', '-')}"),
    ]
    if kind is FEATURES:
        view = extend_schema_view(get=described.statistics_of_a_feature())(StatisticsView)
        routes.append(re_path(f"{one}/statistics/?$", view.as_view(), name="registry-feature-statistics"))
    for verb, view in _verbs(kind).items() if kind in _WITH_STATUS else ():
        name = f"registry-{kind.noun.replace(' ', '-')}-{verb}"
        routes.append(re_path(f"{one}/{verb}/?$", view.as_view(), name=name))
    return routes


def _verbs(kind: Kind) -> dict[str, type[Any]]:
    """What is done to a thing with a status, by the word at the end of its address."""
    changes = {verb: _transition(kind, verb) for verb in TRANSITIONS}
    return {**changes, "undo": _undo(kind), **{act: _reviewing(kind, act) for act in REVIEWING}}


_reviews = extend_schema_view(get=described.REVIEWS)(ReviewsView)
urlpatterns = [
    *(route for kind in KINDS for route in _routes(kind)),
    re_path(f"^{BASE.lstrip('/')}/reviews/?$", _reviews.as_view(), name="registry-reviews"),
]
