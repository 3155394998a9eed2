"""The people who log in, and their groups."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from catalog.admin.guarded import GuardedAdmin
from catalog.logins import LoginForm

admin.site.login_form = LoginForm
admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(GuardedAdmin, DjangoUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Who may edit people may not make themselves a superuser, nor give rights away."""
        kept = list(super().get_readonly_fields(request, obj))
        return kept if request.user.is_superuser else [*kept, "is_superuser", "user_permissions", "groups"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A superuser's password is not for others to set."""
        person = obj if isinstance(obj, User) or obj is None else self._by_key(obj)
        is_above = isinstance(person, User) and person.is_superuser and not request.user.is_superuser
        return not is_above and super().has_change_permission(request, obj)


@admin.register(Group)
class GroupAdmin(GuardedAdmin, DjangoGroupAdmin, ModelAdmin):
    """Permissions that several people share."""
