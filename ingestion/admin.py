"""What ingestion records, to look at: rejected rows by rule, and the files that were read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from catalog.admin.read_only import ReadOnlyAdmin
from ingestion.models import QuarantinedRule, SourceFile


@admin.register(QuarantinedRule)
class QuarantinedRuleAdmin(ReadOnlyAdmin):
    list_display = ["broken", "group", "rows", "detail", "run_started"]
    list_select_related = ["run__group"]
    list_filter = ["rule", ["run__group", AutocompleteSelectFilter]]
    list_filter_submit = True
    list_fullwidth = True
    search_fields = ["column", "rule", "detail", "run__group__name", "run__id"]
    ordering = ["-run__created_at", "column", "rule"]
    fields = ["run", "column", "rule", "detail", "rows", "payloads"]
    readonly_fields = ["rows", "payloads"]

    @display(description="Rule", ordering="rule")
    def broken(self, rule: QuarantinedRule) -> str:
        return f"{rule.column} {rule.rule}"

    @display(description="Group", ordering="run__group__name")
    def group(self, rule: QuarantinedRule) -> str:
        return rule.run.group.name

    @display(description="Rows", ordering="row_count")
    def rows(self, rule: QuarantinedRule) -> str:
        return f"{rule.row_count:,}"

    @display(description="Run", ordering="run__created_at")
    def run_started(self, rule: QuarantinedRule) -> Any:
        return rule.run.created_at

    @display(description="First rows")
    def payloads(self, rule: QuarantinedRule) -> SafeString:
        """The first rejected rows, each with its number in the run; all of them are in the run's quarantine file."""
        rows = ((sample["row"], sample["payload"]) for sample in rule.samples)
        return format_html_join("\n", "<p><code>{}: {}</code></p>", rows)


@admin.register(SourceFile)
class SourceFileAdmin(ReadOnlyAdmin):
    list_display = ["path", "group", "bytes", "short_hash", "run"]
    list_select_related = ["group", "run__group"]
    list_filter = [["group", AutocompleteSelectFilter]]
    list_filter_submit = True
    search_fields = ["path", "sha256", "group__name"]
    ordering = ["-pk"]

    @display(description="Bytes", ordering="size")
    def bytes(self, file: SourceFile) -> str:
        return f"{file.size:,}"

    @display(description="SHA-256")
    def short_hash(self, file: SourceFile) -> str:
        return file.sha256[:12]
