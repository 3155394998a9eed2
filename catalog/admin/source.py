"""Data sources."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from catalog.admin.recorded import RecordedAdmin
from catalog.models import DataSource


@admin.register(DataSource)
class DataSourceAdmin(RecordedAdmin):
    group_path = "group__name"
    list_display = ["name", "kind", "path", "read_by"]
    list_select_related = ["group"]
    list_filter = ["kind"]
    search_fields = ["name", "path"]
    fields = ["name", "kind", "path"]

    @display(description="Group")
    def read_by(self, source: DataSource) -> str:
        return str(getattr(source, "group", "—"))
