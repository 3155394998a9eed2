"""Training datasets in the admin: what was asked, how large it is, and what of it is null."""

from __future__ import annotations

import json

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import TrainingDataset


@admin.register(TrainingDataset)
class TrainingDatasetAdmin(ReadOnlyAdmin):
    list_display = ["name", "asked", "state_label", "row_count", "size", "most_nulls", "created_at"]
    list_select_related = ["run"]
    list_filter = ["run__state", "known_at"]
    list_fullwidth = True
    search_fields = ["name", "service"]
    fieldsets = [
        (None, {"fields": ["name", "asked", "state_now", "run_link", "created_at"]}),
        ("How", {"fields": ["event_timestamp", "known_at", "statuses", "split"]}),
        ("Rows", {"fields": ["row_count", "size", "nulls"]}),
        ("Made of", {"fields": ["manifest_text"]}),
    ]

    @display(description="Asked for")
    def asked(self, dataset: TrainingDataset) -> str:
        return dataset.service or ", ".join(dataset.features)

    @display(description="State", label=COLOURS, ordering="run__state")
    def state_label(self, dataset: TrainingDataset) -> tuple[str, str]:
        return labelled(dataset.run.state)

    @display(description="State")
    def state_now(self, dataset: TrainingDataset) -> SafeString:
        return with_icon(dataset.run.state)

    @display(description="Run")
    def run_link(self, dataset: TrainingDataset) -> SafeString:
        run = dataset.run
        return format_html('<a href="{}">{}</a>', reverse("admin:catalog_run_change", args=[run.pk]), run.pk)

    @display(description="Rows")
    def row_count(self, dataset: TrainingDataset) -> str:
        return "—" if dataset.rows is None else f"{dataset.rows:,}"

    @display(description="Size", ordering="size_bytes")
    def size(self, dataset: TrainingDataset) -> str:
        return "—" if dataset.size_bytes is None else filesizeformat(dataset.size_bytes)

    @display(description="Most nulls")
    def most_nulls(self, dataset: TrainingDataset) -> str:
        rates = dataset.null_rates()
        return "—" if not rates else "{1:.1%} {0}".format(*max(rates.items(), key=lambda rate: rate[1]))

    @display(description="Null values")
    def nulls(self, dataset: TrainingDataset) -> SafeString | str:
        rates = dataset.null_rates().items()
        return format_html_join("", "<div>{}: {}</div>", ((name, f"{rate:.1%}") for name, rate in rates)) or "—"

    @display(description="Manifest")
    def manifest_text(self, dataset: TrainingDataset) -> SafeString | str:
        if not dataset.manifest:
            return "—"
        return format_html('<pre class="overflow-x-auto text-xs">{}</pre>', json.dumps(dataset.manifest, indent=2))
