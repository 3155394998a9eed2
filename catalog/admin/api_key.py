"""API keys: listed and revoked here, made by command, since a key's text is shown once and never stored."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from catalog.access import revoke_key
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.models import ApiKey

REVOKE = Question(
    title="Revoke these keys?",
    consequence="Whoever uses them is answered 401 within seconds. A revoked key cannot be brought back.",
    button="Revoke",
    variant="danger",
)


def state_of(key: ApiKey) -> str:
    return "revoked" if key.revoked_at else "valid"


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ["name", "key_id", "scope_names", "owner", "state", "created_at", "revoked_at"]
    list_select_related = ["owner"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    list_fullwidth = True
    search_fields = ["name", "public_id", "owner__username"]
    fields = ["name", "key_id", "scope_names", "owner", "state_now", "created_at", "revoked_at"]
    actions = ["revoke"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("catalog.change_apikey")

    @display(description="Key")
    def key_id(self, key: ApiKey) -> str:
        return f"fh_{key.public_id}…"

    @display(description="Scopes")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="State", label=COLOURS)
    def state(self, key: ApiKey) -> tuple[str, str]:
        return labelled(state_of(key))

    @display(description="State")
    def state_now(self, key: ApiKey) -> SafeString:
        return with_icon(state_of(key))

    @action(description="Revoke selected API keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        back = request.get_full_path()
        if not is_confirmed(request):
            concerned = [Concerned(key, state_of(key)) for key in queryset]
            return ask(self, request, REVOKE, concerned=concerned, form=Nothing(), back=back)
        for key in queryset:
            revoke_key(key.public_id)
            self.log_change(request, key, "Revoked.")
            self.message_user(request, f"{key} is revoked.", messages.SUCCESS)
        return HttpResponseRedirect(back)
