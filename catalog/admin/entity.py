"""Entities and their join keys."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from catalog.admin.guarded import GuardedInline
from catalog.admin.owner import OwnerFilter
from catalog.admin.position import PositionedForm, PositionedFormSet
from catalog.admin.recorded import RecordedAdmin
from catalog.admin.removal import GuardedRemoval
from catalog.models import Entity, JoinKey, StoredSchema


def has_rows(entity: Entity | None) -> bool:
    """Whether some group has rows that are kept under the entity's keys."""
    return entity is not None and StoredSchema.objects.filter(group__entity=entity).exists()


class JoinKeyInline(GuardedInline):
    """The keys in their order; fixed once rows are stored under them, since every row's place depends on them."""

    model = JoinKey
    form = PositionedForm
    formset = PositionedFormSet
    fields = ["name", "dtype", "position"]
    ordering_field = "position"
    hide_title = True
    extra = 0
    min_num = 1
    validate_min = True

    def has_add_permission(self, request: HttpRequest, obj: Entity | None = None) -> bool:
        return super().has_add_permission(request, obj) and not has_rows(obj)

    def has_change_permission(self, request: HttpRequest, obj: Entity | None = None) -> bool:
        return super().has_change_permission(request, obj) and not has_rows(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Entity | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not has_rows(obj)


@admin.register(Entity)
class EntityAdmin(GuardedRemoval, RecordedAdmin):
    list_display = ["name", "keys", "group_count", "owner", "description"]
    list_select_related = ["owner"]
    list_filter = [OwnerFilter, ["tags", AutocompleteSelectFilter]]
    search_fields = ["name", "description", "tags__name", "owner__name"]
    autocomplete_fields = ["owner", "tags"]
    fieldsets = [
        (
            None,
            {
                "fields": ["name", "description", "owner", "tags"],
                "description": "The tag `pii` says that the join keys are about persons: where others than those that "
                "somebody sent would be shown, it takes the right to read personal values.",
            },
        )
    ]
    inlines = [JoinKeyInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entity]:
        return (
            super().get_queryset(request).prefetch_related("join_keys").annotate(_groups=Count("groups", distinct=True))
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Entity | None = None) -> list[str]:
        return [*(["name"] if has_rows(obj) else []), *self.fields_of_managers(request, obj)]

    @display(description="Join keys")
    def keys(self, entity: Entity) -> str:
        return ", ".join(map(str, entity.join_keys.all())) or "—"

    @display(description="Groups", ordering="_groups")
    def group_count(self, entity: Entity) -> int:
        return entity._groups  # type: ignore[attr-defined]
