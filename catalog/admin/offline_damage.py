"""Damaged files of the offline store, as the last scrub found them."""

from __future__ import annotations

from django.contrib import admin
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import OfflineDamage


@admin.register(OfflineDamage)
class OfflineDamageAdmin(ReadOnlyAdmin):
    group_path = "group__name"
    list_display = ["path", "group", "detail", "is_missing_online", "found_at"]
    list_select_related = ["group"]
    list_filter = [["group", AutocompleteSelectFilter]]
    list_filter_submit = True
    search_fields = ["path", "group__name"]
