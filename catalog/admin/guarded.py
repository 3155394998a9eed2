"""The base of every page: who may look, change, add and delete is asked of catalog/access.py, nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from catalog.access import CREATE, MANAGE, READ, REGISTRY, allowed, reach


class GuardedAdmin(ModelAdmin):
    """Django's four questions as actions; who has roles only sees the things of the groups that they are for.

    group_path: how a query finds the name of the feature group that a thing belongs to; empty where all or nothing of
    them is seen. An action's page asks with the text of a primary key, lists ask without a thing: then it is whether
    the person may do it with some, and what is done to each is asked again (`require_each`).
    """

    group_path = ""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, READ, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, REGISTRY, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, MANAGE, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, CREATE)

    def may(self, request: HttpRequest, action: str, obj: Model | str | int | None = None) -> bool:
        """Whether the person may do an action with a thing, given itself or by its primary key; with some for None."""
        if isinstance(obj, str | int):
            thing = self._by_key(obj)
            return thing is not None and allowed(request.user, action, thing)
        return allowed(request.user, action, self.model if obj is None else obj)

    def require_each(self, request: HttpRequest, action: str, things: Iterable[Model]) -> None:
        """Raises PermissionDenied when the person may not do an action with one of several chosen things."""
        if refused := [str(thing) for thing in things if not allowed(request.user, action, thing)]:
            raise PermissionDenied(f"You may not do this with {', '.join(refused)}.")

    def _by_key(self, key: str | int) -> Any:
        """The thing with a primary key as an address writes it; None where there is none."""
        try:
            return self.model._default_manager.filter(pk=unquote(str(key))).first()
        except (ValueError, ValidationError):
            return None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return self.within_reach(request, super().get_queryset(request))

    def within_reach(self, request: HttpRequest, things: QuerySet[Any]) -> QuerySet[Any]:
        """Those that the person may see."""
        if not self.group_path or self._sees_every_one(request):
            return things
        names = reach(request.user, READ)
        return things if names is None else things.filter(**{f"{self.group_path}__in": names})

    def _sees_every_one(self, request: HttpRequest) -> bool:
        of_kind = f"{self.opts.app_label}.{{}}_{self.opts.model_name}"
        return any(request.user.has_perm(of_kind.format(permission)) for permission in ("view", "change"))

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        """Asked once more of what the form made of it: it may belong to another group now."""
        self.require_each(request, REGISTRY if change else CREATE, [obj])
        super().save_model(request, obj, form, change)

    def fields_of_managers(self, request: HttpRequest, obj: Model | None) -> list[str]:
        """`owner` for who may not hand the thing over: its owner's people have all rights."""
        return ["owner"] if obj is not None and not self.may(request, MANAGE, obj) else []


class GuardedInline(TabularInline):
    """A table on a page: who may change the thing may change its rows."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return allowed(request.user, READ, obj if obj is not None else self.parent_model)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_change(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_change(request, obj)

    def _may_change(self, request: HttpRequest, obj: Model | None) -> bool:
        if obj is None or obj.pk is None:
            return allowed(request.user, CREATE, self.parent_model)
        return allowed(request.user, REGISTRY, obj)
