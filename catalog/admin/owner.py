"""Owners and tags."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import display

from catalog.admin.guarded import GuardedAdmin
from catalog.admin.recorded import RecordedAdmin
from catalog.models import Owner, Tag

NOBODY = "none"


class OwnerFilter(DropdownFilter):
    """By the owner that the thing itself names, or nobody."""

    title = "owner"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        return [(NOBODY, "Nobody"), *Owner.objects.values_list("pk", "name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        if not chosen:
            return queryset
        return self.owned(queryset, int(chosen) if chosen.isdecimal() else None)

    def owned(self, queryset: QuerySet[Any], owner: int | None) -> QuerySet[Any]:
        """The things of an owner; of nobody for None."""
        return queryset.filter(owner=owner)


@admin.register(Owner)
class OwnerAdmin(RecordedAdmin):
    list_display = ["name", "email", "member_names"]
    search_fields = ["name", "email", "members__username"]
    autocomplete_fields = ["members"]
    fields = ["name", "email", "members"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Owner]:
        return super().get_queryset(request).prefetch_related("members")

    @display(description="Members")
    def member_names(self, owner: Owner) -> str:
        return ", ".join(member.get_username() for member in owner.members.all()) or "—"


@admin.register(Tag)
class TagAdmin(GuardedAdmin):
    list_display = ["name"]
    search_fields = ["name"]
