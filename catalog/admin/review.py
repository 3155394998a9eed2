"""Review requests: who asked for which, and what came of it; they are answered on the page of what they are about."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from catalog.admin.label import COLOURS, labelled
from catalog.admin.read_only import ReadOnlyAdmin
from catalog.models import ReviewRequest
from catalog.reviews import seen_by


@admin.register(ReviewRequest)
class ReviewRequestAdmin(ReadOnlyAdmin):
    list_display = ["about", "kind_name", "state_label", "asked_by_name", "asked_at", "answered_by_name", "answered_at"]
    list_select_related = ["feature__group", "group", "service"]
    list_filter = [["answer", ChoicesDropdownFilter]]
    list_filter_submit = True
    list_fullwidth = True
    ordering = ["-pk"]
    fields = [
        *["about", "state_label", ("asked_by_name", "asked_at"), "note"],
        *[("answered_by_name", "answered_at"), "comment"],
    ]
    readonly_fields = ["about", "state_label"]

    def within_reach(self, request: HttpRequest, things: QuerySet[Any]) -> QuerySet[Any]:
        if self._sees_every_one(request):
            return things
        return things.filter(pk__in=seen_by(request.user).values("pk"))

    @display(description="Of")
    def about(self, review: ReviewRequest) -> SafeString:
        kind = review.thing._meta
        page = reverse(f"admin:{kind.app_label}_{kind.model_name}_change", args=[review.thing.pk])
        return format_html('<a class="text-link" href="{}">{}</a>', page, review.thing)

    @display(description="Kind")
    def kind_name(self, review: ReviewRequest) -> str:
        return review.kind

    @display(description="State", label=COLOURS, ordering="answer")
    def state_label(self, review: ReviewRequest) -> tuple[str, str]:
        return labelled(review.state)
