"""The admin of what the hub records by itself: to look at, not to edit."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from catalog.admin.guarded import GuardedAdmin


class ReadOnlyAdmin(GuardedAdmin):
    """No adding, changing or deleting."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
