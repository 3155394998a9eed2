"""What a caller may read: asked once for a plan, never for a value."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.access import READ, READ_PII, AnyCaller, allowed, name_of, refused, require
from catalog.models import PII, Feature, JoinKey, Reason
from catalog.snapshot import Catalog
from engine.errors import Problem
from serving.plan import Plan
from serving.vectors import MakePlan


def for_caller(caller: AnyCaller, make_plan: MakePlan) -> MakePlan:
    """The same plans, if the caller may read all that is in them; else NotAllowed is raised in their place."""

    def make(catalog: Catalog) -> Plan:
        plan = make_plan(catalog)
        require_plan(caller, plan)
        return plan

    return make


def require_plan(caller: AnyCaller, plan: Plan) -> None:
    """Raises NotAllowed naming the groups that the caller may not read, or the features that need `pii:read`."""
    require(caller, READ, plan.group_names)
    if plan.personal:
        _require_pii(caller, plan.personal)


def require_personal(caller: AnyCaller, names: frozenset[str]) -> None:
    """The same for rows that the caller did not send the ids of, with the values of features by `group:name`: asked of
    the database, and about the join keys, too."""
    groups = {name.partition(":")[0] for name in names}
    known = Feature.objects.filter(group__name__in=groups)
    tagged = set(map(str, known.filter(pk__in=known.personal()).select_related("group")))
    keys = JoinKey.objects.filter(entity__tags__name=PII, entity__groups__name__in=groups)
    personal = names & tagged | {f"{group}:{key}" for group, key in keys.values_list("entity__groups__name", "name")}
    if personal:
        _require_pii(caller, sorted(personal))


def _require_pii(caller: AnyCaller, personal: Sequence[str]) -> None:
    if not allowed(caller, READ_PII, {name.partition(":")[0] for name in personal}):
        raise refused(
            caller,
            Reason.PII,
            f"{', '.join(personal)}: tagged pii, which needs the scope {READ_PII!r}; {name_of(caller)} does not have "
            "it there.",
            [Problem(name, f"needs {READ_PII}") for name in personal],
        )
