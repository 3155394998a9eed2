"""Who may do what: the one rule, `allowed`, which the API, the pages and the tasks ask. What is not granted is refused.

A key may do what its scopes say, with every feature group or with those that it is limited to (catalog/keys.py makes
and recognises keys). A person may do what a role in a feature group gives, what Django's permissions give for every
object of a kind, and a superuser everything. docs/security.md shows it as tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import HttpRequest
from rest_framework import authentication, permissions

from catalog import rate_limits
from catalog.actions import ANONYMOUS_READER, CREATE, MANAGE, READ, READ_PII, REGISTRY, SCOPES, WRITE, Caller
from catalog.keys import caller_by_id, caller_of, create_key, revoke_key
from catalog.models import (
    DatasetFeature,
    DataSource,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    GroupRole,
    Owner,
    Reason,
    Role,
    Run,
    Tag,
    TrainingDataset,
)
from engine.errors import NotAllowed, NotAuthenticated, Problem

if TYPE_CHECKING:  # DRF loads this module while it loads its own views
    from rest_framework.request import Request
    from rest_framework.views import APIView

__all__ = ["READ", "READ_PII", "REGISTRY", "SCOPES", "WRITE", "Caller", "caller_of", "create_key", "revoke_key"]

AnyCaller = Caller | AbstractBaseUser | AnonymousUser
#: What an action is done to: names of feature groups, one thing, or a kind of thing (some of it). None: some group.
Target = Iterable[str] | Model | type[Model] | None

#: What each role lets people do in its group.
ACTIONS_OF: dict[str, frozenset[str]] = {
    Role.VIEWER: frozenset({READ}),
    Role.EDITOR: frozenset({READ, WRITE, REGISTRY, CREATE}),
    Role.OWNER: frozenset({READ, READ_PII, WRITE, REGISTRY, CREATE, MANAGE}),
}
#: Django's permissions that let people do an action with every object of a kind.
_PERMISSIONS = {
    READ: ("view", "change"),
    WRITE: ("change",),
    REGISTRY: ("change",),
    CREATE: ("add",),
    MANAGE: ("delete",),
    READ_PII: ("read_pii",),
}
#: What everybody sees who sees any group: the words that groups are described in.
_SHARED: tuple[type[Model], ...] = (Entity, Owner, Tag, FeatureService)
#: What no role lets people make: it is in no group yet.
_MADE_BY_PERMISSION: tuple[type[Model], ...] = (FeatureGroup, DataSource, Entity, FeatureService)
#: The groups of each kind of thing.
_GROUP_NAMES: dict[type[Model], Callable[[Any], Iterable[str]]] = {
    FeatureGroup: lambda group: [group.name],
    Entity: lambda entity: entity.groups.values_list("name", flat=True),
    FeatureService: lambda service: service.features.values_list("group__name", flat=True),
    DataSource: lambda source: FeatureGroup.objects.filter(source=source).values_list("name", flat=True),
    TrainingDataset: lambda dataset: dataset.group_names(),
}
#: How a query finds the name of the one group that a thing belongs to.
_GROUP_FIELDS: dict[type[Model], str] = {
    FeatureGroup: "name",
    Feature: "group__name",
    DataSource: "group__name",
    Run: "group__name",
}
#: What has the names of the several groups that a thing belongs to, each in a field.
_SEVERAL_GROUPS: dict[type[Model], tuple[QuerySet[Any], str]] = {
    Entity: (FeatureGroup.objects.filter(entity=OuterRef("pk")), "name"),
    FeatureService: (Feature.objects.filter(services=OuterRef("pk")), "group__name"),
    TrainingDataset: (DatasetFeature.objects.filter(dataset=OuterRef("pk")), "group"),
}
#: Where a thing of any other kind is found to belong to one of these.
_ON_THE_WAY_TO_A_GROUP = ("group", "run", "entity", "service", "feature", "dataset")


def allowed(caller: AnyCaller, action: str, target: Target = None) -> bool:
    """Whether a caller may do `action` with `target`: with all of the groups that it belongs to."""
    if isinstance(caller, Caller):
        if action not in caller.scopes:
            return False
        return caller.groups is None or target is None or _is_within(groups_of(target), caller.groups)
    return _is_person_allowed(caller, action, target)


def require(caller: AnyCaller, action: str, target: Target = None) -> None:
    """Raises NotAllowed, naming the groups that the caller may not do `action` with."""
    if allowed(caller, action, target):
        return
    who = name_of(caller)
    if not allowed(caller, action):
        raise refused(caller, Reason.SCOPE, f"This needs the scope {action!r}; {who} does not have it.")
    names = sorted(name for name in groups_of(target) if not allowed(caller, action, [name]))
    problems = [Problem(name, f"{who} may not {action} it") for name in names]
    raise refused(caller, Reason.GROUP, f"{who} may not {action} {', '.join(names) or 'this'}.", problems)


def refused(caller: AnyCaller, reason: str, detail: str, problems: Sequence[Problem] = ()) -> NotAllowed:
    """The error that refuses a caller something, with what the counters and the log are told."""
    error = NotAllowed(detail, problems)
    error.reason, error.about = reason, principal_of(caller)
    return error


def reach(caller: AnyCaller, action: str) -> frozenset[str] | None:
    """The names of the feature groups that a caller may do `action` with; None for every one that there is."""
    if isinstance(caller, Caller):
        return caller.groups if action in caller.scopes else frozenset()
    if not _is_known(caller):
        return frozenset()
    return None if _has_permission(caller, action, FeatureGroup) else _by_role(caller).get(action, frozenset())


def seen(caller: AnyCaller, things: QuerySet[Any]) -> QuerySet[Any]:
    """Those of some things of one kind that a caller may read: what `allowed` says of each, as one query."""
    if isinstance(caller, Caller):
        if READ not in caller.scopes:
            return things.none()
        return things if caller.groups is None else things.filter(_is_inside(things.model, caller.groups))
    if not _is_known(caller):
        return things.none()
    if _has_permission(caller, READ, things.model):
        return things
    within = _by_role(caller).get(READ, frozenset())
    if within and things.model in _SHARED:
        return things
    is_seen = _is_inside(things.model, within)
    return things.filter(is_seen | Q(owner__in=_teams(caller)) if things.model in (Entity, FeatureService) else is_seen)


def _is_inside(kind: type[Model], groups: frozenset[str]) -> Q:
    """Whether every group of a thing is one of these; what belongs to no group is in nobody's reach."""
    if field := _GROUP_FIELDS.get(kind):
        return Q(**{f"{field}__in": groups})
    if kind not in _SEVERAL_GROUPS:
        return Q(pk__in=[])
    of_each, field = _SEVERAL_GROUPS[kind]
    inside = Q(**{f"{field}__in": groups})
    return Q(Exists(of_each.filter(inside))) & ~Q(Exists(of_each.exclude(inside)))


