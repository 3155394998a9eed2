"""The home page: what needs attention first, then what changed, what is read most, and what is the caller's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from catalog import freshness, reviews, statistics
from catalog.access import READ, AnyCaller, reach, seen
from catalog.models import (
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    FeatureUse,
    Run,
    RunState,
    ServiceFeature,
    Status,
    TrainingDataset,
)
from catalog.models.feature import EFFECTIVE_STATUS
from catalog.pages import addresses, searching
from catalog.pages.concerns import Concern, concerns_wanted
from catalog.pages.viewing import page, show

MOST_READ = 8
CHANGES = 10


@page
def home_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    concerns = list(_concerns(caller))
    context = {
        "title": "Home",
        "concerns": [concern for concern in concerns if concern.count],
        "fine": [concern for concern in concerns if not concern.count],
        "counts": _counts(caller),
        "most_read": _most_read(caller),
        "changes": _changes(caller),
        "mine": _mine(request, caller),
    }
    return show(request, caller, "catalog/home.html", context, here="home")


def _concerns(caller: AnyCaller) -> Iterator[Concern]:
    """What somebody may have to look at, the worst first; without any its count is 0."""
    yield from _of_runs_and_groups(caller)
    answers: list[tuple[Any, Any]] = concerns_wanted.send(Concern, caller=caller)
    for _, told in answers:
        yield from told
    yield from _of_reviews_and_values(caller)
    yield from _of_features(caller)


def _of_runs_and_groups(caller: AnyCaller) -> Iterator[Concern]:
    groups = seen(caller, FeatureGroup.objects.exclude(status=Status.ARCHIVED)).order_by("name")
    newest = Run.objects.filter(group=OuterRef("pk")).exclude(state=RunState.CANCELLED).order_by("-created_at")
    failed = groups.annotate(state=Subquery(newest.values("state")[:1]), run=Subquery(newest.values("pk")[:1])).filter(
        state__in=[RunState.FAILED, RunState.DEAD]
    )
    yield Concern.of(
        failed,
        "Failed runs",
        f"{reverse('catalog-runs')}?state=failed&state=dead",
        "Groups whose newest run failed",
        lambda group: (group.name, reverse("catalog-run", args=[group.run]), "see why"),
        tone="bad",
    )
    yield Concern.of(
        freshness.stale(groups),
        "Stale groups",
        addresses.features_with(freshness="stale"),
        "Their newest event is older than the freshness target or the TTL",
        lambda group: (group.name, addresses.page_of(group), ""),
        tone="bad",
    )


def _of_reviews_and_values(caller: AnyCaller) -> Iterator[Concern]:
    yield Concern.of(
        reviews.seen_by(caller).filter(answer=""),
        "Reviews that wait",
        addresses.features_with(status="draft"),
        "Drafts that somebody else is asked to approve",
        lambda review: (str(review.thing), addresses.page_of(review.thing), f"asked by {review.asked_by_name}"),
    )
    yield Concern.of(
        statistics.moved_features(seen(caller, Feature.objects.all())),
        "Distributions that moved",
        addresses.features_with(moved="yes"),
        "The last run differs from the 7 days before by more than chance",
        lambda row: (row.feature.name, f"{addresses.page_of(row.feature)}#data", f"by {row.psi:.2f}"),
    )


def _of_features(caller: AnyCaller) -> Iterator[Concern]:
    features = seen(caller, Feature.objects.select_related("group")).alias(effective=EFFECTIVE_STATUS)
    features = features.order_by("group__name", "name")
    # Looked up for each of the few that are deprecated, instead of once for all that is read.
    read = FeatureUse.objects.filter(feature=OuterRef("pk"), day__gte=searching.since())
    served = ServiceFeature.objects.filter(feature=OuterRef("pk")).exclude(service__status=Status.ARCHIVED)
    yield Concern.of(
        features.filter(effective=Status.DEPRECATED).filter(Exists(read) | Exists(served)),
        "Deprecated but used",
        addresses.features_with(status="deprecated", sort="reads"),
        "Read in the last 30 days, or part of a service",
        _named,
    )
    yield Concern.of(
        features.filter(owner=None, group__owner=None).exclude(effective=Status.ARCHIVED),
        "Without an owner",
        addresses.features_with(owner=searching.NOBODY),
        "Nobody answers for these features",
        _named,
    )


def _named(feature: Feature) -> tuple[str, str, str]:
    return feature.name, addresses.page_of(feature), feature.group.name


def _counts(caller: AnyCaller) -> list[tuple[tuple[str, str], int, str]]:
    kinds: list[tuple[tuple[str, str], QuerySet[Any], str]] = [
        (("feature", "features"), Feature.objects.all(), "catalog-features"),
        (("group", "groups"), FeatureGroup.objects.all(), "catalog-groups"),
        (("entity", "entities"), Entity.objects.all(), "catalog-entities"),
        (("service", "services"), FeatureService.objects.all(), "catalog-services"),
        (("dataset", "datasets"), TrainingDataset.objects.all(), "catalog-datasets"),
    ]
    return [(title, seen(caller, rows).count(), reverse(route)) for title, rows, route in kinds]


def _most_read(caller: AnyCaller) -> list[tuple[Feature, int]]:
    uses = searching.reads_by_feature()
    if reach(caller, READ) is not None:  # a look at each feature costs more than all the sums
        uses = uses.filter(feature__in=seen(caller, Feature.objects.order_by()).values("pk"))
    reads = dict(uses.order_by("-reads")[:MOST_READ])
    return [(feature, reads[feature.pk]) for feature in searching.features_of(list(reads))]


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of a definition, as its history has it; or `number` of one kind that were made together."""

    at: datetime
    by: str
    sign: str
    kind: str
    name: str
    reason: str
    address: str
    number: int = 1

    @property
    def group(self) -> str:
        return self.name.partition(":")[0]

    def is_with(self, other: Changed) -> bool:
        """Whether both were made by one apply, of one thing or of features of one group."""
        together = (self.by, self.reason, self.kind) == (other.by, other.reason, other.kind)
        alike = self.name == other.name or (self.group == other.group and self.sign == other.sign)
        return together and alike and abs((self.at - other.at).total_seconds()) < _TOGETHER_SECONDS


