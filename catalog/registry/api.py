"""The registry over HTTP: lists, things, changes of them and of their status."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import reviews, statistics
from catalog.access import READ, REGISTRY, seen
from catalog.api import json_response
from catalog.bodies import parse_object, read_body
from catalog.definitions.planning import Plan
from catalog.models import ReviewAnswer, ReviewRequest
from catalog.parameters import parameters
from catalog.registry import edits, kinds, pages
from catalog.registry.answers import etag_of, review_shown, shown
from catalog.registry.bodies import Comment, Note, Reason, read_reason
from catalog.registry.edits import Undo
from catalog.registry.filters import filtered, filters_of
from catalog.registry.kinds import FEATURES, Kind
from engine.errors import InvalidInput, Problem

MAX_BYTES = 1 << 20
REVIEW_STATES = ("open", *ReviewAnswer.values)


class ListView(APIView):
    """`GET /api/v1/registry/<kind>/`: what the caller may read, in pages."""

    kind: ClassVar[Kind]
    scopes = {"GET": READ}

    def get(self, request: Request) -> HttpResponse:
        given = parameters(request, *filters_of(self.kind), "limit", "cursor")
        order = self.kind.order
        page = pages.page_of(
            filtered(self.kind, given, seen(request.user, self.kind.rows())),
            order,
            cursor=pages.cursor_of(given.pop("cursor", None), order),
            limit=pages.limit_of(given.get("limit")),
        )
        address = request.build_absolute_uri(request.path)
        return json_response(
            {
                "results": [shown(row) for row in page.rows],
                "next": pages.link(address, given, page.next),
                "previous": pages.link(address, given, page.previous),
            }
        )


class CollectionView(ListView):
    """And `POST` there: a new thing, described as in a definitions file."""

    scopes = {"GET": READ, "POST": REGISTRY}

    def post(self, request: Request) -> HttpResponse:
        dry_run = is_dry_run(request)
        plan, row = edits.create(request.user, self.kind, object_of(request), dry_run=dry_run)
        if dry_run:
            return planned(plan)
        return answered(row, status=201, Location=kinds.address_of(row))


class ShownView(APIView):
    """`GET /api/v1/registry/<kind>/<name>`: one thing and its version."""

    kind: ClassVar[Kind]
    scopes = {"GET": READ}

    def get(self, request: Request, **names: str) -> HttpResponse:
        return answered(kinds.find(self.kind, list(names.values()), request.user))


class ThingView(ShownView):
    """And `PATCH` there: the keys of the body in place of the thing's own."""

    scopes = {"GET": READ, "PATCH": REGISTRY}

    def patch(self, request: Request, **names: str) -> HttpResponse:
        dry_run = is_dry_run(request)
        plan, row = edits.change(
            request.user,
            self.kind,
            list(names.values()),
            object_of(request),
            if_match=request.headers.get("If-Match"),
            dry_run=dry_run,
        )
        return planned(plan) if dry_run else answered(row)


class StatisticsView(APIView):
    """`GET /api/v1/registry/features/<group>/<name>/statistics`: what its values were like last, and before."""

    kind = FEATURES
    scopes = {"GET": READ}

    def get(self, request: Request, **names: str) -> HttpResponse:
        (described,) = statistics.described([kinds.find(self.kind, list(names.values()), request.user)])
        return json_response(described.told())


class TransitionView(APIView):
    """`POST .../deprecate`, `.../activate` and `.../archive`: another status, by the lifecycle."""

    kind: ClassVar[Kind]
    status: ClassVar[str]
    scopes = {"POST": REGISTRY}

    def post(self, request: Request, **names: str) -> HttpResponse:
        body = object_of(request, may_be_empty=True)
        asked = edits.transition_of(request.user, self.kind, list(names.values()), self.status, body)
        if is_dry_run(request):
            return json_response(edits.impact(request.user, self.kind, list(names.values()), asked))
        if_match = request.headers.get("If-Match")
        return answered(edits.change_state(request.user, self.kind, list(names.values()), asked, if_match=if_match))


class UndoView(APIView):
    """`POST .../undo`: the status that it had before, by the lifecycle."""

    kind: ClassVar[Kind]
    scopes = {"POST": REGISTRY}

    def post(self, request: Request, **names: str) -> HttpResponse:
        asked = Undo(read_reason(Reason, object_of(request, may_be_empty=True)).reason)
        if is_dry_run(request):
            return json_response(edits.impact(request.user, self.kind, list(names.values()), asked))
        if_match = request.headers.get("If-Match")
        return answered(edits.change_state(request.user, self.kind, list(names.values()), asked, if_match=if_match))


class ReviewingView(APIView):
    """`POST .../request-review`, `.../approve`, `.../decline` and `.../withdraw`: reviews of a draft."""

    kind: ClassVar[Kind]
    act: ClassVar[str]
    scopes = {"POST": REGISTRY}

    def post(self, request: Request, **names: str) -> HttpResponse:
        parameters(request)
        body = object_of(request, may_be_empty=True)
        text = read_reason(Note, body).note if self.act == "request-review" else read_reason(Comment, body).comment
        if_match = request.headers.get("If-Match")
        done = edits.review(request.user, self.kind, list(names.values()), self.act, text, if_match=if_match)
        return json_response(review_shown(done))


class ReviewsView(APIView):
    """`GET /api/v1/registry/reviews`: those of what the caller may read, the first one first."""

    scopes = {"GET": READ}

    def get(self, request: Request) -> HttpResponse:
        given = parameters(request, "state", "limit", "cursor")
        found = in_state(reviews.seen_by(request.user), given.get("state"))
        order = ("pk",)
        page = pages.page_of(
            found.order_by(*order),
            order,
            cursor=pages.cursor_of(given.pop("cursor", None), order),
            limit=pages.limit_of(given.get("limit")),
        )
        address = request.build_absolute_uri(request.path)
        return json_response(
            {
                "results": [review_shown(review) for review in page.rows],
                "next": pages.link(address, given, page.next),
                "previous": pages.link(address, given, page.previous),
            }
        )


def in_state(found: QuerySet[ReviewRequest], state: str | None) -> QuerySet[ReviewRequest]:
    """Those in a state, all for None; raises InvalidInput for one that there is not."""
    if state is None:
        return found
    if state not in REVIEW_STATES:
        detail = f"is one of {', '.join(REVIEW_STATES)}"
        raise InvalidInput(f"state {detail}; got {state[:100]!r}.", [Problem("state", detail)])
    return found.filter(answer="" if state == "open" else state)


def is_dry_run(request: Request) -> bool:
    """Whether the query asks only what would happen; raises InvalidInput for anything but true or false."""
    text = parameters(request, "dry_run").get("dry_run", "false")
    if text not in ("true", "false"):
        raise InvalidInput(f"dry_run is true or false; got {text[:100]!r}.", [Problem("dry_run", "is true or false")])
    return text == "true"


def object_of(request: Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The JSON object of the body; none is an empty one where it may be."""
    body = read_body(request, limit=MAX_BYTES)
    return {} if may_be_empty and not body.strip() else parse_object(body)


def planned(plan: Plan) -> HttpResponse:
    """What would change, as `manage.py plan --json` says it."""
    return json_response(plan.as_json())


def answered(row: Any, *, status: int = 200, **headers: str) -> HttpResponse:
    """A thing with its version."""
    answer = shown(row)
    return json_response(answer, status=status, headers={"ETag": etag_of(answer), **headers})