def groups_of(target: Target) -> frozenset[str]:
    """The names of the feature groups that something belongs to; of a kind of thing none."""
    if target is None or isinstance(target, type):
        return frozenset()
    if isinstance(target, str):
        raise TypeError(f"One name is a list of one; got {target!r}.")
    if not isinstance(target, Model):
        return frozenset(target)
    if names := _GROUP_NAMES.get(type(target)):
        return frozenset(names(target))
    nearer = (getattr(target, name, None) for name in _ON_THE_WAY_TO_A_GROUP)
    return groups_of(next((thing for thing in nearer if thing is not None), None))


def _is_within(groups: frozenset[str], within: frozenset[str]) -> bool:
    """What belongs to no group is in nobody's reach."""
    return bool(groups) and groups <= within


# -- People


def _is_person_allowed(user: AbstractBaseUser | AnonymousUser, action: str, target: Target) -> bool:
    if not _is_known(user):
        return False
    return _has_permission(user, action, _kind_of(target)) or _has_role(user, action, target)


def _has_role(user: AbstractBaseUser | AnonymousUser, action: str, target: Target) -> bool:
    kind, within = _kind_of(target), _by_role(user).get(action, frozenset())
    if action == CREATE and issubclass(kind, _MADE_BY_PERMISSION):
        return False
    if target is None or (isinstance(target, type) and _is_of_groups(target)):
        return bool(within)
    if isinstance(target, Entity | FeatureService) and target.owner_id in _teams(user):
        return True
    if action == READ and issubclass(kind, _SHARED):
        return bool(within)
    return _is_within(groups_of(target), within)


def _is_known(user: AbstractBaseUser | AnonymousUser) -> bool:
    return bool(user.is_authenticated and user.is_active)


def _kind_of(target: Target) -> type[Model]:
    if isinstance(target, type):
        return target
    return type(target) if isinstance(target, Model) else FeatureGroup


def _is_of_groups(kind: type[Model]) -> bool:
    """Whether things of a kind belong to feature groups."""
    if kind in (FeatureGroup, DataSource):
        return True
    return any(field.name in ("group", "run", "feature") for field in kind._meta.fields)


def _has_permission(user: Any, action: str, kind: type[Model]) -> bool:
    if user.is_superuser:
        return True
    if action == READ_PII:
        return user.has_perm("catalog.read_pii_featuregroup")
    app, model = kind._meta.app_label, kind._meta.model_name
    return any(user.has_perm(f"{app}.{permission}_{model}") for permission in _PERMISSIONS[action])


