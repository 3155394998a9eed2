"""What a list can be narrowed down by."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import Q, QuerySet

from catalog.models import (
    DataSource,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    FeatureType,
    Owner,
    Status,
    Tag,
)
from catalog.models.feature import EFFECTIVE_STATUS
from catalog.registry.kinds import Kind
from engine.errors import FeaturehubError, InvalidInput, Problem, near_names

#: A pattern of LIKE has at most 50,000 bytes in SQLite, and each sign may be escaped.
_LONGEST_SEARCH = 20_000


class _Search(django_filters.CharFilter):
    """Things with the text in one of some fields, whatever its case; what a pattern would mean is only text."""

    def __init__(self, *fields: str, help_text: str = "Text in the name or the description.") -> None:
        self.fields = fields
        super().__init__(strip=False, help_text=help_text)

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        if not value:
            return qs
        if len(value.encode()) > _LONGEST_SEARCH:
            detail = f"has at most {_LONGEST_SEARCH} bytes"
            raise InvalidInput(f"q {detail}.", [Problem("q", detail)])
        found = Q()
        for field in self.fields:
            found |= Q(**{f"{field}__icontains": value})
        return qs.filter(found)


class _Named(django_filters.CharFilter):
    """Things of which a field is exactly the text."""

    def __init__(self, field: str, help_text: str) -> None:
        super().__init__(field_name=field, strip=False, help_text=help_text)


class _Filters(django_filters.FilterSet):
    q = _Search("name", "description")


class _Documented(_Filters):
    owner = _Named("owner__name", "Only what this owner answers for.")
    tag = _Named("tags__name", "Only what bears this tag.")


class EntityFilters(_Documented):
    class Meta:
        model = Entity
        fields: list[str] = []


class GroupFilters(_Documented):
    status = django_filters.ChoiceFilter(choices=Status.choices, help_text="Only in this status.")
    entity = _Named("entity__name", "Only of this entity.")

    class Meta:
        model = FeatureGroup
        fields: list[str] = []


class FeatureFilters(_Filters):
    status = django_filters.ChoiceFilter(
        choices=Status.choices, method="by_status", help_text="Only in this status, which may be that of the group."
    )
    owner = django_filters.CharFilter(
        method="by_owner", strip=False, help_text="Only what this owner answers for, or else does for the group."
    )
    tag = _Named("tags__name", "Only what bears this tag.")
    entity = _Named("group__entity__name", "Only of this entity.")
    group = _Named("group__name", "Only of this feature group.")
    type = django_filters.ChoiceFilter(choices=FeatureType.choices, help_text="Only of this type.")
    dtype = _Named("dtype", "Only with this dtype.")
    service = _Named("services__name", "Only what a version of this feature service has.")

    class Meta:
        model = Feature
        fields: list[str] = []

    def by_status(self, features: QuerySet[Feature], _: str, status: str) -> QuerySet[Feature]:
        return features.alias(_effective=EFFECTIVE_STATUS).filter(_effective=status)

    def by_owner(self, features: QuerySet[Feature], _: str, owner: str) -> QuerySet[Feature]:
        return features.filter(Q(owner__name=owner) | Q(owner=None, group__owner__name=owner))


class ServiceFilters(_Documented):
    status = django_filters.ChoiceFilter(choices=Status.choices, help_text="Only in this status.")
    name = _Named("name", "Only versions of this service.")
    group = _Named("features__group__name", "Only services with a feature of this group.")

    class Meta:
        model = FeatureService
        fields: list[str] = []


class SourceFilters(_Filters):
    q = _Search("name", "path", help_text="Text in the name or the path.")
    kind = django_filters.ChoiceFilter(choices=DataSource.Kind.choices, help_text="Only of this kind.")
    group = _Named("group__name", "Only the source of this feature group.")

    class Meta:
        model = DataSource
        fields: list[str] = []


class OwnerFilters(_Filters):
    q = _Search("name", "email", help_text="Text in the name or the e-mail address.")

    class Meta:
        model = Owner
        fields: list[str] = []


class TagFilters(_Filters):
    q = _Search("name", help_text="Text in the name.")

    class Meta:
        model = Tag
        fields: list[str] = []


FILTERS: dict[type[Any], type[_Filters]] = {
    filters._meta.model: filters
    for filters in (
        *(EntityFilters, GroupFilters, FeatureFilters, ServiceFilters, SourceFilters, OwnerFilters, TagFilters),
    )
}


def filters_of(kind: Kind) -> dict[str, Any]:
    """The filters of a kind by parameter."""
    return dict(FILTERS[kind.model].base_filters)


def filtered(kind: Kind, given: dict[str, str], rows: QuerySet[Any]) -> QuerySet[Any]:
    """The rows that parameters leave, each once; raises InvalidInput naming the parameter that is wrong."""
    filters = FILTERS[kind.model](given, queryset=rows)
    if wrong := {**_chosen_nothing(kind, given), **filters.errors}:
        raise _wrong(kind, given, wrong)
    # Of things that a filter finds by several others (a service by its features) each is one.
    return filters.qs.distinct()


def _chosen_nothing(kind: Kind, given: dict[str, str]) -> dict[str, list[str]]:
    """The choices that were given as an empty text, which a form takes for none."""
    choices = [name for name, found in filters_of(kind).items() if isinstance(found, django_filters.ChoiceFilter)]
    return {name: [] for name in choices if given.get(name) == ""}


def _wrong(kind: Kind, given: dict[str, str], errors: dict[str, list[str]]) -> FeaturehubError:
    problems = []
    for name, messages in errors.items():
        choices = [value for value, _ in filters_of(kind)[name].extra.get("choices", ())]
        detail = f"is one of {', '.join(choices)}" if choices else " ".join(map(str, messages))
        problems.append(Problem(name, detail, near_names(given[name][:100], choices)))
    return InvalidInput(f"The list cannot be narrowed down by {', '.join(errors)}.", problems)
