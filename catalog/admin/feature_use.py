"""Who read which feature, by day."""

from __future__ import annotations

from django.contrib import admin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RangeDateFilter

from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import FeatureUse


@admin.register(FeatureUse)
class FeatureUseAdmin(ReadOnlyAdmin):
    group_path = "feature__group__name"
    list_display = ["day", "feature", "reader", "requests"]
    list_select_related = ["feature__group"]
    list_filter = [["feature", AutocompleteSelectFilter], ["day", RangeDateFilter]]
    list_filter_submit = True
    date_hierarchy = "day"
    search_fields = ["feature__name", "feature__group__name", "reader"]