def _by_role(user: Any) -> dict[str, frozenset[str]]:
    """The names of the groups that a person's roles let them do each action with, read once a request."""
    known: dict[str, frozenset[str]] | None = getattr(user, "_featurehub_reach", None)
    if known is None:
        known = user._featurehub_reach = _read_roles(user)
    return known


def _read_roles(user: Any) -> dict[str, frozenset[str]]:
    own = [
        (name, Role.OWNER) for name in FeatureGroup.objects.filter(owner__members=user).values_list("name", flat=True)
    ]
    given = GroupRole.objects.filter(team__members=user).values_list("group__name", "role")
    names: dict[str, set[str]] = {}
    for group, role in [*own, *given]:
        for action in ACTIONS_OF[role]:
            names.setdefault(action, set()).add(group)
    return {action: frozenset(groups) for action, groups in names.items()}


def _teams(user: Any) -> frozenset[int]:
    known: frozenset[int] | None = getattr(user, "_featurehub_teams", None)
    if known is None:
        known = user._featurehub_teams = frozenset(user.owners.values_list("pk", flat=True))
    return known


# -- Requests


class ApiKeyAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer fh_...` or `Api-Key fh_...`; with anonymous reads on, loopback needs none to read."""

    def authenticate(self, request: Request | HttpRequest) -> tuple[Caller, None] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return (ANONYMOUS_READER, None) if _may_read_anonymously(request) else None
        scheme, _, text = header.partition(" ")
        if scheme.lower() not in ("bearer", "api-key"):
            error = NotAuthenticated("Authorization is `Bearer <key>` or `Api-Key <key>`.")
            error.reason = Reason.MALFORMED_KEY
            raise error
        caller = caller_of(text.strip())
        rate_limits.require(caller)
        return caller, None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _may_read_anonymously(request: Request | HttpRequest) -> bool:
    # A browser that is logged in is itself, not anonymous: the session is tried next.
    if not settings.FEATUREHUB_ANONYMOUS_READS or settings.SESSION_COOKIE_NAME in request.COOKIES:
        return False
    # A proxy on this machine brings everybody's requests from loopback.
    if "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META:
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


class HasScope(permissions.BasePermission):
    """A view names the scope that each of its methods needs in `scopes`; a method that it does not name needs write.

    Where an address names a `group`, it is needed for that group; what else a request is about, its view asks for.
    """

    def has_permission(self, request: Request | HttpRequest, view: APIView) -> bool:
        user: AnyCaller = request.user
        if not user or not user.is_authenticated:
            raise NotAuthenticated("This needs an API key: `Authorization: Bearer fh_...`.")
        needed = needed_scope(view, request.method or "")
        if user is ANONYMOUS_READER and needed != READ:
            raise NotAuthenticated("Reading needs no key here, this does: `Authorization: Bearer fh_...`.")
        group = getattr(view, "kwargs", {}).get("group")
        require(user, needed, None if group is None else [group])
        return True


def needed_scope(view: APIView, method: str) -> str:
    """What a method of a view needs: HEAD what GET does; a method that the view does not have is told so to readers."""
    scopes: dict[str, str] = getattr(view, "scopes", {})
    if method == "OPTIONS" or not hasattr(view, method.lower()):
        return READ
    return scopes.get("GET" if method == "HEAD" else method, WRITE)


def principal_of(user: AnyCaller) -> str:
    """Who a caller is, whatever others are called: `key:<public id>`, `user:<number>` or `shell:<login>`."""
    if isinstance(user, Caller) and user.is_shell:
        return f"shell:{user.name}"
    return f"key:{user.key_id}" if isinstance(user, Caller) else f"user:{user.pk}"


def caller_named(principal: str) -> AnyCaller | None:
    """Who a caller was that `principal_of` named, with what it may do now; None when there is no such one any more."""
    kind, _, name = principal.partition(":")
    if kind == "key":
        return caller_by_id(name)
    return User.objects.filter(pk=name, is_active=True).first() if kind == "user" and name.isdecimal() else None


def noted_as(caller: AnyCaller) -> str:
    """As reasons in the history name a caller (catalog/approvals.py reads them): a key by its public id and name."""
    if not isinstance(caller, Caller):
        return name_of(caller)
    return f"shell {caller.name}" if caller.is_shell else f"key {caller.key_id} {caller.name}"


def name_of(caller: AnyCaller) -> str:
    """What a caller is called, for people."""
    return str(caller) if isinstance(caller, Caller) else caller.get_username()