_SIGNS = {"+": "added", "~": "changed", "-": "removed"}
_TOGETHER_SECONDS = 60
#: Rows of history that are looked at for the newest changes.
_READ = 60


def _changes(caller: AnyCaller) -> list[Changed]:
    """The newest changes of groups, features and services; what one apply did to a group's features is one."""
    found = [
        Changed(
            row.history_date,
            row.history_user.get_username() if row.history_user else "",
            _SIGNS[row.history_type],
            kind,
            _name_of(row),
            row.history_change_reason or "",
            "" if row.history_type == "-" else _address_of(row),
        )
        for kind, rows in _histories(caller)
        for row in rows
    ]
    shown: list[Changed] = []
    for change in sorted(found, key=lambda change: change.at, reverse=True):
        same = next((at for at, other in enumerate(shown) if change.is_with(other)), None)
        if same is None:
            shown.append(change)
        elif change.name == shown[same].name:
            shown[same] = replace(shown[same], sign=change.sign)  # what was added and then completed was added
        else:
            first = shown[same]
            address = reverse("catalog-group", args=[first.group]) if first.address else ""
            shown[same] = replace(first, number=first.number + 1, address=address)
    return shown[:CHANGES]


def _histories(caller: AnyCaller) -> Iterator[tuple[str, Any]]:
    for kind, model, related in (
        ("group", FeatureGroup, []),
        ("feature", Feature, ["group"]),
        ("service", FeatureService, []),
    ):
        visible = seen(caller, model.objects.order_by()).values("pk")
        rows = model.history.filter(id__in=visible).select_related("history_user", *related)
        yield kind, rows.order_by("-history_date", "-history_id")[:_READ]


def _name_of(row: Any) -> str:
    return f"{row.group.name}:{row.name}" if hasattr(row, "group_id") else row.name


def _address_of(row: Any) -> str:
    if hasattr(row, "group_id"):  # its instance would ask for its group once more
        return reverse("catalog-feature", args=[row.group.name, row.name])
    return addresses.page_of(row.instance)


def _mine(request: HttpRequest, caller: AnyCaller) -> list[FeatureGroup]:
    """The groups of the teams that the person is in."""
    if not request.user.is_authenticated:
        return []
    own = FeatureGroup.objects.filter(owner__members=request.user).select_related("entity")
    return list(own.annotate(number=Count("features")).order_by("name")[:CHANGES])
